"""Edited files given to commands: a sentence or the right numbers, never a traceback or a hang."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read
from mutations import edited
from typer.testing import CliRunner

from eqplugin.cli import app

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests/old_files"
LIMIT = 60  # s; a command that takes longer hangs
EMT_NAME = "ase.calculators.emt:EMT"
# name -> the file that is edited, the command line; {} is the edited file, OUT a new folder
COMMANDS = {
    "data check": (OLD / "data/train.xyz", ["data", "check", "{}"]),
    "bench forces": (ROOT / "cuau", ["bench", "forces", EMT_NAME, "{}", "--out", "OUT"]),
    "theory info": (OLD / "data/start.xyz", ["theory", "info", "{}"]),
    "template": (
        OLD / "data/train.xyz",
        ["template", "nequip/minimal", "--train", "{}", "-o", "OUT/my.yaml"],
    ),
    "md": (
        OLD / "data/start.xyz",
        [
            "md",
            str(OLD / "models/mace_steerable.model"),
            "{}",
            "--steps=2",
            "--every=1",
            "--out=OUT",
        ],
    ),
    "study": (OLD / "study.yaml", ["study", "{}", "--dry-run", "out=OUT"]),
    "report": (OLD / "study/results.jsonl", ["report", "FOLDER"]),
}


def frames_of_copper_and_gold():
    lines = (ROOT / "examples/data/cuau_emt/test_600K.xyz").read_text().splitlines(keepends=True)
    return "".join(lines[: 3 * (int(lines[0]) + 2)]).encode()


class TooLong(BaseException):
    """No exception that a command may catch."""


def too_long(*_):
    raise TooLong


def run(command, content, folder, monkeypatch):
    """Give edited content to a command; its result."""
    source, arguments = COMMANDS[command]
    file = folder / (source.name if source.suffix else "frames.xyz")
    if command == "report":
        shutil.copytree(source.parent, folder / "study")
        file = folder / "study" / source.name
    file.write_bytes(content)
    places = {"{}": str(file), "OUT": str(folder / "out"), "FOLDER": str(file.parent)}
    line = [
        places.get(part, part.replace("OUT", places["OUT"]) if "OUT" in part else part)
        for part in arguments
    ]
    monkeypatch.chdir(OLD)  # the study names its data from there
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT)
    try:
        return CliRunner().invoke(app, line)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def faults_of(result):
    """What is wrong with how a command ended; empty where nothing is."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {result.exception}"
    if "Traceback" in result.output:
        return "a traceback is printed"
    if result.exit_code not in (0, 1, 2):
        return f"exit status {result.exit_code}"
    if result.exit_code and not result.stderr.strip():
        return "it fails and says nothing"
    return ""


def content_for(command):
    source = COMMANDS[command][0]
    return source.read_bytes() if source.suffix else frames_of_copper_and_gold()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_edited_files_are_refused_in_a_sentence_or_understood(
    command, tmp_path, length, monkeypatch
):
    original, bad = content_for(command), {}
    for seed in range(length(150)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        result = run(command, edited(original, seed), folder, monkeypatch)
        if fault := faults_of(result):
            bad[seed] = fault
        elif command == "bench forces" and result.exit_code == 0:
            bad |= {seed: fault} if (fault := wrong_numbers(folder)) else {}
        shutil.rmtree(folder)
    assert not bad


def wrong_numbers(folder):
    """Compare the force error with one worked out from the lines of the file."""
    text = (folder / "frames.xyz").read_bytes().decode("utf-8-sig")
    frames = read(folder / "frames.xyz", ":", format="extxyz", do_not_split_by_at_sign=True)
    if len(frames) != text.count("Lattice="):
        return f"{text.count('Lattice=')} frames in the file, {len(frames)} read"
    errors = []
    for atoms in frames:
        if "forces" in atoms.calc.results:
            labels = atoms.calc.results["forces"]
            atoms.calc, atoms.constraints = EMT(), []
            errors.append(np.abs(atoms.get_forces() - labels).ravel())
    (found,) = json.loads((folder / "out/errors.json").read_text())["errors"]["EMT"].values()
    expected = 1e3 * np.concatenate(errors).mean()
    same = np.isclose(found["force_mae"], expected, rtol=1e-9, atol=1e-9)
    return "" if same else f"force MAE {found['force_mae']}, not {expected}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_files_as_they_are_do_work(command, tmp_path, monkeypatch):
    result = run(command, content_for(command), tmp_path, monkeypatch)
    assert result.exit_code == 0, result.output
    if command == "bench forces":
        assert not wrong_numbers(tmp_path)
