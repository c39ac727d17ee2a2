"""eqplugin: dimension-matched steerable and k-hop invariant models for NequIP and MACE.

NequIP imports this package whenever it starts, and ``nequip-package`` traces its imports,
so nothing heavy may be imported here.
"""

from eqplugin._extension import offer_modifiers
from eqplugin._version import __version__

__all__ = ["EqCalculator", "__version__"]


def __getattr__(name: str) -> object:
    # in a function: nequip-package would trace a plain import
    if name != "EqCalculator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("eqplugin.calculator"), name)


offer_modifiers()
