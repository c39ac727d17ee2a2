"""The frames of a study: checked, split once for all jobs, and written with plain keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.io import write

from eqplugin.data import read_e0s
from eqplugin.errors import EqPluginError
from eqplugin.files import whole_file, write_json
from eqplugin.measure.labels import MACE_KEYS, LabelledFrame, checked_report, read_labelled
from eqplugin.study.schema import Data, StudyConfig


@dataclass(frozen=True)
class Frames:
    """What a study trains, validates and tests on."""

    train: list[LabelledFrame]  # frames of every job, a multiple of the batch size
    val: list[LabelledFrame]  # frames that choose the best epoch
    tests: dict[str, list[LabelledFrame]]  # label -> frames
    species: tuple[str, ...]  # chemical symbols, by atomic number
    # chemical symbol -> energy of the lone atom, eV; None: the mean per atom is used
    e0s: dict[str, float] | None
    warnings: tuple[str, ...]  # sentences about what flatters or misleads

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of frames, for records."""
        tests = {f"test {label}": len(frames) for label, frames in self.tests.items()}
        return {"train": len(self.train), "val": len(self.val), **tests}


def check_frames(config: StudyConfig) -> Frames:
    """Read and check every file of the study; nothing is written."""
    data, batch = config.data, config.train.batch_size
    warnings = _check_files(data)
    train = read_labelled(data.train, data.key_mapping)
    val = read_labelled(data.val, data.key_mapping) if data.val else None
    tests = {label: read_labelled(file, data.key_mapping) for label, file in data.test.items()}
    train, val, tests, notes = _split(data, train, val, tests)
    kept = _number_of_training_frames(data, len(train), batch)
    numbers = np.unique(np.concatenate([frame.atoms.numbers for frame in train]))
    species, e0s = tuple(chemical_symbols[number] for number in numbers), None
    if data.isolated_atoms is not None:
        known = read_e0s(data.isolated_atoms)
        e0s = {symbol: known[symbol] for symbol in species}
    elif _composition_varies(train):
        warnings.append(
            "the composition varies between frames and data.isolated_atoms is not given: energies "
            "start from the mean per atom, which is wrong for a lone atom; forces are not affected."
        )
    return Frames(train[:kept], val, tests, species, e0s, (*warnings, *notes))


def _check_files(data: Data) -> list[str]:
    """Errors are raised; leaks between training and test files come back as sentences."""
    required = ("energy", "forces", "stress") if data.stress else ("energy", "forces")
    mapping = {**MACE_KEYS, **data.key_mapping}
    training = [data.train, *([data.val] if data.val else [])]
    report = checked_report(
        training, required, key_mapping=mapping, isolated_atoms=data.isolated_atoms
    )
    if data.test:
        species = sorted({symbol for file in report.files for symbol in file.species})
        # the forces of the tests decide; other labels may be absent
        files = [*training, *data.test.values()]
        report = checked_report(files, ("forces",), key_mapping=mapping, species=species)
    if any(Path(file).resolve() == Path(data.train).resolve() for file in data.test.values()):
        raise EqPluginError(
            f"{data.train} is both the training file and a test file: give another test file, or "
            f"none, so that data.test_frames are drawn from it."
        )
    return [problem.message for problem in report.leaks]


def _split(
    data: Data,
    train: list[LabelledFrame],
    val: list[LabelledFrame] | None,
    tests: dict[str, list[LabelledFrame]],
) -> tuple[list[LabelledFrame], list[LabelledFrame], dict[str, list[LabelledFrame]], list[str]]:
    """Draw what has no file of its own from the training file, the same for every job."""
    order = np.random.default_rng(data.split_seed).permutation(len(train))
    drawn = [train[i] for i in order]
    notes = []
    wanted = (0 if val else data.val_frames) + (0 if tests else data.test_frames or 0)
    if len(drawn) - wanted < 1:
        raise EqPluginError(
            f"{data.train} has {len(drawn)} frames, but data.val_frames and data.test_frames take "
            f"{wanted} of them: lower one or both."
        )
    if val is None:
        val, drawn = drawn[: data.val_frames], drawn[data.val_frames :]
    if not val:
        raise EqPluginError("there are no validation frames: set data.val or data.val_frames.")
    if not tests:
        if not data.test_frames:
            raise EqPluginError(
                "there is nothing to test on: name files in data.test, or set data.test_frames."
            )
        tests = {"drawn": drawn[: data.test_frames]}
        drawn = drawn[data.test_frames :]
        notes.append(
            f"the test frames are drawn from {data.train}, the file that is trained on: errors "
            f"are too optimistic, so test on an independent trajectory if there is one."
        )
    elif data.test_frames is not None:
        tests = {label: _evenly(frames, data.test_frames) for label, frames in tests.items()}
    return drawn, val, tests, notes


def _evenly(frames: list[LabelledFrame], most: int) -> list[LabelledFrame]:
    if len(frames) <= most:
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, most).round().astype(int)]


def _number_of_training_frames(data: Data, available: int, batch: int) -> int:
    """Whole batches only: MACE drops a short last batch, NequIP does not; steps must be equal."""
    wanted = data.train_frames
    if batch > available:
        raise EqPluginError(
            f"train.batch_size={batch}, but {data.train} leaves {available} frames for training: "
            f"lower it."
        )
    if wanted is None:
        wanted = available - available % batch
    if wanted > available:
        raise EqPluginError(
            f"data.train_frames={wanted}, but {data.train} leaves {available} for training: lower "
            f"it."
        )
    if wanted < batch or wanted % batch:
        raise EqPluginError(
            f"{wanted} training frames are not a multiple of train.batch_size={batch}, so the "
            f"stacks would make different numbers of steps: use "
            f"{max(batch, wanted // batch * batch)}."
        )
    return wanted


def _composition_varies(frames: Sequence[LabelledFrame]) -> bool:
    shares = set()
    for frame in frames:
        numbers, counts = np.unique(frame.atoms.numbers, return_counts=True)
        shares.add((*numbers, *(counts / counts.sum()).round(6)))
    return len(shares) > 1


def write_frames(frames: Frames, config: StudyConfig, folder: Path) -> dict[str, Path]:
    """Write train.xyz, val.xyz, test_LABEL.xyz and e0s.json; whole files, the same for all jobs.

    Returns:
        ``train``, ``val``, ``e0s`` (where given) and the labels of the tests -> file.
    """
    files: dict[str, Path] = {}
    for name, some in (("train", frames.train), ("val", frames.val), *frames.tests.items()):
        stem = name if name in ("train", "val") else f"test_{name}"
        files[name] = folder / f"{stem}.xyz"
        with whole_file(files[name]) as unfinished:
            write(unfinished, [_with_labels(frame) for frame in some], format="extxyz")
    if frames.e0s is not None:
        files["e0s"] = folder / "e0s.json"
        write_json(files["e0s"], frames.e0s)
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    content = {"config": asdict(config.data), "frames": frames.counts, "sha256": hashes}
    write_json(folder / "data.json", content | {"warnings": list(frames.warnings)})
    return files


def _with_labels(frame: LabelledFrame) -> Atoms:
    atoms = frame.atoms.copy()
    for container in (atoms.info, atoms.arrays):
        for key in [k for k in container if k not in ("numbers", "positions", "config_type")]:
            del container[key]
    labels = {"energy": frame.energy, "forces": frame.forces, "stress": frame.stress}
    atoms.calc = SinglePointCalculator(
        atoms, **{name: value for name, value in labels.items() if value is not None}
    )
    return atoms
