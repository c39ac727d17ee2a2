"""Energies are invariant, forces and stress equivariant, and stock NequIP is met bit for bit."""

import functools

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from models_under_test import TYPE_NAMES, build, evaluate, random_rotation
from nequip.data import AtomicDataDict

ENERGY = AtomicDataDict.TOTAL_ENERGY_KEY
FORCES = AtomicDataDict.FORCE_KEY
STRESS = AtomicDataDict.STRESS_KEY
R_MAX = 3.5
TOLERANCE = 1e-12

# Every l_max, both parities and profiles, every hops and contraction for either, not their product.
STEERABLE = [
    {"l_max": 0, "num_layers": 2},
    {"l_max": 1, "num_layers": 3},
    {"l_max": 2, "num_layers": 2, "profile": "decreasing"},
    {"l_max": 3, "num_layers": 2},
    {"l_max": 1, "num_layers": 2, "parity": "both"},
    {"l_max": 2, "num_layers": 2, "parity": "both"},
]
KHOP = [
    {"l_max": 0, "hops": 2, "num_blocks": 1, "contraction": "bispectrum"},
    {"l_max": 1, "hops": 1, "num_blocks": 2, "contraction": "power"},
    {"l_max": 1, "hops": 2, "num_blocks": 1, "contraction": "bispectrum", "parity": "both"},
    {"l_max": 1, "hops": None, "num_layers": 2, "contraction": "drop", "parity": "both"},
    {"l_max": 2, "hops": 1, "num_blocks": 2, "contraction": "bispectrum"},
    {"l_max": 2, "hops": 2, "num_blocks": 2, "contraction": "drop"},
    {"l_max": 2, "hops": None, "num_layers": 2, "contraction": "power", "parity": "both"},
    {"l_max": 3, "hops": None, "num_layers": 2, "contraction": "bispectrum"},
    {"l_max": 3, "hops": 2, "num_blocks": 1, "contraction": "power", "reset_width": 5},
    {"l_max": 3, "hops": 1, "num_blocks": 2, "contraction": "drop"},
    # the third convolution is the first with pseudoscalars (0o)
    {"l_max": 1, "hops": 3, "num_blocks": 1, "contraction": "power", "parity": "both"},
    {"l_max": 1, "hops": None, "num_layers": 3, "contraction": "bispectrum", "parity": "both"},
]
MODELS = [("steerable", o) for o in STEERABLE] + [("khop", o) for o in KHOP]


@functools.cache
def cached_with_forces(builder, **options):
    dims = (2 if options.get("parity") == "both" else 1) * (options["l_max"] + 1) ** 2
    shifts = {"C": -3.0, "H": -1.0, "O": -2.0}
    return build(
        builder,
        **{"feature_dim": 6 * dims, "r_max": R_MAX, "avg_num_neighbors": 6.0}
        | {"per_type_energy_shifts": shifts}
        | options,
    )


def cluster():
    """Nine atoms without symmetry, no two closer than 1 A, not all within the cutoff."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    picked = rng.choice(len(grid), size=9, replace=False)
    positions = 1.7 * grid[picked] + rng.uniform(-0.3, 0.3, size=(9, 3))
    return Atoms("CHOCHOCHH", positions)


def crystal():
    """Four atoms in a small triclinic cell, periodic: many images within the cutoff."""
    cell = np.array([[3.1, 0.0, 0.0], [0.4, 3.3, 0.0], [-0.3, 0.5, 3.6]])
    scaled = [[0.02, 0.03, 0.01], [0.52, 0.47, 0.06], [0.45, 0.04, 0.55], [0.03, 0.51, 0.48]]
    return Atoms("CHOC", scaled_positions=scaled, cell=cell, pbc=True)


def transformed(atoms, matrix):
    copy = atoms.copy()
    copy.positions = atoms.positions @ matrix.T
    copy.cell = np.asarray(atoms.cell) @ matrix.T
    return copy


def outputs(model, atoms):
    """Energy, forces and, of a periodic structure, stress."""
    out = evaluate(model, atoms, R_MAX)
    stress = out[STRESS].squeeze(0) if atoms.pbc.all() else torch.zeros(3, 3)
    return out[ENERGY].squeeze(), out[FORCES], stress


def assert_close(found, expected):
    scale = expected.abs().max()
    assert scale > 1e-4  # a vanishing quantity would prove nothing
    assert (found - expected).abs().max() <= TOLERANCE * scale


def check_orthogonal(model, atoms, matrix):
    energy, forces, stress = outputs(model, atoms)
    turned_energy, turned_forces, turned_stress = outputs(model, transformed(atoms, matrix))
    turn = torch.tensor(matrix)
    assert_close(turned_energy, energy)
    assert_close(turned_forces, forces @ turn.T)
    if atoms.pbc.all():
        assert_close(turned_stress, turn @ stress @ turn.T)


@pytest.mark.parametrize("builder, options", MODELS)
def test_rotation_and_reflections(builder, options):
    model = cached_with_forces(builder, **options)
    rotation = random_rotation(5)
    for matrix in (rotation, -np.eye(3), rotation @ np.diag([1.0, 1.0, -1.0])):
        check_orthogonal(model, cluster(), matrix)


@pytest.mark.parametrize("builder, options", MODELS)
def test_translation_and_permutation(builder, options):
    model = cached_with_forces(builder, **options)
    energy, forces, _ = outputs(model, cluster())
    moved = cluster()
    moved.positions += [3.0, -7.0, 11.0]
    moved_energy, moved_forces, _ = outputs(model, moved)
    assert_close(moved_energy, energy)
    assert_close(moved_forces, forces)
    order = np.random.default_rng(0).permutation(len(moved))
    assert (order != np.arange(len(order))).any()
    new_energy, new_forces, _ = outputs(model, cluster()[order])
    assert_close(new_energy, energy)
    assert_close(new_forces, forces[order])
    # exchanging the species of two atoms is no permutation
    swapped = cluster()
    swapped.symbols[[0, 1]] = swapped.symbols[[1, 0]]
    assert (outputs(model, swapped)[0] - energy).abs() > 1e-6


@pytest.mark.parametrize("builder, options", MODELS)
def test_periodic_cell(builder, options):
    model = cached_with_forces(builder, **options)
    rotation = random_rotation(6)
    check_orthogonal(model, crystal(), rotation)
    check_orthogonal(model, crystal(), -rotation)
    wrapped = crystal()
    wrapped.positions += [1.0, 1.3, 0.9]
    wrapped.wrap()
    assert_close(outputs(model, wrapped)[2], outputs(model, crystal())[2])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    quaternion=st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(
        lambda q: np.linalg.norm(np.array(q)) > 0.1
    ),
    improper=st.booleans(),
    which=st.sampled_from([1, 3, 6 + 4, 6 + 7]),
)
def test_any_orthogonal_transformation(quaternion, improper, which):
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    builder, options = MODELS[which]
    model = cached_with_forces(builder, **options)
    check_orthogonal(model, cluster(), -matrix if improper else matrix)


@pytest.mark.parametrize("builder, options", MODELS[1:4] + MODELS[7:9] + MODELS[13:15])
def test_forces_are_the_gradient(builder, options):
    model = cached_with_forces(builder, **options)
    atoms, step = cluster(), 1e-4
    direction = np.random.default_rng(1).normal(size=(len(atoms), 3))
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        energies.append(outputs(model, moved)[0].item())
    slope = -(energies[0] - energies[1]) / (2 * step)
    work = (outputs(model, atoms)[1] * torch.tensor(direction)).sum().item()
    assert abs(work) > 1e-3
    assert slope == pytest.approx(work, rel=1e-5)


@pytest.mark.parametrize("builder, options", [MODELS[3], MODELS[8], MODELS[10], MODELS[13]])
def test_float32_forces_follow_float64(builder, options):
    reference = cached_with_forces(builder, **options)
    single = build(
        builder,
        **{"feature_dim": 6 * (options["l_max"] + 1) ** 2 * (1 + ("parity" in options))}
        | {"r_max": R_MAX, "avg_num_neighbors": 6.0, "model_dtype": "float32"}
        | {"per_type_energy_shifts": {"C": -3.0, "H": -1.0, "O": -2.0}}
        | options,
    )
    single.load_state_dict(reference.state_dict())
    assert next(single.parameters()).dtype == torch.float32
    energy, forces, _ = outputs(reference, cluster())
    energy32, forces32, _ = outputs(single, cluster())
    error = (forces32 - forces).abs().max() / forces.abs().max()
    assert 1e-10 < error < 1e-5
    assert (energy32 - energy).abs() < 1e-5 * energy.abs()


# ---- members of the family that coincide


def assert_same_model(first, second):
    weights, others = first.state_dict(), second.state_dict()
    assert list(weights) == list(others)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for atoms in (cluster(), crystal()):
        for a, b in zip(outputs(first, atoms), outputs(second, atoms), strict=True):
            assert torch.equal(a, b)
    assert outputs(first, crystal())[2].abs().max() > 1e-6


COMMON = {"r_max": R_MAX, "seed": 7, "per_type_energy_shifts": dict.fromkeys(TYPE_NAMES, -1.5)}


@pytest.mark.parametrize(
    "feature_dim, l_max, parity, num_features",
    [(16, 1, "natural", [4, 4]), (30, 2, "natural", [6, 3, 3]), (32, 1, "both", [4, 4])],
)
def test_steerable_is_stock_nequip(feature_dim, l_max, parity, num_features):
    ours = build(
        "steerable", l_max=l_max, num_layers=3, feature_dim=feature_dim, parity=parity, **COMMON
    )
    stock = build(
        "nequip",
        l_max=l_max,
        num_layers=3,
        num_features=num_features,
        parity=parity == "both",
        type_embed_num_features=32,
        **COMMON,
    )
    assert_same_model(ours, stock)


@pytest.mark.parametrize("l_max", [0, 2])
@pytest.mark.parametrize("hops", [None, 3])
def test_dropping_without_reset_is_steerable(l_max, hops):
    options = {"l_max": l_max, "num_layers": 3, **COMMON}
    assert_same_model(
        build("khop", hops=hops, contraction="drop", **options), build("steerable", **options)
    )


def test_other_members_differ():
    # the twin of the two tests above: same seed, other model
    options = {"l_max": 1, "num_layers": 2, **COMMON}
    stock = build("steerable", **options)
    energies = [outputs(stock, cluster())[0].item()]
    for hops, contraction in ((None, "power"), (1, "drop"), (1, "bispectrum")):
        other = build("khop", hops=hops, contraction=contraction, **options)
        energies.append(outputs(other, cluster())[0].item())
    assert len(set(energies)) == 4
