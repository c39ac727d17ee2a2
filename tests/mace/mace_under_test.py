"""Small float64 MACE models, and what the tests measure on them."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from e3nn.o3 import Irreps
from mace import data, modules
from mace.modules import ScaleShiftMACE
from mace.tools import torch_geometric
from mace.tools.utils import AtomicNumberTable

from eqplugin.mace.models import KHopInvariantMACE, SteerableMACE
from eqplugin.theory.structures import CUTOFF

NUMBERS = [1, 6, 8]
CHANNELS = 8
RESIDUAL = "RealAgnosticResidualInteractionBlock"
REPOSITORY = Path(__file__).resolve().parents[2]
# thresholds of the separability tables, for the metric of `signals`
MUST_NOT = 5e-12
MUST = 5e-11


def options(**changes) -> dict:
    """Constructor arguments of ScaleShiftMACE without the irreps; interactions by name."""
    chosen = {
        "r_max": CUTOFF,
        "num_bessel": 6,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": RESIDUAL,
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "num_interactions": 2,
        "num_elements": len(NUMBERS),
        "MLP_irreps": Irreps("8x0e"),
        "atomic_energies": np.array([[-13.0, -1029.0, -2042.0]]),
        "avg_num_neighbors": 2.0,
        "atomic_numbers": NUMBERS,
        "correlation": 2,
        "gate": torch.nn.functional.silu,
        "atomic_inter_scale": 1.0,
        "atomic_inter_shift": 0.0,
        "radial_MLP": [8],
        "heads": ["Default"],
    } | changes
    for key in ("interaction_cls", "interaction_cls_first"):
        chosen[key] = modules.interaction_classes[chosen[key]]
    return chosen


def _in_float64(build):
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        return build()
    finally:
        torch.set_default_dtype(previous)


def steerable(irreps: str | None = None, **changes) -> SteerableMACE:
    if irreps is not None:
        changes["hidden_irreps"] = irreps
    return _in_float64(lambda: SteerableMACE(**options(**changes)))


def khop(hops: int | None, irreps: str | None = None, **changes) -> KHopInvariantMACE:
    if irreps is not None:
        changes["hidden_irreps"] = irreps
    return _in_float64(lambda: KHopInvariantMACE(hops=hops, **options(**changes)))


def stock(irreps: str, **changes) -> ScaleShiftMACE:
    return _in_float64(lambda: ScaleShiftMACE(hidden_irreps=Irreps(irreps), **options(**changes)))


@functools.cache
def cached(family: str, irreps: str, hops: int | None = None, **changes):
    """Return a shared model; its weights are whatever the last test drew."""
    if family == "khop":
        return khop(hops, irreps, **changes)
    return {"steerable": steerable, "stock": stock}[family](irreps, **changes)


def redraw(model: torch.nn.Module, seed: int) -> None:
    """Draw all weights anew from unit normals."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))


def graph(atoms: Atoms, model: torch.nn.Module) -> dict:
    """Return the model input of a structure."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        config = data.config_from_atoms(atoms, key_specification=data.KeySpecification({}, {}))
        item = data.AtomicData.from_config(
            config,
            z_table=AtomicNumberTable([int(z) for z in model.atomic_numbers]),
            cutoff=float(model.r_max),
            heads=model.heads,
        )
        loader = torch_geometric.dataloader.DataLoader([item], batch_size=1, shuffle=False)
        return next(iter(loader)).to_dict()
    finally:
        torch.set_default_dtype(previous)


def evaluate(model: torch.nn.Module, atoms: Atoms, forces: bool = True) -> dict:
    """Return the model's outputs, detached."""
    out = model(graph(atoms, model), compute_force=forces)
    return {key: value.detach() for key, value in out.items() if isinstance(value, torch.Tensor)}


def energy(model: torch.nn.Module, atoms: Atoms) -> float:
    return evaluate(model, atoms, forces=False)["interaction_energy"].item()


def rattled(atoms: Atoms, seed: int = 0, width: float = 0.05) -> Atoms:
    """Return the structure with normal noise of 0.05 A: the yardstick of `signals`."""
    noisy = atoms.copy()
    noisy.positions += np.random.default_rng(seed).normal(scale=width, size=(len(atoms), 3))
    return noisy


def signals(model: torch.nn.Module, first: Atoms, second: Atoms, seeds: int) -> list[float]:
    """|E0 - E1| / |E(noisy) - E0| for several draws of the weights."""
    values = []
    for seed in range(seeds):
        redraw(model, seed)
        base, noisy = energy(model, first), energy(model, rattled(first))
        assert abs(noisy - base) > 1e-6
        values.append(abs(base - energy(model, second)) / abs(noisy - base))
    return values


def random_rotation(seed: int) -> np.ndarray:
    """Return a proper rotation matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def molecule(seed: int = 3) -> Atoms:
    """Return nine atoms without symmetry, several neighbours each within a cutoff of 4 A."""
    generator = np.random.default_rng(seed)
    positions = np.array([[x, y, z] for x in range(3) for y in range(3) for z in (0,)]) * 1.4
    return Atoms("C2H5OH", positions + generator.normal(scale=0.25, size=(9, 3)))


def without_eqplugin(code: str, *arguments: object) -> str:
    """Run code in a process in which ``import eqplugin`` fails; return what it prints."""
    blocked = "import sys\nsys.modules['eqplugin'] = None\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", blocked + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
