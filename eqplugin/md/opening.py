"""From a model file to what runs it: an ASE calculator, or a torch-sim model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from ase.calculators.calculator import Calculator

from eqplugin.calculator.checks import parse_device, parse_dtype
from eqplugin.errors import EqPluginError

__all__ = ["file_hash", "open_batch_model", "open_calculator"]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file.

    Raises:
        EqPluginError: when the file is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise EqPluginError(f"the model file {path} is missing: check the path.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_calculator(
    model: str | Path,
    device: str = "cpu",
    dtype: str | None = None,
    skin: float = 0.5,
    compile: str | None = None,
) -> Calculator:
    """Open a model file of NequIP or MACE as an ASE calculator.

    Args:
        model: .ckpt, .nequip.zip, .nequip.pt2 or .model.
        device: ``"cpu"`` or ``"cuda"``.
        dtype: ``"float32"`` or ``"float64"``; None: the model's own.
        skin: of the neighbour list, A.
        compile: ``"aoti"`` or None.

    Raises:
        EqPluginError: for files and options that do not go together.
    """
    from eqplugin.calculator import EqCalculator

    return EqCalculator(str(model), device=device, dtype=dtype, skin=skin, compile=compile)


def open_batch_model(model: str | Path, device: str = "cpu", dtype: str | None = None) -> Any:
    """Open a model file for torch-sim, which runs many structures at once.

    Args:
        model: .ckpt or .nequip.zip; .nequip.pt2 made with ``--target batch``; .model.
        device: ``"cpu"`` or ``"cuda"``.
        dtype: of a MACE model; None: its own. NequIP models run in theirs.

    Returns:
        A torch-sim ``ModelInterface``.

    Raises:
        EqPluginError: when torch-sim is not installed, and for files it cannot run.
    """
    try:
        import torch_sim  # noqa: F401
    except ImportError:
        raise EqPluginError(
            "--engine torch-sim needs torch-sim: pip install torch-sim-atomistic."
        ) from None
    path = Path(model)
    file_hash(path)
    parse_device(device)
    if path.suffix == ".model":
        return _mace_batch(path, device, dtype)
    if dtype is not None:
        raise EqPluginError(f"--dtype {dtype}: a NequIP model runs in the dtype it was trained in.")
    return _nequip_batch(path, device)


def _mace_batch(path: Path, device: str, dtype: str | None) -> Any:
    import eqplugin.mace  # noqa: F401 - repairs MACE for e3nn 0.6 before it is imported

    from eqplugin.mace.loading import read_model  # isort: skip
    from torch_sim.models.mace import MaceModel

    module = read_model(path, device)
    chosen = parse_dtype(dtype) or next(module.parameters()).dtype
    return MaceModel(module, device=torch.device(device), dtype=chosen)


def _nequip_batch(path: Path, device: str) -> Any:
    from nequip.integrations.torchsim import NequIPTorchSimCalc

    options: dict[str, Any] = {"device": device, "chemical_species_to_atom_type_map": True}
    compiled = path.name.endswith(".nequip.pt2")
    try:
        if compiled:
            return NequIPTorchSimCalc.from_compiled_model(path, **options)
        return NequIPTorchSimCalc._from_saved_model(path, **options)
    except Exception as error:
        hint = "compile it with `--target batch`" if compiled else "give a model that loads"
        raise EqPluginError(
            f"{path} cannot be opened for torch-sim ({type(error).__name__}): {hint}."
        ) from error
