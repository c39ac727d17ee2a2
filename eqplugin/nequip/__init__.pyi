from eqplugin.nequip.datamodule import CheckedASEDataModule
from eqplugin.nequip.loading import load_calculator
from eqplugin.nequip.models import KHopInvariantModel, SteerableModel

__all__ = ["CheckedASEDataModule", "KHopInvariantModel", "SteerableModel", "load_calculator"]
