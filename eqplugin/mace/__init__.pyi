from eqplugin.mace.compat.convention import ConventionError, convention_of
from eqplugin.mace.convert import convert_model
from eqplugin.mace.export import descriptors, export_lammps, extract_config, rebuild
from eqplugin.mace.loading import load_model
from eqplugin.mace.models import KHopInvariantMACE, SteerableMACE

__all__ = [
    "ConventionError",
    "KHopInvariantMACE",
    "SteerableMACE",
    "convention_of",
    "convert_model",
    "descriptors",
    "export_lammps",
    "extract_config",
    "load_model",
    "rebuild",
]
