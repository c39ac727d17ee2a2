"""Any model a benchmark may name: a file of either stack, or somebody else's ASE calculator."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from ase.calculators.calculator import Calculator

from eqplugin.errors import EqPluginError
from eqplugin.stacks import heads_of

__all__ = ["MODEL_SUFFIXES", "is_model", "labels_of", "ml_peg_calculator", "open_model"]

MODEL_SUFFIXES = (".ckpt", ".zip", ".pt2", ".model", ".eqm")


def is_model(name: str) -> bool:
    """Does this argument name a model (a file by its suffix, or ``module:factory``)?"""
    if name.endswith(MODEL_SUFFIXES):
        return True
    module, colon, factory = name.partition(":")
    return (
        bool(colon) and factory.isidentifier() and all(p.isidentifier() for p in module.split("."))
    )


def open_model(
    name: str, device: str = "cpu", dtype: str | None = None, head: str | None = None
) -> Calculator:
    """Open a model as an ASE calculator.

    Args:
        name: a NequIP checkpoint, package or compiled file, a MACE ``.model``, an ``.eqm`` file, or
            ``module:factory``, a callable without arguments that returns an ASE calculator, such
            as ``ase.calculators.emt:EMT`` or a function in a file of yours on PYTHONPATH.
        device: ``cpu`` or ``cuda``; for files only, as ``dtype``.
        head: of MACE files with several; others have none to choose and run as they are.
        dtype: ``float32`` or ``float64``; default: the model's own.

    Raises:
        EqPluginError: nothing of the kind; what is wrong is in the sentence.
    """
    if name.endswith(MODEL_SUFFIXES):
        from eqplugin.calculator import EqCalculator

        chosen = head if head is not None and len(heads_of(name)) > 1 else None
        return EqCalculator(name, device=device, dtype=dtype, head=chosen)
    if not is_model(name):
        raise EqPluginError(
            f"{name} is not a model: name a file ending in {', '.join(MODEL_SUFFIXES)}, or an ASE "
            f"calculator as module:factory, such as ase.calculators.emt:EMT."
        )
    module, _, factory = name.partition(":")
    try:
        calculator = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, TypeError) as error:
        raise EqPluginError(f"{name} cannot be turned into a calculator: {error}.") from error
    if not hasattr(calculator, "get_potential_energy"):
        raise EqPluginError(f"{name} does not return an ASE calculator.")
    return calculator


def check_head(models: Sequence[str], head: str | None) -> None:
    """Refuse a head that no model would use.

    Raises:
        EqPluginError: naming the heads that there are.
    """
    if head is None:
        return
    known = {
        name: heads_of(name)
        for name in models
        if name.endswith(MODEL_SUFFIXES) and Path(name).is_file()
    }
    if not any(len(heads) > 1 for heads in known.values()):
        raise EqPluginError(
            f"head={head!r} has nothing to choose from: none of the models has several heads."
        )


def ml_peg_calculator(
    model: str, device: str = "cpu", default_dtype: str = "float64"
) -> Calculator:
    """Open a model file with the arguments that ml-peg passes (docs/bench.md)."""
    return open_model(model, device, default_dtype)


def labels_of(names: Sequence[str]) -> list[str]:
    """Short labels for tables: the file's stem, with as many folders as it takes to differ."""
    parts = [[*Path(n).parts[:-1], _stem(n)] for n in names]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(set(names)):
            return labels
    return list(names)


def _stem(name: str) -> str:
    file = Path(name).name
    for suffix in (*MODEL_SUFFIXES, ".nequip", ".xyz", ".extxyz"):
        file = file.removesuffix(suffix)
    return file.partition(":")[2] or file
