"""Frames as MACE's trainer gets them: read as all of eqplugin reads them, no label out of sight."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import ase.data
from ase import Atoms
from mace.data import utils

from eqplugin.exchange import exchanged
from eqplugin.structures import read_frames

_STOCK = utils.load_from_xyz


def load_from_xyz(file_path: str, key_specification: Any, *rest: Any, **more: Any) -> tuple:
    """MACE's own, on frames whose labels are where it looks for them.

    ASE moves ``energy``, ``dipole``, ``free_energy``, ``charges`` and the like into a calculator,
    where MACE finds the energy and the forces of plain frames only: E0s of isolated atoms become
    zero, and a dipole is trained with zero weight.
    """

    def read(path: str, index: str) -> list[Atoms]:
        frames = list(read_frames(path, index))
        for atoms in frames:
            put_back(atoms, key_specification.info_keys, atoms.info)
            put_back(atoms, key_specification.arrays_keys, atoms.arrays)
        return frames

    reader = SimpleNamespace(io=SimpleNamespace(read=read), data=ase.data, Atoms=Atoms)
    with exchanged((utils, "ase", reader)):
        return _STOCK(file_path, key_specification, *rest, **more)


def put_back(atoms: Atoms, keys: Mapping[str, str], place: dict[str, Any]) -> None:
    """Copy results of the frame's calculator to where the file had them."""
    results = atoms.calc.results if atoms.calc else {}
    for key in keys.values():
        if key in results:
            place.setdefault(key, results[key])
