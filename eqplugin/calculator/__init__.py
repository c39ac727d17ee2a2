"""One ASE calculator for every NequIP and MACE model: ``from eqplugin import EqCalculator``.

The stacks are loaded when a model of theirs is: a MACE model runs where NequIP models are never
touched, and the other way round.
"""

from eqplugin._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"calculator": "EqCalculator StressError"})
