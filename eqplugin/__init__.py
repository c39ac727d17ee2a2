"""eqplugin: dimension-matched steerable and k-hop invariant models for NequIP and MACE.

NequIP imports this package whenever it starts, and ``nequip-package`` traces its imports,
so nothing heavy may be imported here.
"""

from eqplugin._extension import offer_modifiers
from eqplugin._version import __version__

__all__ = ["__version__"]

offer_modifiers()
