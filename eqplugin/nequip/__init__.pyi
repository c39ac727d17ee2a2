from eqplugin.nequip.datamodule import CheckedASEDataModule
from eqplugin.nequip.loading import load_calculator
from eqplugin.nequip.models import KHopInvariantModel, SteerableModel
from eqplugin.nequip.optimizers import ScheduleFreeModule

__all__ = [
    "CheckedASEDataModule",
    "KHopInvariantModel",
    "ScheduleFreeModule",
    "SteerableModel",
    "load_calculator",
]
