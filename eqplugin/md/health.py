"""Signs that dynamics have broken down: numbers that are none, heat, atoms inside each other."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.stats import chi2

from eqplugin.md.settings import MdSettings
from eqplugin.structures import atom_name, pair_description

# of the sum of the covalent radii. The shortest bonds there are have 0.8 of it or more; 0.5 is
# 0.31 A for two hydrogen atoms and 1.32 A for two of copper, walls that no temperature below the
# limit climbs.
_CLOSEST = 0.5
_HOTTEST = 3000.0  # K; starts from strained structures warm up


def temperature_limit(settings: MdSettings, degrees: int) -> float:
    """Temperature in K that healthy dynamics do not reach.

    Ten times the target and at least 3000 K; higher where so few degrees of freedom share the heat
    that a canonical ensemble would reach it within 1e12 samples.
    """
    if settings.max_temperature is not None:
        return settings.max_temperature
    rare = float(chi2.isf(1e-12, degrees)) / degrees
    return max(_HOTTEST, max(10.0, rare) * settings.temperature)


def too_hot(temperature: float, limit: float) -> str | None:
    """Say that a temperature (K) is above its limit or NaN, or return None."""
    if temperature <= limit:
        return None
    return f"the temperature is {temperature:.0f} K, above the limit of {limit:.0f} K"


def bad_numbers(atoms: Atoms, energy: float, forces: NDArray) -> str | None:
    """Say which number is NaN or infinite, or return None."""
    for name, values in (("force on", forces), ("position of", atoms.positions)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            return f"the {name} {atom_name(atoms, bad[0])} is NaN or infinite"
    if not np.isfinite(energy):
        return f"the energy is {energy}"
    return None


def close_pair(atoms: Atoms) -> str | None:
    """Describe the pair of atoms deepest within each other, or return None."""
    radii = covalent_radii[atoms.numbers]
    # a cutoff below any bond length: hardly a pair is found in a healthy structure
    i, j, distance = neighbor_list("ijd", atoms, float(2 * _CLOSEST * radii.max()))
    limit = _CLOSEST * (radii[i] + radii[j])
    if not (distance < limit).any():
        return None
    worst = int(np.argmin(distance / limit))
    a, b = sorted((int(i[worst]), int(j[worst])))
    return f"{pair_description(atoms, a, b, distance[worst])}, closer than {limit[worst]:.2f} A"
