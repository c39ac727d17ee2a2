"""NequIP models as subjects, built anew in float64 from what a file says of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ase import Atoms
from hydra.utils import instantiate
from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.exchange import default_dtype
from eqplugin.measure.expressivity.rules import Architecture, Block
from eqplugin.measure.expressivity.subject import Subject, require_symbols
from eqplugin.nequip.loading import nequip_session
from eqplugin.quiet import quiet


class NequIPSubject(Subject):
    """A NequIP model; see :class:`Subject`."""

    stack = "NequIP"

    def __init__(self, name: str, model: torch.nn.Module, r_max: float | None = None) -> None:
        symbols = model.metadata["type_names"].split()
        require_symbols(symbols, name)
        super().__init__(
            name, model, symbols, r_max or float(model.metadata["r_max"]), _architecture(model)
        )
        self._types = ChemicalSpeciesToAtomTypeMapper(symbols, {s: s for s in symbols})
        _forget_constants(model)

    def _energies(self, atoms: Atoms, edges: NDArray | None) -> torch.Tensor:
        with default_dtype(torch.float64):
            data = self._types(from_ase(atoms))
        if edges is None:
            data = compute_neighborlist_(data, self.r_max)
        else:
            shifts = torch.zeros(edges.shape[1], 3, dtype=torch.float64)
            data[AtomicDataDict.EDGE_INDEX_KEY] = torch.as_tensor(edges)
            data[AtomicDataDict.EDGE_CELL_SHIFT_KEY] = shifts
        return self.model(data)[AtomicDataDict.PER_ATOM_ENERGY_KEY].squeeze(-1)


def _forget_constants(model: torch.nn.Module) -> None:
    """Energies per species cost digits and tell nothing apart."""
    for name, module in model.named_modules():
        if name.endswith("per_type_energy_scale_shift") and getattr(module, "has_shifts", False):
            with torch.no_grad():
                module.shifts.zero_()


def build_nequip(
    config: Mapping[str, Any], name: str, weights: Mapping[str, torch.Tensor] | None = None
) -> NequIPSubject:
    """Build a model in float64.

    Args:
        config: of the model, with ``_target_``, without interpolations.
        name: for tables and messages.
        weights: parameters by name, see :meth:`Subject.take`.

    Raises:
        EqPluginError: when the model cannot be built, or weights find no place.
    """
    options = dict(config) | {"model_dtype": "float64", "do_derivatives": False}
    options.setdefault("seed", 0)
    options.pop("compile_mode", None)
    try:
        with quiet(logging.NOTSET), nequip_session():
            model = instantiate(options, _convert_="all")
    except EqPluginError:
        raise
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise EqPluginError(f"{name} does not build a NequIP model: {reason}") from error
    subject = NequIPSubject(name, model, _shortest_cutoff(options))
    if weights is not None:
        subject.take(weights, name)
    return subject


def _shortest_cutoff(options: Mapping[str, Any]) -> float | None:
    """With cutoffs per pair of species, the length at which all of them see bonds alike."""
    cutoffs = options.get("per_edge_type_cutoff")
    if not cutoffs:
        return None
    values = []
    for value in cutoffs.values():
        values += list(value.values()) if isinstance(value, Mapping) else [value]
    return float(min([*values, options["r_max"]]))


def _architecture(model: torch.nn.Module) -> Architecture:
    """Read the blocks off the convolutions and contractions."""
    modules = dict(model.named_modules())
    names = [name for name in modules if name.rsplit(".", 1)[-1].endswith("_convnet")]
    blocks, hops, degrees, first = [], 0, [0], 0
    for index, name in enumerate(names):
        module = modules[name]
        contraction = getattr(module, "contraction", None)
        convolution = module if contraction is None else module.convolution
        irreps = convolution.irreps_out[AtomicDataDict.NODE_FEATURES_KEY]
        hops += 1
        if index == 0:
            first = max((ir.l for _, ir in irreps if ir.p == (-1) ** ir.l), default=0)
        if contraction is not None:
            order = {"power": 2, "bispectrum": 3}[contraction.operation.contraction]
            degrees.append(irreps.lmax)
            blocks.append(Block(hops, order))
            hops = 0
        elif irreps.lmax == 0:
            blocks.append(Block(hops, 1))
            hops = 0
        else:
            degrees.append(irreps.lmax)
    return Architecture("NequIP", tuple(blocks), max(degrees), first, first)
