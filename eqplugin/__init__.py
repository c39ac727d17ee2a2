"""eqplugin: dimension-matched steerable and k-hop invariant models for NequIP and MACE.

NequIP imports this package whenever it starts, and ``nequip-package`` traces its imports,
so nothing heavy may be imported here.
"""

from eqplugin._extension import extend_nequip
from eqplugin._lazy import lazy_exports

_HOMES = {
    "_version": "__version__",
    "calculator.calculator": "EqCalculator",
    "costs": "count_costs match_parameters",
    "data.check": "check_files",
    "design": "Design",
    "errors": "EqPluginError",
    "md.run": "MdFiles MdRun run_md",
    "md.settings": "MdSettings",
    "measure.comparison": "compare_forces",
    "measure.expressivity.loading": "load_subject",
    "measure.expressivity.run": "run_suites",
    "measure.labels": "read_labelled",
    "measure.physics.suite": "check_physics",
    "measure.speed": "time_force_calls",
    "stacks": "load_model stack_named",
    "theory.canonical": "from_invariants to_invariants",
    "theory.capture": "capture_features",
    "theory.orientation": "recommended_l_max",
    "theory.sites": "find_sites",
    "theory.stabilizer": "stabilizer_dimensions surviving_dimensions",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)

extend_nequip()
