"""The training stacks by name, imported on first use, and the one opener of their model files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from eqplugin.design import STACKS
from eqplugin.errors import EqPluginError, reason_of
from eqplugin.modelfile.eqm import SUFFIX, EqmHeader, read_header
from eqplugin.stack import Stack

__all__ = ["convert_model", "load_model", "stack_named"]

MODEL_FILES = {
    ".ckpt": "checkpoint",
    ".nequip.zip": "package",
    ".nequip.pt2": "compiled",
    ".model": "mace",
    SUFFIX: "",  # asked
}
# kinds of the models in .eqm files, by stack
_KINDS = {"nequip": "checkpoint", "mace": "mace"}


def stack_named(name: str) -> Stack:
    """The stack ``nequip`` or ``mace``.

    Raises:
        EqPluginError: for another name, or a stack that is not installed.
    """
    if name not in STACKS:
        raise EqPluginError(f"stack={name!r} is not known: use one of {', '.join(STACKS)}.")
    try:
        stack: Stack = import_module(f"eqplugin.{name}.stack").STACK
    except ImportError as error:
        raise EqPluginError(f"stack={name!r} cannot be used here: {reason_of(error)}.") from error
    return stack


def load_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    modifiers: Sequence[str] = (),
    trust: bool | None = None,
) -> torch.nn.Module:
    """Load a model file of either stack as a torch module; ``EqCalculator`` runs one in ASE.

    Args:
        path: NequIP checkpoint (.ckpt) or package (.nequip.zip), MACE .model, and
            .eqm of either.
        device: ``"cpu"`` or ``"cuda"``.
        modifiers: names of NequIP model modifiers to apply, such as ``"enable_CompiledTP"``.
        trust: None: a pickle is walked before it is opened, and refused where it would run what
            no honest file does; a package, which is code, is opened silently where only you can
            have written it, else with a warning. True opens everything, False refuses code.

    Returns:
        NequIP's ``GraphModel`` in evaluation mode, or MACE's model, ours under our class.

    Raises:
        EqPluginError: for a missing, damaged, foreign, hostile or compiled file, a device that is
            not there, and modifiers that cannot be applied.
    """
    kind = file_kind(path)
    if kind == "compiled":
        raise EqPluginError(
            f"{path} is compiled and no longer has modules: give the checkpoint or package it "
            f"was made from, or run it with EqCalculator."
        )
    stack = stack_named("mace" if kind == "mace" else "nequip")
    return stack.read(Path(path), parse_device(device), modifiers, trust)


def file_kind(path: str | Path) -> str:
    """``checkpoint``, ``package``, ``compiled`` or ``mace``, by the ending of the file's name.

    An .eqm file of a NequIP model is a ``checkpoint``, one of a MACE model ``mace``.

    Raises:
        EqPluginError: for a missing file or another ending.
    """
    path = Path(path)
    if not path.is_file():
        raise EqPluginError(f"the model file {path} is missing: check the path.")
    for suffix, kind in MODEL_FILES.items():
        if path.name.endswith(suffix):
            return kind or _kind_of_eqm(path)
    raise EqPluginError(
        f"{path} has none of the endings of a model file: {', '.join(MODEL_FILES)}."
    )


def _kind_of_eqm(path: Path) -> str:
    stack = read_header(path).stack
    if stack not in _KINDS:
        raise EqPluginError(f"{path} is of {stack!r}, which is none of {', '.join(STACKS)}.")
    return _KINDS[stack]


def heads_of(path: str | Path) -> list[str]:
    """Heads of a MACE model file, which is not opened for it; none for other files.

    Raises:
        EqPluginError: for a missing, damaged or foreign file.
    """
    if file_kind(path) != "mace":
        return []
    if Path(path).suffix == SUFFIX:
        return list(read_header(path).config.get("heads") or ["Default"])
    stack_named("mace")
    view, _ = import_module("eqplugin.mace.inert").read_inert(path)
    return list(getattr(view, "heads", None) or ["Default"])


def convert_model(path: str | Path, out: str | Path, trust: bool | None = None) -> EqmHeader:
    """Write a model file as ``.eqm``, without code in it: the same numbers, and opened by nobody.

    A MACE ``.model`` is read without running anything in it; checkpoints are walked before they
    are opened, and packages, which are code, are opened as ``trust`` says.

    Args:
        path: NequIP checkpoint or package, MACE .model, and
            .eqm of either.
        out: of the file, ending in .eqm; replaced only by a whole one.
        trust: see :func:`load_model`.

    Raises:
        EqPluginError: for a missing, damaged, foreign or compiled file, and for a model that cannot
            be built again exactly; names what is in the way.
    """
    kind = file_kind(path)
    if Path(path).suffix == SUFFIX or kind == "compiled":
        reason = "is compiled" if kind == "compiled" else "is an .eqm file already"
        raise EqPluginError(f"{path} {reason}: give the checkpoint, package or .model file.")
    if Path(out).suffix != SUFFIX:
        raise EqPluginError(f"{out} does not end in {SUFFIX}, by which such files are known.")
    stack = stack_named("mace" if kind == "mace" else "nequip")
    return stack.convert(Path(path), Path(out), trust)


def parse_device(device: str | torch.device) -> torch.device:
    """Return a device that is there.

    Raises:
        EqPluginError: for an unknown or an absent device.
    """
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError):
        raise EqPluginError(f"device={device!r} is not known: use 'cpu' or 'cuda'.") from None
    if parsed.type == "cuda":
        if not torch.cuda.is_available():
            raise EqPluginError(
                f"device={device!r} cannot be used: no CUDA device was found; use 'cpu'."
            )
        if parsed.index is not None and parsed.index >= torch.cuda.device_count():
            raise EqPluginError(
                f"device={device!r} does not exist: there are "
                f"{torch.cuda.device_count()} CUDA devices."
            )
    elif parsed.type not in ("cpu", "xpu"):
        raise EqPluginError(f"device={device!r} is not supported: use 'cpu' or 'cuda'.")
    return parsed
