"""The key lemma: features to invariants and back, where it fails, and where it jumps."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from e3nn.o3 import Irreps, spherical_harmonics
from environments_under_test import ICOSAHEDRAL, SITES
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqplugin.errors import EqPluginError
from eqplugin.theory.canonical import (
    DegenerateFrameError,
    find_frames,
    from_invariants,
    to_invariants,
)
from eqplugin.theory.frames import reference_vectors
from eqplugin.theory.representation import represent, rotate
from eqplugin.theory.stabilizer import projector

IRREPS = "4x0e+4x1e+4x2e+4x3e+4x0o+4x1o+4x2o+4x3o"
FLOAT = torch.float64


def cloud(seed: int, atoms: int = 7) -> torch.Tensor:
    return torch.randn(atoms, 3, dtype=FLOAT, generator=torch.Generator().manual_seed(seed)) * 1.4


def random_features(count: int, irreps: str = IRREPS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, Irreps(irreps).dim, dtype=FLOAT, generator=generator)


def operation(seed: int, improper: bool = False) -> torch.Tensor:
    turn = torch.as_tensor(Rotation.random(random_state=seed).as_matrix())
    return -turn if improper else turn


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return ((first - second).norm() / second.norm()).item()


@pytest.mark.parametrize("group", ["SO(3)", "O(3)"])
def test_invariance_and_round_trip_over_20_rotations(group):
    x, f = cloud(0), random_features(7)
    invariants = to_invariants(f, IRREPS, x, group=group)
    assert relative(from_invariants(invariants, IRREPS, x, group=group), f) < 5e-15
    changes = []
    for seed in range(20):
        g = operation(seed, improper=group == "O(3)" and seed % 2 == 1)
        moved = to_invariants(rotate(f, IRREPS, g), IRREPS, x @ g.T, group=group)
        changes.append(relative(moved, invariants))
    assert max(changes) < 1e-14


def test_an_so3_frame_must_not_be_used_for_parity():
    x, f = cloud(0), random_features(7)
    inversion = -torch.eye(3, dtype=FLOAT)
    changed = to_invariants(rotate(f, IRREPS, inversion), IRREPS, x @ inversion)
    assert relative(changed, to_invariants(f, IRREPS, x)) > 0.1


irreps_lists = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 5), st.sampled_from("eo")), min_size=1, max_size=5
).map(lambda parts: "+".join(f"{mul}x{degree}{p}" for mul, degree, p in parts))


@settings(max_examples=25, deadline=None)
@given(
    irreps_lists,
    st.integers(0, 10_000),
    st.integers(4, 9),
    st.booleans(),
    st.sampled_from(["nodes", "centroid"]),
)
@example(irreps="1x1e", seed=1, atoms=4, improper=False, about="centroid")  # nearly parallel
def test_invariance_round_trip_and_equivariance(irreps, seed, atoms, improper, about):
    x = cloud(seed, atoms)
    order = torch.randperm(atoms, generator=torch.Generator().manual_seed(seed))
    g = operation(seed, improper)
    options = {"group": "O(3)", "about": about}
    try:
        frames = find_frames(x, **options)
    except DegenerateFrameError:
        reject()  # rare, and legitimate: nearly degenerate by chance
    # digits are lost in proportion to how close the frame is to a jump
    precision = 1e-13 / (frames.singular_values[:, 2].min().item() ** 2) + 1e-13
    f = random_features(atoms, irreps, seed)
    invariants = to_invariants(f, irreps, frames)
    assert relative(from_invariants(invariants, irreps, frames), f) < 1e-14
    shifted = (x @ g.T + torch.tensor([3.0, -2.0, 1.0]))[order]
    moved = to_invariants(rotate(f, irreps, g)[order], irreps, shifted, **options)
    assert relative(moved, invariants[order]) < precision
    # and back: any invariants make an equivariant feature of any type
    made, made_there = (
        from_invariants(value, irreps, where, **options)
        for value, where in ((f, x), (f[order], shifted))
    )
    assert relative(made_there, rotate(made, irreps, g)[order]) < precision


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.integers(0, 1000), st.booleans())
def test_representation_is_a_homomorphism(degree, seed, improper):
    for parity in (1, -1):
        one, two = operation(seed, improper), operation(seed + 1)
        together, first, second = represent((degree, parity), torch.stack([one @ two, one, two]))
        assert (together - first @ second).abs().max() < 2e-14
        points = cloud(seed)
        if parity == (-1) ** degree:
            moved = spherical_harmonics(degree, points @ one.T, normalize=True)
            assert (moved - spherical_harmonics(degree, points, True) @ first.T).abs().max() < 1e-13


# ---- no frame


@pytest.mark.parametrize("site", [name for name in SITES if "generic" not in name])
@pytest.mark.parametrize("group", ["SO(3)", "O(3)"])
def test_symmetric_sites_have_no_frame(site, group):
    vectors = torch.as_tensor(np.concatenate([np.zeros((1, 3)), SITES[site][0]]))
    with pytest.raises(DegenerateFrameError, match="Node 0 has no") as caught:
        find_frames(vectors @ operation(3).T, group=group)
    assert caught.value.node == 0
    assert caught.value.symmetry == SITES[site][1]
    assert caught.value.singular_values[1] < 1e-4


def test_a_plane_has_a_frame_of_rotations_only():
    x = cloud(1) * torch.tensor([1.0, 1.0, 0.0])
    find_frames(x)
    with pytest.raises(DegenerateFrameError) as caught:
        find_frames(x, group="O(3)")
    assert caught.value.symmetry == "Cs"


def test_rank_3_is_not_enough():
    # neighbours are unlabelled: an octahedron and C60 span space and still have no frame
    for vectors in (SITES["octahedral"][0], ICOSAHEDRAL):
        assert np.linalg.matrix_rank(vectors) == 3
        with pytest.raises(DegenerateFrameError):
            find_frames(torch.as_tensor(vectors), about="centroid")


def test_species_make_a_frame():
    x = torch.as_tensor(np.concatenate([np.zeros((1, 3)), SITES["tetrahedral"][0]]))
    with pytest.raises(DegenerateFrameError):
        find_frames(x, about="centroid")
    chiral = find_frames(Atoms("CHFBN", x.numpy()), about="centroid", group="O(3)")
    same = find_frames(x, numbers=[6, 1, 9, 5, 7], about="centroid", group="O(3)")
    assert torch.equal(chiral.matrices, same.matrices)


def test_equal_distances_alone_are_no_symmetry():
    x = torch.nn.functional.normalize(cloud(4, 5), dim=-1)
    x = torch.cat([torch.zeros(1, 3, dtype=FLOAT), x])
    singular_values = reference_vectors(x, None, "nodes", 1.01)[1]
    assert singular_values[0, 2] > 1e-3  # the other nodes see only the first: no frame there


def test_crystals():
    crystal = bulk("NaCl", "rocksalt", a=5.6).repeat(2)
    with pytest.raises(DegenerateFrameError) as caught:
        find_frames(crystal, r_max=4.5)
    assert caught.value.symmetry == "Oh"
    crystal.rattle(0.1, seed=1)
    f = random_features(len(crystal))
    options = {"group": "O(3)", "r_max": 4.5, "threshold": 1e-6}
    invariants = to_invariants(f, IRREPS, crystal, **options)
    turned, g = crystal.copy(), operation(2, improper=True)
    turned.set_cell(crystal.cell[:] @ g.T.numpy(), scale_atoms=True)
    moved = to_invariants(rotate(f, IRREPS, g), IRREPS, turned, **options)
    assert relative(moved, invariants) < 1e-8


def test_frames_jump_near_a_symmetric_structure_and_features_do_not():
    """Why canonicalisation must stay out of energies."""
    tetrahedron = torch.as_tensor(SITES["tetrahedral"][0])

    def feature(x: torch.Tensor) -> torch.Tensor:
        """Smooth and equivariant: sum_j exp(-r_j) Y_l(r_j) r_j^l for l <= 3."""
        weight = torch.exp(-x.norm(dim=1, keepdim=True))
        parts = [weight * spherical_harmonics(degree, x, False) for degree in range(4)]
        return torch.cat(parts, dim=1).sum(dim=0, keepdim=True)

    def invariants(x: torch.Tensor) -> torch.Tensor:
        centred = torch.cat([torch.zeros(1, 3, dtype=FLOAT), x])
        frames = find_frames(centred, threshold=0.0)
        return rotate(feature(x), "0e+1o+2e+3o", frames.matrices[:1])

    pair = [tetrahedron + 1e-8 * cloud(seed, 4) for seed in (0, 1)]
    assert relative(*map(feature, pair)) < 1e-6
    assert relative(*map(invariants, pair)) > 0.1
    for x in pair:  # which is what the threshold is for
        with pytest.raises(DegenerateFrameError):
            find_frames(torch.cat([torch.zeros(1, 3, dtype=FLOAT), x]))


def test_only_the_stabiliser_space_can_be_filled():
    """At a symmetric site D free invariants are *not* D equivariant numbers."""
    from eqplugin.theory.point_group import find_point_group

    vectors = SITES["tetrahedral"][0]
    group = find_point_group(vectors, "HHHH")
    value = torch.randn(7, dtype=FLOAT, generator=torch.Generator().manual_seed(0))
    kept = projector(group, "3o") @ value
    assert 0.01 < (kept.norm() / value.norm()).item() < 0.99
    for g in torch.as_tensor(group.operations):
        assert (represent("3o", g[None])[0] @ kept - kept).norm() < 1e-10
    turned = represent("3o", torch.as_tensor(group.operations)) @ value
    assert (turned - value).norm(dim=1).max() > 0.1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: find_frames(cloud(0), group="U(1)"), "group='U"),
        (lambda: find_frames(cloud(0), about="edges"), "about='edges'"),
        (lambda: find_frames(cloud(0)[:, :2]), "instead of \\(num_nodes, 3\\)"),
        (lambda: find_frames(cloud(0), numbers=[1, 2]), "2 numbers for 7 nodes"),
        (lambda: find_frames(cloud(0) / 0), "Node 0 has a position that is not a number"),
        (lambda: find_frames(cloud(0), r_max=-1.0), "r_max=-1.0"),
        (lambda: find_frames(cloud(0), threshold=-1.0), "threshold=-1.0"),
        (lambda: find_frames(bulk("Cu")), "give r_max"),
        (lambda: find_frames(bulk("Cu"), about="centroid"), "has no centroid"),
        (
            lambda: to_invariants(random_features(7), "8x0e", cloud(0)),
            "instead of \\(num_nodes, 8\\)",
        ),
        (lambda: to_invariants(random_features(3), IRREPS, cloud(0)), "3 nodes have features"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(EqPluginError, match=words):
        call()
