"""One ASE calculator for every NequIP and MACE model: ``from eqplugin import EqCalculator``.

Exports are loaded on first use, and the stacks when a model of theirs is: a MACE model runs where
NequIP models are never touched, and the other way round.
"""

from __future__ import annotations

_EXPORTS = {"EqCalculator": "calculator", "StressError": "calculator"}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
