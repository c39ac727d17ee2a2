"""One ASE calculator for every NequIP and MACE model: ``from eqplugin import EqCalculator``.

The stacks are loaded when a model of theirs is: a MACE model runs where NequIP models are never
touched, and the other way round.
"""

from eqplugin.calculator.calculator import EqCalculator, StressError

__all__ = ["EqCalculator", "StressError"]
