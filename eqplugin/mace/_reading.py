"""MACE's reader of structure files, made to read what the rest of the package reads.

The stock one takes the forces of fixed atoms after ASE has set them to zero, reads the file
``mol`` where ``mol@2.xyz`` was named, and does not see labels that ASE moves into a calculator:
energies of isolated atoms become zero, and a dipole is trained with zero weight.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import ase.io
from ase import Atoms
from mace.data import utils

from eqplugin.exchange import exchanged
from eqplugin.mace.compat._rebind import rebind
from eqplugin.structures import read_frames

_STOCK = utils.load_from_xyz


def install() -> None:
    """Let training and data preparation read files as we do."""
    rebind(_STOCK, _load_from_xyz)


@functools.wraps(_STOCK)
def _load_from_xyz(file_path: str, key_specification: Any, *args: Any, **kwargs: Any) -> Any:
    def read(path: str, index: str = ":") -> list[Atoms]:
        frames = list(read_frames(path, index))
        for atoms in frames:
            _put_back(atoms, key_specification.info_keys, atoms.info)
            _put_back(atoms, key_specification.arrays_keys, atoms.arrays)
        return frames

    with exchanged((ase.io, "read", read)):
        return _STOCK(file_path, key_specification, *args, **kwargs)


def _put_back(atoms: Atoms, keys: Mapping[str, str], place: dict[str, Any]) -> None:
    """Copy results of the frame's calculator to where the file had them."""
    results = atoms.calc.results if atoms.calc else {}
    for key in keys.values():
        if key in results:
            place.setdefault(key, results[key])
