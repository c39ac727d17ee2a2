"""The demo's bookkeeping: reuse, resume, retrain; and its report from stored results."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eqplugin.bench.forces import ForceErrors
from eqplugin.cli import app
from eqplugin.demo import report, training
from eqplugin.demo.measuring import TEMPERATURES
from eqplugin.demo.training import TrainedModel, train
from eqplugin.demo.variants import VARIANTS
from eqplugin.errors import EqPluginError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "nequip"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.xyz").write_text("frames")
    return folder


@pytest.fixture
def commands(monkeypatch):
    """Stands in for nequip-train: notes the command and leaves checkpoints."""
    seen = []

    def run(command, log, poll):
        seen.append(command)
        for name in ("best.ckpt", "last.ckpt"):
            (log.parent / name).touch()

    monkeypatch.setattr(training, "_run", run)
    return seen


def go(data, out, epochs=3):
    return train(VARIANTS[0], CONFIGS, data, out, epochs, lambda done, note: None)


def test_a_finished_run_is_reused(commands, data, tmp_path):
    first, second = go(data, tmp_path), go(data, tmp_path)
    assert len(commands) == 1
    assert (first.reused, second.reused) == (False, True)
    assert second.checkpoint.is_file()
    assert second.seconds == pytest.approx(first.seconds)


def test_an_interrupted_run_is_resumed(commands, data, tmp_path, monkeypatch):
    def interrupted(command, log, poll):
        (log.parent / "last.ckpt").touch()
        raise KeyboardInterrupt

    whole = training._run
    monkeypatch.setattr(training, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(data, tmp_path)
    monkeypatch.setattr(training, "_run", whole)
    go(data, tmp_path)
    last = tmp_path / VARIANTS[0].name / "last.ckpt"
    assert f"++ckpt_path={last}" in commands[-1]


@pytest.mark.parametrize("change", ["data", "epochs"])
def test_what_was_trained_otherwise_is_trained_again(commands, data, tmp_path, change):
    go(data, tmp_path)
    if change == "data":
        (data / "train.xyz").write_text("other frames")
    again = go(data, tmp_path, epochs=4 if change == "epochs" else 3)
    assert not again.reused
    assert len(commands) == 2
    assert not any("ckpt_path" in part for part in commands[-1])


def test_a_failing_command_names_its_log(tmp_path):
    with pytest.raises(EqPluginError) as error:
        training._run(["python", "-c", "raise SystemExit('no luck')"], tmp_path / "log", bool)
    assert "no luck" in str(error.value)
    assert str(tmp_path / "log") in str(error.value)


def test_variants_share_dimension_and_depth():
    commands = [training.command_of(v, CONFIGS, Path("out"), 1) for v in VARIANTS]
    assert all("feature_dim=128" in command for command in commands)
    assert not any("num_layers" in part for command in commands for part in command)


def test_report_holds_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_parameters", lambda checkpoint: 12345)
    folder = tmp_path / VARIANTS[0].name
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
    model = TrainedModel(VARIANTS[0], folder / "best.ckpt", 65.0, False, "")
    path = report.write_report(
        tmp_path, [model], {VARIANTS[0].name: np.full(5, 7.25)}, 123.0, 10, ""
    )
    text = path.read_text()
    for expected in ("12,345", "30.0 / 37.5", "120.0 / 150.0", "3.00", "7.2 (7.2-7.2)", "+1.000"):
        assert expected in text
    for plot in ("errors.png", "parity.png", "drift.png"):
        assert (tmp_path / plot).stat().st_size > 5000
        assert plot in text
    assert (tmp_path / "table.csv").is_file()


def test_without_a_clone_the_demo_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("eqplugin.demo.run.ROOT", tmp_path)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "clone" in result.stderr
    assert not (tmp_path / "out").exists()
