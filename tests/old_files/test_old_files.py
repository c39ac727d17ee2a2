"""What commit 80472b0 wrote is read, resumed and reported as that commit did; see README.md.

Only names that users have stand here: the command line, EqCalculator, the files. Numbers are
compared in float64, which every processor computes alike to the last digits, and in the dtype of
the file.
"""

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from eqplugin import EqCalculator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = json.loads((HERE / "reference.json").read_text())
MODELS = [(name, dtype) for name, found in REFERENCE["models"].items() for dtype in found]
# Relative to the largest number. In float64 only the order of sums differs from processor to
# processor; a training or dynamics repeats it some hundred times. In float32 rounding alone moves
# these forces by up to 7e-7 of the largest, seen against float64, and two processors may err both.
TOLERANCE = {"float64": 1e-9, "own": 2e-6}
AFTER_HUNDREDS = 1e-7


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder with all model files, the compressed one unpacked."""
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(HERE / "models", folder / "models")
    for packed in folder.glob("models/*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    return folder


@pytest.fixture
def old(tmp_path):
    """Return a copy of the files, to be written to."""
    return Path(shutil.copytree(HERE, tmp_path / "old"))


def run(command, cwd, configs=HERE / "configs", **places):
    """Run one of the recorded command lines, or another, in a copy of the files."""
    program, *arguments = (str(part).format(configs=configs, **places) for part in command)
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def check_numbers(path, expected, tolerance, dtype=None):
    calculator = EqCalculator(path, dtype=dtype)
    for atoms, wanted in zip(read(HERE / "data/structures.xyz", ":"), expected, strict=True):
        atoms.calc = calculator
        for name, values in wanted.items():
            found = atoms.calc.get_property(name, atoms)
            limit = tolerance * np.abs(values).max()
            np.testing.assert_allclose(found, values, rtol=0, atol=limit, err_msg=name)


def needs(name):
    """Skip what this machine cannot run."""
    if "mace" in name:
        pytest.importorskip("mace", reason="mace-torch is not installed")
    if "converted" in name or name.endswith(".pt2"):
        compilers = (os.environ.get("CXX"), "c++", "g++", "clang++")
        if not any(shutil.which(name) for name in compilers if name):
            pytest.skip("no C++ compiler")
    if name.endswith(".pt2") and not same_machine():
        pytest.skip("compiled for another processor or another torch")


def same_machine():
    """Whether compiled code of the reference's machine runs here, and gives the same bits."""
    import torch

    made = REFERENCE["made_with"]
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return (
        made["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        and flags is not None
        and set(flags[1].split()) == set(made["flags"])
    )


# ---- model files


@pytest.mark.parametrize("name, dtype", MODELS)
def test_model_files_give_the_old_numbers(models, name, dtype):
    needs(name)
    expected = REFERENCE["models"][name][dtype]
    check_numbers(models / name, expected, TOLERANCE[dtype], None if dtype == "own" else dtype)


def test_a_converted_mace_model_becomes_plain_again(models, tmp_path):
    needs("mace")
    converted = models / "models/mace_steerable_converted.model"
    run(["eqplugin", "products", converted, "plain.model", "--back"], tmp_path)
    expected = REFERENCE["models"]["models/mace_steerable.model"]["float64"]
    check_numbers(tmp_path / "plain.model", expected, TOLERANCE["float64"], dtype="float64")


def test_packages_of_old_checkpoints_can_be_built(old):
    run(["nequip-package", "build", "models/khop.ckpt", "khop.nequip.zip"], old)
    expected = REFERENCE["models"]["models/khop.nequip.zip"]["float64"]
    check_numbers(old / "khop.nequip.zip", expected, TOLERANCE["float64"], dtype="float64")


# ---- trainings stopped half-way


@pytest.mark.parametrize(
    "stack, folder, more, model",
    [
        # in a folder of its own: Lightning would leave a last.ckpt that was moved as it is
        ("nequip", "new", ["++ckpt_path=resume/nequip/last.ckpt"], "last.ckpt"),
        ("mace", "resume/mace", ["--restart_latest"], "mace.model"),
    ],
)
def test_trainings_go_on(old, stack, folder, more, model):
    needs(stack)
    command = [*REFERENCE["commands"][stack], *more]
    run(command, old, scratch=folder, epochs=REFERENCE["epochs"])
    expected = REFERENCE["resumed"][stack]
    check_numbers(old / folder / model, expected, AFTER_HUNDREDS)


# ---- dynamics


def test_dynamics_go_on(old):
    stopped = len((old / "md/log.csv").read_text().splitlines())
    said = run(REFERENCE["commands"]["md"], old, scratch="md")
    assert "Resumed from step" in said
    lines = (old / "md/log.csv").read_text().splitlines()
    assert len(lines) > stopped
    assert int(lines[-1].split(",")[0]) == REFERENCE["steps"]
    assert len(read(old / "md/trajectory.xyz", ":")) == len(lines) - 1
    with np.load(old / "md/restart.npz") as stored:
        for name, values in REFERENCE["dynamics"].items():
            if same_machine():  # to the last bit what it was without the interruption
                np.testing.assert_array_equal(stored[name], values, err_msg=name)
            np.testing.assert_allclose(
                stored[name], values, rtol=0, atol=AFTER_HUNDREDS, err_msg=name
            )


# ---- studies


NEWER_TABLES = ("equal within", "s to ")  # that 0.1 did not have, by words in their heads


def tables(report):
    """Lines of the tables that 0.1 had too."""
    found = []
    for block in report.read_text().split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|") and not any(word in lines[0] for word in NEWER_TABLES):
            found += lines
    return found


@pytest.mark.parametrize("lines", ["results.jsonl", "jobs"])
def test_reports_have_the_old_tables(old, lines):
    expected = tables(HERE / "study/report/report.md")
    assert len(expected) > 15
    if lines == "jobs":  # as while a study still runs: no timing in turn, no failed jobs
        (old / "study/results.jsonl").unlink()
    run(["eqplugin", "report", "study", "--out", "new"], old)
    found = tables(old / "new/report.md")
    if lines == "jobs":
        first = next(n for n, line in enumerate(expected) if "ms, 10-90" in line)
        expected, found = expected[:first], found[:first]
    assert found == expected


def rows(folder):
    lines = (folder / "study/results.jsonl").read_text().splitlines()
    return {row["job"]: row for row in map(json.loads, lines) if row["kind"] == "job"}


def test_a_study_is_planned_anew_over_its_old_folder(old):
    said = run(["eqplugin", "study", "study.yaml", "--plan-only"], old)
    assert f"{len(rows(old))} jobs planned" in said
    run(["eqplugin", "report", "study", "--out", "new"], old)
    assert tables(old / "new/report.md") == tables(HERE / "study/report/report.md")


@pytest.mark.slow
def test_a_finished_study_is_run_again(old):
    """Jobs are reused, or trained anew where configs or versions changed: the same rows."""
    needs("mace")
    said = run(["eqplugin", "study", "study.yaml"], old)
    before, after = rows(HERE), rows(old)
    assert before.keys() == after.keys()
    print(re.findall(r"\d+ jobs of .*?done before", said))
    for name, row in after.items():
        assert row.keys() >= before[name].keys()
        for key in ("status", "family", "l_max", "hops", "contraction", "feature_dim", "seed",
                    "arms", "steps", "epochs", "frames", "parameters", "error"):  # fmt: skip
            assert row.get(key) == before[name].get(key), (name, key)
        if row["fingerprint"] and row["fingerprint"] == before[name]["fingerprint"]:
            assert row["time"] == before[name]["time"]
        for test, errors in row.get("errors", {}).items():
            # trained in float32: equal, but for the last digits of another processor
            for measure, value in before[name]["errors"][test].items():
                wanted = value if value is None else pytest.approx(value, rel=1e-2)
                assert errors[measure] == wanted, (name, test, measure)
