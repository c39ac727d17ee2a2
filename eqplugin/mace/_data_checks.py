"""Look at the training data before MACE does: it gives absent labels the weight zero, silently."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from ase.data import chemical_symbols

from eqplugin.data import check_files, raise_on_errors
from eqplugin.data._magnitudes import Energy, e0_warning, energy_of
from eqplugin.errors import EqPluginError
from eqplugin.mace._e0_checks import e0s_of_frames, e0s_of_prepared, is_named, known_e0s
from eqplugin.mace._hdf5_checks import check_hdf5
from eqplugin.mace._heads import ROLES, HeadData, head_data, heads_of, is_isolated_atom
from eqplugin.mace._label_checks import frame_faults, ignored_weights, value_of
from eqplugin.mace._losses import LOSSES, WITHOUT_ENERGY, needed_labels
from eqplugin.structures import read_frames

# labels that `check_files` looks at; under their plain names ASE moves them into a calculator
_PLAIN = ("energy", "forces", "stress")
# role -> atomic number -> the file that holds it first
_Seen = dict[str, dict[int, str]]


@dataclass
class Findings:
    """What the checks found out about data that can be trained on."""

    warnings: list[str] = field(default_factory=list)  # sentences
    elements: dict[str, list[int]] = field(default_factory=dict)  # head -> atomic numbers
    files: dict[str, list[str]] = field(default_factory=dict)  # role -> files of frames


def check_training_data(args: argparse.Namespace) -> Findings:
    """Refuse data that would train on nothing, or not to the end; write E0s in MACE's form.

    Args:
        args: options of ``mace-train``. ``E0s`` may also be JSON, chemical symbols or a file of
            isolated atoms; it is replaced by MACE's ``{1: -13.6, ...}``.

    Raises:
        EqPluginError: for missing files, absent, misshapen or non-finite labels, unknown elements,
            absent E0s, and fewer frames than a batch.
    """
    found = Findings(files={role: [] for role in ROLES})
    if args.heads is None:
        check = _HeadCheck(head_data("Default", vars(args)), args)
        args.E0s = check.run(found)
        checks = [check]
    else:
        heads, checks = heads_of(args.heads), []
        for name, options in heads.items():
            checks.append(_HeadCheck(head_data(name, {**vars(args), **options}), args))
            options["E0s"] = checks[-1].run(found)
        args.heads = repr(heads)
    _check_counts(checks, args)
    return found


def _check_counts(checks: Sequence[_HeadCheck], args: argparse.Namespace) -> None:
    """MACE drops the last batch if it is not full, and with it all frames of a small set."""
    counts = [check.num_training_frames() for check in checks]
    known = [count for count in counts if count is not None]
    total = sum(known)
    if len(known) == len(counts) and not args.lbfgs and total < args.batch_size:
        raise EqPluginError(
            f"batch_size={args.batch_size} is more than the {total} training frames, and MACE "
            f"leaves out batches that are not full: give --batch_size {total} or less."
        )


class _HeadCheck:
    """One head's data, looked at once."""

    def __init__(self, head: HeadData, args: argparse.Namespace) -> None:
        self.head, self.args = head, args
        self.needed = needed_labels(args)
        self.frames = 0  # of training; isolated atoms are none
        self.seen: _Seen = {role: {} for role in ROLES}
        self.energies: dict[str, list[Energy]] = {}  # by file
        self.warnings: list[str] = []

    def run(self, found: Findings) -> object:
        """Check everything; return the head's E0s as MACE wants them."""
        head, args = self.head, self.args
        for role, prepared in head.prepared.items():
            for path in prepared:
                count = check_hdf5(path, self.needed, args.loss, args.allow_missing_labels)
                self.frames += count if role == "train" else 0
        paths = list(dict.fromkeys(path for files in head.files.values() for path in files))
        if not paths:
            return e0s_of_prepared(head, args)  # HDF5, or LMDB, whose labels are not looked at here
        for role in ROLES:
            found.files[role] += head.files[role]
        present = self._check_as_data(paths)
        for role, files in head.files.items():
            for path in files:
                self._check_file(path, role, present[path])
        self._check_roles()
        elements = sorted(head.elements or {**self.seen["train"], **self.seen["valid"]})
        found.elements[head.name] = elements
        e0s = self._e0s(elements)
        found.warnings += self.warnings
        return e0s

    def _check_as_data(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """What `eqplugin data check` finds; return the label keys of each file."""
        head = self.head
        plain = {key: label for label, key in head.keys.items() if label in _PLAIN}
        report = check_files(
            paths,
            required=(),
            species=None if head.elements is None else [chemical_symbols[z] for z in head.elements],
            r_max=self.args.r_max,
            key_mapping=plain,
            exclude_keys=[key for key in _PLAIN if key not in plain],
        )
        raise_on_errors(report)
        self.warnings += [warning.message for warning in report.warnings]
        return {summary.path: tuple(summary.labels) for summary in report.files}

    def _check_file(self, path: str, role: str, present: tuple[str, ...]) -> None:
        """Check that every frame has what the loss needs, in a form that MACE takes."""
        head, args = self.head, self.args
        frames = list(enumerate(read_frames(path)))
        for index, atoms in frames:
            for fault in frame_faults(atoms, head.keys, self.needed):
                raise EqPluginError(f"{path}, frame {index}: {fault}")
        if not args.keep_isolated_atoms:
            frames = [(index, atoms) for index, atoms in frames if not is_isolated_atom(atoms)]
        if not frames:
            raise EqPluginError(f"{path} holds only isolated atoms: give frames to train on.")
        for label in self.needed:
            key = head.keys[label]
            missing = [i for i, atoms in frames if value_of(atoms, label, key) is None]
            if len(missing) == len(frames):
                raise EqPluginError(_no_label(path, label, key, present))
            if missing:
                self._check_missing(path, label, missing, len(frames))
        self.warnings += [
            f"{path}: {sentence}"
            for sentence in ignored_weights((a for _, a in frames), LOSSES[args.loss], args.loss)
        ]
        if "energy" in self.needed:
            values = [(i, value_of(a, "energy", head.keys["energy"]), a) for i, a in frames]
            self.energies[path] = [energy_of(i, float(e), a) for i, e, a in values if e is not None]
        self.frames += len(frames) if role == "train" else 0
        for z in {z for _, atoms in frames for z in atoms.numbers.tolist()}:
            self.seen[role].setdefault(z, path)

    def _check_missing(self, path: str, label: str, missing: list[int], total: int) -> None:
        """Frames without a label may train at zero weight, where the loss knows weights at all."""
        loss, key = self.args.loss, self.head.keys[label]
        what = f"{path}: {len(missing)} of {total} frames (first: {missing[0]}) have no '{key}'"
        if label not in LOSSES[loss].own_weight:
            raise EqPluginError(
                f"{what} and would be trained towards zero, because --loss {loss} ignores weights "
                f"of the {label}: label or remove them."
            )
        if not self.args.allow_missing_labels:
            raise EqPluginError(
                f"{what} and would get zero weight: label or remove them, or add "
                f"--allow_missing_labels."
            )

    def _check_roles(self) -> None:
        """Elements of test frames must be known; those of validation alone are never learnt."""
        train = self.seen["train"]
        known = self.head.elements or {**train, **self.seen["valid"]}
        for role, elements in self.seen.items():
            for z, path in sorted(elements.items()):
                if z not in known or (role != "train" and train and z not in train):
                    names = ", ".join(chemical_symbols[k] for k in sorted(train))
                    raise EqPluginError(
                        f"{path}: the {role} data contain {chemical_symbols[z]}, which no training "
                        f"frame contains (they have {names}): remove these frames or add training "
                        f"data."
                    )

    def _e0s(self, elements: Sequence[int]) -> object:
        head, args = self.head, self.args
        if args.model in WITHOUT_ENERGY:  # MACE asks for E0s all the same
            return repr(dict.fromkeys(elements, 0.0))
        energies, source = known_e0s(head)
        if source and source != "--E0s" and head.e0s is not None:
            self.warnings.append(f"--E0s {head.e0s} is not used: MACE prefers {source}.")
        if is_named(head.e0s) and head.e0s.lower() == "average" and not energies:
            self._check_averaged()
        e0s = e0s_of_frames(head, energies, source, elements, args)
        for path, records in self.energies.items():
            warning = e0_warning(records, energies)
            self.warnings += [f"{path}: {warning}."] if warning else []
        return e0s

    def _check_averaged(self) -> None:
        for path in self.head.files["train"]:
            have = {record.frame for record in self.energies.get(path, ())}
            for index, atoms in enumerate(read_frames(path)):
                if index not in have and not is_isolated_atom(atoms):
                    raise EqPluginError(
                        f"{path}, frame {index}: without an energy --E0s average is not possible: "
                        f"give the E0s, or label the frame."
                    )

    def num_training_frames(self) -> int | None:
        """Frames that are left to train on; None where there are some that were not looked at."""
        head = self.head
        if head.others:
            return None
        if any(head.files["valid"]) or any(head.prepared["valid"]) or not head.files["train"]:
            return self.frames
        if self.frames < 2:
            raise EqPluginError(
                f"{head.files['train'][0]} holds one frame, which valid_fraction="
                f"{head.valid_fraction:g} cannot split: give a --valid_file, or more frames."
            )
        return min(self.frames - int(head.valid_fraction * self.frames), self.frames - 1)


_LIKE = {"energy": "energ", "forces": "force", "stress": "stress", "virials": "virial",
         "dipole": "dipol", "polarizability": "polar"}  # fmt: skip


def _no_label(path: str, label: str, key: str, present: tuple[str, ...]) -> str:
    others = tuple(k for k in present if k != key)
    have = f"its label keys are {', '.join(others)}" if others else "it has no label at all"
    if key in present:  # but a column where MACE wants a value of the frame, or the other way
        have = f"'{key}' is there, but not as MACE reads the {label}"
    like = [k for k in others if _LIKE[label] in k.lower()]
    if label in ("stress", "virials") and not like:
        other = "virials" if label == "stress" else "stress"
        if any(_LIKE[other] in k.lower() for k in others):
            return (
                f"{path}: no frame has '{key}', but there is a {other}: train with --loss {other} "
                f"--{other}_key {next(k for k in others if _LIKE[other] in k.lower())}."
            )
    if like:
        advice = f"add --{label}_key {like[0]}"
    elif label == "forces" and any(_LIKE["energy"] in k.lower() for k in others):
        advice = "label the frames, or train on energies alone with --forces_weight 0"
    elif label == "stress":
        advice = "label the frames, or train without stress with --stress_weight 0"
    else:
        advice = f"name the right key with --{label}_key, or label the frames"
    return f"{path}: no frame has '{key}' ({have}): {advice}."
