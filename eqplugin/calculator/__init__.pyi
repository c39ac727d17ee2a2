from eqplugin.calculator.calculator import EqCalculator, StressError

__all__ = ["EqCalculator", "StressError"]
