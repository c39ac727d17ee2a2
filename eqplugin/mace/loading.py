"""Loading a MACE model to run or train it: the one opener of ``.model`` files."""

from __future__ import annotations

from pathlib import Path

import torch
from mace.modules.models import MACE

from eqplugin.mace.model_file import ModelFileError, read_model_file
from eqplugin.mace.models import as_family
from eqplugin.mace.products import require_operators


def read_model(
    path: str | Path, device: str | torch.device = "cpu", trust: bool | None = None
) -> torch.nn.Module:
    """Load a ``.model`` or ``.eqm`` file, ours under our class.

    Args:
        path: a ``.model`` of MACE or eqplugin, on e3nn 0.4 or 0.6; an ``.eqm`` of a MACE model.
        device: where the weights go.
        trust: see :mod:`eqplugin.modelfile.trust`.

    Raises:
        EqPluginError: for a missing, damaged or foreign file, a model without energies, or one of
            faster products (``eqplugin products``) where those cannot run.
    """
    model = read_model_file(path, trust)
    if not isinstance(model, MACE):
        raise ModelFileError(
            f"{path} holds a {type(model).__name__}, which has no energies: give a .model file of "
            f"a MACE or ScaleShiftMACE."
        )
    require_operators(model, path)
    # from the CPU: a file saved on a GPU loads where there is none
    return as_family(model).to(device)


load_model = read_model  # by this name users import it from eqplugin.mace
