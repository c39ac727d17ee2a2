"""eqplugin: dimension-matched steerable and k-hop invariant models for NequIP and MACE.

NequIP imports this package whenever it starts, and ``nequip-package`` traces its imports, those
of type checkers too, so names are imported on first use and their types are in ``__init__.pyi``.
"""

from eqplugin._extension import offer_modifiers
from eqplugin._version import __version__

_NAMES = {
    "calculator.calculator": ("EqCalculator",),
    "costs": ("count_costs", "match_parameters"),
    "data.check": ("check_files",),
    "design": ("Design",),
    "errors": ("EqPluginError",),
    "md.run": ("MdFiles", "MdRun", "run_md"),
    "md.settings": ("MdSettings",),
    "measure.comparison": ("compare_forces",),
    "measure.expressivity.loading": ("load_subject",),
    "measure.expressivity.run": ("run_suites",),
    "measure.labels": ("read_labelled",),
    "measure.physics.suite": ("check_physics",),
    "measure.speed": ("time_force_calls",),
    "stacks": ("load_model", "stack_named"),
    "theory.canonical": ("from_invariants", "to_invariants"),
    "theory.capture": ("capture_features",),
    "theory.orientation": ("recommended_l_max",),
    "theory.sites": ("find_sites",),
    "theory.stabilizer": ("stabilizer_dimensions", "surviving_dimensions"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


offer_modifiers()
