"""MACE's reader of structure files, made to read what the rest of the package reads.

The stock one takes the forces of fixed atoms after ASE has set them to zero, and reads the file
``mol`` where ``mol@2.xyz`` was named.
"""

from __future__ import annotations

import functools
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
def _load_from_xyz(*args: Any, **kwargs: Any) -> Any:
    with exchanged((ase.io, "read", _read)):
        return _STOCK(*args, **kwargs)


def _read(path: str, index: str = ":") -> list[Atoms]:
    return list(read_frames(path, index))
