"""NequIP models and training extras, named by ``_target_: eqplugin.nequip.<Name>`` in a config.

Exports are loaded on first use: ``nequip-package`` puts this file into every model package, so
it must not import Lightning, ASE or anything else a packaged model does not need.
"""

from eqplugin._lazy import lazy_exports

_HOMES = {
    "datamodule": "CheckedASEDataModule",
    "loading": "load_calculator",
    "models": "KHopInvariantModel SteerableModel",
    "optimizers": "ScheduleFreeModule",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)
