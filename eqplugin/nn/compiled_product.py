"""The old place of :class:`CompiledProduct`, which converted MACE files name in their pickles."""

from eqplugin.nn.product.compiled import CompiledProduct

__all__ = ["CompiledProduct"]
