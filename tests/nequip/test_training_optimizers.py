"""`nequip-train optimizer=...`: each optimiser trains, resumes to the last bit, and is checked."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from ase.io import read, write
from hydra import compose, initialize_config_dir
from test_training import CONFIGS, ETHANOL, SMALL, check_refusal, nequip_train, weights

from eqplugin import load_model

OPTIMIZERS = ["adam", "amsgrad", "soap", "muon", "schedulefree"]
needs_schedulefree = pytest.mark.skipif(
    importlib.util.find_spec("schedulefree") is None, reason="schedulefree is not installed"
)
EVERY = [
    pytest.param(o, marks=needs_schedulefree if o == "schedulefree" else ()) for o in OPTIMIZERS
]


@pytest.fixture(scope="module")
def few_frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", "::38"))
    write(folder / "val.xyz", read(ETHANOL / "val_300K.xyz", "::13"))
    return (f"train_files={folder}/train.xyz", f"val_files={folder}/val.xyz", *SMALL[:2])


def composed(name, *overrides):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, [*overrides])


@pytest.mark.parametrize("grade", ["minimal", "realistic", "everything", "khop_realistic"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_composes_with_every_grade(grade, optimizer):
    config = composed(grade, f"optimizer={optimizer}", "lr=0.123")
    section = config.training_module.optimizer
    rates = section.param_groups.values() if optimizer == "muon" else [section]
    assert {rate.lr for rate in rates if "lr" in rate} == {0.123}
    assert (config.training_module.lr_scheduler is None) is (optimizer == "schedulefree")


@pytest.mark.parametrize("grade, amsgrad", [("minimal", False), ("realistic", True)])
def test_the_default_stays_adam_and_can_be_overridden_as_before(grade, amsgrad):
    section = composed(grade).training_module.optimizer
    assert (section["_target_"], section.lr, section.amsgrad) == ("torch.optim.Adam", 0.01, amsgrad)
    section = composed(
        grade, "training_module.optimizer.lr=0.5", "training_module.optimizer.amsgrad=true",
        "training_module.optimizer._target_=torch.optim.AdamW",
        "+training_module.optimizer.weight_decay=0.1",
    ).training_module.optimizer  # fmt: skip
    assert (section["_target_"], section.lr, section.weight_decay) == (
        "torch.optim.AdamW", 0.5, 0.1,
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", EVERY)
def test_resumed_training_equals_uninterrupted_training(few_frames, tmp_path, optimizer):
    common = (*few_frames, f"optimizer={optimizer}", "model_dtype=float64", "l_max=1",
              "+trainer.gradient_clip_val=1.0")  # fmt: skip
    if optimizer != "schedulefree":
        common += (SMALL[2],)
    runs = [
        nequip_train("minimal", tmp_path / "straight", *common, "max_epochs=4"),
        nequip_train("minimal", tmp_path / "parts", *common, "max_epochs=2"),
    ]
    last = tmp_path / "parts" / "last.ckpt"
    again = ("max_epochs=4", f"++ckpt_path={last}")
    runs.append(nequip_train("minimal", tmp_path / "parts", *common, *again))
    for result in runs:
        assert result.returncode == 0, result.stderr[-2000:]
    expected, resumed = weights(tmp_path / "straight" / "last.ckpt"), weights(last)
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)
    # a checkpoint can be read without the optimiser's package
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['schedulefree'] = None\n"
         "from eqplugin import load_model; load_model(sys.argv[1])", str(last)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    if optimizer == "schedulefree":
        model = load_model(last).state_dict()
        shared = [name for name in model if f"model.sole_model.{name}" in resumed]
        assert shared
        for name in shared:
            torch.testing.assert_close(model[name], resumed[f"model.sole_model.{name}"])


def test_resuming_with_another_optimizer_is_refused(few_frames, tmp_path):
    common = (*few_frames, SMALL[2])
    first = nequip_train("minimal", tmp_path, *common, "max_epochs=1", "optimizer=soap")
    assert first.returncode == 0, first.stderr[-2000:]
    before = (tmp_path / "last.ckpt").read_bytes()
    for optimizer, target in (("adam", "torch.optim.Adam"), ("muon", "MuonWithAuxAdam")):
        second = nequip_train(
            "minimal", tmp_path, *common, "max_epochs=2", f"optimizer={optimizer}",
            f"++ckpt_path={tmp_path / 'last.ckpt'}",
        )  # fmt: skip
        check_refusal(second, ["optimizer._target_", "eqplugin.optim.SOAP", target])
    assert (tmp_path / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["lr=0"], ["training_module.optimizer.lr=0"]),
        (["optimizer=soap", "lr=-0.1"], ["training_module.optimizer.lr=-0.1"]),
        (["optimizer=muon", "lr=.nan"], ["param_groups.muon.lr=.nan"]),
        (["optimizer=soap", "training_module.optimizer.freq=0"], ["freq=0"]),
    ],
)
def test_numbers_that_cannot_be_meant_are_one_sentence(few_frames, tmp_path, overrides, words):
    check_refusal(nequip_train("minimal", tmp_path, *few_frames, *overrides), words)
    assert not list(tmp_path.glob("*.ckpt"))


def test_an_unknown_optimizer_is_refused_with_the_list():
    result = nequip_train("minimal", "/nowhere", "optimizer=sgd")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert all(name in result.stderr for name in ("optimizer/sgd", *OPTIMIZERS))
