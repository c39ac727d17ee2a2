"""What leaves a MACE model: its configuration, its descriptors, files for LAMMPS.

MACE 0.3.16 assumes the same irreps in every layer in these places, and its ML-IAP export goes
through cuEquivariance; here neither is needed. Everything works for stock models as well.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from e3nn.o3 import Irrep, Irreps
from e3nn.util import jit
from mace.calculators.lammps_mace import LAMMPS_MACE
from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE
from mace.tools import scripts_utils
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.exchange import default_dtype
from eqplugin.files import whole_file
from eqplugin.mace.batch import batch_of
from eqplugin.mace.models import FAMILIES, as_stock
from eqplugin.mace.plan import design_arguments, design_of, family_name
from eqplugin.mace.products import make_plain

FORMATS = ("libtorch", "mliap")
_stock_extract = scripts_utils.extract_config_mace_model


def extract_config(model: torch.nn.Module) -> dict[str, Any]:
    """Constructor arguments that build the architecture of a ScaleShiftMACE again: for our models
    those of their class in :data:`eqplugin.mace.models.FAMILIES`, for others what MACE's
    ``extract_config_mace_model`` returns.
    """
    design = design_of(model)
    config = _stock_extract(as_stock(model))
    if design is None:
        return config
    config |= design_arguments(design)
    config["correlation"] = [_correlation(product) for product in model.products]
    config["atomic_numbers"] = [int(z) for z in model.atomic_numbers]
    return config


def _correlation(product: torch.nn.Module) -> int:
    return len(product.symmetric_contractions.contractions[0].weights) + 1


def rebuild(model: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """Build the model anew from its configuration and give it the same weights.

    Args:
        model: a ScaleShiftMACE of MACE or of ours.
        dtype: of the new model, whose coupling coefficients are then computed anew: those of a
            float32 model have 7 digits. None: everything is copied as it is.

    Raises:
        EqPluginError: when a weight finds no place, which would leave it random.
    """
    cls = FAMILIES.get(family_name(model) or "", type(model))
    weight = next(model.parameters())
    try:
        with default_dtype(dtype or weight.dtype):
            copied = cls(**extract_config(model))
        taken = model.state_dict()
        if dtype is not None:
            weights, buffers = dict(model.named_parameters()), dict(copied.named_buffers())
            taken = {key: weights.get(key, buffers.get(key)) for key in taken}
        copied.load_state_dict(taken)
    except Exception as error:  # MACE trips over a configuration that is not whole in many ways
        raise EqPluginError(
            f"This {cls.__name__} cannot be rebuilt from its configuration: it was built with "
            f"options that MACE does not store."
        ) from error
    return copied.to(weight.device)


def descriptors(
    model: torch.nn.Module,
    atoms: Atoms,
    num_layers: int | None = None,
    invariants_only: bool = True,
) -> list[NDArray]:
    """Node features after each layer; MACE cuts them as if all had the irreps of the first.

    Args:
        model: any MACE model.
        atoms: the structure.
        num_layers: how many layers from the first; None: all.
        invariants_only: keep the scalars (0e) alone.

    Returns:
        One array per layer: (num_atoms, scalars of the layer) or (num_atoms, its dimension).

    Raises:
        EqPluginError: for a number of layers that the model does not have.
    """
    layers = len(model.products)
    if num_layers is not None and not 1 <= num_layers <= layers:
        raise EqPluginError(f"num_layers={num_layers} is not valid: the model has {layers} layers.")
    features = (
        model(batch_of([atoms], model), compute_force=False)["node_feats"].detach().cpu().numpy()
    )
    irreps_of = [Irreps(str(product.linear.irreps_out)) for product in model.products]
    ends = np.cumsum([irreps.dim for irreps in irreps_of])
    found = np.split(features, ends[:-1], axis=1)
    if invariants_only:
        found = [f[:, _is_scalar(irreps)] for f, irreps in zip(found, irreps_of, strict=True)]
    return found[:num_layers]


def _is_scalar(irreps: Irreps) -> NDArray:
    """Whether each component, (dim,), is a scalar (0e)."""
    scalars = [ir == Irrep(0, 1) for _, ir in irreps]
    return np.repeat(scalars, [mul * ir.dim for mul, ir in irreps])


def export_lammps(
    model: torch.nn.Module,
    out: str | os.PathLike[str],
    format: str = "libtorch",
    head: str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Path:
    """Write a model for LAMMPS; returns the path.

    Args:
        model: any MACE model, with our products or without, but without those of other libraries;
            it is not changed.
        out: file to write.
        format: ``"libtorch"`` for ``pair_style mace``, ``"mliap"`` for ``pair_style mliap
            unified`` (faster on GPUs, several of them at once; the file is a pickle).
        head: of a model with several; None: the last.
        dtype: float32 halves memory and time per step at about 1e-6 eV per atom.

    Raises:
        EqPluginError: for an unknown format, dtype or head.
    """
    if format not in FORMATS:
        raise EqPluginError(f"format={format!r} is not known: use {' or '.join(FORMATS)}.")
    if dtype not in (torch.float32, torch.float64):
        raise EqPluginError(f"dtype={dtype} is not valid: use float32 or float64.")
    heads = getattr(model, "heads", None) or [None]
    if head is not None and head not in heads:
        raise EqPluginError(f"head={head!r} is not in the model: it has {', '.join(heads)}.")
    # under MACE's own class: the file must load where eqplugin is unknown
    model = as_stock(copy.deepcopy(model)).to("cpu", dtype)
    make_plain(model)
    chosen = {"head": head if head is not None else heads[-1]}
    out = Path(out)
    # the wrappers register buffers of the default dtype
    with default_dtype(dtype), whole_file(out) as unfinished:
        if format == "mliap":
            model.lammps_mliap = True
            torch.save(LAMMPS_MLIAP_MACE(model, **chosen), unfinished)
        else:
            jit.compile(LAMMPS_MACE(model, **chosen)).save(str(unfinished))
    return out
