"""Structures that tell models apart: two of them look alike to one model and not to another.

All lengths are in A, all angles in degrees. The default bond of 1.5 A goes with a cutoff of 2 A
(:data:`CUTOFF`): then only bonded atoms are neighbours, so a hop is a bond, and turning one part
against the other changes no neighbour list. :func:`star` is the exception for n >= 5, see there.

Sources: k-chains, Joshi et al., ICML 2023 ("On the expressive power of geometric graph neural
networks"); L-fold stars, the same; rotors and articulated chains, Wang et al., ICLR 2024 (geometry
between local structures), in the shape of real molecules (ethene, ethane, cumulenes, 2-butyne).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from eqplugin.errors import EqPluginError

__all__ = ["BOND", "CUTOFF", "articulated", "k_chain", "rotor", "star"]

BOND = 1.5
CUTOFF = 2.0

Array = NDArray[Any]


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise EqPluginError(f"{name}={value!r} is not valid: give an integer >= {least}.")


def _axis(k: int, bond: float) -> Array:
    """Positions of k atoms on the z axis, the first at the origin."""
    return np.outer(np.arange(k) * bond, [0.0, 0.0, 1.0])


def _spoke(bond: float, polar: ArrayLike, azimuth: ArrayLike) -> Array:
    """Vectors of length ``bond`` at one or more polar angles from +z and azimuths."""
    polar, azimuth = np.broadcast_arrays(*np.atleast_1d(np.deg2rad(polar), np.deg2rad(azimuth)))
    x, y = np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth)
    return bond * np.stack([x, y, np.cos(polar)], axis=-1)


def _regular(n: int, start: float) -> Array:
    """Azimuths of n equally spaced spokes."""
    return start + 360.0 / n * np.arange(n)


def k_chain(
    k: int,
    torsion: Literal["cis", "trans"] | float = "cis",
    bond: float = BOND,
    angle: float = 120.0,
) -> Atoms:
    """Return k collinear carbon atoms with a bent hydrogen at each end.

    The two members ``"cis"`` and ``"trans"`` differ only in the direction of one end against the
    other, which are k + 1 bonds apart: messages must travel that far to tell them apart.

    Args:
        k: number of collinear atoms, at least 2. The structure has k + 2 atoms.
        torsion: ``"cis"`` (0), ``"trans"`` (180) or the dihedral angle in degrees.
        bond: length of every bond in A.
        angle: bond angle at the two outer atoms of the chain in degrees; 180 is straight.

    Source: k-chains of Joshi et al., ICML 2023.
    """
    _require_at_least("k", k, 2)
    named = {"cis": 0.0, "trans": 180.0}
    dihedral = named.get(torsion, torsion) if isinstance(torsion, str) else torsion
    if isinstance(dihedral, str):
        raise EqPluginError(f"torsion={torsion!r} is not known: use 'cis', 'trans' or an angle.")
    chain = _axis(k, bond)
    first = chain[0] + _spoke(bond, angle, 0.0)
    last = chain[-1] + _spoke(bond, 180.0 - angle, dihedral)
    return Atoms("H" + f"C{k}" + "H", np.concatenate([first, chain, last]))


def star(n: int, angle: float = 0.0, bond: float = BOND) -> Atoms:
    """Return a centre (atom 0) with n equal spokes in the xy plane, turned about z.

    A feature of the centre of degree l < n cannot change when the spokes turn, whatever the
    angle: the average of the harmonics over the spokes has no component that turns with them.
    With n >= 5 the spokes stand closer to each other than the cutoff (at n = 6 their distance is
    the bond), so that only features of the centre after *one* convolution should be compared.

    Args:
        n: number of spokes, at least 2.
        angle: rotation of the spokes about z in degrees; 180 / n maps them halfway.
        bond: length of the spokes in A.

    Source: L-fold symmetric structures of Joshi et al., ICML 2023.
    """
    _require_at_least("n", n, 2)
    spokes = _spoke(bond, 90.0, _regular(n, angle))
    return Atoms(f"CH{n}", np.concatenate([np.zeros((1, 3)), spokes]))


def rotor(
    n: int, twist: float = 0.0, k: int = 2, bond: float = BOND, angle: float = 105.0
) -> Atoms:
    """Return a linear axis of k carbon atoms with n equal hydrogens at each end.

    With k = 2, n = 2 is a twisted ethene and n = 3 ethane; with k = 3, n = 2 is allene, with
    k = 4, n = 3 2-butyne. Twists of 0 (eclipsed) and 180 / n (staggered) differ the most. One end
    is seen from the axis as an n-fold star: a model needs features of degree n to tell its turn.

    Args:
        n: spokes per end, 1 to 4 (five would come into reach of each other).
        twist: rotation of the far end about the axis in degrees.
        k: atoms of the axis, at least 2; the ends are k - 1 bonds apart.
        bond: length of every bond in A.
        angle: angle between a spoke and the axis bond in degrees; 105 keeps the two ends out of
            reach of each other at k = 2, and four spokes apart.

    Source: real molecules of the kind (ethane, cumulenes, 2-butyne); Wang et al., ICLR 2024.
    """
    _require_at_least("n", n, 1)
    _require_at_least("k", k, 2)
    if n > 4:
        raise EqPluginError(
            f"n={n} is not valid: more than 4 spokes come within reach of each other."
        )
    axis = _axis(k, bond)
    near = axis[0] + _spoke(bond, angle, _regular(n, 0.0))
    far = axis[-1] + _spoke(bond, 180.0 - angle, _regular(n, twist))
    return Atoms(f"C{k}H{2 * n}", np.concatenate([axis, near, far]))


def articulated(k: int, angle: float = 0.0, bond: float = BOND) -> Atoms:
    """Return two rigid, chiral fragments of three atoms, joined by a linear linker of k atoms.

    Turning one fragment about the linker changes nothing within h hops of any atom if k >= 2 h:
    an h-hop invariant model then gives the same energy for every atom. At k = 2 h - 1 the middle
    atom of the linker sees one atom of each fragment, and with it the angle.

    Args:
        k: atoms of the linker, at least 1. The structure has k + 6 atoms: the near fragment
            (0, 1, 2), the linker, the far fragment (the last three).
        angle: rotation of the far fragment about the linker in degrees.
        bond: length of every bond in A.

    Source: articulated local structures, Wang et al., ICLR 2024 (k-hop invariant GNNs).
    """
    _require_at_least("k", k, 1)
    linker = _axis(k, bond)

    def fragment(azimuth: float, tilt: float) -> Array:
        """Three atoms in a row, bent twice out of every plane, leaving the linker upwards."""
        polar = [40.0 + tilt, 55.0, 25.0 + tilt]
        return _spoke(bond, polar, azimuth + np.array([0.0, 65.0, 160.0])).cumsum(axis=0)

    downwards = np.array([1.0, 1.0, -1.0])
    near = linker[0] + fragment(20.0, 3.0) * downwards
    far = linker[-1] + fragment(70.0 + angle, 0.0)
    return Atoms(f"HOHC{k}HHO", np.concatenate([near, linker, far]))
