"""Where the repairs take hold: functions under every name of theirs, and the model classes."""

from __future__ import annotations

import sys
from typing import Any

from mace.modules import models

# the classes that all of MACE's models derive from
MODEL_CLASSES = (
    models.MACE,
    models.AtomicDipolesMACE,
    models.AtomicDielectricMACE,
    models.EnergyDipolesMACE,
)


def rebind(original: Any, replacement: Any) -> None:
    """Replace ``original`` in every loaded module of the package ``mace``.

    MACE imports names (``from mace.tools.compile import disable_e3nn_codegen``), so a new value in
    the defining module alone would not reach modules that were imported before. Modules that are
    imported later take the new value from the defining module.
    """
    for module_name, module in list(sys.modules.items()):
        if module is None or not (module_name == "mace" or module_name.startswith("mace.")):
            continue
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, replacement)
