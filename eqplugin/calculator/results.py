"""From the outputs of one model, or of a committee, to what ASE calls results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.stress import full_3x3_to_voigt_6_stress
from e3nn.o3 import Irreps
from numpy.typing import NDArray

PROPERTIES = ["energy", "free_energy", "energies", "forces", "stress"]
COMMITTEE_PROPERTIES = [
    f"{name}_{kind}" for name in ("energy", "forces", "stress") for kind in ("comm", "var")
]


def scalars_of(features: NDArray, irreps: Irreps) -> NDArray:
    """Return the columns of the scalars (0e) among features (num_atoms, irreps.dim)."""
    parts = zip(irreps.slices(), irreps, strict=True)
    scalars = [features[:, part] for part, (_, ir) in parts if (ir.l, ir.p) == (0, 1)]
    return np.concatenate(scalars, axis=1)


def as_results(outputs: Sequence[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """ASE's results: those of the one model, or the mean of several with their spread.

    Args:
        outputs: of each model, as :meth:`eqplugin.calculator.graph.Backend.evaluate` returns them.

    Returns:
        energy and free_energy (eV), energies (num_atoms,), forces (num_atoms, 3), eV/A, and
        stress (6,) in eV/A^3, Voigt, where the models computed it. For several models also
        ``*_comm``, the value of each in the first dimension, and ``*_var``, their variance
        (divided by the number of models, as MACE does), of energy, forces and stress.
    """
    results: dict[str, Any] = {}
    for key in outputs[0]:
        each = torch.stack([out[key] for out in outputs]).cpu().numpy()
        if key == "stress":
            each = full_3x3_to_voigt_6_stress(each)
        results[key] = _plain(each[0] if len(outputs) == 1 else each.mean(axis=0))
        if len(outputs) > 1 and key != "energies":
            results[f"{key}_comm"] = each
            results[f"{key}_var"] = _plain(each.var(axis=0))
    results["free_energy"] = results["energy"]
    return results


def _plain(values: NDArray) -> NDArray | float:
    return float(values) if values.ndim == 0 else values
