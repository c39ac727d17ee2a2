"""Energies along a given path, such as a dihedral or a normal mode, beside the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import EqPluginError
from eqplugin.measure.labels import frames_with_labels
from eqplugin.measure.physics.check import Check, energy_and_forces

__all__ = ["Scan", "ScanCurve", "read_scan", "scan_checks", "scan_curve"]

COORDINATE = "scan"  # info key of the angle or displacement of a frame
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Scan:
    """Frames along a path."""

    name: str  # of the file
    frames: list[Atoms]  # in the order of the path, one composition
    # (num_frames,); `info["scan"]` where every frame has it, else the frame's number
    coordinate: np.ndarray
    reference: np.ndarray | None  # eV, (num_frames,); None where a frame has no energy


@dataclass(frozen=True, eq=False)
class ScanCurve:
    """A model's energy along a scan."""

    scan: Scan  # what was followed
    energy: np.ndarray  # eV, (num_frames,), total

    @property
    def origin(self) -> int:
        """The frame where the curves are zero: the lowest of the reference, else of the model."""
        known = self.energy if self.scan.reference is None else self.scan.reference
        return int(np.argmin(known))

    def relative(self, energy: np.ndarray) -> np.ndarray:
        """Energies less that of :attr:`origin`, eV."""
        return energy - energy[self.origin]

    def to_json(self) -> dict[str, object]:
        """The curve and what it was followed along."""
        reference = self.scan.reference
        return {
            "name": self.scan.name,
            "coordinate": self.scan.coordinate.tolist(),
            "energy": self.energy.tolist(),
            "reference": None if reference is None else reference.tolist(),
        }


def read_scan(path: Path) -> Scan:
    """Read a scan: three frames or more of the same atoms, with reference energies or without."""
    labelled = frames_with_labels(path)
    if len(labelled) < _FEWEST:
        raise EqPluginError(f"{path} holds {len(labelled)} frames: a scan needs {_FEWEST} or more.")
    frames = [frame.atoms for frame in labelled]
    for index, atoms in enumerate(frames):
        if not np.array_equal(atoms.numbers, frames[0].numbers):
            raise EqPluginError(
                f"{path}, frame {index}: its atoms differ from those of frame 0, so the energies "
                f"have no common zero: give the frames of one path."
            )
    energies = [frame.energy for frame in labelled]
    known = None if None in energies else np.array(energies, float)
    return Scan(path.stem, frames, _coordinate(frames), known)


def _coordinate(frames: list[Atoms]) -> np.ndarray:
    try:
        return np.array([float(atoms.info[COORDINATE]) for atoms in frames])
    except (KeyError, TypeError, ValueError):
        return np.arange(len(frames), dtype=float)


def scan_curve(calculator: Calculator, scan: Scan) -> ScanCurve:
    """Energies of a model along a scan."""
    return ScanCurve(
        scan, np.array([energy_and_forces(atoms, calculator)[0] for atoms in scan.frames])
    )


def scan_checks(curve: ScanCurve) -> list[Check]:
    """Height of the curve, and its distance from the reference where there is one.

    No threshold: what an error may be is the user's to say.
    """
    name, scan = curve.scan.name, curve.scan
    energy = 1e3 * curve.relative(curve.energy)
    checks = [Check(f"{name}: highest", float(energy.max()), None, "meV", "above the lowest frame")]
    if scan.reference is not None:
        reference = 1e3 * curve.relative(scan.reference)
        error = energy - reference
        rmse = float(np.sqrt(np.mean((error - error.mean()) ** 2)))
        checks += [
            Check(f"{name}: error there", float(energy.max() - reference.max()), None, "meV",
                  "highest of the model less highest of the reference"),
            Check(f"{name}: RMSE", rmse, None, "meV", "after the mean error is taken out"),
        ]  # fmt: skip
    return checks
