"""`eqplugin mace-train` when something goes wrong on the way: nothing is lost, nothing is NaN."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase.io import read, write
from mace_training import STEERABLE, arguments, same_weights, trained

from eqplugin.errors import EqPluginError
from eqplugin.mace import _loop
from eqplugin.mace.train import train

pytestmark = pytest.mark.usefixtures("without_torchscript")
# the validation loss falls in every epoch, so that there is a checkpoint to lose
SMALL = {**STEERABLE, "lr": 0.03, "batch_size": 2, "ema": True, "ema_decay": 0.5}


def checkpoints(folder):
    """Names of the files that are neither locks nor models."""
    found = (path.name for path in (folder / "checkpoints").iterdir())
    return sorted(name for name in found if not name.endswith((".lock", ".model")))


# ---- losses that are not finite


@pytest.mark.parametrize("changes", [{}, {"eval_interval": 5}, {"default_dtype": "float32"}])
def test_a_loss_that_is_not_finite_ends_the_training(ethanol, tmp_path, changes):
    changes = {
        "clip_grad": 1e30,
        "lr": 1e200 if "default_dtype" not in changes else 1e30,
        **changes,
    }
    with pytest.raises(EqPluginError, match=r"not finite") as caught:
        train(arguments(ethanol, tmp_path, **SMALL | {"max_num_epochs": 4, **changes}))
    if "in epoch" in str(caught.value):
        assert re.search(r"(train|valid)\.xyz, frame \d+", str(caught.value))
    assert not (tmp_path / "run.model").exists()
    for file in (tmp_path / "checkpoints").glob("*.pt"):
        state = torch.load(file, weights_only=False)["model"]
        assert all(torch.isfinite(values).all() for values in state.values()), file


def test_the_frame_to_blame_is_named(ethanol, tmp_path, monkeypatch):
    blamed = read(ethanol / "train.xyz", 7)

    from mace import modules

    stock = modules.WeightedEnergyForcesLoss.forward

    def forward(self, ref, pred, ddp=None):
        for graph in range(ref.num_graphs):
            inside = ref.batch == graph
            if np.allclose(ref["positions"][inside].detach(), blamed.positions):
                pred["energy"] = pred["energy"].clone()
                pred["energy"][graph] = torch.nan
        return stock(self, ref, pred, ddp)

    monkeypatch.setattr(modules.WeightedEnergyForcesLoss, "forward", forward)
    with pytest.raises(EqPluginError, match=r"in epoch 0, first for .*train\.xyz, frame 7: lower"):
        train(arguments(ethanol, tmp_path, **SMALL))


def test_a_resume_file_with_nan_is_refused(ethanol, tmp_path):
    train(arguments(ethanol, tmp_path, **SMALL, max_num_epochs=1))
    path = next((tmp_path / "checkpoints").glob("*_resume.pt"))
    state = torch.load(path, weights_only=False)
    next(v for v in state["model"].values() if v.is_floating_point()).fill_(torch.nan)
    torch.save(state, path)
    with pytest.raises(EqPluginError, match="holds weights that are not finite"):
        train(arguments(ethanol, tmp_path, **SMALL, restart_latest=True))


# ---- kills


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it, nothing is written after it."""


def killed_at(monkeypatch, folder, line, place):
    """Run a training that dies before it removes, or after it writes, a file of a pattern."""
    stock = _loop.whole_file

    def whole_file(path, *args, **kwargs):
        if place == "before" and re.search(line, str(path)):
            raise Killed
        return stock(path, *args, **kwargs)

    def save(self, path, stock_save=_loop.TrainingLoop._save):
        if place == "after" and any(re.search(line, name) for name in os.listdir(path.parent)):
            raise Killed
        stock_save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(_loop, "whole_file", whole_file)
        patch.setattr(_loop.TrainingLoop, "_save", save)
        with pytest.raises(Killed):
            train(folder)


@pytest.fixture(scope="module")
def straight(ethanol, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eqplugin.mace.train.jit.compile", refuse)
        folder = tmp_path_factory.mktemp("straight")
        return trained(ethanol, folder, **SMALL, max_num_epochs=4)


def refuse(*_args, **_kwargs):
    raise RuntimeError("left out in this test")


@pytest.mark.parametrize(
    "pattern, place",
    [
        (r"epoch-0\.pt", "before"),
        (r"epoch-0\.pt", "after"),
        (r"epoch-2\.pt", "before"),
        (r"epoch-2\.pt", "after"),
    ],
)
def test_a_kill_between_two_files_loses_nothing(
    ethanol, tmp_path, monkeypatch, straight, pattern, place
):
    line = arguments(ethanol, tmp_path, **SMALL, max_num_epochs=4)
    killed_at(monkeypatch, line, pattern, place)
    resumed = trained(ethanol, tmp_path, **SMALL, max_num_epochs=4, restart_latest=True)
    assert same_weights(straight, resumed)
    assert checkpoints(tmp_path) == ["run_run-123_epoch-3.pt", "run_run-123_resume.pt"]


def test_what_an_earlier_run_left_is_kept_aside_and_not_taken_for_this_one(ethanol, tmp_path):
    longer = trained(ethanol, tmp_path, **SMALL, max_num_epochs=4)
    old = checkpoints(tmp_path)
    shorter = trained(ethanol, tmp_path, **SMALL, max_num_epochs=2)
    assert not same_weights(longer, shorter)  # MACE would have taken the latest checkpoint it saw
    alone = trained(ethanol, tmp_path / "alone", **SMALL, max_num_epochs=2)
    assert same_weights(alone, shorter)
    aside = tmp_path / "checkpoints/before-1"
    assert sorted(path.name for path in aside.iterdir()) == old


def test_leftovers_of_a_killed_writer_are_removed(ethanol, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (".run_run-123_epoch-7.x1y2.tmp.pt", ".run_run-123_resume.x1y2.tmp.pt"):
        (folder / name).write_bytes(b"half")
    other = folder / ".run2_run-123_resume.x1y2.tmp.pt"
    other.write_bytes(b"of another run")
    train(arguments(ethanol, tmp_path, **SMALL, max_num_epochs=1))
    assert checkpoints(tmp_path) == [other.name, "run_run-123_epoch-0.pt", "run_run-123_resume.pt"]


# ---- two at once, signals


def started(ethanol, folder, **changes):
    line = arguments(ethanol, folder, **{**SMALL, "max_num_epochs": 500, **changes})
    return subprocess.Popen(
        [sys.executable, "-c", "from eqplugin.cli import app; app()", "mace-train", *line],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_second_training_under_the_same_name_is_refused_and_sigterm_is_no_success(
    ethanol, tmp_path
):
    first = started(ethanol, tmp_path)
    try:
        resume = tmp_path / "checkpoints/run_run-123_resume.pt"
        limit = time.monotonic() + 300
        while not resume.exists() and first.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        for changes in ({}, {"seed": 5}, {"restart_latest": True}):
            with pytest.raises(EqPluginError, match="another training writes run"):
                train(arguments(ethanol, tmp_path, **SMALL, **changes))
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait() != 0
    train(arguments(ethanol, tmp_path, **SMALL, max_num_epochs=1))


# ---- memory, disk


def test_too_little_memory_is_said_in_a_sentence(ethanol, tmp_path, monkeypatch):
    def take_step(**_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't "
                           "allocate memory: you tried to allocate 88 bytes.")  # fmt: skip

    monkeypatch.setattr(sys.modules["mace.tools.train"], "take_step", take_step)
    with pytest.raises(EqPluginError, match=r"not enough memory .* lower --batch_size \(2\)"):
        train(arguments(ethanol, tmp_path, **SMALL))


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(ethanol, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EqPluginError, match=r"file.* cannot be"):
        train(arguments(ethanol, tmp_path / "file/run", **SMALL))


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from eqplugin.cli import app
app()
"""


@pytest.mark.parametrize("room", [20_000, 100_000])
def test_a_full_disk_is_said_in_a_sentence_and_nothing_is_half_written(ethanol, tmp_path, room):
    line = arguments(ethanol, tmp_path / "run", **STEERABLE, max_num_epochs=3)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), "mace-train", *line],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "eqplugin: error:" in done.stderr
    for file in (tmp_path / "run").rglob("*"):
        assert ".tmp" not in file.name
        if file.suffix in (".pt", ".model"):
            torch.load(file, weights_only=False)


def test_an_error_of_mace_is_a_sentence_and_its_traceback_is_in_the_log(ethanol, tmp_path):
    with pytest.raises(EqPluginError, match=r"MACE stopped with .*run_run-123_debug\.log"):
        train(arguments(ethanol, tmp_path, model="MACE", num_channels=4, max_L=0, MLP_irreps="x"))
    assert "Traceback" in (tmp_path / "logs/run_run-123_debug.log").read_text()


def test_an_isolated_frame_far_away_trains(ethanol, tmp_path):
    frames = read(ethanol / "train.xyz", ":")
    for atoms in frames:
        atoms.translate([5000, -300, 0])
    write(tmp_path / "far.xyz", frames)
    far = trained(ethanol, tmp_path / "far", **SMALL, train_file=tmp_path / "far.xyz")
    near = trained(ethanol, tmp_path / "near", **SMALL)
    for key, value in near.state_dict().items():
        assert torch.allclose(value, far.state_dict()[key], atol=1e-6)
