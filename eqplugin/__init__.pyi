from eqplugin._version import __version__
from eqplugin.calculator.calculator import EqCalculator
from eqplugin.costs import count_costs, match_parameters
from eqplugin.data.check import check_files
from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.md.run import MdFiles, MdRun, run_md
from eqplugin.md.settings import MdSettings
from eqplugin.measure.comparison import compare_forces
from eqplugin.measure.expressivity.loading import load_subject
from eqplugin.measure.expressivity.run import run_suites
from eqplugin.measure.labels import read_labelled
from eqplugin.measure.physics.suite import check_physics
from eqplugin.measure.speed import time_force_calls
from eqplugin.stacks import convert_model, load_model, stack_named
from eqplugin.theory.canonical import from_invariants, to_invariants
from eqplugin.theory.capture import capture_features
from eqplugin.theory.orientation import recommended_l_max
from eqplugin.theory.sites import find_sites
from eqplugin.theory.stabilizer import stabilizer_dimensions, surviving_dimensions

__all__ = [
    "Design",
    "EqCalculator",
    "EqPluginError",
    "MdFiles",
    "MdRun",
    "MdSettings",
    "__version__",
    "capture_features",
    "check_files",
    "check_physics",
    "compare_forces",
    "convert_model",
    "count_costs",
    "find_sites",
    "from_invariants",
    "load_model",
    "load_subject",
    "match_parameters",
    "read_labelled",
    "recommended_l_max",
    "run_md",
    "run_suites",
    "stabilizer_dimensions",
    "stack_named",
    "surviving_dimensions",
    "time_force_calls",
    "to_invariants",
]
