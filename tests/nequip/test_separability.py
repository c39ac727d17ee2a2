"""Which models tell which structures apart: every 'must' has its 'must not'.

The metric is |E0 - E1| / |E(noisy) - E0| in float64, see `models_under_test.signals`.
"""

import numpy as np
import pytest
from models_under_test import (
    MUST,
    MUST_NOT,
    atomic_energies,
    cached,
    energy,
    hidden,
    rattled,
    redraw,
    signals,
)

from eqplugin.theory.structures import articulated, k_chain, rotor, star

SEEDS = 4
POLYNOMIAL = ("power", "bispectrum")
CHAINS = (2, 3, 4, pytest.param(5, marks=pytest.mark.slow))


def check(must_separate, model, first, second):
    found = signals(model, first, second, SEEDS)
    if must_separate:
        assert max(found) > MUST  # one draw may be blind by chance, all cannot
    else:
        assert max(found) < MUST_NOT


def check_chain(must_separate, model, k):
    # Signals fall 10- to 1000-fold per atom: at k = 5 shorter bonds, deeper inside the cutoff,
    # keep them clear of the threshold.
    bond = 1.5 if k < 5 else 1.2
    check(must_separate, model, k_chain(k, "cis", bond), k_chain(k, "trans", bond))


# ---- k-chains


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 5, 6])
def test_steerable_separates_chain_from_k_plus_1_layers(num_layers, k):
    model = cached("steerable", l_max=1, num_layers=num_layers)
    check_chain(num_layers >= k + 1, model, k)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("offset", [0, 1])
def test_steerable_needs_as_many_layers_at_l_max_2(k, offset):
    check_chain(offset == 1, cached("steerable", l_max=2, num_layers=k + offset), k)


@pytest.mark.parametrize("num_layers", [2, 3])
def test_stock_nequip_agrees(num_layers):
    model = cached("nequip", l_max=1, num_layers=num_layers, parity=False, num_features=8)
    check_chain(num_layers == 3, model, 2)


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_contracted_readout_meets_in_the_middle(contraction, num_layers, k):
    model = cached("khop", l_max=1, hops=None, num_layers=num_layers, contraction=contraction)
    check_chain(num_layers >= k // 2 + 1, model, k)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_contracted_readout_meets_in_the_middle_at_l_max_2(contraction, num_layers):
    model = cached("khop", l_max=2, hops=None, num_layers=num_layers, contraction=contraction)
    check_chain(num_layers == 2, model, 3)


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize(
    "hops, num_blocks",
    [
        *((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (1, 3), (2, 3)),
        pytest.param(3, 3, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_resets_bound_the_view_whatever_the_number_of_blocks(contraction, hops, num_blocks, k):
    model = cached("khop", l_max=1, hops=hops, num_blocks=num_blocks, contraction=contraction)
    check_chain(hops >= k // 2 + 1, model, k)


@pytest.mark.parametrize("hops, k", [(1, 2), (2, 2), (2, 3), (2, 4)])
@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_resets_bound_the_view_at_l_max_2(contraction, hops, k):
    model = cached("khop", l_max=2, hops=hops, num_blocks=2, contraction=contraction)
    check_chain(hops >= k // 2 + 1, model, k)


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize(
    "hops, num_blocks",
    [
        *((1, 2), (2, 1), (3, 1), (4, 1), (5, 1), (2, 2), (3, 2), (4, 2)),
        *(pytest.param(h, 2, marks=pytest.mark.slow) for h in (5, 6)),
    ],
)
def test_dropping_the_steerables_needs_k_plus_1_hops(hops, num_blocks, k):
    model = cached("khop", l_max=1, hops=hops, num_blocks=num_blocks, contraction="drop")
    check_chain(hops >= k + 1, model, k)


# ---- stars and rotors: the degree counts


@pytest.mark.parametrize("l_max", range(1, 7))
@pytest.mark.parametrize("n", range(2, 7))
def test_star_turns_the_centre_feature_only_from_degree_n(n, l_max):
    model = cached("steerable", l_max=l_max, num_layers=2, feature_dim=4 * (l_max + 1) ** 2)
    redraw(model, 0)
    centre, turned = (hidden(model, star(n, a), layer=0)[0] for a in (0.0, 180.0 / n))
    change = ((centre - turned).norm() / centre.norm()).item()
    assert change > 1e-2 if l_max >= n else change < 1e-12


@pytest.mark.parametrize("l_max", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_rotor_needs_degree_n(n, l_max):
    model = cached("steerable", l_max=l_max, num_layers=3)
    check(l_max >= n, model, rotor(n), rotor(n, 180.0 / n))


@pytest.mark.parametrize("k, num_layers", [(2, 2), (3, 3), (3, 4)])
def test_rotor_needs_one_layer_more_than_axis_atoms(k, num_layers):
    model = cached("steerable", l_max=2, num_layers=num_layers)
    check(num_layers >= k + 1, model, rotor(2, k=k), rotor(2, 90.0, k=k))


@pytest.mark.parametrize("n, l_max", [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_rotor_in_two_hops_needs_degree_n(contraction, n, l_max):
    model = cached("khop", l_max=l_max, hops=2, num_blocks=1, contraction=contraction)
    check(l_max >= n, model, rotor(n), rotor(n, 180.0 / n))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_hop_never_sees_a_torsion(n):
    model = cached("khop", l_max=3, hops=1, num_blocks=2, contraction="bispectrum")
    check(False, model, rotor(n), rotor(n, 180.0 / n))


# ---- articulation: the geometry between local structures


def articulation(model, k):
    """Largest relative change of any atom's energy when one fragment turns, per draw."""
    changes = []
    for seed in range(SEEDS):
        redraw(model, seed)
        start = atomic_energies(model, articulated(k))
        turned = [atomic_energies(model, articulated(k, angle)) for angle in (50.0, 130.0)]
        largest = max((e - start).abs().max().item() for e in turned)
        changes.append(largest / start.abs().max().item())
    return max(changes)


@pytest.mark.parametrize("hops, num_blocks", [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)])
@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_articulation_is_unseen_from_a_linker_of_twice_the_hops(contraction, hops, num_blocks):
    model = cached("khop", l_max=1, hops=hops, num_blocks=num_blocks, contraction=contraction)
    assert articulation(model, 2 * hops - 1) > 1e-9
    for k in (2 * hops, 2 * hops + 1):
        assert articulation(model, k) <= 9e-15


@pytest.mark.parametrize("contraction", POLYNOMIAL)
def test_articulation_audit_at_l_max_2(contraction):
    model = cached("khop", l_max=2, hops=2, num_blocks=2, contraction=contraction)
    assert articulation(model, 3) > 1e-9
    assert articulation(model, 4) <= 9e-15


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_articulation_of_dropped_steerables(num_blocks):
    model = cached("khop", l_max=1, hops=2, num_blocks=num_blocks, contraction="drop")
    assert articulation(model, 1) > 1e-9
    assert articulation(model, 2) <= 9e-15


# ---- controls

ALL_SEEING = [
    ("steerable", {"l_max": 2, "num_layers": 4}),
    ("khop", {"l_max": 2, "hops": None, "num_layers": 3, "contraction": "bispectrum"}),
    ("khop", {"l_max": 2, "hops": 2, "num_blocks": 2, "contraction": "power"}),
    ("khop", {"l_max": 2, "hops": 2, "num_blocks": 2, "contraction": "bispectrum"}),
    # with pseudoscalars (0o) among the features
    (
        "khop",
        {
            "l_max": 1,
            "hops": None,
            "num_layers": 3,
            "contraction": "bispectrum",
            "parity": "both",
            "feature_dim": 64,
        },
    ),
]
SHORT_SIGHTED = [
    ("khop", {"l_max": 1, "hops": 1, "num_blocks": 2, "contraction": "power"}),
    ("khop", {"l_max": 1, "hops": 1, "num_blocks": 2, "contraction": "drop"}),
]


def proper_misfit(first, second):
    """Smallest root mean square distance in A after a rotation without inversion (Kabsch)."""
    a, b = (x.positions - x.positions.mean(axis=0) for x in (first, second))
    u, s, vt = np.linalg.svd(a.T @ b)
    s[-1] *= np.sign(np.linalg.det(u @ vt))
    return np.sqrt(max(0.0, (a**2).sum() + (b**2).sum() - 2 * s.sum()) / len(a))


def mirrored(atoms):
    image = atoms.copy()
    image.positions[:, 0] *= -1
    return image


@pytest.mark.parametrize("builder, options", ALL_SEEING)
def test_enantiomers_never_separate_but_diastereomers_do(builder, options):
    model = cached(builder, **options)
    molecule, turned = articulated(2), articulated(2, 75.0)
    # Its graph is a path without symmetry, so no relabelling can make the pairs congruent.
    assert proper_misfit(molecule, mirrored(molecule)) > 0.1
    check(False, model, molecule, mirrored(molecule))
    assert proper_misfit(molecule, turned) > 0.1
    assert proper_misfit(mirrored(molecule), turned) > 0.1
    check(True, model, molecule, turned)


@pytest.mark.parametrize("builder, options", ALL_SEEING + SHORT_SIGHTED)
def test_every_model_separates_a_generic_pair(builder, options):
    model = cached(builder, **options)
    check(True, model, k_chain(3), rattled(k_chain(3), seed=1, width=0.02))


@pytest.mark.parametrize("contraction", ["drop", *POLYNOMIAL])
def test_one_hop_with_invariants_sees_bond_angles_and_without_does_not(contraction):
    model = cached("khop", l_max=1, hops=1, num_blocks=2, contraction=contraction)
    check(contraction != "drop", model, k_chain(3, angle=120.0), k_chain(3, angle=110.0))


def test_draws_differ():
    # else the maximum over draws would be a single draw
    model = cached("steerable", l_max=1, num_layers=2)
    energies = set()
    for seed in range(SEEDS):
        redraw(model, seed)
        energies.add(energy(model, k_chain(2)))
    assert len(energies) == SEEDS
