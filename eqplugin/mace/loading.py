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
    require_energies(model, str(path))
    require_operators(model, path)
    # from the CPU: a file saved on a GPU loads where there is none
    return as_family(model).to(device)


# what else MACE's models predict, and what its calculator calls them
_OTHERS = {
    "AtomicDipolesMACE": ("dipoles and no energies", "DipoleMACE"),
    "AtomicDielectricMACE": ("dipoles, polarizabilities, no energies", "DipolePolarizabilityMACE"),
    "EnergyDipolesMACE": ("dipoles beside energies", "EnergyDipoleMACE"),
}


def require_energies(model: torch.nn.Module, name: str) -> None:
    """Refuse models of MACE for anything but energies and forces.

    Raises:
        ModelFileError: saying what the model is for, and what runs it.
    """
    if isinstance(model, MACE):
        return
    kind = type(model).__name__
    if kind not in _OTHERS:
        raise ModelFileError(f"{name} is a {kind}: only a MACE or ScaleShiftMACE runs here.")
    predicts, known = _OTHERS[kind]
    raise ModelFileError(
        f"{name} is a {kind}, which predicts {predicts}: only a MACE or ScaleShiftMACE runs here; "
        f"for this one use mace.calculators.MACECalculator(model_type={known!r})."
    )


load_model = read_model  # by this name users import it from eqplugin.mace
