"""What NequIP's start triggers: our model modifiers, offered as soon as NequIP can take them.

NequIP imports `eqplugin` at the top of its own ``__init__``, before there is anything to hang a
modifier on, and importing `eqplugin` alone has to stay cheap. So nothing is imported here: a finder
waits for the module that applies modifiers and adds ours right after it has been loaded.
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

_TARGET = "nequip.model.modify_utils"
_MODIFIERS = "eqplugin.nequip.modifiers"


def _attach(module: ModuleType) -> None:
    try:
        # not an import statement: nequip-package would follow it
        import_module(_MODIFIERS).attach(module)
    except (ImportError, AttributeError) as error:
        # another NequIP may have moved its classes: it has to start all the same
        warnings.warn(f"eqplugin's model modifiers are not available: {error}", stacklevel=2)


class _AfterModifyUtils(MetaPathFinder):
    """Lets the other finders find the module, and calls :func:`_attach` once it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec, with the last step added; None for every other module."""
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _attach(module)

        spec.loader.exec_module = exec_module
        return spec


def offer_modifiers() -> None:
    """Attach our modifiers now where NequIP is loaded already, else as soon as it is."""
    if __name__.startswith("<torch_package"):
        return  # this copy of eqplugin serves a packaged model
    if _TARGET in sys.modules:
        _attach(sys.modules[_TARGET])
    else:
        sys.meta_path.insert(0, _AfterModifyUtils())
