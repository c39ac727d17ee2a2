"""The rank of features over re-drawn weights is the dimension that symmetry leaves."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from models_under_test import cached, graph, redraw

from eqplugin.theory.canonical import from_invariants, to_invariants
from eqplugin.theory.capture import capture_features
from eqplugin.theory.point_group import find_point_group
from eqplugin.theory.representation import blocks
from eqplugin.theory.stabilizer import irrep_dimension

sys.path.append(str(Path(__file__).resolve().parents[1] / "theory"))
from environments_under_test import BUDGET_TABLE, SITES

R_MAX = 5.0
APART = 50.0  # A: nothing of one site reaches another
GEOMETRIES = [name for name in SITES if name not in ("2-star", "5-star", "6-star")]


def together(names):
    """All sites in one input, and the index of each centre."""
    positions, centres = [], []
    for n, name in enumerate(names):
        centres.append(sum(map(len, positions)))
        vectors = np.concatenate([np.zeros((1, 3)), SITES[name][0]])
        positions.append(vectors + np.array([APART * n, 0.0, 0.0]))
    positions = np.concatenate(positions)
    return Atoms(f"C{len(positions)}", positions), centres


def features(model, atoms, layer):
    with capture_features(model) as layers:
        model(graph(atoms, R_MAX))
    return layers[layer]


def rank(rows: torch.Tensor, of: float | None = None) -> int:
    """Numerical rank; a gap of many orders must stand where it is cut."""
    values = torch.linalg.svdvals(rows)
    largest = values[0] if of is None else of
    cut = int((values > 1e-9 * largest).sum())
    if 0 < cut < len(values):
        assert values[cut] < 1e-11 * largest
    return cut


def check_degrees(names, parity, draws):
    model = cached(
        "steerable", l_max=4, num_layers=4, parity=parity, r_max=R_MAX, feature_dim=16 * 25
    )
    atoms, centres = together(names)
    samples = []
    for seed in range(draws):
        redraw(model, seed)
        caught = features(model, atoms, 2)
        samples.append(caught.values[centres])
    scale = torch.cat(samples).norm(dim=1).max().item()
    for n, name in enumerate(names):
        group = find_point_group(SITES[name][0], "C" * len(SITES[name][0]))
        for columns, mul, ir in blocks(caught.irreps):
            rows = torch.cat([s[n, columns].reshape(mul, ir.dim) for s in samples])
            assert rank(rows, scale) == irrep_dimension(group, ir), (name, ir)


def test_rank_of_every_irrep_up_to_degree_4():
    check_degrees(GEOMETRIES, "both", draws=3)


@pytest.mark.parametrize("l_max", [1, 2, 3, 4])
def test_rank_at_constant_dimension(l_max):
    model = cached("steerable", l_max=l_max, num_layers=3, feature_dim=100, r_max=R_MAX)
    atoms, centres = together(BUDGET_TABLE)
    samples = []
    for seed in range(125):
        redraw(model, seed)
        samples.append(features(model, atoms, 1).values[centres])
    for n, (name, expected) in enumerate(BUDGET_TABLE.items()):
        rows = torch.stack([sample[n] for sample in samples])
        assert rank(rows) == expected[l_max - 1], name


@pytest.mark.parametrize(
    "l_max", [1, 2, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 4))]
)
def test_a_generic_cluster_fills_all_dimensions_whatever_the_degree(l_max):
    model = cached("steerable", l_max=l_max, num_layers=3, feature_dim=100, r_max=R_MAX)
    redraw(model, 0)
    generator = np.random.default_rng(0)
    cluster = Atoms("C46", generator.normal(size=(46, 3)) * 2.2)
    data = graph(cluster, R_MAX)
    data["pos"].requires_grad_()
    caught = []
    layer = model.model.func.layer1_convnet
    handle = layer.register_forward_hook(lambda *call: caught.append(call[-1]["node_features"][0]))
    try:
        model(data)
    finally:
        handle.remove()
    rows = [
        torch.autograd.grad(value, data["pos"], retain_graph=True)[0].flatten()
        for value in caught[0]
    ]
    assert rank(torch.stack(rows)) == 100


def test_hidden_features_and_their_invariants():
    # the key lemma on what a model holds inside: D numbers of any type are D invariants
    model = cached("steerable", l_max=3, num_layers=3, parity="both", feature_dim=128)
    redraw(model, 1)
    generator = np.random.default_rng(1)
    atoms = Atoms("COHCOH", generator.normal(size=(6, 3)))
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    turn *= -np.sign(np.linalg.det(turn))  # a rotoinversion
    moved = Atoms(atoms.symbols, atoms.positions @ turn.T)
    first, second = (features(model, a, 1) for a in (atoms, moved))
    assert (first.values - second.values).norm() > 0.1 * first.values.norm()
    one = to_invariants(first.values, first.irreps, atoms, group="O(3)")
    two = to_invariants(second.values, second.irreps, moved, group="O(3)")
    assert (one - two).norm() < 1e-10 * one.norm()
    back = from_invariants(one, first.irreps, moved, group="O(3)")
    assert (back - second.values).norm() < 1e-10 * one.norm()
