"""Small MACE models with stored results from a real e3nn 0.4.4: what "the same numbers" means.

This file runs in two worlds: here, where MACE is repaired, and in an environment with e3nn 0.4.4
and without eqplugin, where ``tools/make_mace_reference.py`` loads it by its path and writes
``reference.json``. So it imports nothing of eqplugin.

Weights come from NumPy's generator, not torch's, and so do not depend on the machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

STORED = Path(__file__).with_name("reference.json")
ATOMIC_NUMBERS = (1, 6, 8)
_INTERACTION = "RealAgnosticResidualInteractionBlock"

CONFIGURATIONS: dict[str, dict[str, Any]] = json.loads(STORED.read_text())["configurations"]
"""Name -> options of ``build``; a key of its own in the file of the results."""

SENSITIVE = ("1o-corr3", "so3-1e-corr2")
"""Configurations that show wrong signs at once, built within a second or two."""


def build(name: str, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """Build one of CONFIGURATIONS with fixed weights, as a stock ScaleShiftMACE."""
    from e3nn import o3
    from mace import modules

    options = {
        "max_ell": 2,
        "num_interactions": 2,
        "first": _INTERACTION,
        "later": _INTERACTION,
        "atomic_inter_scale": 1.0,
        **CONFIGURATIONS[name],
    }
    for key in ("hidden_irreps", "edge_irreps"):
        if key in options:
            options[key] = o3.Irreps(options[key])
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = modules.ScaleShiftMACE(
            r_max=3.5,
            num_bessel=4,
            num_polynomial_cutoff=5,
            interaction_cls_first=modules.interaction_classes[options.pop("first")],
            interaction_cls=modules.interaction_classes[options.pop("later")],
            num_elements=len(ATOMIC_NUMBERS),
            atomic_numbers=list(ATOMIC_NUMBERS),
            atomic_energies=np.array([-1.5, 0.7, -2.3]),
            MLP_irreps=o3.Irreps("4x0e"),
            gate=torch.nn.functional.silu,
            avg_num_neighbors=1.0,
            radial_MLP=[8, 8],
            atomic_inter_shift=0.1,
            **options,
        )
    finally:
        torch.set_default_dtype(default)
    generator = np.random.default_rng(20240503)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                values = generator.standard_normal(parameter.shape)
                # weights of the product basis of order nu grow with the number of its paths
                scale = 0.5 if parameter.dim() == 3 else 1.0
                parameter.copy_(torch.as_tensor(scale * values, dtype=parameter.dtype))
    return model


def structure() -> Any:
    """Seven atoms of H, C and O in a skewed periodic cell, as ``ase.Atoms``; lengths in A."""
    import ase

    generator = np.random.default_rng(7)
    grid = np.array([[x, y, z] for x in (0.0, 2.2) for y in (0.0, 2.2) for z in (0.0, 2.2)])[:7]
    return ase.Atoms(
        numbers=[8, 1, 6, 1, 8, 6, 1],
        positions=grid + generator.uniform(-0.3, 0.3, grid.shape),
        cell=[[4.9, 0.0, 0.0], [0.6, 5.2, 0.0], [0.3, -0.4, 5.5]],
        pbc=True,
    )


def evaluate(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Energy in eV, forces (7, 3) in eV/A and stress (3, 3) in eV/A^3 of the structure."""
    from mace.data import AtomicData, config_from_atoms
    from mace.tools import AtomicNumberTable, torch_geometric

    dtype = next(model.parameters()).dtype
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        graph = AtomicData.from_config(
            config_from_atoms(structure()),
            z_table=AtomicNumberTable(list(ATOMIC_NUMBERS)),
            cutoff=float(model.r_max),
        )
        batch = next(iter(torch_geometric.dataloader.DataLoader([graph], batch_size=1)))
        results = model(batch.to_dict(), compute_stress=True)
    finally:
        torch.set_default_dtype(default)
    return {
        "energy": results["energy"].detach().numpy()[0],
        "forces": results["forces"].detach().numpy(),
        "stress": results["stress"].detach().numpy()[0],
    }


def stored_results() -> dict[str, dict[str, np.ndarray]]:
    """What e3nn 0.4.4 gave: configuration -> energy, forces, stress."""
    stored = json.loads(STORED.read_text())["results"]
    return {
        name: {key: np.array(value) for key, value in results.items()}
        for name, results in stored.items()
    }


def deviations(results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest absolute difference of each quantity, in its unit."""
    return {key: float(np.abs(results[key] - expected[key]).max()) for key in expected}
