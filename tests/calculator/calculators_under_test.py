"""Tiny NequIP models, NequIP's own calculator for them, and structures of every periodicity."""

from __future__ import annotations

import functools
import itertools
import warnings

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from nequip.data import AtomicDataDict
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms
from nequip.utils.global_state import set_global_state

from eqplugin import EqCalculator
from eqplugin.calculator.compiled import CompiledBackend
from eqplugin.calculator.nequip_backend import NequIPBackend
from eqplugin.calculator.paired import PairedModel, can_be_paired
from eqplugin.nequip import KHopInvariantModel, SteerableModel

R_MAX = 4.0
TYPES = ["H", "C", "O"]
SHIFTS = {"H": -13.6, "C": -1029.0, "O": -2042.0}


def build(dtype="float64", builder=SteerableModel, **options):
    """Return a model of 2 layers with L = 1 and D = 16."""
    set_global_state()
    given = {
        "seed": 0,
        "model_dtype": dtype,
        "feature_dim": 16,
        "l_max": 1,
        "num_layers": 2,
        "radial_mlp_width": 16,
        "type_embed_num_features": 8,
        "r_max": R_MAX,
        "type_names": TYPES,
        "avg_num_neighbors": 8.0,
        "per_type_energy_shifts": SHIFTS,
        # forces of random weights are small: make an error of theirs visible
        "per_type_energy_scales": 20.0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return builder(**{**given, **options}).eval()


@functools.cache
def shared(dtype="float64", **options):
    """Return a model that no test changes."""
    return build(dtype, **options)


@functools.cache
def khop(dtype="float64", **options):
    """Return a k-hop invariant model of 2 layers; a reset after each unless hops is given."""
    given = {"hops": 1, "l_max": 2, "feature_dim": 18, "num_layers": 2}
    return build(dtype, KHopInvariantModel, **{**given, **options})


def stock(model, mapping=None):
    """NequIP's own ASE calculator for the model."""
    names = model.type_names
    return NequIPCalculator(
        model,
        "cpu",
        transforms=basic_transforms(
            model.metadata,
            R_MAX,
            names,
            mapping or {name: name for name in names},
        ),
    )


def uncompiled(model, wrap=lambda run: run):
    """Return a calculator that runs what would be compiled, without compiling it."""
    calculator = EqCalculator(model)
    twin = NequIPBackend(model, "twin", torch.device("cpu")).model
    paired = can_be_paired(model)
    ready = PairedModel(twin) if paired else twin
    run = wrap(lambda data: _detached(ready, data))
    calculator.backends = [CompiledBackend(run, calculator.backends[0], paired)]
    return calculator


def _detached(model, data):
    data = {key: value for key, value in data.items() if key != AtomicDataDict.POSITIONS_KEY}
    data[AtomicDataDict.EDGE_VECTORS_KEY] = data[AtomicDataDict.EDGE_VECTORS_KEY].clone()
    return {key: value.detach() for key, value in model(data).items()}


def pretend_capture(run, inputs):
    """Stand-in for a CUDA graph: reads and writes the same memory each time, whoever filled it."""
    memory = dict(inputs)  # tensors put in their place later are not seen, as by a graph
    outputs = {key: value.clone() for key, value in run(dict(memory)).items()}
    for value in outputs.values():
        value.zero_()  # capturing computes nothing: replaying does

    def replay():
        for key, value in run(dict(memory)).items():
            outputs[key].copy_(value)  # fails when a shape has changed

    return replay, outputs


def _slab():
    slab = fcc111("Cu", (2, 2, 3), a=4.0, vacuum=6.0)
    slab.numbers[:] = np.resize([1, 6, 8], len(slab))
    return slab


def _crystal():
    crystal = bulk("C", "diamond", a=3.6).repeat(2)
    crystal.numbers[::3] = 8
    return crystal


def _outside():
    crystal = _crystal()
    turns = np.random.default_rng(3).integers(-3, 4, size=(len(crystal), 3))
    crystal.positions += turns @ crystal.cell.array
    return crystal


STRUCTURES = {
    "molecule": lambda: molecule("CH3CH2OH"),
    "molecule in a box": lambda: Atoms(molecule("CH3CH2OH"), cell=[50, 50, 50]),
    "molecule in a periodic box": lambda: Atoms(
        molecule("CH3CH2OH"), cell=[6.5, 7, 8], pbc=True
    ),
    "bulk": _crystal,
    "atoms outside the cell": _outside,
    "left-handed cell": lambda: Atoms(
        "CO", [[0, 0, 0], [1, 1.2, 0.3]], cell=[[0, 3, 0], [3, 0, 0], [0.5, 0.2, 4]], pbc=True
    ),
    "slab": _slab,
    "slab, third vector zero": lambda: Atoms(
        _slab(), cell=np.vstack([_slab().cell.array[:2], [0, 0, 0]]), pbc=[True, True, False]
    ),
    "wire": lambda: Atoms(
        "COH", [[0, 0, 0], [0.3, 1.2, 0.9], [0.1, 0.4, 2.0]], cell=[0, 0, 3.1], pbc=[0, 0, 1]
    ),
    "wire along x": lambda: Atoms(
        "CO", [[0, 0, 0], [1.1, 0.3, 0.2]], cell=[2.9, 9, 9], pbc=[True, False, False]
    ),
    "cell smaller than the cutoff": lambda: Atoms(
        "CO", [[0, 0, 0], [0.7, 0.8, 0.9]], cell=[[1.9, 0, 0], [0.4, 2.0, 0], [0.1, 0.3, 2.1]],
        pbc=True,
    ),
    "one atom in a tiny cell": lambda: Atoms("O", cell=[1.7, 1.8, 2.2], pbc=True),
    "one atom": lambda: Atoms("O", [[1, 2, 3]]),
    "two atoms": lambda: Atoms("OH", [[0, 0, 0], [0.3, 0.2, 0.8]]),
    "two atoms out of reach": lambda: Atoms("OH", [[0, 0, 0], [20, 0, 0]]),
}  # fmt: skip


def structure(name, seed=0):
    """Return a structure, rattled so that no force is zero by symmetry."""
    atoms = STRUCTURES[name]()
    atoms.positions += np.random.default_rng(seed).normal(scale=0.03, size=(len(atoms), 3))
    return atoms


def walk(atoms, steps=8, size=0.05, seed=1):
    """Yield the structure on a random walk on which the neighbours change."""
    atoms, rng = atoms.copy(), np.random.default_rng(seed)
    for _ in range(steps):
        yield atoms
        atoms.positions += rng.normal(scale=size, size=(len(atoms), 3))


def random_structure(rng, atoms=6, size=5.0, closest=0.7):
    """Return atoms at random in a random cell with random periodicity, none of them too close."""
    while True:
        cell = np.diag(rng.uniform(0.5, 1.2, 3) * size) + rng.uniform(-0.2, 0.2, (3, 3)) * size
        found = Atoms(
            rng.choice([1, 6, 8], atoms),
            positions=rng.uniform(-0.5, 1.5, (atoms, 3)) @ cell,
            cell=cell,
            pbc=rng.integers(0, 2, 3).astype(bool),
        )
        distances = found.get_all_distances(mic=bool(found.pbc.any()))
        if atoms == 1 or distances[np.triu_indices(atoms, 1)].min() > closest:
            return found


def by_hand(atoms, cutoff):
    """All pairs with i < j, or i = j and S > 0, by trying every image that could be near."""
    cell, pbc, positions = atoms.cell.array, atoms.pbc, atoms.positions
    inverse = np.linalg.pinv(cell[pbc]) if pbc.any() else np.zeros((3, 0))
    # S differs by no more than this from the image that is next in the periodic directions
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0)).astype(int) + 1
    offsets = np.zeros((int(np.prod(2 * reach + 1)), 3), dtype=int)
    offsets[:, pbc] = list(itertools.product(*(range(-far, far + 1) for far in reach)))
    found = []
    for i, j in itertools.combinations_with_replacement(range(len(positions)), 2):
        apart = positions[j] - positions[i]
        shifts = offsets.copy()
        shifts[:, pbc] -= np.round(apart @ inverse).astype(int)
        near = ((apart + shifts @ cell) ** 2).sum(1) < cutoff**2
        found += [[i, j, *shift] for shift in shifts[near].tolist() if i < j or shift > [0, 0, 0]]
    return sorted(found)


def evaluate(atoms, calculator):
    """Return energy, energies, forces and, where there is a volume, stress."""
    atoms = atoms.copy()
    atoms.calc = calculator
    found = {
        "energy": atoms.get_potential_energy(),
        "energies": atoms.get_potential_energies(),
        "forces": atoms.get_forces(),
    }
    if abs(np.linalg.det(atoms.cell.array)) > 1e-6:
        found["stress"] = atoms.get_stress()
    return {key: np.array(value) for key, value in found.items()}


def assert_same(found, expected, tolerance):
    """Compare to the tolerance, relative to the largest entry where that is above 1."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance * scale, err_msg=key)


TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
TORCH = {"float64": torch.float64, "float32": torch.float32}
