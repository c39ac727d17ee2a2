"""Which element is an atom type of LAMMPS? By the user's word, its label or its mass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError

MASS_TOLERANCE = 0.05  # g/mol; the nearest neighbours in the table, Co and Ni, are 0.24 apart


class TypeTable:
    """Atomic numbers of atom types, found when a type first occurs.

    Masses and labels may follow the line that names the model, and types that no atom has need no
    element.

    Args:
        lmp: LAMMPS, with a box.
        species: an element per type, in their order; None: by labels (``labelmap``) and masses.
        known: atomic numbers that the model knows; empty: any.

    Raises:
        EqPluginError: ``species`` holds something else than an element per type.
    """

    def __init__(self, lmp: Any, species: Sequence[str] | None, known: Sequence[int] = ()) -> None:
        self._lmp = lmp
        self._known = tuple(known)
        self._numbers = np.zeros(lmp.extract_setting("ntypes") + 1, dtype=int)
        if species is not None:
            self._numbers[1:] = self._given(species)

    def _given(self, species: Sequence[str]) -> list[int]:
        count = len(self._numbers) - 1
        if len(species) != count:
            raise EqPluginError(
                f"species={','.join(species)} names {len(species)} elements, but the LAMMPS box "
                f"has {count} atom types: give one per type, in their order."
            )
        for symbol in species:
            if not atomic_numbers.get(symbol):
                raise EqPluginError(f"species: {symbol!r} is not a chemical element.")
        return [atomic_numbers[symbol] for symbol in species]

    def numbers(self, types: NDArray) -> NDArray[np.int_]:
        """Atomic numbers of atoms, (num_atoms,), of their types.

        Raises:
            EqPluginError: naming the first type that is no element, or one foreign to the model.
        """
        for kind in np.unique(types[self._numbers[types] == 0]):
            self._numbers[kind] = self._element(int(kind))
        numbers = self._numbers[types]
        if self._known and not np.isin(numbers, self._known).all():
            kind = int(types[np.argmin(np.isin(numbers, self._known))])
            names = ", ".join(chemical_symbols[z] for z in sorted(self._known))
            raise EqPluginError(
                f"atom type {kind} is {chemical_symbols[self._numbers[kind]]}, which the model "
                f"does not know: it was trained for {names}."
            )
        return numbers

    def described(self) -> str:
        """Return the types whose element can be told now, such as ``"1 = Cu, 2 = Au"``."""
        found = []
        for kind in range(1, len(self._numbers)):
            try:
                number = self._numbers[kind] or self._element(kind)
            except EqPluginError:
                continue
            found.append(f"{kind} = {chemical_symbols[number]}")
        return ", ".join(found) or "have no element yet"

    def _element(self, kind: int) -> int:
        mass = self._mass(kind)
        nearest = int(np.nanargmin(np.abs(atomic_masses[1:] - mass))) + 1
        by_mass = nearest if abs(atomic_masses[nearest] - mass) <= MASS_TOLERANCE else 0
        labelled = self._labels().get(kind, 0)
        if labelled and by_mass and labelled != by_mass:
            raise EqPluginError(
                f"atom type {kind} is labelled {chemical_symbols[labelled]}, but its mass {mass:g} "
                f"is that of {chemical_symbols[by_mass]}: give species."
            )
        if not labelled and not by_mass:
            raise EqPluginError(
                f"atom type {kind} with the mass {mass:g} is no element (within "
                f"{MASS_TOLERANCE:g} g/mol): correct the mass, or give species."
            )
        return labelled or by_mass

    def _mass(self, kind: int) -> float:
        masses = self._lmp.extract_atom("mass")  # none where each atom has its own
        return float(masses[kind]) if masses else 0.0

    def _labels(self) -> dict[int, int]:
        """Types labelled with a chemical symbol, to its atomic number."""
        if not self._has_labels():
            return {}
        return {
            int(self._lmp.eval(f"label2type(atom,{symbol})")): number
            for number, symbol in enumerate(chemical_symbols)
            if number and self._lmp.eval(f"is_typelabel(atom,{symbol})")
        }

    def _has_labels(self) -> bool:
        self._lmp.set_show_error(False)
        try:
            self._lmp.eval("is_typelabel(atom,H)")
        except Exception:  # the wheel raises a bare Exception
            return False
        finally:
            self._lmp.set_show_error(True)
        return True
