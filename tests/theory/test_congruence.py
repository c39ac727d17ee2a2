"""Congruent or not: what every claim that two structures must be told apart rests on."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqplugin.errors import EqPluginError
from eqplugin.theory.congruence import congruence
from eqplugin.theory.counterexamples import congruent_pair, many_body_pair, star_edges
from eqplugin.theory.structures import articulated, k_chain, rotor, star


def moved(atoms, seed, mirror=False):
    """The same molecule elsewhere, turned, its atoms in another order."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(atoms))
    turn = Rotation.random(random_state=seed).as_matrix() * (-1 if mirror else 1)
    return Atoms(atoms.symbols[order], (atoms.positions @ turn.T + generator.normal(size=3))[order])


def mirrored(atoms):
    image = atoms.copy()
    image.positions[:, 0] *= -1
    return image


MOLECULES = {
    "ethanol": molecule("CH3CH2OH"),
    "methane": molecule("CH4"),
    "carbon dioxide": molecule("CO2"),
    "hydrogen cyanide": molecule("HCN"),
    "benzene": molecule("C6H6"),
    "hydrogen peroxide": molecule("H2O2"),
    "atom": Atoms("O", [[0.0, 0.0, 1.0]]),
    "chain": k_chain(4),
    "star": star(5),
}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*MOLECULES]), st.integers(0, 1000))
def test_a_molecule_is_congruent_with_itself_turned(name, seed):
    atoms = MOLECULES[name]
    assert congruence(atoms, moved(atoms, seed)) == "proper"
    chiral = name == "hydrogen peroxide"
    assert congruence(atoms, moved(atoms, seed, True)) == ("mirror" if chiral else "proper")
    generator = np.random.default_rng(seed)
    if len(atoms) > 1:
        changed = moved(atoms, seed)
        changed.positions[0] += 0.02 * (changed.positions[0] - changed.positions.mean(axis=0))
        changed.positions[-1] += generator.normal(size=3) * 0.02
        assert congruence(atoms, changed) == "none"


@pytest.mark.parametrize("order", [2, 3, 4])
def test_counterexamples_are_not_congruent(order):
    first, second = many_body_pair(order)
    assert congruence(first, second) == "none"
    assert congruence(first, moved(first, 3)) == "proper"


@pytest.mark.parametrize("kind", ["chiral", "nonchiral"])
def test_the_pairs_of_teaching_code_are_congruent_by_a_rotation(kind):
    assert congruence(*congruent_pair(kind)) == "proper"


@pytest.mark.parametrize("order", [2, 3, 4])
def test_counterexamples_share_their_fingerprints_up_to_that_order(order):
    def fingerprint(atoms, count):
        """Sorted Gram matrices of all tuples of neighbours, without their handedness."""
        from itertools import combinations, permutations

        vectors = atoms.positions[1:]
        prints = []
        for chosen in combinations(range(len(vectors)), count):
            grams = []
            for these in permutations(chosen):
                picked = vectors[list(these)]
                grams.append(tuple(np.round(picked @ picked.T, 6).ravel() + 0.0))
            prints.append(min(grams))
        return sorted(prints)

    first, second = many_body_pair(order)
    # "n-body" counts the centre as well: n = 2 are distances, n = 3 angles, n = 4 triangles
    for count in range(1, order):
        assert np.allclose(fingerprint(first, count), fingerprint(second, count))
    assert not np.allclose(fingerprint(first, order), fingerprint(second, order))


def test_enantiomers_and_diastereomers():
    chiral = articulated(2)
    assert congruence(chiral, mirrored(chiral)) == "mirror"
    assert congruence(chiral, articulated(2, 75.0)) == "none"


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_what_the_suite_tells_apart_differs(k):
    assert congruence(k_chain(k, "cis"), k_chain(k, "trans")) == "none"
    if k < 5:
        assert congruence(rotor(k), rotor(k, 180.0 / k)) == "none"
        assert congruence(rotor(k), rotor(k, 360.0 / k)) == "proper"
        assert congruence(star(k), star(k, 180.0 / k)) == "proper"  # only the centre's l = k turns


def test_other_species_and_other_shapes_differ():
    assert congruence(molecule("CO"), molecule("N2")) == "none"
    assert congruence(molecule("CO2"), Atoms("CO2", molecule("H2O").positions)) == "none"
    bent = Atoms("CO2", [[0, 0, 0], [0, 0, 1.2], [0, 1.2, 0.0]])
    assert congruence(molecule("CO2"), bent) == "none"
    assert congruence(Atoms(), Atoms()) == "proper"


def test_star_edges_join_the_centre_both_ways():
    first, _ = many_body_pair(2)
    assert star_edges(first).T.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    assert np.linalg.norm(first.positions, axis=1).max() == pytest.approx(1.3)


@pytest.mark.parametrize(
    "call, words",
    [(lambda: many_body_pair(5), "order=5"), (lambda: congruent_pair("both"), "kind='both'")],
)
def test_impossible_pairs_are_refused(call, words):
    with pytest.raises(EqPluginError, match=words):
        call()
