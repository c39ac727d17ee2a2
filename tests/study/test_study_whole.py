"""The quick-start study from start to end, with a job killed on the way, run again."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.report.records import read_records

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "-m", "family=nequip,mace", "l_max=0,1", "seed=1", "feature_dim=16", "train.steps=160",
    "data.train_frames=50", "data.test_frames=5", "speed_repeats=2",
)  # fmt: skip
EPOCHS = 16
VICTIM = "nequip-L1-D16-s1"


def start(out):
    command = [str(Path(sys.executable).parent / "eqplugin"), "study"]
    command += [str(ROOT / "configs/study/quickstart.yaml"), *SMALL, f"out={out}"]
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        command += ["--workers", "2"]
    log = (out.parent / "log").open("a")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def epochs_seen(folder):
    logs = folder.glob("metrics/version_*/metrics.csv")
    return sum(log.read_text().count("\n") for log in logs)


@pytest.mark.slow
def test_quickstart_survives_a_killed_job_and_a_rerun(tmp_path):
    out = tmp_path / "out"
    process = start(out)
    try:
        state = _wait_for_checkpoint(out, process)
        os.kill(state["pid"], signal.SIGKILL)
        assert process.wait(1800) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    records = {r.job: r for r in read_records(out) if r.kind == "job"}
    assert len(records) == 4
    statuses = {name: record.status for name, record in records.items()}
    assert statuses.pop(VICTIM) == "failed", (tmp_path / "log").read_text()
    assert set(statuses.values()) == {"done"}
    assert "exit status -9" in records[VICTIM].error
    before = {name: record.time for name, record in records.items()}

    assert start(out).wait(1800) == 0, (tmp_path / "log").read_text()
    lines = read_records(out)
    records = {r.job: r for r in lines if r.kind == "job"}
    assert {record.status for record in records.values()} == {"done"}
    # the others were reused, the victim went on where it was
    assert [n for n in before if records[n].time != before[n]] == [VICTIM]
    (folder,) = (out / "jobs").glob(f"{VICTIM}-*/{VICTIM}")
    assert len(list(folder.glob("metrics/version_*"))) == 2
    epochs = [epoch for epoch, _ in records[VICTIM].validation]
    assert epochs == list(range(1, EPOCHS + 1))
    for record in records.values():
        assert record.steps == 160
        assert 0 < record.errors["300K"].force_mae < 2000
        assert record.cost.step_ms.median > 0
        assert record.cost.force_peak_bytes > 1e8  # torch alone takes as much
        assert 1 < record.cost.train_cpu_s < 1.2 * record.cost.train_s + 1
    (speed,) = (line for line in lines if line.kind == "speed")
    assert len(speed.models) == 4

    result = CliRunner().invoke(app, ["report", str(out)])
    assert result.exit_code == 0, result.output
    assert "one seed: no test" in (out / "report/report.md").read_text()


@pytest.mark.slow
def test_the_quickstart_as_it_is_configured(tmp_path):
    """Its own arms, every one, with fewer steps: what the README's three commands do."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    out = tmp_path / "out"
    command = [str(Path(sys.executable).parent / "eqplugin"), "study"]
    command += [str(ROOT / "configs/study/quickstart.yaml"), f"out={out}", "--workers", "2"]
    command += ["budgets.reduced.steps=10", "data.train_frames=50", "speed_repeats=2"]
    command += ["budgets.reduced.test_frames=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = read_records(out)
    jobs = [line for line in lines if line.kind == "job"]
    assert {job.status for job in jobs} == {"done"}
    assert {arm for job in jobs for arm in job.arms} == {
        "degrees", "hops", "parameters", "mace"
    }  # fmt: skip
    assert {job.seed for job in jobs} == {1, 2}
    assert any(line.kind == "speed" for line in lines)

    result = CliRunner().invoke(app, ["report", str(out)])
    assert result.exit_code == 0, result.output
    report = (out / "report/report.md").read_text()
    for heading in (
        "### Equal dimension: ", "### Equal parameters: ", "### Equal dimension, between hops",
        "### Equal parameters, between values of L",
    ):  # fmt: skip
        assert f"\n{heading}" in report
    assert "MACE L=1" in report
    for plot in ("degrees", "pareto", "curves"):
        assert list((out / "report").rglob(f"*{plot}*.png")), plot


@pytest.mark.slow
def test_jobs_through_submitit(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    out = tmp_path / "out"
    command = [str(Path(sys.executable).parent / "eqplugin"), "study"]
    command += [str(ROOT / "configs/study/quickstart.yaml"), "-m", "l_max=0,1", "seed=1"]
    command += ["feature_dim=16", "train.steps=10", "data.train_frames=50", "data.test_frames=5"]
    command += ["speed_repeats=2", f"out={out}", "hydra/launcher=submitit_local"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [record for record in read_records(out) if record.kind == "job"]
    assert {record.status for record in records} == {"done"}
    assert len(records) == 2
    assert list(out.rglob(".submitit")), "the jobs did not go through submitit"


def _wait_for_checkpoint(out, process):
    """The victim's training state, once it has something to resume from."""
    for _ in range(1200):
        for folder in (out / "jobs").glob(f"{VICTIM}-*/{VICTIM}"):
            if (folder / "last.ckpt").is_file() and epochs_seen(folder) > 3:
                state = json.loads((folder / "run.json").read_text())
                assert not state["finished"], "too fast to be killed: raise the steps"
                return state
        assert process.poll() is None, "the study ended before the job could be killed"
        time.sleep(0.25)
    raise AssertionError("the job never wrote a checkpoint")
