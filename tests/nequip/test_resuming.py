"""A training that was stopped goes on as the run it was, or says why it cannot."""

import shutil
import signal

import pytest
from forked_training import checkpoint, nequip_train, same_weights, write_frames

EPOCHS = 4
# so high that the best epoch comes early and is not the last
RESTLESS = ("lr=0.4", f"max_epochs={EPOCHS}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an uninterrupted run, whose best epoch is not its last."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    ended = nequip_train(*data, *RESTLESS, f"hydra.run.dir={folder}")
    assert ended.code == 0, ended.output[-3000:]
    assert checkpoint(folder / "best.ckpt")["epoch"] < EPOCHS - 1
    return folder


def stop_early(data, folder):
    """Train all epochs but the last."""
    end = f"trainer.max_epochs={EPOCHS - 1}"
    ended = nequip_train(*data, *RESTLESS, end, f"hydra.run.dir={folder}")
    assert ended.code == 0, ended.output[-3000:]
    return folder


@pytest.fixture(scope="module")
def half(data, tmp_path_factory):
    """The folder of a run that ended an epoch early."""
    return stop_early(data, tmp_path_factory.mktemp("half") / "run")


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "half")


def resume(data, source, target, *overrides):
    places = (f"hydra.run.dir={target}", f"++ckpt_path={source}/last.ckpt")
    return nequip_train(*data, *RESTLESS, *places, *overrides)


def same_run(one, other):
    """The same checkpoints, and no further ones."""
    names = [sorted(path.name for path in folder.glob("*.ckpt")) for folder in (one, other)]
    assert names[0] == names[1]
    return all(same_weights(one / name, other / name) for name in ("best.ckpt", "last.ckpt"))


@pytest.mark.parametrize("where", ["in its folder", "in a new folder", "moved"])
def test_a_resumed_run_keeps_its_best_epoch(data, whole, half, tmp_path, where):
    if where == "in its folder":
        source = stop_early(data, tmp_path / "run")
    else:  # Lightning's memory names the place where it was written
        source = copied(half, tmp_path)
    target = tmp_path / "new" if where == "in a new folder" else source
    ended = resume(data, source, target)
    assert ended.code == 0, ended.output[-3000:]
    assert same_run(whole, target)


def test_a_kill_between_the_first_checkpoints_is_no_end(data, whole, tmp_path):
    run, place = tmp_path / "run", f"hydra.run.dir={tmp_path}/run"
    killed = nequip_train(*data, *RESTLESS, place, when=(run / "best.ckpt").exists)
    assert killed.code == -signal.SIGKILL
    for name in ("last.ckpt", "latest.ckpt"):  # wherever exactly the kill came
        (run / name).unlink(missing_ok=True)
    (run / ".best.abc.tmp.ckpt").touch()
    again = nequip_train(*data, *RESTLESS, place)
    assert again.code == 0, again.output[-3000:]
    assert same_run(whole, run)
    assert not list(run.glob(".*.tmp*"))


def test_sigterm_is_no_success_and_says_how_to_go_on(data, tmp_path):
    run = tmp_path / "run"
    ended = nequip_train(
        *data, "max_epochs=500", f"hydra.run.dir={run}",
        when=(run / "last.ckpt").exists, sig=signal.SIGTERM,
    )  # fmt: skip
    assert ended.code == 128 + signal.SIGTERM
    assert f"hydra.run.dir={run} ++ckpt_path={run}/last.ckpt" in ended.output
    assert "Traceback" not in ended.output


def test_a_finished_training_is_not_overwritten(data, half, tmp_path):
    run = copied(half, tmp_path)
    before = {path: path.read_bytes() for path in run.glob("*.ckpt")}
    ended = nequip_train(*data, *RESTLESS, f"hydra.run.dir={run}")
    assert f"++ckpt_path={run}/last.ckpt" in ended.error
    (run / "last.ckpt").rename(tmp_path / "last.ckpt")
    ended = nequip_train(*data, *RESTLESS, f"hydra.run.dir={run}")
    assert "latest.ckpt" in ended.error or "best.ckpt" in ended.error
    (tmp_path / "last.ckpt").rename(run / "last.ckpt")
    assert before == {path: path.read_bytes() for path in run.glob("*.ckpt")}


def test_a_folder_has_one_training_at_a_time(data, tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        ended = nequip_train(*data, f"hydra.run.dir={tmp_path}/run")
    assert "another training is writing" in ended.error


@pytest.mark.parametrize(
    "changed, words",
    [
        (["type_names=[O,C,H]"], ["type_names", "O", "H"]),
        (["r_max=3.0"], ["r_max", "3.0", "4.0"]),
        (["lr=0.1"], ["optimizer.lr", "0.1", "0.4"]),
        (["feature_dim=32"], ["feature_dim", "32", "16"]),
        (["max_epochs=9"], ["max_epochs=4", "rise again"]),
        (["trainer.max_epochs=9"], ["max_epochs=4", "rise again"]),
        (["run=[test]"], ["run=[test]", "bench forces"]),
        (["+data.key_mapping={other: forces}"], ["key_mapping"]),
        (["training_module.ema_decay=0.9"], ["ema_decay", "0.9", "0.99"]),
        (["++ckpt_path=lost.ckpt"], ["lost.ckpt", "missing"]),
    ],
)
def test_another_run_is_not_resumed(data, half, tmp_path, changed, words):
    run = copied(half, tmp_path)
    before = {path: path.read_bytes() for path in run.glob("*.ckpt")}
    error = resume(data, run, run, *changed).error
    for word in words:
        assert word in error
    assert before == {path: path.read_bytes() for path in run.glob("*.ckpt")}


def test_a_damaged_checkpoint_is_named(data, half, tmp_path):
    run = copied(half, tmp_path)
    (run / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:2000])
    assert str(run / "last.ckpt") in resume(data, run, run).error


def test_what_only_decides_the_speed_may_change(data, half, tmp_path):
    run = copied(half, tmp_path)
    ended = resume(data, run, run, "modifiers=[enable_FoldedSelfConnection]", "batch_size=6")
    assert ended.code == 0, ended.output[-3000:]


@pytest.mark.parametrize(
    "changed, words", [("type_names=[O,C,H]", "type_names=[H,C,O]"), ("r_max=3.0", "r_max=4")]
)
def test_fine_tuning_starts_with_the_types_and_the_cutoff_of_the_model(
    data, half, tmp_path, changed, words
):
    model = "training_module.model"
    ended = nequip_train(
        *data, changed, "max_epochs=1", f"hydra.run.dir={tmp_path}/run", f"~{model}",
        f"+{model}._target_=nequip.model.ModelFromCheckpoint",
        f"+{model}.checkpoint_path={half}/best.ckpt",
    )  # fmt: skip
    assert words in ended.error
