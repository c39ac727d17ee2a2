"""`eqplugin mace-train` with other optimisers and with faster products."""

import importlib.util

import pytest
import torch
from mace_training import KHOP, STEERABLE, arguments, log_of, same_weights, trained

from eqplugin.errors import EqPluginError
from eqplugin.mace.train import parse, train

pytestmark = pytest.mark.usefixtures("without_torchscript")

OPTIMIZERS = ["amsgrad", "adamw", "soap", "muon", "schedulefree"]
needs_schedulefree = pytest.mark.skipif(
    importlib.util.find_spec("schedulefree") is None, reason="schedulefree is not installed"
)


def losses_of(work_dir):
    lines = log_of(work_dir).splitlines()
    return [float(line.split("loss=")[1].split(",")[0]) for line in lines if "loss=" in line]


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(o, marks=needs_schedulefree if o == "schedulefree" else ()) for o in OPTIMIZERS],
)
def test_resumed_equals_straight_bitwise_with_every_optimizer(ethanol, tmp_path, optimizer):
    choice = {**STEERABLE, "optimizer": optimizer, "ema": True, "lr": 0.02}
    straight = trained(ethanol, tmp_path / "straight", **choice, max_num_epochs=6)
    train(arguments(ethanol, tmp_path / "parts", **choice, max_num_epochs=4))
    resumed = trained(ethanol, tmp_path / "parts", **choice, max_num_epochs=6, restart_latest=True)
    assert same_weights(straight, resumed)
    assert "at epoch 4" in log_of(tmp_path / "parts")
    losses = losses_of(tmp_path / "straight")
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize("pair", [("adam", "soap"), ("soap", "muon"), ("muon", "adamw")])
def test_resuming_with_another_optimizer_is_refused(ethanol, tmp_path, pair):
    choice = {**KHOP, "max_num_epochs": 1}
    train(arguments(ethanol, tmp_path, **choice, optimizer=pair[0]))
    with pytest.raises(EqPluginError, match="resume with the same --optimizer"):
        train(arguments(ethanol, tmp_path, **choice, optimizer=pair[1], restart_latest=True))


def test_float32_stage_two_and_freezing_work_with_soap(ethanol, tmp_path):
    choice = {**KHOP, "optimizer": "soap", "max_num_epochs": 4, "swa": True, "start_swa": 2}
    model = trained(ethanol, tmp_path / "a", **choice, default_dtype="float32", ema=True)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    frozen = trained(ethanol, tmp_path / "b", **KHOP, optimizer="soap", freeze=6)
    assert not any(p.requires_grad for p in frozen.products.parameters())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"optimizer": "sgd"}, ["--optimizer", "soap"]),
        ({"lr": 0.0}, ["lr=0.0"]),
        ({"lr": -1.0}, ["lr=-1.0"]),
        ({"lr": "nan"}, ["lr=nan"]),
        ({"swa": True, "start_swa": 1, "swa_lr": 0.0}, ["swa_lr=0.0"]),
        (
            {"products": True, "enable_cueq": "True", "model": "MACE"},
            ["--products", "--enable_cueq"],
        ),
    ],
)
def test_bad_options_are_one_sentence(ethanol, tmp_path, changes, words):
    with pytest.raises(EqPluginError) as caught:
        parse(arguments(ethanol, tmp_path, **{"model": "MACE", "num_channels": 4, **changes}))
    assert all(word in str(caught.value) for word in words)


def test_schedulefree_without_its_package_is_one_sentence(ethanol, tmp_path, monkeypatch):
    monkeypatch.setattr("eqplugin.mace.optimizers.find_spec", lambda _: None)
    with pytest.raises(EqPluginError, match="pip install schedulefree"):
        parse(arguments(ethanol, tmp_path, **KHOP, optimizer="schedulefree"))


@pytest.mark.parametrize(
    "changes",
    [
        {**STEERABLE, "correlation": 3, "ema": True},
        {**KHOP, "swa": True, "start_swa": 2, "optimizer": "soap"},
        {"model": "MACE", "num_channels": 8, "max_L": 1, "compute_stress": False},
    ],
)
def test_products_change_no_loss_and_no_file(ethanol, tmp_path, changes):
    choice = {**changes, "max_num_epochs": 4}
    plain = trained(ethanol, tmp_path / "plain", **choice)
    fast = trained(ethanol, tmp_path / "fast", **choice, products=True)
    assert losses_of(tmp_path / "plain") == pytest.approx(losses_of(tmp_path / "fast"), rel=1e-7)
    # the same names, shapes and types, and products that MACE knows
    assert plain.state_dict().keys() == fast.state_dict().keys()
    kinds = [[type(m).__qualname__ for m in model.modules()] for model in (plain, fast)]
    assert kinds[0] == kinds[1]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-5, atol=1e-7)
    assert files_of(tmp_path / "plain") == files_of(tmp_path / "fast")


def files_of(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*.pt")} | {
        p.name for p in folder.glob("*.model")
    }


def test_products_resume_and_mix_with_plain_trainings(ethanol, tmp_path):
    choice = {**STEERABLE, "ema": True, "products": True}
    straight = trained(ethanol, tmp_path / "straight", **choice, max_num_epochs=4)
    train(arguments(ethanol, tmp_path / "parts", **choice, max_num_epochs=2))
    resumed = trained(ethanol, tmp_path / "parts", **choice, max_num_epochs=4, restart_latest=True)
    assert same_weights(straight, resumed)
    plain = trained(
        ethanol, tmp_path / "parts", **choice | {"products": None}, max_num_epochs=5,
        restart_latest=True,
    )  # fmt: skip
    assert "at epoch 4" in log_of(tmp_path / "parts")
    assert not any("Compiled" in type(m).__name__ for m in plain.modules())
