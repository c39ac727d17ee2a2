"""MACE in one environment with NequIP: ``import eqplugin.mace`` before building or loading a model.

The import repairs MACE for e3nn 0.6 (see `eqplugin.mace.compat`); it does not touch NequIP.
"""

from __future__ import annotations

from importlib import import_module

from eqplugin.mace import compat

_EXPORTS = {
    "ConventionError": ("compat.convention", "ConventionError"),
    "KHopInvariantMACE": ("models", "KHopInvariantMACE"),
    "SteerableMACE": ("models", "SteerableMACE"),
    "convention_of": ("compat.convention", "convention_of"),
    "convert_model": ("convert", "convert_model"),
    "descriptors": ("export", "descriptors"),
    "export_lammps": ("export", "export_lammps"),
    "extract_config": ("export", "extract_config"),
    "load_model": ("loading", "read_model"),
    "rebuild": ("export", "rebuild"),
}

__all__ = list(_EXPORTS)

compat.apply()
# after the repair: the guards import MACE's modules
import_module(f"{__name__}._guards").install()


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
