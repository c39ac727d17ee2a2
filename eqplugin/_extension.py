"""What NequIP's start triggers: our model modifiers and our guard of `nequip-train`, once loaded.

NequIP imports `eqplugin` at the top of its own ``__init__``, before there is anything to hang a
modifier on, and importing `eqplugin` alone has to stay cheap. So nothing is imported here: a finder
waits for the modules of NequIP that we extend, and extends each right after it has been loaded.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# module of NequIP -> ours, whose `attach` extends it
_EXTENDED = {
    "nequip.model.modify_utils": "eqplugin.nequip.modifiers",
    "nequip.scripts.train": "eqplugin.nequip.train",
}


def _attach(module: ModuleType) -> None:
    try:
        # not an import statement: nequip-package would follow it
        import_module(_EXTENDED[module.__name__]).attach(module)
    except (ImportError, AttributeError) as error:
        # another NequIP may have moved its classes: it has to start all the same
        warnings.warn(f"eqplugin cannot extend {module.__name__}: {error}", stacklevel=2)


class _AfterLoading(MetaPathFinder):
    """Lets the other finders find a module, and calls :func:`_attach` once it is loaded."""

    def __init__(self) -> None:
        self._looking: set[str] = set()  # names that the other finders are being asked for

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec, with the last step added; None for every other module."""
        if fullname not in _EXTENDED or fullname in self._looking:
            return None
        self._looking.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._looking.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _attach(module)

        spec.loader.exec_module = exec_module
        return spec


def extend_nequip() -> None:
    """Extend the modules that are loaded already now, the others as soon as they are."""
    if __name__.startswith("<torch_package"):
        return  # this copy of eqplugin serves a packaged model
    for name in _EXTENDED:
        if name in sys.modules:
            _attach(sys.modules[name])
    sys.meta_path.insert(0, _AfterLoading())
