"""What nequip-train makes of unusual files, numbers of frames, and configs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from forked_training import ROOT, nequip_train, same_weights, write_frames

SHORT = ("max_epochs=1", "seed=3")
TEST = ("run=[train,test]", "+training_module.test_metrics=${training_module.val_metrics}")


@pytest.fixture
def data(tmp_path):
    return write_frames(tmp_path)


@pytest.fixture
def train(data, tmp_path):
    """Train in tmp_path/NAME; the test fails where that fails."""

    def run(name, *overrides, **how):
        place = f"hydra.run.dir={tmp_path}/{name}"
        ended = nequip_train(*data, *SHORT, place, *overrides, **how)
        assert ended.code == 0, ended.output[-3000:]
        return ended

    return run


def with_results(path, every=1, **more):
    """Write train.xyz again, some frames with further results."""
    frames = read(path, ":")
    for index, atoms in enumerate(frames):
        added = more if index % every == 0 else {}
        atoms.calc = SinglePointCalculator(atoms, **atoms.calc.results, **added)
    write(path, frames)


@pytest.mark.parametrize(
    "every, more",
    [
        (1, {"dipole": np.ones(3)}),
        (2, {"free_energy": -1.0}),
        (2, {"magmoms": np.zeros(9)}),
        (2, {"stress": np.zeros(6)}),
        (3, {"charges": np.zeros(9), "energies": np.zeros(9)}),
    ],
)
def test_results_that_are_not_trained_on_change_nothing(train, tmp_path, every, more):
    train("plain")
    with_results(tmp_path / "train.xyz", every, **more)
    train("more")
    assert same_weights(tmp_path / "plain" / "last.ckpt", tmp_path / "more" / "last.ckpt")


def test_a_loss_of_stress_wants_stress_in_every_frame(data, tmp_path):
    with_results(tmp_path / "train.xyz", 2, stress=np.zeros(6))
    loss = (
        "training_module.loss._target_=nequip.train.EnergyForceStressLoss",
        "+training_module.loss.coeffs.stress=1.0",
    )
    error = nequip_train(*data, *SHORT, *loss, f"hydra.run.dir={tmp_path}/run").error
    for word in ("train.xyz", "stress", "6 of 12"):
        assert word in error


def test_several_training_files_are_one_set(train, tmp_path):
    frames = read(tmp_path / "train.xyz", ":")
    write(tmp_path / "a.xyz", frames[:5])
    write(tmp_path / "b.xyz", frames[5:])
    train("one")
    train("two", f"train_files=[{tmp_path}/a.xyz,{tmp_path}/b.xyz]")
    assert same_weights(tmp_path / "one" / "last.ckpt", tmp_path / "two" / "last.ckpt")


def test_an_at_sign_belongs_to_the_file_name(train, tmp_path):
    write(tmp_path / "mol", read(tmp_path / "train.xyz", ":3"), format="extxyz")
    (tmp_path / "train.xyz").rename(tmp_path / "mol@2.xyz")
    train("at", f"train_files={tmp_path}/mol@2.xyz")
    (tmp_path / "mol@2.xyz").rename(tmp_path / "train.xyz")
    train("plain")
    assert same_weights(tmp_path / "at" / "last.ckpt", tmp_path / "plain" / "last.ckpt")


def test_a_statistic_of_a_species_without_frames_is_refused(data, train, tmp_path):
    types = "type_names=[H,C,N,O]"
    train("not_needed", types)
    scales = (
        "training_module.model.per_type_energy_scales=${training_data_stats:per_type_forces_rms}"
    )
    error = nequip_train(*data, *SHORT, types, scales, f"hydra.run.dir={tmp_path}/run").error
    for word in ("per_type_forces_rms", "N", "type_names"):
        assert word in error


@pytest.mark.parametrize(
    "frames, split, words",
    [
        (1, "train: 0.9, val: 0.1", ["1 frames", "too few"]),
        (12, "train: 20, val: 2", ["12 frames", "add up"]),
        (12, "train: 10, val: 1", ["12 frames", "add up"]),
        (12, "train: 0.5, val: 0.4", ["12 frames", "add up"]),
        (12, "train: 12, val: 0", ["above 0"]),
    ],
)
def test_a_split_needs_frames(data, tmp_path, frames, split, words):
    write(tmp_path / "all.xyz", read(tmp_path / "train.xyz", f":{frames}"))
    splits = f"split_files=[{{file_path: {tmp_path}/all.xyz, {split}}}]"
    none = ("train_files=[]", "val_files=[]")
    error = nequip_train(*data, *SHORT, *none, splits, f"hydra.run.dir={tmp_path}/run").error
    for word in ("all.xyz", *words):
        assert word in error


def test_a_split_and_a_batch_larger_than_the_data_train(train, tmp_path):
    splits = f"split_files=[{{file_path: {tmp_path}/train.xyz, train: 0.75, val: 0.25}}]"
    train("run", "train_files=[]", "val_files=[]", splits, "batch_size=1000")


def test_every_job_of_a_sweep_is_a_training(data, train, tmp_path):
    train("single", "lr=0.02")
    swept = nequip_train(
        *data, *SHORT, "lr=0.01,0.02", f"hydra.sweep.dir={tmp_path}/sweep", more=["-m"],
        config="steerable_minimal",
    )  # fmt: skip
    assert swept.code == 0, swept.output[-3000:]
    assert same_weights(tmp_path / "single" / "last.ckpt", tmp_path / "sweep" / "1" / "last.ckpt")


def test_trainings_of_one_second_have_a_folder_each(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for config in ("minimal", "steerable_minimal"):
        assert nequip_train(*data, *SHORT, config=config).code == 0
    folders = [path.parent.name for path in tmp_path.glob("outputs/*/*/last.ckpt")]
    assert len(folders) == 2
    assert all(len(name) == len("12-59-59-123456") for name in folders)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"defaults: [minimal, _self_]\nlr: [1, 2\n", ["my.yaml", "line 3", "YAML"]),
        (b"defaults: [minimal, _self_]\n# caf\xe9\n", ["UTF-8"]),
        (b"defaults: [maximal, _self_]\n", ["maximal"]),
        (b"defaults: [minimal, _self_]\nlr: ${rate}\n", ["rate"]),
        (b"defaults: [minimal, _self_]\n\tlr: 1\n", ["my.yaml", "line 2"]),
    ],
)
def test_a_config_that_cannot_be_read_is_one_sentence(data, tmp_path, content, words):
    for file in (ROOT / "configs" / "nequip").glob("*"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "my.yaml").write_bytes(content)
    place = f"hydra.run.dir={tmp_path}/run"
    error = nequip_train(*data, *SHORT, place, config="my", configs=tmp_path).error
    for word in words:
        assert word in error


@pytest.mark.slow
def test_ranks_test_every_frame_once(data, tmp_path):
    write(tmp_path / "test.xyz", read(tmp_path / "val.xyz", ":5"))

    def run(name, *overrides):
        # a process of its own: Lightning starts its command line once more for the second rank
        program = Path(sys.executable).parent / "nequip-train"
        ended = subprocess.run(
            [program, "-cp", ROOT / "configs" / "nequip", "-cn", "minimal", *data, *SHORT, *TEST,
             f"+data.test_file_path={tmp_path}/test.xyz", "+data.test_dataloader.batch_size=1",
             f"hydra.run.dir={tmp_path}/{name}", *overrides],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-3000:]
        lines = [line for line in ended.stdout.splitlines() if "test0_epoch/forces_" in line]
        assert lines
        return [float(line.split("│")[2]) for line in lines]

    alone = run("alone")
    # two ranks would take other steps, so the same model is tested
    model = "training_module.model"
    start = (
        f"~{model}", f"+{model}._target_=nequip.model.ModelFromCheckpoint",
        f"+{model}.checkpoint_path={tmp_path}/alone/best.ckpt", "run=[test]",
    )  # fmt: skip
    ranks = ("trainer.accelerator=cpu", "+trainer.devices=2")
    ranks += ("+trainer.strategy={_target_: nequip.train.SimpleDDPStrategy}",)
    assert run("two", *start, *ranks) == pytest.approx(alone, rel=1e-4)
