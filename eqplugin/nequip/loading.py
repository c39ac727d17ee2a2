"""Trained NequIP models as ASE calculators."""

from __future__ import annotations

from pathlib import Path

from nequip.integrations.ase import NequIPCalculator

from eqplugin.errors import EqPluginError

__all__ = ["load_calculator"]

_COMPILED = ".nequip.pt2"


def load_calculator(model: str | Path, device: str = "cpu") -> NequIPCalculator:
    """Load a checkpoint (.ckpt), a package (.nequip.zip) or a compiled model (.nequip.pt2).

    Args:
        model: path to the file. Checkpoints and packages run eagerly; a model compiled with
            ``nequip-compile --mode aotinductor --target ase`` is 2 to 3 times faster in MD.
        device: ``"cpu"`` or ``"cuda"``; a compiled model runs only on the device it was made for.

    Returns:
        NequIPCalculator with eV, A, eV/A and eV/A^3.

    Raises:
        EqPluginError: when the file is missing.
    """
    path = Path(model)
    if not path.is_file():
        raise EqPluginError(f"the model file {path} is missing: check the path.")
    if path.name.endswith(_COMPILED):
        return NequIPCalculator.from_compiled_model(
            path, device=device, chemical_species_to_atom_type_map=True
        )
    return NequIPCalculator._from_saved_model(
        path, device=device, chemical_species_to_atom_type_map=True
    )
