"""The sites of the table of stabilisers, as labelled vectors from the centre, and the table."""

import numpy as np

from eqplugin.theory.structures import star

_rng = np.random.default_rng(5)
_TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.8
_GENERIC = _rng.normal(size=(5, 3)) * 1.2
_GOLDEN = (1 + 5**0.5) / 2

# name: (vectors in A, Schoenflies symbol)
SITES = {
    "generic": (_GENERIC, "C1"),
    "planar generic": (_GENERIC * [1.0, 1.0, 0.0], "Cs"),
    "linear, C_inf_v": (np.array([[0, 0, 1.4], [0, 0, -1.9]]), "C_inf_v"),
    "linear, D_inf_h": (np.array([[0, 0, 1.5], [0, 0, -1.5]]), "D_inf_h"),
    "2-star": (star(2).positions[1:], "D_inf_h"),
    **{f"{n}-star": (star(n).positions[1:], f"D{n}h") for n in (3, 4, 5, 6)},
    "C3v": (_TETRAHEDRON[:3], "C3v"),
    "tetrahedral": (_TETRAHEDRON, "Td"),
    "octahedral": (1.5 * np.array([*np.eye(3), *-np.eye(3)]), "Oh"),
}
ICOSAHEDRAL = np.array(
    [np.roll([0, a, b * _GOLDEN], n) for n in range(3) for a in (1, -1) for b in (1, -1)]
)

# dim V_l^Stab for l = 0..6: SO(3), and O(3) with parity (-1)^l
TABLE = {
    "generic": ((1, 3, 5, 7, 9, 11, 13), (1, 3, 5, 7, 9, 11, 13)),
    "planar generic": ((1, 3, 5, 7, 9, 11, 13), (1, 2, 3, 4, 5, 6, 7)),
    "linear, C_inf_v": ((1, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1, 1)),
    "linear, D_inf_h": ((1, 0, 1, 0, 1, 0, 1), (1, 0, 1, 0, 1, 0, 1)),
    "2-star": ((1, 0, 1, 0, 1, 0, 1), (1, 0, 1, 0, 1, 0, 1)),
    "3-star": ((1, 0, 1, 1, 2, 1, 3), (1, 0, 1, 1, 1, 1, 2)),
    "4-star": ((1, 0, 1, 0, 2, 1, 2), (1, 0, 1, 0, 2, 0, 2)),
    "5-star": ((1, 0, 1, 0, 1, 1, 2), (1, 0, 1, 0, 1, 1, 1)),
    "6-star": ((1, 0, 1, 0, 1, 0, 2), (1, 0, 1, 0, 1, 0, 2)),
    "C3v": ((1, 1, 1, 3, 3, 3, 5), (1, 1, 1, 2, 2, 2, 3)),
    "tetrahedral": ((1, 0, 0, 1, 1, 0, 2), (1, 0, 0, 1, 1, 0, 1)),
    "octahedral": ((1, 0, 0, 0, 1, 0, 1), (1, 0, 0, 0, 1, 0, 1)),
}

# surviving dimensions of D = 100 at L = 1..4, natural parity
BUDGET_TABLE = {
    "generic": (100, 100, 100, 100),
    "planar generic": (75, 67, 64, 60),
    "linear, C_inf_v": (50, 34, 28, 20),
    "linear, D_inf_h": (25, 23, 16, 12),
    "3-star": (25, 23, 22, 16),
    "4-star": (25, 23, 16, 16),
    "tetrahedral": (25, 12, 16, 12),
    "octahedral": (25, 12, 10, 8),
}
MULTIPLICITIES = {1: (25, 25), 2: (12, 11, 11), 3: (10, 6, 6, 6), 4: (4, 4, 4, 4, 4)}
