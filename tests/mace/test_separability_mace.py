"""Which MACE models tell the ends of k-chains apart: every 'must' has its 'must not'.

Rows of the separability table for MACE; the metric is |E0 - E1| / |E(noisy) - E0| in float64.
"""

import pytest
from mace_under_test import MUST, MUST_NOT, RESIDUAL, cached, energy, rattled, redraw, signals

from eqplugin.theory.structures import k_chain, rotor

SEEDS = 4
CHAINS = (2, 3, 4, pytest.param(5, marks=pytest.mark.slow))
LAYERS = (1, 2, 3, 4, 5, pytest.param(6, marks=pytest.mark.slow))
SIX = pytest.param(3, 6, marks=pytest.mark.slow)
SCALARS, VECTORS = "8x0e", "8x0e+8x1o"


def check(must_separate, model, first, second):
    found = signals(model, first, second, SEEDS)
    if must_separate:
        assert max(found) > MUST  # one draw may be blind by chance, all cannot
    else:
        assert max(found) < MUST_NOT


def check_chain(must_separate, model, k):
    # Signals fall with every atom: at k >= 4 shorter bonds, deeper inside the cutoff, help.
    bond = 1.5 if k < 4 else 1.2
    check(must_separate, model, k_chain(k, "cis", bond), k_chain(k, "trans", bond))


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_scalars_alone_never_separate(layers, k):
    check_chain(False, cached("steerable", SCALARS, num_interactions=layers, max_ell=1), k)


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_correlation_2_meets_in_the_middle(layers, k):
    model = cached("steerable", VECTORS, num_interactions=layers, max_ell=1)
    check_chain(layers >= k // 2 + 1, model, k)


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize("layers", LAYERS)
def test_correlation_1_needs_k_plus_1_layers(layers, k):
    model = cached("steerable", VECTORS, num_interactions=layers, max_ell=1, correlation=1)
    check_chain(layers >= k + 1, model, k)


@pytest.mark.parametrize("k", CHAINS)
@pytest.mark.parametrize("hops, layers", [(1, 2), (2, 2), (3, 3), (1, 4), (2, 4), SIX])
def test_resets_bound_the_view_whatever_the_number_of_layers(hops, layers, k):
    model = cached("khop", VECTORS, hops, num_interactions=layers, max_ell=1)
    check_chain(hops >= k // 2 + 1, model, k)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("hops", [1, 2])
def test_resets_with_unequal_multiplicities_and_residual_first_layer(hops, k):
    model = cached(
        "khop",
        "7x0e+3x1o+2x2e",
        hops,
        num_interactions=4,
        interaction_cls_first=RESIDUAL,
    )
    check_chain(hops >= k // 2 + 1, model, k)


@pytest.mark.parametrize("hops", [1, 2])
def test_an_unfinished_last_block_sees_no_more(hops):
    model = cached("khop", VECTORS, hops, num_interactions=3, max_ell=1)
    check_chain(hops == 2, model, 3)


@pytest.mark.parametrize("n, irreps", [(1, SCALARS), (1, VECTORS), (2, VECTORS), (2, "8x0e+5x2e")])
def test_rotor_needs_hidden_degree_n(n, irreps):
    model = cached("steerable", irreps, num_interactions=2, max_ell=3)
    degree = 0 if "o" not in irreps and "2e" not in irreps else (2 if "2e" in irreps else 1)
    check(degree >= n, model, rotor(n), rotor(n, 180.0 / n))


def test_one_hop_sees_angles_in_the_neighbourhood():
    model = cached("khop", SCALARS, 1, num_interactions=2, max_ell=1)
    check(True, model, k_chain(3, angle=120.0), k_chain(3, angle=110.0))
    check(True, model, k_chain(3), rattled(k_chain(3), seed=1, width=0.02))


def test_draws_differ():
    # else the maximum over draws would be a single draw
    model = cached("steerable", VECTORS, num_interactions=2, max_ell=1)
    energies = set()
    for seed in range(SEEDS):
        redraw(model, seed)
        energies.add(energy(model, k_chain(2)))
    assert len(energies) == SEEDS
