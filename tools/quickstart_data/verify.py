"""Recompute the labels of a dataset with the method that its record names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from eqplugin.data.errors import DataError
from quickstart_data.make import get_dataset
from quickstart_data.record import RECORD, read_record, sha256

__all__ = ["ENERGY_TOLERANCE", "FORCE_TOLERANCE", "FileVerdict", "Verdict", "verify_labels"]

ENERGY_TOLERANCE = 1e-5  # eV
FORCE_TOLERANCE = 1e-4  # eV/A
STRESS_TOLERANCE = 1e-6  # eV/A^3, 0.16 MPa

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FileVerdict:
    """Largest differences found in one file.

    Args:
        file: name
        frames: frames in the file
        checked: frames whose labels were recomputed
        problems: one sentence each; empty if the file is what its record says
        energy: largest ``|dE|`` (eV); ``None``, as below: not compared
        forces: largest component of ``|dF|`` (eV/A)
        stress: largest component of ``|dS|`` (eV/A^3); molecules have none
    """

    file: str
    frames: int
    checked: int
    problems: tuple[str, ...]
    energy: float | None = None
    forces: float | None = None
    stress: float | None = None


@dataclass(frozen=True)
class Verdict:
    """Outcome of :func:`verify_labels`."""

    name: str
    files: tuple[FileVerdict, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems, one sentence each."""
        return tuple(problem for file in self.files for problem in file.problems)

    @property
    def ok(self) -> bool:
        """Whether every label agrees and every file has its recorded hash."""
        return not self.problems


def _checked_indices(num_frames: int, every: int) -> list[int]:
    """Every ``every``-th frame; all of a file so short that one frame would stand for it."""
    return list(range(0, num_frames, every if num_frames > every else 1))


def _difference(old: Atoms, new: Atoms) -> dict[str, float]:
    """Largest absolute difference of each label of ``new``, infinite where ``old`` lacks it."""
    stored = old.calc.results if old.calc else {}
    difference = {}
    for name, value in new.calc.results.items():
        if name not in stored or np.shape(stored[name]) != np.shape(value):
            difference[name] = np.inf
        else:
            worst = float(np.max(np.abs(np.asarray(stored[name]) - value)))
            difference[name] = np.inf if np.isnan(worst) else worst
    return difference


def _verify_file(
    path: Path, entry: dict, label: Callable[[Atoms], Atoms], every: int, progress: Progress | None
) -> FileVerdict:
    if not path.exists():
        problem = f"{path} is recorded in {RECORD} but missing: make it again."
        return FileVerdict(path.name, 0, 0, (problem,))
    try:
        frames = read(path, ":", format="extxyz")
    except Exception as error:  # a reader may raise anything on a broken file
        raise DataError(f"{path} could not be read ({error}): make it again.") from error
    problems = []
    if sha256(path) != entry["sha256"]:
        problems.append(f"{path} has other bytes than {RECORD} records (sha256 differs).")
    limits = {"energy": ENERGY_TOLERANCE, "forces": FORCE_TOLERANCE, "stress": STRESS_TOLERANCE}
    worst: dict[str, float] = {}
    picked = _checked_indices(len(frames), every)
    for done, index in enumerate(picked, 1):
        for name, value in _difference(frames[index], label(frames[index])).items():
            worst[name] = max(worst.get(name, 0.0), value)
            if value > limits[name]:
                problems.append(
                    f"{path}, frame {index}: the stored {name} differs from the recomputed one by "
                    f"{value:.3g} (allowed {limits[name]:.0e}): make the file again."
                )
        if progress:
            progress(path.name, done, len(picked))
    return FileVerdict(path.name, len(frames), len(picked), tuple(problems), **worst)


def verify_labels(
    folder: str | Path, *, every: int = 10, progress: Progress | None = None
) -> Verdict:
    """Recompute labels of the frames in a folder with the method in its ``dataset.json``.

    This, not byte equality with a fresh run, is the test of a shipped dataset: MD is chaotic, so
    another processor may reach other frames from the same seed, but the label of a *given* frame
    is the same everywhere to the convergence of the method.

    Args:
        folder: holds ``dataset.json`` and its files
        every: recompute each ``every``-th frame (all frames of files no longer than that)
        progress: called with (file name, frames done, frames to do)

    Returns:
        largest differences per file and the problems found; a problem is a difference above
        1e-5 eV, 1e-4 eV/A or 1e-6 eV/A^3, a missing file, or bytes other than recorded

    Raises:
        DataError: no record, an unknown dataset, an unreadable file, or tblite missing
    """
    folder = Path(folder)
    if every < 1:
        raise DataError(f"--every is {every}: give 1 (every frame) or more.")
    record = read_record(folder)
    if record is None:
        raise DataError(
            f"{folder} holds no {RECORD}: give a folder that `tools/make_data.py make` filled."
        )
    dataset = get_dataset(record["name"])
    return Verdict(
        dataset.name,
        tuple(
            _verify_file(folder / name, entry, dataset.label, every, progress)
            for name, entry in record["files"].items()
        ),
    )
