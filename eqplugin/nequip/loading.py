"""Trained NequIP models as ASE calculators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nequip.integrations.ase import NequIPCalculator

from eqplugin.errors import EqPluginError
from eqplugin.nequip.modify import modify_model

__all__ = ["load_calculator"]

_COMPILED = ".nequip.pt2"


def load_calculator(
    model: str | Path, device: str = "cpu", modifiers: Sequence[str] = ()
) -> NequIPCalculator:
    """Load a checkpoint (.ckpt), a package (.nequip.zip) or a compiled model (.nequip.pt2).

    Args:
        model: path to the file. Checkpoints and packages run eagerly; a model compiled with
            ``nequip-compile --mode aotinductor --target ase`` is 2 to 3 times faster in MD.
        device: ``"cpu"`` or ``"cuda"``; a compiled model runs only on the device it was made for.
        modifiers: model modifiers such as ``"enable_FactorizedTP"``, for models that run eagerly;
            those a model was trained with are not applied by themselves.

    Returns:
        NequIPCalculator with eV, A, eV/A and eV/A^3.

    Raises:
        EqPluginError: when the file is missing, or a modifier cannot be applied.
    """
    path = Path(model)
    if not path.is_file():
        raise EqPluginError(f"the model file {path} is missing: check the path.")
    if path.name.endswith(_COMPILED):
        if modifiers:
            raise EqPluginError(
                f"the compiled model {path} cannot be modified: "
                f"compile it again with nequip-compile --modifiers {' '.join(modifiers)}."
            )
        return NequIPCalculator.from_compiled_model(
            path, device=device, chemical_species_to_atom_type_map=True
        )
    calculator = NequIPCalculator._from_saved_model(
        path, device=device, chemical_species_to_atom_type_map=True
    )
    calculator.model = modify_model(
        calculator.model, modifiers, f"the model {path}", calculator.device
    )
    return calculator
