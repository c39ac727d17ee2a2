"""The structures are what the separability tests take them for."""

import numpy as np
import pytest

from eqplugin.errors import EqPluginError
from eqplugin.theory.structures import BOND, CUTOFF, articulated, k_chain, rotor, star


def distances(atoms):
    return np.linalg.norm(atoms.positions[:, None] - atoms.positions[None], axis=-1)


def bonds(atoms):
    """Pairs within the cutoff; none may be a near miss."""
    d = distances(atoms)[np.triu_indices(len(atoms), 1)]
    assert ((d < BOND + 1e-9) | (d > CUTOFF + 0.04)).all()
    first, second = np.triu_indices(len(atoms), 1)
    return {(i, j) for i, j, r in zip(first, second, d, strict=True) if r < CUTOFF}


@pytest.mark.parametrize("k", range(2, 7))
def test_k_chain_is_a_path_of_bonds(k):
    cis, trans = k_chain(k, "cis"), k_chain(k, "trans")
    assert bonds(cis) == bonds(trans) == {(i, i + 1) for i in range(k + 1)}
    assert str(cis.symbols) == str(trans.symbols)
    middle = cis.positions[1:-1]
    assert np.linalg.matrix_rank(middle - middle[0], tol=1e-9) == 1
    assert distances(trans)[0, -1] > distances(cis)[0, -1] + 0.2
    for atoms, torsion in ((cis, 0.0), (trans, 180.0)):
        assert atoms.get_angle(0, 1, 2) == pytest.approx(120.0)
        assert atoms.get_angle(k - 1, k, k + 1) == pytest.approx(120.0)
        if k == 2:
            assert atoms.get_dihedral(0, 1, 2, 3) == pytest.approx(torsion, abs=1e-5)


def test_k_chain_takes_an_angle():
    assert np.allclose(k_chain(3, 180.0).positions, k_chain(3, "trans").positions)
    assert k_chain(2, 40.0).get_dihedral(0, 1, 2, 3) == pytest.approx(40.0)


@pytest.mark.parametrize("n", range(2, 7))
def test_star(n):
    first, turned = star(n), star(n, 180.0 / n)
    assert np.allclose(distances(first)[0, 1:], BOND)
    assert not np.allclose(first.positions, turned.positions)
    # a full period maps the star onto itself
    spokes = star(n, 360.0 / n).positions[1:]
    assert np.allclose(np.roll(spokes, 1, axis=0), first.positions[1:])
    if n <= 4:
        assert bonds(first) == bonds(turned) == {(0, i) for i in range(1, n + 1)}
    else:
        assert distances(first)[1, 2] < CUTOFF  # as the docstring says


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_rotor_keeps_its_bonds_when_twisted(n, k):
    expected = {(i, i + 1) for i in range(k - 1)}
    expected |= {(0, k + i) for i in range(n)} | {(k - 1, k + n + i) for i in range(n)}
    for twist in np.linspace(0.0, 180.0 / n, 5):
        assert bonds(rotor(n, twist, k)) == expected
    closest = [distances(rotor(n, t, k))[k : k + n, k + n :].min() for t in (0.0, 180.0 / n)]
    assert closest[1] > closest[0] + 0.05
    assert np.allclose(
        np.sort(distances(rotor(n, 360.0 / n, k)), axis=None),
        np.sort(distances(rotor(n, 0.0, k)), axis=None),
    )


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_articulated_turns_one_rigid_fragment(k):
    start = articulated(k)
    path = {(0, 1), (1, 2), (0, 3)} | {(3 + i, 4 + i) for i in range(k - 1)}
    path |= {(k + 2, k + 3), (k + 3, k + 4), (k + 4, k + 5)}
    near, far = slice(0, k + 3), slice(3, k + 6)
    for angle in range(0, 360, 15):
        atoms = articulated(k, angle)
        assert bonds(atoms) == path
        for part in (near, far):
            assert np.allclose(distances(atoms)[part, part], distances(start)[part, part])
        if angle:
            change = distances(atoms)[:3, k + 3 :] - distances(start)[:3, k + 3 :]
            assert abs(change).max() > 0.05
    for fragment in (start.positions[near][[0, 1, 2, 3]], start.positions[far][-4:]):
        volume = np.linalg.det(fragment[1:] - fragment[0])
        assert abs(volume) > 0.3  # not planar


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: k_chain(1), "k=1"),
        (lambda: k_chain(2, "gauche"), "torsion='gauche'"),
        (lambda: star(1), "n=1"),
        (lambda: rotor(0), "n=0"),
        (lambda: rotor(5), "n=5"),
        (lambda: rotor(2, k=1), "k=1"),
        (lambda: articulated(0), "k=0"),
    ],
)
def test_impossible_structures_are_refused(make, words):
    with pytest.raises(EqPluginError, match=words):
        make()
