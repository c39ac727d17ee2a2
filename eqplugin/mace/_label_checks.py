"""Labels of single frames as MACE reads them: there, of the right shape, finite, weighted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from eqplugin.mace._losses import Loss
from eqplugin.mace._neighborhood import own_volume

PER_ATOM = ("forces", "charges")  # columns of the file; all others belong to the frame
# what MACE's AtomicData takes; N stands for the number of atoms
_SHAPES: dict[str, tuple[tuple[int | str, ...], ...]] = {
    "energy": ((),),
    "forces": (("N", 3),),
    "stress": ((6,), (3, 3), (9,)),
    "virials": ((6,), (3, 3), (9,)),
    "dipole": ((3,),),
    "polarizability": ((9,), (3, 3)),
    "charges": (("N",),),
}
LABELS = tuple(_SHAPES)
_SIZES = {
    "energy": "one number",
    "forces": "three numbers per atom",
    "stress": "6 (Voigt) or 9 numbers",
    "virials": "6 (Voigt) or 9 numbers",
    "dipole": "three numbers",
    "polarizability": "9 numbers",
    "charges": "one number per atom",
}


def value_of(atoms: Atoms, label: str, key: str) -> Any:
    """What a frame has under a key, in the place where MACE looks for the label; else None.

    ASE moves some keys (``energy``, ``dipole``, ``free_energy``, ...) into a calculator; they are
    put back before MACE reads the frame, see `eqplugin.mace._reading`.
    """
    place = atoms.arrays if label in PER_ATOM else atoms.info
    return place[key] if key in place else _moved(atoms).get(key)


def _moved(atoms: Atoms) -> Mapping[str, Any]:
    return atoms.calc.results if atoms.calc else {}


def _numbers(value: Any) -> NDArray[np.float64] | None:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":  # nor True, which is what a key without a value becomes
            return None
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def label_fault(label: str, value: Any, num_atoms: int, used: bool = True) -> str | None:
    """What is wrong with a label, as the end of a sentence; None where nothing is.

    Args:
        label: one of `LABELS`.
        value: as it stands in the file.
        num_atoms: of the frame.
        used: whether the loss reads it; if not, NaN does no harm.
    """
    array, plural = _numbers(value), label.endswith("s") and label != "stress"
    have, are = ("have", "are") if plural else ("has", "is")
    if array is None:
        return f"the {label} {are} not {_SIZES[label]}; correct this or remove the frame"
    shapes = [tuple(num_atoms if n == "N" else n for n in shape) for shape in _SHAPES[label]]
    if array.shape not in shapes:
        return (
            f"the {label} {have} the shape {array.shape} instead of {_SIZES[label]}; correct this"
        )
    if used and not np.isfinite(array).all():
        return f"the {label} {are} NaN or infinite; remove the label or the frame"
    return None


def weight_fault(name: str, value: Any) -> str | None:
    """What is wrong with a weight of a frame, as the end of a sentence; None where nothing is."""
    array = _numbers(value)
    shapes: tuple[tuple[int, ...], ...] = ((),)
    if "dipole" in name:
        shapes = ((), (3,))
    elif "polarizability" in name:
        shapes = ((), (3, 3))
    if array is None or array.shape not in shapes:
        return f"{name} is not a number; correct it"
    if not np.isfinite(array).all() or (array < 0).any():
        return f"{name} is {value}; give a finite weight >= 0"
    return None


def frame_faults(atoms: Atoms, keys: Mapping[str, str], needed: Sequence[str]) -> Iterable[str]:
    """Yield what would make MACE stop, or train on NaN, as ends of sentences.

    Args:
        atoms: a frame.
        keys: label -> key in the file.
        needed: labels that the loss reads.
    """
    for label, key in keys.items():
        value = value_of(atoms, label, key)
        fault = None if value is None else label_fault(label, value, len(atoms), label in needed)
        if fault:
            yield f"{fault} (key '{key}')."
    for name, value in atoms.info.items():
        if name == "config_weight" or (name.startswith("config_") and name.endswith("_weight")):
            fault = weight_fault(name, value)
            if fault:
                yield f"{fault}."
    with_stress = "stress" in needed and value_of(atoms, "stress", keys["stress"]) is not None
    if with_stress and own_volume(atoms.cell.array) == 0.0:
        yield "it has a stress, but its cell has no volume; correct the cell or the label."


def ignored_weights(frames: Iterable[Atoms], loss: Loss, name: str) -> list[str]:
    """Sentences (without the file) about weights of frames that the loss does not heed."""
    deaf = {f"config_{label}_weight" for label in loss.labels if label not in loss.own_weight}
    if any(label not in loss.config_weight for label in loss.labels):
        deaf.add("config_weight")
    found = Counter(
        key
        for atoms in frames
        for key in deaf
        if key in atoms.info and np.any(np.asarray(atoms.info[key]) != 1.0)
    )
    terms = ", ".join(label for label in loss.labels if label not in loss.config_weight)
    return [
        f"{count} frames have a {key} other than 1, which --loss {name} ignores"
        f"{f' for the {terms}' if key == 'config_weight' else ''}: use --loss weighted or stress, "
        f"or remove it."
        for key, count in sorted(found.items())
    ]
