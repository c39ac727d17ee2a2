"""Check one file: read it frame by frame, collect problems and a summary."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from eqplugin.data._labels import (
    Labels,
    is_valid_label,
    label_faults,
    label_keys,
    same_numbers,
)
from eqplugin.data._magnitudes import (
    FAR,
    MANY,
    MAX_FORCE,
    MAX_FORCE_RMS,
    MAX_STRESS,
    MIN_FORCE_RMS,
    SPAN,
    Energy,
    energy_of,
    outlying,
    widest_span,
)
from eqplugin.data.errors import Problem
from eqplugin.data.report import FileSummary
from eqplugin.structures import ReadError, read_frames, structure_faults

SHOWN = 5  # of a kind; the rest is counted, so that a broken file does not fill the screen
NET_FORCE = 0.01  # eV/A per atom; sound references stay below 0.003
# code -> level, and what such frames are or have
_ODDITIES = {
    "duplicate": ("warning", "repeat an earlier frame of the file; remove the copies"),
    "zero_forces": (
        "warning",
        "have forces that are all exactly zero, which only a perfect crystal has",
    ),
    "net_force": (
        "warning",
        f"have a net force above {NET_FORCE} eV/A per atom; a model that conserves momentum "
        "cannot fit it",
    ),
    "large_forces": (
        "warning",
        f"have forces above {MAX_FORCE:g} eV/A; check the unit, or remove frames that no model is "
        "to learn from",
    ),
    "large_stress": (
        "warning",
        f"have a stress above {MAX_STRESS:g} eV/A^3; convert it if it is in GPa (divide by 160.2) "
        "or kbar (by 1602)",
    ),
    "other_energies": (
        "warning",
        f"have an energy more than {FAR:g} eV per atom from others of the same composition; use "
        "one method and one unit",
    ),
    "mace_keys": (
        "note",
        "have labels under MACE's keys (REF_energy, REF_forces, REF_stress); mace-train reads them "
        "as they are, nequip-train with the key mapping {REF_energy: total_energy, REF_forces: "
        "forces, REF_stress: stress}",
    ),
    "two_labels": (
        "warning",
        "have other labels under REF_energy, REF_forces or REF_stress than under the plain keys; "
        "mace-train reads the former, nequip-train the latter, so name yours with --key",
    ),
    "box": ("note", "have a cell although pbc is F; the cell is ignored"),
    "isolated": ("warning", "are isolated atoms; move them to a separate file"),
}
_NAMED = {"energy": "an energy", "forces": "forces", "stress": "a stress"}
_LIKE = {"energy": "energ", "forces": "force", "stress": "stress"}
_SHORT = {"energy": ("E", "e"), "forces": ("F", "f"), "stress": ("S",)}


def _frames_phrase(frames: list[int], total: int) -> str:
    """Phrase such as ``"2 of 9 frames (first: 3, 4)"``."""
    if len(frames) == total:
        return f"all {total} frames"
    first = ", ".join(str(frame) for frame in frames[:SHOWN])
    return f"{len(frames)} of {total} frames (first: {first})"


class FileCheck:
    """State of one file's check; messages name the file as the user did."""

    def __init__(
        self, path: str, labels: Labels, required: tuple[str, ...], ase_args: Mapping[str, Any]
    ) -> None:
        self.path, self.labels, self.required, self.ase_args = path, labels, required, ase_args
        self.summary = FileSummary(path)
        self.problems: list[Problem] = []
        self.digests: dict[bytes, int] = {}  # geometry digest -> first frame that has it
        self.runs: set[tuple] = set()  # trajectories named by the frames' info
        self.symbols: dict[str, int] = {}  # chemical symbol -> first frame that has it
        self._faults: Counter[str] = Counter()
        self._missing: dict[str, list[int]] = defaultdict(list)
        self._keys_when_missing: dict[str, Counter[str]] = defaultdict(Counter)
        self._frames_with: dict[str, list[int]] = defaultdict(list)
        self._atoms: list[int] = []
        self.energies: list[Energy] = []
        self._squares, self._components, self._largest = 0.0, 0, 0.0
        self._periodic: set[str] = set()

    def run(self) -> FileCheck:
        """Read and check the whole file; never raises for what the file holds."""
        try:
            for index, atoms in enumerate(read_frames(self.path, **self.ase_args)):
                self._check_frame(atoms, index)
        except ReadError as error:
            problem = Problem("error", error.code, str(error), self.path, error.frame)
            self.problems.append(problem)
        self._finish()
        return self

    def _add(self, level: str, code: str, text: str, frame: int | None = None) -> None:
        self.problems.append(Problem(level, code, f"{self.path}{text}", self.path, frame))

    # --- one frame -----------------------------------------------------------------------------

    def _check_frame(self, atoms: Atoms, index: int) -> None:
        self._atoms.append(len(atoms))
        self._describe(atoms, index)
        found, conflicts = self.labels.find(atoms)
        self._note_mace_keys(atoms, found, index)
        for fault in (*structure_faults(atoms), *label_faults(atoms, found)):
            self._add_frame_error(*fault, index)
        for label, keys in conflicts.items():
            sentence = (
                f"{' and '.join(map(repr, keys))} both give the {label} but differ, and "
                f"'{keys[-1]}' would be used; list the other in exclude_keys (`--exclude`)."
            )
            self._add_frame_error(f"conflict_{label}", sentence, index)
        self._note_missing(atoms, found, index)
        self._measure(atoms, found, index)

    def _add_frame_error(self, code: str, sentence: str, frame: int) -> None:
        self._faults[code] += 1
        if self._faults[code] <= SHOWN:
            self._add("error", code, f", frame {frame}: {sentence}", frame)

    def _describe(self, atoms: Atoms, index: int) -> None:
        """What the frame is: species, periodicity, trajectory, geometry digest."""
        for number in np.unique(atoms.numbers):
            self.symbols.setdefault(chemical_symbols[number], index)
        pbc = atoms.pbc
        self._periodic.add("yes" if pbc.all() else "partly" if pbc.any() else "no")
        if not pbc.any() and atoms.cell.array.any():
            self._frames_with["box"].append(index)
        if len(atoms) == 1 and not pbc.any():
            self._frames_with["isolated"].append(index)
        if "traj_seed" in atoms.info:
            settings = atoms.info.get("temperature_K", atoms.info.get("config_type"))
            formula = atoms.get_chemical_formula()
            self.runs.add((formula, str(settings), str(atoms.info["traj_seed"])))
        digest = _geometry_digest(atoms)
        if digest in self.digests:
            self._frames_with["duplicate"].append(index)
        else:
            self.digests[digest] = index

    def _note_mace_keys(self, atoms: Atoms, found: Mapping[str, object], index: int) -> None:
        for label, key in self.labels.fallbacks.items():
            value = (atoms.arrays if label == "forces" else atoms.info).get(key)
            if value is None:
                continue
            code = "mace_keys" if same_numbers(value, found[label]) else "two_labels"
            if index not in self._frames_with[code][-1:]:
                self._frames_with[code].append(index)

    def _note_missing(self, atoms: Atoms, found: Mapping[str, object], index: int) -> None:
        keys = label_keys(atoms)
        for key in keys:
            self.summary.labels[key] = self.summary.labels.get(key, 0) + 1
        for label in self.required:
            if label not in found:
                self._missing[label].append(index)
                self._keys_when_missing[label].update(keys)

    def _measure(self, atoms: Atoms, found: Mapping[str, object], index: int) -> None:
        """Energy and force statistics of usable labels."""
        size = len(atoms)
        if not size:
            return
        if is_valid_label("energy", found.get("energy"), size):
            energy = float(np.ravel(np.asarray(found["energy"]))[0])
            self.energies.append(energy_of(index, energy, atoms))
        stress = found.get("stress")
        if is_valid_label("stress", stress, size) and np.abs(np.asarray(stress)).max() > MAX_STRESS:
            self._frames_with["large_stress"].append(index)
        if not is_valid_label("forces", found.get("forces"), size):
            return
        forces = np.asarray(found["forces"], dtype=float)
        self._squares += float((forces**2).sum())
        self._components += forces.size
        largest = float(np.linalg.norm(forces, axis=1).max())
        self._largest = max(self._largest, largest)
        if largest > MAX_FORCE:
            self._frames_with["large_forces"].append(index)
        if size > 1 and not forces.any():
            self._frames_with["zero_forces"].append(index)
        if np.linalg.norm(forces.sum(axis=0)) / size > NET_FORCE:
            self._frames_with["net_force"].append(index)

    # --- the whole file ------------------------------------------------------------------------

    def _finish(self) -> None:
        for code, count in self._faults.items():
            if count > SHOWN:
                self._add("error", code, f": {count - SHOWN} more frames have the fault `{code}`.")
        if not self._atoms:
            return
        for label in self.required:
            self._report_missing(label)
        self._summarise()
        self._judge_sizes()
        self._report_oddities()

    def _report_missing(self, label: str) -> None:
        missing, total = self._missing[label], len(self._atoms)
        if not missing:
            return
        start = f": {_frames_phrase(missing, total)} have no {label}"
        if len(missing) == total:
            start = f": no frame has {_NAMED[label]}"
        keys = self._keys_when_missing[label]
        hint = _missing_label_hint(label, list(keys), partly=len(missing) < total)
        self._add("error", f"missing_{label}", f"{start}{hint}", missing[0])

    def _report_oddities(self) -> None:
        total = len(self._atoms)
        for code, (level, what) in _ODDITIES.items():
            frames = self._frames_with[code]
            if frames and not (code == "isolated" and len(frames) == total):
                self._add(level, code, f": {_frames_phrase(frames, total)} {what}.", frames[0])

    def _judge_sizes(self) -> None:
        """Warn of energies and forces that are of another unit or method."""
        self._frames_with["other_energies"] = [record.frame for record in outlying(self.energies)]
        span = widest_span(self.energies)
        if span > SPAN and not self._frames_with["other_energies"]:
            text = (
                f": energies of the same composition span {span:.1f} eV per atom; use one method "
                "and one unit."
            )
            self._add("warning", "energy_span", text)
        rms = self.summary.force_rms
        if rms > MAX_FORCE_RMS:  # one sentence is enough
            self._frames_with["large_forces"] = []
            text = f": the rms force is {rms:.3g} eV/A; convert the forces if they are in meV/A."
            self._add("warning", "force_unit", text)
        if 0 < rms < MIN_FORCE_RMS and len(self._atoms) >= MANY:
            text = f": the rms force is {rms:.2g} eV/A; convert the forces if they are in keV/A."
            self._add("warning", "force_unit", text)

    def _summarise(self) -> None:
        summary = self.summary
        summary.frames = len(self._atoms)
        summary.atoms = (min(self._atoms), max(self._atoms))
        summary.species = tuple(sorted(self.symbols, key=chemical_symbols.index))
        summary.periodic = self._periodic.pop() if len(self._periodic) == 1 else "mixed"
        summary.duplicates = len(self._frames_with["duplicate"])
        if self.energies:
            values = [record.per_atom for record in self.energies]
            summary.energy_per_atom = (min(values), max(values))
        if self._components:
            summary.force_rms = float(np.sqrt(self._squares / self._components))
            summary.force_max = self._largest


def _missing_label_hint(label: str, keys: list[str], *, partly: bool) -> str:
    """End of the sentence about a missing label: what the frames have instead, and what to do."""
    like = [k for k in keys if (_LIKE[label] in k.lower() or k in _SHORT[label]) and k != label]
    like = [k for k in like if k not in ("free_energy", "energies")] or like
    target = "total_energy" if label == "energy" else label
    if like:
        return f", but they have '{like[0]}'; pass the key mapping `{like[0]}: {target}`."
    if label == "stress" and any("virial" in key.lower() for key in keys):
        return ", but they have a virial; store stress = -virial / volume (eV/A^3)."
    have = f" (they have {', '.join(keys)})" if keys else " (nor any other label)"
    if partly:
        return f"{have}; label these frames or remove them."
    if label == "forces" and "energy" in keys:
        return f"{have}; label the frames, or ask for energies only (`--no-forces`)."
    return f"{have}; label the frames."


def _geometry_digest(atoms: Atoms) -> bytes:
    """Digest of species, positions and cell, rounded to 1e-4 A."""
    digest = hashlib.blake2b(atoms.numbers.tobytes(), digest_size=16)
    for array in (atoms.positions, atoms.cell.array):
        digest.update((np.round(array, 4) + 0.0).tobytes())  # + 0.0 turns -0.0 into 0.0
    digest.update(atoms.pbc.tobytes())
    return digest.digest()
