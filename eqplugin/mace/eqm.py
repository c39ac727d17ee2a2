"""MACE models as ``.eqm`` files: described by their builder's arguments, built again from them."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from e3nn.o3 import Irreps
from mace.modules import gate_dict, interaction_classes, readout_classes, symmetric_contraction
from mace.modules.models import MACE, ScaleShiftMACE

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.exchange import default_dtype, exchanged
from eqplugin.mace.batch import batch_of
from eqplugin.mace.compat.convention import ATTRIBUTE as CONVENTION
from eqplugin.mace.export import extract_config
from eqplugin.mace.inert import View, read_inert
from eqplugin.mace.models import FAMILIES
from eqplugin.mace.plan import family_name
from eqplugin.mace.products import compile_products, count_converted
from eqplugin.modelfile.eqm import (
    SUFFIX,
    EqmError,
    EqmHeader,
    check_builder,
    fill,
    read_eqm,
    write_eqm,
)
from eqplugin.modelfile.pickles import HostileFileError
from eqplugin.nn.product.compiled import load_operators
from eqplugin.process import loading

_LOGGER = logging.getLogger(__name__)

BUILDERS: dict[str, Callable[..., torch.nn.Module]] = {
    "mace.MACE": MACE,
    "mace.ScaleShiftMACE": ScaleShiftMACE,
    **{f"eqplugin.mace.{name}": family for name, family in FAMILIES.items()},
}
_PACKAGES = ("eqplugin", "mace-torch", "e3nn", "torch")
_GATES = {name: gate for name, gate in gate_dict.items() if gate is not None}
_SCALES = ("atomic_inter_scale", "atomic_inter_shift")
# relative difference of energies and forces that the order of sums may make
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}


def save_eqm(
    model: torch.nn.Module, path: str | Path, extra: Mapping[str, str] | None = None
) -> EqmHeader:
    """Write a MACE model as ``.eqm``, after building it again and comparing the two.

    Args:
        model: MACE or ScaleShiftMACE, ours or stock; on any device, and not changed.
        path: of the file; replaced only by a whole one.
        extra: further metadata.

    Raises:
        EqmError: for a model that cannot be built again exactly; names what is in the way.
    """
    what = f"the {type(model).__name__}"
    header, tensors = _described(model, model.state_dict(), what, extra or {})
    _compare(model, _built(header, tensors, path), what)
    write_eqm(path, header, tensors)
    return header


def convert(path: str | Path, out: str | Path, extra: Mapping[str, str] | None = None) -> EqmHeader:
    """Write a ``.model`` file as ``.eqm``; nothing in it is run.

    A file in which everything is honest is opened as well, to compare energies and forces.

    Args:
        path: the file.
        out: of the file; replaced only by a whole one.
        extra: further metadata.

    Raises:
        EqPluginError: for a damaged or foreign file, and as :func:`save_eqm`.
    """
    from eqplugin.mace.loading import read_model

    view, tensors = read_inert(path)
    header, tensors = _described(view, tensors, str(path), extra or {})
    built = _built(header, tensors, path)
    try:
        honest = read_model(path, trust=False)
    except HostileFileError:
        honest = None  # its tensors and arguments are data all the same
    if honest is not None:
        _compare(honest, built, str(path))
    write_eqm(out, header, tensors)
    return header


def load_eqm(path: str | Path, device: str | torch.device = "cpu") -> torch.nn.Module:
    """Build the model of an ``.eqm`` file, on a device.

    Raises:
        EqPluginError: for a damaged or foreign file, or one that another MACE builds otherwise.
    """
    header, tensors = read_eqm(path)
    return _built(header, tensors, path).to(device)


def _described(
    model: Any, tensors: Mapping[str, torch.Tensor], what: str, extra: Mapping[str, str]
) -> tuple[EqmHeader, dict[str, torch.Tensor]]:
    """Everything that builds a model, from a live one or a view of its file."""
    name = family_name(model)
    builder = f"eqplugin.mace.{name}" if name else f"mace.{type(model).__name__}"
    if builder not in BUILDERS:
        raise EqmError(
            f"{what} cannot be written as .eqm: its class {type(model).__name__} is none of "
            f"{', '.join(BUILDERS)}."
        )
    try:
        config = {key: _encode(key, value) for key, value in _arguments(model).items()}
    except EqmError as error:
        raise EqmError(f"{what} cannot be written as .eqm: {error}") from None
    except Exception as error:  # MACE's own reader of arguments trips over what it does not know
        raise EqmError(
            f"{what} cannot be written as .eqm: MACE does not store all of its options "
            f"({reason_of(error, named=True)[:200]})."
        ) from error
    weight = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
    found = dict(extra)
    if getattr(model, CONVENTION, None) is not None:
        found["e3nn_convention"] = str(getattr(model, CONVENTION))
    if _is_converted(model):
        found["products"] = "compiled"
    header = EqmHeader(
        stack="mace",
        builder=builder,
        config=config,
        dtype=str(weight.dtype).removeprefix("torch."),
        species=tuple(chemical_symbols[int(z)] for z in model.atomic_numbers),
        r_max=float(model.r_max),
        versions={package: version(package) for package in _PACKAGES},
        extra=found,
    )
    return header, dict(tensors)


def _is_converted(model: Any) -> bool:
    if isinstance(model, View):
        blocks = model.interactions  # type: ignore[attr-defined]
        return any(type(block.conv_tp).__name__ == "CompiledConvolution" for block in blocks)
    return any(count_converted(model))


def _arguments(model: Any) -> dict[str, Any]:
    """The builder's arguments: MACE reads those of a ScaleShiftMACE with Bessel functions alone."""
    parts = {name: getattr(model, name) for name in _ATTRIBUTES if hasattr(model, name)}
    radial = parts["radial_embedding"]
    if not hasattr(radial.bessel_fn, "bessel_weights"):
        basis = type(type(radial.bessel_fn).__name__, (SimpleNamespace,), {})
        kept = {
            "cutoff_fn": radial.cutoff_fn,
            "bessel_fn": basis(bessel_weights=range(radial.out_dim)),
        }
        if hasattr(radial, "distance_transform"):
            kept["distance_transform"] = radial.distance_transform
        parts["radial_embedding"] = SimpleNamespace(**kept)
    zero = torch.zeros(())
    parts.setdefault("scale_shift", SimpleNamespace(scale=zero, shift=zero))
    config = extract_config(type("ScaleShiftMACE", (SimpleNamespace,), {})(**parts))
    if type(model).__name__ == "MACE":
        for name in _SCALES:
            del config[name]
    return config


# what MACE's reader of arguments looks at
_ATTRIBUTES = (
    "heads", "readouts", "products", "r_max", "radial_embedding", "spherical_harmonics",
    "interactions", "num_interactions", "atomic_numbers", "edge_irreps", "use_reduced_cg",
    "use_so3", "use_edge_irreps_first", "use_agnostic_product", "use_last_readout_only",
    "embedding_readout", "cueq_config", "atomic_energies_fn", "embedding_specs", "apply_cutoff",
    "pair_repulsion_fn", "scale_shift", "eqplugin_spec",
)  # fmt: skip


def _encode(key: str, value: Any) -> Any:
    if isinstance(value, Irreps):
        return {"irreps": str(value)}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, torch.Tensor):
        return value.tolist()  # atomic numbers
    if isinstance(value, np.generic):
        return value.item()
    for kind, known in (("interaction", interaction_classes), ("readout", readout_classes)):
        if isinstance(value, type) and value.__name__ in known:
            return {kind: value.__name__}
    for name, gate in _GATES.items():
        if value is gate:
            return {"gate": name}
    if isinstance(value, list | tuple):
        return [_encode(key, part) for part in value]
    if isinstance(value, Mapping):
        return {"mapping": {str(name): _encode(key, part) for name, part in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if key in ("cueq_config", "oeq_config") and not getattr(value, "enabled", True):
        return None
    raise EqmError(f"its {key} is {value!r:.80}, which is on no list.")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    decoders: dict[str, Callable[[Any], Any]] = {
        "irreps": Irreps,
        "array": lambda part: np.array(part, dtype=value["dtype"]),
        "interaction": interaction_classes.__getitem__,
        "readout": readout_classes.__getitem__,
        "gate": _GATES.__getitem__,
        "mapping": lambda part: {name: _decode(each) for name, each in part.items()},
    }
    (kind,) = value.keys() - {"dtype"}
    return decoders[kind](value[kind])


def _built(
    header: EqmHeader, tensors: Mapping[str, torch.Tensor], path: str | Path
) -> torch.nn.Module:
    """The model of a header with the tensors of its file."""
    check_builder(header, "mace", BUILDERS, path)
    if header.dtype not in ("float32", "float64"):
        raise EqmError(f"{path} is in {header.dtype}: MACE models are float32 or float64.")
    try:
        with loading(), default_dtype(getattr(torch, header.dtype)), _couplings_from(tensors):
            arguments = {key: _decode(value) for key, value in header.config.items()}
            model = BUILDERS[header.builder](**arguments)
    except Exception as error:  # arguments that another version wrote fail in many ways
        raise EqmError(
            f"{path} cannot be built as {header.builder} by the installed MACE "
            f"({reason_of(error, named=True)[:200]})."
        ) from error
    fill(model, tensors, path)
    convention = header.extra.get("e3nn_convention")
    if convention is not None:
        setattr(model, CONVENTION, convention)
    elif hasattr(model, CONVENTION):
        delattr(model, CONVENTION)  # found in the coefficients when it is asked for
    if header.extra.get("products") == "compiled" and load_operators() is None:
        compile_products(model)
    return model


@contextmanager
def _couplings_from(tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Take the product basis, which takes MACE seconds to compute, from the file.

    MACE asks for it in the order in which the model holds it; where the shape is another, it is
    computed after all, and :func:`eqplugin.modelfile.eqm.fill` judges.
    """
    stored = iter([(k, t) for k, t in tensors.items() if "U_matrix_" in k.rpartition(".")[2]])
    compute = symmetric_contraction.U_matrix_real

    def basis(
        irreps_in: Any, irreps_out: Any, correlation: int, *rest: Any, **options: Any
    ) -> Sequence[torch.Tensor]:
        name, tensor = next(stored, ("", torch.empty(0)))
        sizes = (Irreps(irreps_in).dim,) * correlation
        lead = (Irreps(irreps_out).dim,) if Irreps(irreps_out).dim > 1 else ()
        fits = name.endswith(f"U_matrix_{correlation}") and tensor.shape[:-1] == (*lead, *sizes)
        if fits:
            return (tensor.clone(),)
        return compute(irreps_in, irreps_out, correlation, *rest, **options)

    with exchanged((symmetric_contraction, "U_matrix_real", basis)):
        yield


def _compare(model: torch.nn.Module, built: torch.nn.Module, what: str) -> None:
    """Refuse a model that was built again and gives other numbers."""
    before, after = (_probed(each) for each in (model, built))
    rounding = _ROUNDING[next(built.parameters()).dtype]
    for name in ("energy", "forces"):
        scale = 1.0 + float(before[name].abs().max())
        worst = float((before[name] - after[name]).abs().max())
        if not worst <= rounding * scale:
            raise EqmError(
                f"{what} cannot be written as .eqm: built again from its options, its {name} "
                f"differs by {worst:.1e}; it has options that MACE does not store."
            )


def _probed(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Energies and forces of a small cluster of all elements, for every head."""
    numbers = [int(z) for z in model.atomic_numbers]
    places = np.random.default_rng(0).uniform(-0.3, 0.3, (8, 3)) + 1.3 * np.array(
        [[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
    frames = [
        Atoms([numbers[(first + n) % len(numbers)] for n in range(8)], places)
        for first in range(0, len(numbers), 8)
    ]
    batch = batch_of(frames, model)
    heads = len(getattr(model, "heads", None) or [None])
    found: dict[str, list[torch.Tensor]] = {"energy": [], "forces": []}
    with torch.enable_grad(), loading():
        for head in range(heads):
            batch["head"] = torch.full_like(batch["head"], head)
            out = model({key: value.clone() for key, value in batch.items()})
            for name, values in found.items():
                values.append(out[name].detach().double().cpu())
    return {name: torch.cat(values) for name, values in found.items()}


def write_without_code(args: argparse.Namespace) -> None:
    """Write the models of a run beside its ``.model`` files; where that cannot be, say why."""
    if int(os.environ.get("RANK", 0)) != 0:
        return
    extra = {}
    if isinstance(args.train_file, str) and Path(args.train_file).is_file():
        with open(args.train_file, "rb") as file:
            extra["training_data"] = hashlib.file_digest(file, "sha256").hexdigest()
    for name in (args.name, f"{args.name}_stagetwo"):
        path = Path(args.model_dir or args.work_dir) / f"{name}.model"
        if path.is_file():
            try:
                convert(path, path.with_suffix(SUFFIX), extra)
            except EqPluginError as error:
                _LOGGER.warning("No %s is written: %s", path.with_suffix(SUFFIX), error)
