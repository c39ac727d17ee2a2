"""Trainings of a study: reused, resumed, trained again, and how far they are."""

import json
import os
from threading import Event

import pytest

from eqplugin.errors import EqPluginError
from eqplugin.stacks import stack_named
from eqplugin.study import training

NEQUIP, MACE = stack_named("nequip"), stack_named("mace")


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


def go(folder, epochs=3, data="frames"):
    """Train in a folder, as a study does."""
    command = ("nequip-train", f"max_epochs={epochs}")
    fingerprint = f"{epochs} epochs on {data}"
    run = training.TrainingRun("a model", NEQUIP, folder, command, epochs, fingerprint, "again")
    return training.run_training(run, lambda done, note: None, Event())


def test_a_finished_run_is_reused(commands, tmp_path):
    first, second = go(tmp_path), go(tmp_path)
    assert len(commands) == 1
    assert (first.reused, second.reused) == (False, True)
    assert second.model.is_file()
    assert second.seconds == pytest.approx(first.seconds)


def test_an_interrupted_run_is_resumed(commands, tmp_path, monkeypatch):
    def interrupted(command, log, *_):
        (log.parent / "last.ckpt").touch()
        raise KeyboardInterrupt

    whole = training.run_logged
    monkeypatch.setattr(training, "run_logged", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path)
    monkeypatch.setattr(training, "run_logged", whole)
    go(tmp_path)
    last = tmp_path / "last.ckpt"
    assert f"++ckpt_path={last}" in commands[-1]


@pytest.mark.parametrize("change", ["data", "epochs"])
def test_what_was_trained_otherwise_is_trained_again(commands, tmp_path, change):
    go(tmp_path)
    changes = {"data": {"data": "other frames"}, "epochs": {"epochs": 4}}
    again = go(tmp_path, **changes[change])
    assert not again.reused
    assert len(commands) == 2
    assert not any("ckpt_path" in part for part in commands[-1])
    aside = tmp_path.with_name(f"{tmp_path.name}.aside-1")
    assert (aside / "last.ckpt").is_file()


DAMAGED = {
    "cut short": '{"fingerp',
    "empty": "",
    "missing": None,
    "a list": "[]",
    "of other types": '{"fingerprint": "3 epochs on frames", "seconds": "long", "finished": true}',
    "without its time": '{"fingerprint": "3 epochs on frames", "finished": true}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_folder_that_is_not_provably_this_run_is_moved_aside(commands, tmp_path, content, caplog):
    for number in (1, 2):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "last.ckpt").write_text("ten days of training")
        (folder / "thesis.tex").write_text("precious")
        (folder / "run.json").unlink(missing_ok=True)
        if content is not None:
            (folder / "run.json").write_text(content)
        assert not go(folder).reused
        assert not any("ckpt_path" in part for part in commands[-1])
        aside = tmp_path / f"model.aside-{number}"
        assert (aside / "last.ckpt").read_text() == "ten days of training"
        assert (aside / "thesis.tex").read_text() == "precious"
        assert str(aside) in caplog.text


def test_an_empty_folder_is_used_as_it_is(commands, tmp_path):
    (tmp_path / "model").mkdir()
    go(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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


def test_a_run_that_ended_early_is_not_called_finished(commands, tmp_path, monkeypatch):
    def run(command, log, *_):
        write_metrics(log.parent, 2)

    monkeypatch.setattr(training, "run_logged", run)
    with pytest.raises(EqPluginError, match="2 of 3 epochs"):
        go(tmp_path)
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]


def test_progress_counts_epochs_once(tmp_path):
    write_metrics(tmp_path, 2)
    assert training.progress_of(NEQUIP, tmp_path) == (2, "validation 50.0 meV/A")
    assert training.progress_of(NEQUIP, tmp_path / "nothing") == (0, "starting")


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
    assert training.progress_of(MACE, tmp_path) == (2, "validation 100.0 meV/A")


def test_an_interrupted_mace_run_is_resumed(tmp_path):
    assert MACE.resume(tmp_path) == []
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a.pt").touch()
    assert MACE.resume(tmp_path) == ["--restart_latest"]
