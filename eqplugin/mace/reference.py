"""Small MACE models with stored results from a real e3nn 0.4.4: what "the same numbers" means.

This file runs in two worlds: here, where MACE is repaired, and in an environment with e3nn 0.4.4
and without eqplugin, where ``tools/make_mace_reference.py`` loads it by its path and writes
``reference.json``. So it imports nothing of eqplugin.

Weights come from NumPy's generator, not torch's, and so do not depend on the machine.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

STORED = Path(__file__).with_name("reference.json")
ATOMIC_NUMBERS = (1, 6, 8)


def _case(hidden: str, correlation: int, **options: Any) -> dict[str, Any]:
    """Options; ``first`` and ``later`` name interactions: "X" for RealAgnosticXInteractionBlock."""
    return {"hidden_irreps": hidden, "correlation": correlation, **options}


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "0e-corr1": _case("4x0e", 1),
    "0e-corr3": _case("4x0e", 3),
    "0e-corr3-plain": _case("4x0e", 3, first="", later=""),
    "1o-corr1": _case("4x0e+4x1o", 1),
    "1o-corr2": _case("4x0e+4x1o", 2),
    "1o-corr3": _case("4x0e+4x1o", 3, max_ell=3),
    "1o-corr3-plain": _case("4x0e+4x1o", 3, first="", later=""),
    "1o-corr3-density": _case("4x0e+4x1o", 3, max_ell=3, first="Density", later="DensityResidual"),
    "1o-corr3-nonlinear": _case(
        "4x0e+4x1o",
        3,
        first="ResidualNonLinear",
        later="ResidualNonLinear",
        edge_irreps="4x0e+4x1o",
        atomic_inter_scale=0.01,
    ),
    "1o-corr2-attention": _case("4x0e+4x1o", 2, later="AttResidual"),
    "2e-corr1": _case("4x0e+4x1o+4x2e", 1),
    "2e-corr2": _case("4x0e+4x1o+4x2e", 2, max_ell=3),
    "2e-corr3": _case("4x0e+4x1o+4x2e", 3, max_ell=3),
    "2e-corr3-ell3-density": _case(
        "2x0e+2x1o+2x2e", 3, max_ell=3, first="DensityResidual", later="DensityResidual"
    ),
    "so3-1e-corr2": _case("4x0e+4x1e", 2, use_so3=True),
    "so3-2e-corr3": _case("4x0e+4x1e+4x2e", 3, use_so3=True),
    "full-o3-corr2": _case("4x0e+4x0o+4x1o+4x1e", 2),
    "1o-corr3-layers3-zbl-agnesi": _case(
        "4x0e+4x1o",
        3,
        num_interactions=3,
        pair_repulsion=True,
        distance_transform="Agnesi",
        radial_type="gaussian",
    ),
}
"""Name -> options of ``build``."""

SENSITIVE = ("1o-corr3", "so3-1e-corr2")
"""Configurations that show wrong signs at once, built within a second or two."""


def build(name: str, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """Build one of the CONFIGURATIONS with fixed weights, as a stock ScaleShiftMACE."""
    from e3nn import o3
    from mace import modules

    defaults = {"max_ell": 2, "num_interactions": 2, "atomic_inter_scale": 1.0}
    options = defaults | CONFIGURATIONS[name]
    interactions = [
        modules.interaction_classes[f"RealAgnostic{options.pop(key, 'Residual')}InteractionBlock"]
        for key in ("first", "later")
    ]
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
            interaction_cls_first=interactions[0],
            interaction_cls=interactions[1],
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


def triples(l_max: int = 6) -> list[tuple[int, int, int]]:
    """All degrees that couple, in every order, up to ``l_max``."""
    degrees = itertools.product(range(l_max + 1), repeat=3)
    return [(l1, l2, l3) for l1, l2, l3 in degrees if abs(l1 - l2) <= l3 <= l1 + l2]


def project(tensor: torch.Tensor) -> float:
    """One number that stands for a tensor: its inner product with a fixed random one."""
    direction = np.random.default_rng(11).standard_normal(tuple(tensor.shape))
    return float((tensor.double().numpy() * direction).sum())


def stored_coefficients() -> dict[tuple[int, int, int], float]:
    """``project(wigner_3j(l1, l2, l3))`` of e3nn 0.4.4, for all `triples`."""
    stored = json.loads(STORED.read_text())["wigner_3j"]
    return {tuple(map(int, degrees.split(","))): value for degrees, value in stored.items()}


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
