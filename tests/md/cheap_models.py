"""Calculators that cost nothing, with ensembles known exactly or faults known in advance."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Springs(Calculator):
    """Springs between all atoms: invariant under translation and rotation, as a molecule is."""

    implemented_properties = ("energy", "forces")

    def __init__(self, start: Atoms, stiffness: float = 5.0):
        super().__init__()
        self.stiffness = stiffness
        self.first, self.second = np.triu_indices(len(start), 1)
        self.rest = np.linalg.norm(self._vectors(start), axis=1)

    def _vectors(self, atoms):
        return atoms.positions[self.second] - atoms.positions[self.first]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = self._vectors(atoms)
        lengths = np.linalg.norm(vectors, axis=1)
        stretch = lengths - self.rest
        pull = (self.stiffness * stretch / lengths)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, self.first, pull)
        np.add.at(forces, self.second, -pull)
        self.results = {"energy": 0.5 * self.stiffness * (stretch**2).sum(), "forces": forces}


class Wells(Calculator):
    """Every atom in a harmonic well of its own: an Einstein crystal."""

    implemented_properties = ("energy", "forces")

    def __init__(self, start: Atoms, stiffness: float = 2.0):
        super().__init__()
        self.centres, self.stiffness = start.positions.copy(), stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = atoms.positions - self.centres
        energy = 0.5 * self.stiffness * float((away**2).sum())
        self.results = {"energy": energy, "forces": -self.stiffness * away}


class IdealGas(Calculator):
    """No forces at all; the pressure is kinetic."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}


class Fault(Wells):
    """An Einstein crystal that goes wrong at a given call: nan, hot, or close."""

    def __init__(self, start: Atoms, kind: str, at_call: int):
        super().__init__(start)
        self.kind, self.at_call, self.calls = kind, at_call, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls < self.at_call:
            return
        forces = self.results["forces"].copy()
        if self.kind == "nan":
            forces[1, 2] = np.nan
        elif self.kind == "energy":
            self.results["energy"] = float("inf")
        elif self.kind == "hot":
            forces += 50.0 * np.sign(atoms.get_momenta())
        elif self.kind == "close":  # atom 1 is drawn into atom 0
            forces[1] = 0.2 * (atoms.positions[0] - atoms.positions[1])
        self.results["forces"] = forces


def cluster(symbols: str = "Ar8", spacing: float = 3.0) -> Atoms:
    """Atoms on a cubic grid, not periodic."""
    atoms = Atoms(symbols)
    side = int(np.ceil(len(atoms) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), axis=-1).reshape(-1, 3)
    atoms.positions = spacing * grid[: len(atoms)]
    return atoms
