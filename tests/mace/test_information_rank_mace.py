"""The rank of MACE's hidden features over re-drawn weights is the dimension that symmetry leaves.

The twin of tests/nequip/test_information_rank.py, on stock MACE and on ours.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from mace_under_test import cached, graph, redraw

from eqplugin.theory.capture import capture_features
from eqplugin.theory.point_group import find_point_group
from eqplugin.theory.representation import blocks
from eqplugin.theory.stabilizer import irrep_dimension, surviving_dimensions

sys.path.append(str(Path(__file__).resolve().parents[1] / "theory"))
from environments_under_test import BUDGET_TABLE, SITES

R_MAX = 5.0
APART = 12.0  # A: nothing of one site reaches another
CORNERS = np.stack(np.meshgrid(*[[0.0, APART]] * 3), axis=-1).reshape(-1, 3)


def together(names):
    """Eight sites in one input, at the corners of a cube, and the index of each centre."""
    positions, centres = [], []
    for name, corner in zip(names, CORNERS, strict=True):
        centres.append(sum(map(len, positions)))
        positions.append(np.concatenate([np.zeros((1, 3)), SITES[name][0]]) + corner)
    positions = np.concatenate(positions)
    return Atoms(f"C{len(positions)}", positions), centres


def samples(model, draws):
    """Features of the centres after the first layer, (draws, sites, D), each draw of size 1."""
    atoms, centres = together(BUDGET_TABLE)
    data = graph(atoms, model)
    found = []
    for seed in range(draws):
        redraw(model, seed)
        with torch.no_grad(), capture_features(model) as layers:
            model(data, compute_force=False)
        values = layers[0].values[centres]
        found.append(values / values.norm())
    return torch.stack(found), layers[0].irreps


def rank(rows, largest):
    """Numerical rank; a gap must stand where it is cut."""
    values = torch.linalg.svdvals(rows)
    cut = int((values > 1e-8 * largest).sum())
    assert not (values[cut:] > 1e-11 * largest).any()
    return cut


@pytest.mark.parametrize("family, hops", [("stock", None), ("khop", 2)])
def test_rank_of_mace_features_is_what_symmetry_leaves(family, hops):
    model = cached(family, "4x0e+4x1o+4x2e+4x3o", hops, max_ell=3, r_max=R_MAX)
    found, irreps = samples(model, draws=90)
    assert irreps.dim == 64
    for n, name in enumerate(BUDGET_TABLE):
        group = find_point_group(SITES[name][0], "C" * len(SITES[name][0]))
        rows = found[:, n]
        assert rank(rows, rows.norm()) == surviving_dimensions(group, irreps), name
        for columns, mul, ir in blocks(irreps):
            part = rows[:, columns].reshape(-1, mul, ir.dim).flatten(0, 1)
            assert rank(part, rows.norm()) == irrep_dimension(group, ir), (name, ir)
