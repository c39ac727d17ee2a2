"""Runs killed at random moments and between any two changes of files: nothing is lost.

After the kills the same command goes on to the end, and what it then has is what a run has that
nobody disturbed, to the last bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OLD = ROOT / "tests/old_files"
MOST = 5  # kills of one run
LIMIT = 300  # s


class Md:
    """`eqplugin md`, which goes on by itself."""

    def command(self, folder, resumes):
        model, start = OLD / "models/mace_steerable.model", OLD / "data/start.xyz"
        cold = ["--ensemble=nvt-langevin", "--temperature=30", "--timestep=0.1"]
        options = ["--steps=60", "--every=5", *cold, f"--out={folder}"]
        return ["eqplugin", "md", str(model), str(start), *options]

    def result(self, folder):
        return {name: (folder / name).read_bytes() for name in ("trajectory.xyz", "log.csv")}


class MaceTraining:
    """`eqplugin mace-train`, to go on with --restart_latest."""

    def command(self, folder, resumes):
        files = {f"{role}_file": OLD / f"data/{name}.xyz" for role, name in FILES.items()}
        options = {
            "name": "run",
            "work_dir": folder,
            **files,
            "E0s": OLD / "data/isolated_atoms.xyz",
            "model": "SteerableMACE",
            "feature_dim": 8,
            "max_L": 1,
            "r_max": 3.0,
            "num_radial_basis": 4,
            "radial_MLP": "[8]",
            "batch_size": 4,
            "max_num_epochs": 5,
            "start_swa": 3,
            "energy_key": "energy",
            "forces_key": "forces",
        }
        flags = ["--swa", "--ema", *(["--restart_latest"] if resumes else [])]
        return [
            *("eqplugin", "mace-train"),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
            *flags,
        ]

    def result(self, folder):
        (file,) = folder.glob("run_stagetwo.model")
        weights = torch.load(file, weights_only=False).state_dict()
        return {name: weight.numpy().tobytes() for name, weight in weights.items()}


class NequipTraining:
    """`nequip-train`, to go on with ++ckpt_path, or from the start where no epoch ended."""

    def command(self, folder, resumes):
        frames = [f"{name}_files={OLD}/data/{name}.xyz" for name in ("train", "val")]
        model = ["type_names=[H,C,O]", "r_max=3.0", "feature_dim=8", "num_layers=1"]
        # restless: the best epoch is not the last
        options = ["dataset=_files", "max_epochs=5", "lr=0.3", f"hydra.run.dir={folder}"]
        last = folder / "last.ckpt"
        return [
            *("nequip-train", "-cp", str(ROOT / "configs/nequip"), "-cn", "minimal"),
            *(*frames, *model, *options),
            *([f"++ckpt_path={last}"] if resumes and last.is_file() else []),
        ]

    def result(self, folder):
        assert {path.name for path in folder.glob("*.ckpt")} == NEQUIP_FILES
        return {
            f"{name} {key}": value.numpy().tobytes()
            for name in ("best.ckpt", "last.ckpt")
            for key, value in torch.load(folder / name, weights_only=False)["state_dict"].items()
            if isinstance(value, torch.Tensor)
        }


NEQUIP_FILES = {"best.ckpt", "last.ckpt", "latest.ckpt"}
FILES = {"train": "train", "valid": "val"}
RUNS = {"md": Md(), "mace-train": MaceTraining(), "nequip-train": NequipTraining()}


def start(run, folder, resumes=False, **environment):
    """Start the command in a session of its own, its output in a log."""
    environment |= {"OMP_NUM_THREADS": "1", "VICTIM_FOLDER": str(folder)}
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / "victim.py"), *run.command(folder, resumes)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def finish(run, folder, resumes):
    """Go on to the end; the result."""
    status = start(run, folder, resumes).wait(LIMIT)
    assert status == 0, folder.with_suffix(".log").read_text()[-2000:]
    leftovers = [
        path for path in folder.rglob(".*.tmp*") if time.time() - path.stat().st_mtime > 60
    ]
    assert not leftovers
    return run.result(folder)


@pytest.fixture(scope="module", params=RUNS)
def undisturbed(request, tmp_path_factory):
    """A run, its result, how long it took, and how many changes of files it made."""
    run, folder = RUNS[request.param], tmp_path_factory.mktemp(request.param) / "straight"
    changes, began = folder.with_suffix(".changes"), time.monotonic()
    assert start(run, folder, CHANGES=str(changes)).wait(LIMIT) == 0, folder.with_suffix(".log")
    return run, run.result(folder), time.monotonic() - began, int(changes.read_text())


@pytest.mark.slow
def test_runs_killed_at_random_moments(undisturbed, tmp_path, length):
    run, expected, seconds, _ = undisturbed
    kills, rng = length(5), random.Random(0)
    while kills > 0:
        folder, killed = tmp_path / f"run{kills}", 0
        while killed < min(MOST, kills):
            process = start(run, folder, resumes=folder.exists())
            try:
                process.wait(rng.uniform(0.3 * seconds, seconds))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
        kills -= max(killed, 1)
        assert finish(run, folder, resumes=True) == expected
        shutil.rmtree(folder)


@pytest.mark.slow
def test_runs_killed_between_changes_of_files(undisturbed, tmp_path, length):
    run, expected, _, changes = undisturbed
    moments = list(range(2 * changes))
    random.Random(1).shuffle(moments)
    for moment in moments[: length(3)]:
        folder = tmp_path / f"at{moment}"
        assert start(run, folder, KILL_AT=str(moment)).wait(LIMIT) == -signal.SIGKILL, moment
        assert finish(run, folder, resumes=True) == expected, moment
        shutil.rmtree(folder)
