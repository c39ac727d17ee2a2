"""How MACE's own modules open files with ``torch.load``.

MACE sets TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD for the whole process, so that its ``torch.load(path)``
reads modules. Here the variable stays what the user made it, and MACE's modules get a ``torch``
whose ``load`` does that for them alone, after the pickle was walked.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from eqplugin.modelfile.eqm import SUFFIX
from eqplugin.modelfile.pickles import check_pickles
from eqplugin.modelfile.trust import trusted


class _Torch(ModuleType):
    """torch, but for ``load``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        """``torch.load`` of modules, not of tensors alone, walked before."""
        kwargs.setdefault("weights_only", False)
        if isinstance(f, str | Path) and Path(f).suffix == SUFFIX and Path(f).is_file():
            return import_module("eqplugin.mace.loading").load_model(f)
        if not kwargs["weights_only"] and not trusted(None):
            if hasattr(f, "read"):
                start = f.tell()
                check_pickles(getattr(f, "name", "the file"), f.read())
                f.seek(start)
            elif Path(f).is_file():  # else torch says so
                check_pickles(f)
        return torch.load(f, *args, **kwargs)


# the modules of MACE that open files with torch.load
_MODULES = tuple(
    f"mace.{name}"
    for name in (
        "calculators.foundations_models",
        "calculators.mace",
        "calculators.mace_torchsim",
        "cli.convert_cueq_e3nn",
        "cli.convert_device",
        "cli.convert_e3nn_cueq",
        "cli.convert_e3nn_hybrid",
        "cli.convert_e3nn_oeq",
        "cli.convert_oeq_e3nn",
        "cli.create_lammps_model",
        "cli.eval_configs",
        "cli.run_train",
        "cli.select_head",
        "tools.checkpoint",
        "tools.scripts_utils",
        "tools.torch_geometric.dataset",
    )
)


def repair() -> None:
    """Give it to those of these modules that are loaded by now."""
    for name in _MODULES:
        module = sys.modules.get(name)
        if module is not None and not isinstance(module.torch, _Torch):
            module.torch = _Torch("torch")
