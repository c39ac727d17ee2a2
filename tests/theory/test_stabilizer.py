"""Point groups and dim V_l^Stab: every cell of the table, and why a lower degree is not enough."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from environments_under_test import BUDGET_TABLE, ICOSAHEDRAL, MULTIPLICITIES, SITES, TABLE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.theory.orientation import recommended_l_max
from eqplugin.theory.point_group import PointGroup, find_point_group
from eqplugin.theory.representation import represent
from eqplugin.theory.sites import find_sites
from eqplugin.theory.stabilizer import (
    KINDS,
    irrep_dimension,
    projector,
    stabilizer_dimensions,
    surviving_dimensions,
)


def group_of(name: str, turn=None) -> PointGroup:
    vectors = ICOSAHEDRAL if name == "icosahedral" else SITES[name][0]
    if turn is not None:
        vectors = vectors @ turn.T
    return find_point_group(vectors, ["C"] * len(vectors))


def turned(seed: int) -> np.ndarray:
    return Rotation.random(random_state=seed).as_matrix()


@pytest.mark.parametrize("site", SITES)
def test_every_cell_of_the_table(site):
    group = group_of(site)
    assert group.name == SITES[site][1]
    rotations, natural = TABLE[site]
    assert stabilizer_dimensions(group, 6, "so3") == rotations
    assert stabilizer_dimensions(group, 6, "natural") == natural


@pytest.mark.parametrize("site", BUDGET_TABLE)
def test_every_cell_of_the_table_at_constant_dimension(site):
    for l_max, expected in zip((1, 2, 3, 4), BUDGET_TABLE[site], strict=True):
        budget = Design(100, l_max)
        assert budget.multiplicities == MULTIPLICITIES[l_max]
        assert surviving_dimensions(group_of(site), budget.irreps) == expected


@pytest.mark.parametrize("site", [*SITES, "icosahedral"])
def test_formula_is_the_rank_of_the_average(site):
    group = group_of(site, turned(1))
    for degree in range(7):
        for parity in (1, -1):
            ir = (degree, parity)
            average = projector(group, ir)
            assert (average @ average - average).abs().max() < 1e-6
            assert average.trace().item() == pytest.approx(irrep_dimension(group, ir), abs=1e-6)


def test_an_atom_alone_keeps_scalars_only():
    group = find_point_group(np.zeros((0, 3)), [])
    assert group.name == "K_h"
    assert not group.is_finite
    assert stabilizer_dimensions(group, 4, "natural") == (1, 0, 0, 0, 0)
    assert stabilizer_dimensions(group, 4, "opposite") == (0, 0, 0, 0, 0)
    assert projector(group, "0e").item() == 1.0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([*SITES, "icosahedral"]), st.integers(0, 10_000), st.floats(0.0, 2e-3))
def test_stabiliser_closes_and_does_not_depend_on_the_frame(site, seed, noise):
    vectors = ICOSAHEDRAL if site == "icosahedral" else SITES[site][0]
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(vectors))
    moved = vectors[order] @ turned(seed).T
    if site not in ("planar generic", "linear, C_inf_v"):
        moved = moved + generator.uniform(-noise, noise, moved.shape)
    group = find_point_group(moved, ["C"] * len(moved))
    assert group.name == group_of(site).name
    assert group.is_closed()
    for kind in KINDS:
        assert stabilizer_dimensions(group, 6, kind) == stabilizer_dimensions(
            group_of(site), 6, kind
        )
    for operation in group.operations:
        images = moved @ operation.T
        nearest = np.linalg.norm(images[:, None] - moved[None], axis=-1).min(axis=1)
        assert nearest.max() <= 0.0101


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([*SITES]), st.integers(0, 6), st.sampled_from([1, -1]), st.integers(0, 99))
def test_values_in_the_stabiliser_space_are_left_alone(site, degree, parity, seed):
    group = group_of(site, turned(seed))
    value = projector(group, (degree, parity)) @ torch.randn(
        2 * degree + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    for matrix in represent((degree, parity), torch.as_tensor(group.operations)):
        assert (matrix @ value - value).abs().max() < 1e-6


@pytest.mark.parametrize(
    "rank, in_so3, in_o3", [(1, False, False), (2, True, False), (3, True, True)]
)
def test_labelled_positions_are_fixed_by_their_rank(rank, in_so3, in_o3):
    # SO(3): rank 2 is enough, O(3): it takes 3. True of labelled points only, see the octahedron.
    vectors = np.random.default_rng(rank).normal(size=(5, 3)) * ([1.0] * rank + [0.0] * (3 - rank))
    assert np.linalg.matrix_rank(vectors) == rank
    group = find_point_group(vectors @ turned(5).T, range(5))
    assert (group.is_finite and len(group.proper) == 1) is in_so3
    assert (group.order == 1) is in_o3


def test_species_break_a_symmetry():
    vectors = SITES["tetrahedral"][0]
    assert find_point_group(vectors, "HHHH").name == "Td"
    assert find_point_group(vectors, "HHHF").name == "C3v"
    assert find_point_group(vectors, "HHFF").name == "C2v"
    assert find_point_group(vectors, "HHFB").name == "Cs"
    assert find_point_group(vectors, "HFBC").name == "C1"


def test_a_structure_just_at_the_tolerance_gets_a_whole_group():
    # ASE's C60 is icosahedral to 0.0085 A; with noise some operations miss 0.01 A, others do not
    ball = molecule("C60").positions
    ball = ball - ball.mean(axis=0)
    ball += np.random.default_rng(0).uniform(-0.002, 0.002, ball.shape)
    assert find_point_group(ball, ["C"] * 60).name == "Ih"


def test_sites_of_a_supercell_are_those_of_the_cell():
    cell = bulk("NaCl", "rocksalt", a=5.64)
    sites = find_sites(cell.repeat(2), cutoff=5.0)
    assert [site.symbol for site in sites] == ["Na", "Cl"]
    assert sorted(sum((site.indices for site in sites), ())) == list(range(16))
    for site, alone in zip(sites, find_sites(cell, cutoff=5.0), strict=True):
        assert (site.group.name, site.num_neighbors) == ("Oh", alone.num_neighbors)
    moved = cell.repeat(2)
    moved.positions[3] += [0.2, 0.1, 0.05]
    assert {site.group.name for site in find_sites(moved, 5.0) if 3 in site.indices} == {"C1"}


def ring(n: int, height: float = 0.0, turn: float = 0.0, radius: float = 1.5) -> np.ndarray:
    angles = 2 * np.pi * np.arange(n) / n + turn
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(n, height)], axis=1)


NAMED = {
    **{f"D{n}h": [ring(n, 1.1), ring(n, -1.1)] for n in (2, 3, 4, 5)},
    **{f"D{n}d": [ring(n, 1.1), ring(n, -1.1, np.pi / n)] for n in (2, 3, 4, 5)},
    **{f"D{n}": [ring(n, 1.1), ring(n, -1.1, 0.4 / n)] for n in (2, 3, 4, 5)},
    **{f"C{n}v": [ring(n, 1.1), ring(n, 0.0)] for n in (2, 3, 4, 5)},
    **{f"C{n}": [ring(n, 1.1), ring(n, 0.3, 0.3, 1.1)] for n in (2, 3, 4)},
    **{f"C{n}h": [ring(n), ring(n, 0.0, 0.3, 0.9), ring(n, 1.0), ring(n, -1.0)] for n in (2, 3, 4)},
    **{
        f"S{2 * n}": [
            *(ring(n, 1.1), ring(n, -1.1, np.pi / n)),
            *(ring(n, 0.4, 0.3, 1.2), ring(n, -0.4, 0.3 + np.pi / n, 1.2)),
        ]
        for n in (2, 3)
    },
    "Ci": [_ := np.random.default_rng(2).normal(size=(3, 3)), -_],
}


@pytest.mark.parametrize("name", NAMED)
def test_names_of_the_axial_groups(name):
    vectors = np.concatenate(NAMED[name]) @ turned(4).T
    assert find_point_group(vectors, [1] * len(vectors)).name == name


def test_names_of_the_cubic_groups():
    assert group_of("icosahedral").name == "Ih"
    general = np.array([1.0, 0.4, -0.3])
    for name in ("tetrahedral", "octahedral", "icosahedral"):
        full = group_of(name)
        orbit = full.proper @ general
        assert find_point_group(orbit, [1] * len(orbit)).name == full.name[0]
    with_inversion = np.concatenate([group_of("tetrahedral").proper @ general] * 2)
    with_inversion[12:] *= -1
    assert find_point_group(with_inversion, [1] * 24).name == "Th"


# ---- the smallest sufficient degree

NEEDED = {
    "generic": 1,
    "planar generic": 1,
    "linear, C_inf_v": 1,
    "linear, D_inf_h": 2,
    **{f"{n}-star": n for n in (2, 3, 4, 5, 6)},
    "C3v": 3,
    "tetrahedral": 3,
    "octahedral": 4,
    "icosahedral": 6,
}


@pytest.mark.parametrize("site", NEEDED)
def test_smallest_sufficient_degree_is_the_order_of_the_star(site):
    assert recommended_l_max(group_of(site, turned(7))) == NEEDED[site]


def test_opposite_parity_can_do_with_a_lower_degree():
    allene = group_of_vectors = find_point_group(np.concatenate(NAMED["D2d"]), [1] * 4)
    assert allene is group_of_vectors
    assert recommended_l_max(allene, "natural") == 3
    assert recommended_l_max(allene, "both") == 2
    assert recommended_l_max(allene, "so3") == 2


def test_a_degree_too_low_for_the_limit_is_said():
    assert recommended_l_max(group_of("6-star"), limit=5) is None


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: find_point_group(np.eye(3), "HH"), "2 labels for 3 neighbours"),
        (lambda: find_point_group(np.eye(3), "HHH", 0.0), "tolerance=0.0"),
        (lambda: stabilizer_dimensions(group_of("C3v"), 2, "odd"), "kind='odd'"),
        (lambda: recommended_l_max(group_of("C3v"), "odd"), "kind='odd'"),
    ],
)
def test_impossible_questions_are_refused(call, words):
    with pytest.raises(EqPluginError, match=words):
        call()
