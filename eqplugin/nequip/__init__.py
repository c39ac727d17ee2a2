"""NequIP models and training extras, named by ``_target_: eqplugin.nequip.<Name>`` in a config.

Exports are loaded on first use: ``nequip-package`` puts this file into every model package, so
it must not import Lightning, ASE or anything else a packaged model does not need.
"""

from __future__ import annotations

_EXPORTS = {
    "SteerableModel": "models",
    "KHopInvariantModel": "models",
    "CheckedASEDataModule": "datamodule",
    "load_calculator": "loading",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> object:
    # the import sits in a function torch.package does not trace, on purpose
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
