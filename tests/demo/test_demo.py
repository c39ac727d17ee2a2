"""The demo's bookkeeping: reuse, resume, retrain; and its report from stored results."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.demo import report
from eqplugin.demo.measuring import TEMPERATURES
from eqplugin.demo.stacks import STACKS
from eqplugin.demo.training import TrainedModel, train
from eqplugin.demo.variants import VARIANTS
from eqplugin.errors import EqPluginError
from eqplugin.measure.forces import ForceErrors
from eqplugin.study import training

ROOT = Path(__file__).resolve().parents[2]


NEQUIP = next(variant for variant in VARIANTS if variant.stack == "nequip")
MACE = next(variant for variant in VARIANTS if variant.stack == "mace")


@pytest.fixture
def clone(tmp_path):
    """Stands in for the repository: configs and data, which decide what is trained."""
    root = tmp_path / "clone"
    for path in (
        "examples/data/ethanol_xtb/train.xyz",
        "configs/nequip/a.yaml",
        "configs/mace/a.yaml",
    ):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("something")
    return root


@pytest.fixture
def commands(monkeypatch):
    """Stands in for nequip-train: notes the command, leaves checkpoints and metrics."""
    seen = []

    def run(command, log, *_):
        seen.append(command)
        for name in ("best.ckpt", "last.ckpt"):
            (log.parent / name).touch()
        epochs = next(int(part[11:]) for part in command if part.startswith("max_epochs="))
        write_metrics(log.parent, epochs)

    monkeypatch.setattr(training, "run_logged", run)
    return seen


def write_metrics(folder, epochs):
    csv = folder / "metrics" / "version_0" / "metrics.csv"
    csv.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{epoch},{0.1 / (epoch + 1)}\n{epoch}," for epoch in range(epochs)]
    csv.write_text("\n".join(["epoch,val0_epoch/forces_mae", *rows]) + "\n")


def go(clone, out, epochs=3):
    return train(NEQUIP, clone, out, epochs, lambda done, note: None, Event())


def test_a_finished_run_is_reused(commands, clone, tmp_path):
    first, second = go(clone, tmp_path), go(clone, tmp_path)
    assert len(commands) == 1
    assert (first.reused, second.reused) == (False, True)
    assert second.checkpoint.is_file()
    assert second.seconds == pytest.approx(first.seconds)


def test_an_interrupted_run_is_resumed(commands, clone, tmp_path, monkeypatch):
    def interrupted(command, log, *_):
        (log.parent / "last.ckpt").touch()
        raise KeyboardInterrupt

    whole = training.run_logged
    monkeypatch.setattr(training, "run_logged", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(clone, tmp_path)
    monkeypatch.setattr(training, "run_logged", whole)
    go(clone, tmp_path)
    last = tmp_path / NEQUIP.name / "last.ckpt"
    assert f"++ckpt_path={last}" in commands[-1]


@pytest.mark.parametrize("change", ["data", "epochs"])
def test_what_was_trained_otherwise_is_trained_again(commands, clone, tmp_path, change):
    go(clone, tmp_path)
    if change == "data":
        (clone / "examples/data/ethanol_xtb/train.xyz").write_text("other frames")
    again = go(clone, tmp_path, epochs=4 if change == "epochs" else 3)
    assert not again.reused
    assert len(commands) == 2
    assert not any("ckpt_path" in part for part in commands[-1])


def run_python(code, log, stop=None, started=lambda pid: None):
    training.run_logged(["python", "-c", code], log, started, lambda: None, stop or Event())


def test_a_failing_command_names_its_log(tmp_path):
    with pytest.raises(EqPluginError) as error:
        run_python("raise SystemExit('no luck')", tmp_path / "log")
    assert "no luck" in str(error.value)
    assert str(tmp_path / "log") in str(error.value)


def test_stopping_ends_the_training_process(tmp_path):
    stop, pids = Event(), []
    stop.set()
    with pytest.raises(EqPluginError, match="interrupted"):
        run_python("import time; time.sleep(60)", tmp_path / "log", stop, pids.append)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_run_that_ended_early_is_not_called_finished(commands, clone, tmp_path, monkeypatch):
    def run(command, log, *_):
        write_metrics(log.parent, 2)

    monkeypatch.setattr(training, "run_logged", run)
    with pytest.raises(EqPluginError, match="2 of 3 epochs"):
        go(clone, tmp_path)
    assert not json.loads((tmp_path / NEQUIP.name / "run.json").read_text())["finished"]


def test_a_folder_in_use_is_refused(commands, clone, tmp_path):
    go(clone, tmp_path)
    folder = tmp_path / NEQUIP.name
    state = json.loads((folder / "run.json").read_text())
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(folder)])
    try:
        (folder / "run.json").write_text(json.dumps({**state, "finished": False, "pid": other.pid}))
        with pytest.raises(EqPluginError, match=f"kill {other.pid}"):
            go(clone, tmp_path)
    finally:
        other.kill()
        other.wait()
    assert len(commands) == 1


def test_progress_counts_epochs_once(tmp_path):
    write_metrics(tmp_path, 2)
    assert training.progress_of(STACKS["nequip"], tmp_path) == (2, "validation 50.0 meV/A")
    assert training.progress_of(STACKS["nequip"], tmp_path / "nothing") == (0, "starting")


def test_progress_of_mace_reads_its_results(tmp_path):
    (tmp_path / "results").mkdir()
    rows = [
        {"mode": "eval", "epoch": None, "mae_f": 0.9},
        {"mode": "opt", "epoch": 0, "loss": 1.0},
        {"mode": "eval", "epoch": 0, "mae_f": 0.2},
        {"mode": "eval", "epoch": 1, "mae_f": 0.1},
    ]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"mode": "ev'  # a line being written
    (tmp_path / "results" / "a_run-1_train.txt").write_text(text)
    assert training.progress_of(STACKS["mace"], tmp_path) == (2, "validation 100.0 meV/A")


def test_an_interrupted_mace_run_is_resumed(tmp_path):
    assert STACKS["mace"].resume(tmp_path) == []
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a.pt").touch()
    assert STACKS["mace"].resume(tmp_path) == ["--restart_latest"]


def test_variants_share_dimension_and_depth():
    commands = [STACKS[v.stack].command(v, ROOT, Path("out"), 1) for v in VARIANTS]
    assert all("feature_dim 128" in " ".join(command).replace("=", " ") for command in commands)
    assert not any("num_layers" in part for command in commands for part in command)
    assert not any("num_interactions" in part for command in commands for part in command)


def test_report_holds_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "num_parameters", lambda checkpoint: 12345)
    folder = tmp_path / NEQUIP.name
    folder.mkdir()
    errors = {t: asdict(ForceErrors(100, t / 10, t / 8, t / 100)) for t in TEMPERATURES}
    (folder / "errors.json").write_text(json.dumps(errors))
    rng = np.random.default_rng(0)
    np.savez(
        folder / "parity.npz",
        **{f"forces_{t}": rng.normal(size=(9, 2)) for t in TEMPERATURES},
        **{f"energies_{t}": rng.normal(size=(3, 2)) for t in TEMPERATURES},
    )
    times = "\n".join(f"{i / 10},{-900 + 9e-3 * i / 10},300" for i in range(20))
    (folder / "nve.csv").write_text(f"time_ps,total_energy_eV,temperature_K\n{times}\n")
    model = TrainedModel(NEQUIP, folder / "best.ckpt", 65.0, False, "")
    path = report.write_report(tmp_path, [model], {NEQUIP.name: np.full(5, 7.25)}, 123.0, 10, "")
    text = path.read_text()
    for expected in ("12,345", "30.0 / 37.5", "120.0 / 150.0", "3.00", "7.2 (7.2-7.2)", "+1.000"):
        assert expected in text
    for plot in ("errors.png", "parity.png", "drift.png"):
        assert (tmp_path / plot).stat().st_size > 5000
        assert plot in text
    assert (tmp_path / "table.csv").is_file()


def test_without_configs_and_data_the_demo_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("eqplugin.demo.run.ROOT", tmp_path)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "install it again" in result.stderr
    assert not (tmp_path / "out").exists()
