"""MACE in one environment with NequIP: ``import eqplugin.mace`` before building or loading a model.

The import repairs MACE for e3nn 0.6 (see `eqplugin.mace.compat`); it does not touch NequIP.
"""

from importlib import import_module

from eqplugin._lazy import lazy_exports
from eqplugin.mace import compat

_HOMES = {
    "compat.convention": "ConventionError convention_of",
    "convert": "convert_model",
    "export": "descriptors export_lammps extract_config rebuild",
    "loading": "load_model",
    "models": "KHopInvariantMACE SteerableMACE",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)

compat.apply()
# after the repair: these import MACE's modules
for _name in ("_guards", "_neighborhood", "_reading"):
    import_module(f"{__name__}.{_name}").install()
