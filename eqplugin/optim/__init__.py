"""Optimisers that know the matrices inside e3nn's flat weights; imported on first use."""

from eqplugin._lazy import lazy_exports

_HOMES = {"blocks": "block_groups parameter_blocks", "soap": "SOAP"}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)
