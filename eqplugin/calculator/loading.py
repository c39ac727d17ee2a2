"""From a file, or a live module, to the backend that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eqplugin.calculator.graph import Backend
from eqplugin.errors import EqPluginError
from eqplugin.process import loading
from eqplugin.stacks import file_kind

# what ``compile`` is called where small systems also run as CUDA graphs
CUDA_GRAPHS = "aoti-cudagraphs"
_NO_HEADS = {"head": "only MACE models have heads"}
_COMPILED = "the file is already compiled"
# options that a kind of model cannot follow, and why
_UNSUITABLE = {
    "mace": {
        "compile": "it is for NequIP models, and a MACE model runs eagerly",
        "modifiers": "they are for NequIP models, and this is a MACE model",
        "species_to_type": "a MACE model knows its elements",
    },
    "compiled": _NO_HEADS
    | {"compile": _COMPILED}
    | dict.fromkeys(("modifiers", "dtype"), f"{_COMPILED}; give the checkpoint or package"),
}


@dataclass(frozen=True)
class Options:
    """How to run a model; see :class:`eqplugin.calculator.EqCalculator`."""

    device: torch.device
    dtype: torch.dtype | None = None
    compile: str | None = None
    modifiers: Sequence[str] = ()
    species_to_type: Mapping[str, str] | None = None
    head: str | None = None
    cache_dir: Path | None = None
    trust: bool | None = None


def load_backend(model: str | Path | torch.nn.Module, options: Options) -> Backend:
    """Load a model, whichever stack it is of: a file, a NequIP GraphModel or a MACE model.

    Raises:
        EqPluginError: for a missing, damaged or unknown file, and options that do not suit it.
    """
    with loading():
        return _load_backend(model, options)


def _load_backend(model: str | Path | torch.nn.Module, options: Options) -> Backend:
    kind = kind_of(model)
    name = f"({type(model).__name__})" if isinstance(model, torch.nn.Module) else str(model)
    _check_options(kind, name, options)
    if kind == "mace":
        return _mace(model, name, options)
    if kind == "compiled":
        from eqplugin.calculator.compiled import CompiledFile

        return CompiledFile(Path(model), options.device, options.species_to_type, options.trust)
    return _nequip(model, kind, name, options)


def kind_of(model: str | Path | torch.nn.Module) -> str:
    """Tell what a model is: ``checkpoint``, ``package``, ``compiled``, ``mace`` or ``nequip``.

    Files are told apart by their names; live modules are ``nequip`` or ``mace``.

    Raises:
        EqPluginError: for anything else.
    """
    if isinstance(model, torch.nn.Module):
        if getattr(model, "is_graph_model", False):
            return "nequip"
        if any(base.__module__.startswith("mace.") for base in type(model).__mro__):
            return "mace"
        raise EqPluginError(
            f"a {type(model).__name__} is not a model that runs here: give a NequIP GraphModel or "
            f"a MACE model."
        )
    if not isinstance(model, str | Path):
        raise EqPluginError(
            f"a model is a file, a NequIP GraphModel or a MACE model, not a {type(model).__name__}."
        )
    return file_kind(model)


def _check_options(kind: str, name: str, options: Options) -> None:
    if options.compile not in (None, "aoti", CUDA_GRAPHS):
        raise EqPluginError(
            f"compile={options.compile!r} is not known: use 'aoti', {CUDA_GRAPHS!r} or None."
        )
    if options.compile == CUDA_GRAPHS and options.device.type != "cuda":
        raise EqPluginError(
            f"compile={CUDA_GRAPHS!r} is for device='cuda', not {options.device}: use 'aoti'."
        )
    for option, advice in _UNSUITABLE.get(kind, _NO_HEADS).items():
        value = getattr(options, option)
        if value:
            given = f"{option}={value!r}" if option == "compile" else option
            raise EqPluginError(f"{given} cannot be used with {name}: {advice}.")


def _nequip(model: str | Path | torch.nn.Module, kind: str, name: str, options: Options) -> Backend:
    from eqplugin.calculator.nequip_backend import NequIPBackend
    from eqplugin.nequip.loading import read_model

    owned = kind != "nequip"
    module = read_model(model, trust=options.trust) if owned else model

    def build(**changes: Any) -> NequIPBackend:
        given = {"dtype": options.dtype, "modifiers": options.modifiers, "owned": False, **changes}
        return NequIPBackend(
            module, name, options.device, species_to_type=options.species_to_type, **given
        )

    if options.compile is None and not options.modifiers:
        return build(owned=owned)
    from eqplugin.calculator.checked import Checked
    from eqplugin.calculator.compiled import compile_backend

    fast = build()
    if options.compile:
        fast = compile_backend(fast, options.cache_dir, options.compile == CUDA_GRAPHS)
    return Checked(fast, lambda: build(dtype=torch.float64, modifiers=()))


def _mace(model: str | Path | torch.nn.Module, name: str, options: Options) -> Backend:
    try:
        from eqplugin.calculator.mace_backend import MACEBackend
        from eqplugin.mace.loading import read_model
    except ImportError as error:
        raise EqPluginError(
            f"{name} needs MACE, which cannot be imported ({error}): "
            f"run `pip install --no-deps mace-torch==0.3.16` and install the extra eqplugin[mace]."
        ) from error
    owned = not isinstance(model, torch.nn.Module)
    module = read_model(model, options.device, options.trust) if owned else model
    return MACEBackend(module, name, options.device, options.dtype, options.head, owned)
