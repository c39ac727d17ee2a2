from eqplugin.optim.blocks import block_groups, parameter_blocks
from eqplugin.optim.soap import SOAP

__all__ = ["SOAP", "block_groups", "parameter_blocks"]
