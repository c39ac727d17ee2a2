"""NequIP models as ``.eqm`` files: the builder and its arguments, as the config had them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_method
from nequip.data import AtomicDataDict
from nequip.nn import graph_model

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.modelfile.eqm import EqmError, EqmHeader, check_builder, fill, read_eqm, write_eqm
from eqplugin.nequip.loading import nequip_session, read_config, read_information, read_model

_STOCK = "nequip.model"
# what a file may name as its builder, and inside its arguments
BUILDERS = (
    "eqplugin.nequip.SteerableModel",
    "eqplugin.nequip.KHopInvariantModel",
    f"{_STOCK}.NequIPGNNModel",
    f"{_STOCK}.FullNequIPGNNModel",
    f"{_STOCK}.PresetNequIPGNNModel",
)
INNER = (
    f"{_STOCK}.ZBLPairPotential",
    "nequip.nn.pair_potential.ZBL",
    "nequip.nn.pair_potential.LennardJones",
    "nequip.nn.pair_potential.SimpleLennardJones",
)
_PACKAGES = ("eqplugin", "nequip", "e3nn", "torch")
# how a model is run, not what it is
_NOT_OF_THE_MODEL = ("compile_mode", "modifiers")
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}


def convert(path: str | Path, out: str | Path, trust: bool | None = None) -> EqmHeader:
    """Write a checkpoint or a package as ``.eqm``, after building it again and comparing the two.

    Args:
        path: .ckpt or .nequip.zip.
        out: of the file; replaced only by a whole one.
        trust: see :mod:`eqplugin.modelfile.trust`.

    Raises:
        EqPluginError: for a damaged, foreign or hostile file.
        EqmError: for a model that cannot be built again exactly; names what is in the way.
    """
    path = Path(path)
    model = read_model(path, trust=trust)
    config = _builder_config(path, trust)
    target = config.pop("_target_")
    if target not in BUILDERS:
        raise EqmError(
            f"{path} cannot be written as .eqm: its builder {target} is none of "
            f"{', '.join(BUILDERS)}."
        )
    for name in _NOT_OF_THE_MODEL:
        config.pop(name, None)
    try:
        arguments = _plain(config)
    except EqmError as error:
        raise EqmError(f"{path} cannot be written as .eqm: {error}") from None
    metadata = model.metadata
    header = EqmHeader(
        stack="nequip",
        builder=target,
        config=arguments,
        dtype=str(metadata[graph_model.MODEL_DTYPE_KEY]),
        species=tuple(metadata[graph_model.TYPE_NAMES_KEY].split(" ")),
        r_max=float(metadata[graph_model.R_MAX_KEY]),
        versions={package: version(package) for package in _PACKAGES},
        extra=_training_data(path),
    )
    tensors = model.state_dict()
    _compare(model, _built(header, tensors, path), path)
    write_eqm(out, header, tensors)
    return header


def load_eqm(path: str | Path) -> torch.nn.Module:
    """Build the GraphModel of an ``.eqm`` file, on the CPU, for evaluation.

    Raises:
        EqPluginError: for a damaged or foreign file, or one that another NequIP builds otherwise.
    """
    header, tensors = read_eqm(path)
    return _built(header, tensors, path)


def _builder_config(path: Path, trust: bool | None) -> dict[str, Any]:
    """The builder's section, through modifiers and the files that a model started from."""
    section = dict(read_config(path, trust))
    while True:
        if str(section.get("_target_", "")).endswith(".modify") and "model" in section:
            section = dict(section["model"])
        elif start := section.get("checkpoint_path") or section.get("package_path"):
            return _builder_config(Path(start), trust)
        elif "_target_" not in section:
            raise EqmError(f"{path} cannot be written as .eqm: it holds several models.")
        else:
            return section


def _plain(value: Any) -> Any:
    """JSON's types alone."""
    if isinstance(value, Mapping):
        if "_target_" in value and value["_target_"] not in INNER:
            raise EqmError(f"its config names {value['_target_']}, which is none of {INNER}.")
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, str) and "${" in value:
        raise EqmError(f"its config is not resolved: {value}.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise EqmError(f"its config has a {type(value).__name__}.")


def _built(
    header: EqmHeader, tensors: Mapping[str, torch.Tensor], path: str | Path
) -> torch.nn.Module:
    """The model of a header with the tensors of its file."""
    check_builder(header, "nequip", BUILDERS, path)
    config = _plain(header.config)  # again: somebody else may have written the file
    try:
        with nequip_session():
            model = get_method(header.builder)(**config)
    except EqPluginError:
        raise
    except Exception as error:  # arguments that another version wrote fail in many ways
        raise EqmError(
            f"{path} cannot be built as {header.builder} by the installed NequIP "
            f"({reason_of(error, named=True)[:200]})."
        ) from error
    fill(model, tensors, path)
    return model.eval()


def _training_data(path: Path) -> dict[str, str]:
    """Fingerprint of the frames that a checkpoint was trained on, where they are there still."""
    if path.suffix != ".ckpt":
        return {}
    data = read_information(path).get("data") or {}
    files = data.get("train_file_path")
    digest = hashlib.sha256()
    try:
        for file in [files] if isinstance(files, str) else list(files or []):
            digest.update(Path(file).read_bytes())
    except (OSError, TypeError):
        return {}
    return {"training_data": digest.hexdigest()} if files else {}


def _compare(model: torch.nn.Module, built: torch.nn.Module, path: Path) -> None:
    """Refuse a model that was built again and gives other numbers."""
    rounding = _ROUNDING[built.model_dtype]
    for before, after in zip(_probed(model), _probed(built), strict=True):
        scale = 1.0 + float(before.abs().max())
        worst = float((before - after).abs().max())
        if not worst <= rounding * scale:
            raise EqmError(
                f"{path} cannot be written as .eqm: built again from its config, its numbers "
                f"differ by {worst:.1e}."
            )


def _probed(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Energies and forces of a small cluster of all types."""
    types = len(model.type_names)
    for first in range(0, types, 8):
        places = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3) * 1.3
        noise = torch.rand(places.shape, generator=torch.Generator().manual_seed(first))
        index = torch.cartesian_prod(torch.arange(8), torch.arange(8))
        data = {
            AtomicDataDict.POSITIONS_KEY: places + 0.4 * noise.double(),
            AtomicDataDict.EDGE_INDEX_KEY: index[index[:, 0] != index[:, 1]].T.contiguous(),
            AtomicDataDict.ATOM_TYPE_KEY: (first + torch.arange(8)) % types,
        }
        with torch.enable_grad():
            out = model(data)
        for key in (AtomicDataDict.TOTAL_ENERGY_KEY, AtomicDataDict.FORCE_KEY):
            if key in out:
                yield out[key].detach().double().cpu()
