"""MACE in one environment with NequIP: ``import eqplugin.mace`` before building or loading a model.

The import repairs MACE for e3nn 0.6 (see `eqplugin.mace.compat`); it does not touch NequIP.
"""

from __future__ import annotations

from importlib import import_module

from eqplugin.mace import compat

_EXPORTS = {
    "ConventionError": "compat.convention",
    "KHopInvariantMACE": "models",
    "SteerableMACE": "models",
    "convention_of": "compat.convention",
    "convert_model": "convert",
    "descriptors": "export",
    "export_lammps": "export",
    "extract_config": "export",
    "load_model": "export",
    "rebuild": "export",
}

__all__ = list(_EXPORTS)

compat.apply()
# after the repair: the guards import MACE's modules
import_module(f"{__name__}._guards").install()


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
