"""`eqplugin mace-train`: short trainings on a few ethanol frames, resuming, several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.io import read, write
from mace.modules import ScaleShiftMACE
from mace_training import E0S, KHOP, STEERABLE, arguments, log_of, same_weights, trained
from mace_under_test import REPOSITORY, evaluate, without_eqplugin

from eqplugin.errors import EqPluginError
from eqplugin.mace.plan import design_of, family_name
from eqplugin.mace.train import parse, train

pytestmark = pytest.mark.usefixtures("without_torchscript")


# ---- training


@pytest.mark.parametrize("family", [STEERABLE, KHOP])
def test_short_training_lowers_the_loss(ethanol, tmp_path, family):
    model = trained(ethanol, tmp_path, **family, max_num_epochs=20, lr=0.03)
    assert family_name(model) == family["model"]
    losses = [
        float(line.split("loss=")[1].split(",")[0])
        for line in log_of(tmp_path).splitlines()
        if "loss=" in line
    ]
    assert len(losses) == 21
    assert min(losses[1:]) < 0.9 * losses[0]


def test_training_writes_stock_files(ethanol, tmp_path):
    model = trained(ethanol, tmp_path, **STEERABLE, max_num_epochs=1)
    assert type(model) is ScaleShiftMACE
    printed = without_eqplugin(
        """
import ase.io
from mace.calculators import MACECalculator
atoms = ase.io.read(sys.argv[2], 0)
atoms.calc = MACECalculator(model_paths=sys.argv[1], device="cpu", default_dtype="float64")
print(repr(atoms.get_potential_energy()))
""",
        tmp_path / "run.model",
        ethanol / "valid.xyz",
    )
    expected = evaluate(model, read(ethanol / "valid.xyz", 0))["energy"].item()
    assert abs(float(printed.split()[-1]) - expected) < 1e-9  # of 310 eV
    assert float(torch.jit.load(tmp_path / "run_compiled.model").r_max) == 3.0


def test_our_loop_trains_stock_models_as_mace_does(ethanol, tmp_path):
    choice = {"model": "MACE", "num_channels": 4, "max_L": 1, "ema": True, "max_num_epochs": 3}
    ours = trained(ethanol, tmp_path / "ours", **choice)
    from mace import tools
    from mace.cli import run_train

    args = tools.build_default_arg_parser().parse_args(
        arguments(
            ethanol,
            tmp_path / "theirs",
            **choice | {"E0s": repr(parse(arguments(ethanol, tmp_path, **choice)).E0s)[1:-1]},
        )
    )
    try:
        run_train.run(args)
    finally:
        torch.set_default_dtype(torch.float32)
    theirs = torch.load(tmp_path / "theirs/run.model", weights_only=False)
    assert same_weights(ours, theirs)


@pytest.mark.parametrize(
    "stop, changes",
    [
        (2, {**STEERABLE, "ema": True}),
        (1, {**KHOP, "scheduler_patience": 1, "ema": True, "swa": True, "start_swa": 2}),
        (3, {**KHOP, "ema": True, "swa": True, "start_swa": 2}),
        (2, {**KHOP, "eval_interval": 2, "amsgrad": True}),
    ],
)
def test_resumed_equals_straight_bitwise(ethanol, tmp_path, stop, changes):
    # 5 epochs at once, and the same interrupted
    straight = trained(ethanol, tmp_path / "straight", max_num_epochs=5, **changes)
    first = dict(changes)
    if stop <= first.get("start_swa", 0):  # MACE refuses a stage two that begins after the end
        with pytest.MonkeyPatch.context() as patch:
            interrupt_after(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                train(arguments(ethanol, tmp_path / "resumed", max_num_epochs=5, **first))
    else:
        train(arguments(ethanol, tmp_path / "resumed", max_num_epochs=stop, **first))
    resumed = trained(
        ethanol, tmp_path / "resumed", max_num_epochs=5, restart_latest=True, **changes
    )
    assert same_weights(straight, resumed)
    assert f"at epoch {stop}" in log_of(tmp_path / "resumed")


def interrupt_after(patch, epochs):
    """End the run as an impatient user would, in the middle of an epoch."""
    import sys

    module = sys.modules["mace.tools.train"]
    stock, done = module.train_one_epoch, []

    def train_one_epoch(**kwargs):
        stock(**kwargs)
        done.append(1)
        if len(done) > epochs:
            raise KeyboardInterrupt

    patch.setattr(module, "train_one_epoch", train_one_epoch)


def test_stage_two_writes_both_models(ethanol, tmp_path):
    model = trained(ethanol, tmp_path, **STEERABLE, max_num_epochs=4, swa=True, start_swa=2)
    first = torch.load(tmp_path / "run.model", weights_only=False)
    assert not same_weights(model, first)
    assert "Stage Two" in log_of(tmp_path)


def test_patience_ends_the_training(ethanol, tmp_path):
    trained(ethanol, tmp_path, **KHOP, max_num_epochs=50, lr=1e-300, patience=2)
    assert log_of(tmp_path).count("Epoch ") == 3


def test_yaml_config_and_command_line_together(ethanol, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("model: KHopInvariantMACE\nfeature_dim: 16\nmax_L: 1\nhops: 2\nlr: 0.5\n")
    args = parse(["--config", str(config), *arguments(ethanol, tmp_path, lr=0.25)])
    assert (args.model, args.feature_dim, args.hops, args.lr) == ("KHopInvariantMACE", 16, 2, 0.25)


def test_two_heads(ethanol, tmp_path):
    heads = {
        name: {"train_file": str(ethanol / "train.xyz"), "valid_file": str(ethanol / "valid.xyz")}
        for name in ("first", "second")
    }
    model = trained(
        ethanol, tmp_path, **KHOP, max_num_epochs=1, heads=repr(heads), train_file=None,
        valid_file=None,
    )  # fmt: skip
    assert model.heads == ["first", "second"]
    assert model.atomic_energies_fn.atomic_energies.shape == (2, 3)


def test_isolated_atoms_under_the_key_energy_become_e0s(ethanol, tmp_path):
    write(tmp_path / "train.xyz", read(E0S, ":") + read(ethanol / "train.xyz", ":8"))
    model = trained(
        ethanol, tmp_path / "run", **KHOP, train_file=tmp_path / "train.xyz", E0s=None,
        max_num_epochs=1,
    )  # fmt: skip
    energies = model.atomic_energies_fn.atomic_energies.flatten().tolist()
    assert energies == pytest.approx([-10.707211, -48.798080, -102.521807], abs=1e-5)


def test_zero_shift_leaves_an_isolated_atom_at_its_e0(ethanol, tmp_path):
    oxygen = Atoms("O", [[0, 0, 0]])
    with_shift = trained(ethanol, tmp_path / "mean", **KHOP, max_num_epochs=1)
    without = trained(ethanol, tmp_path / "zero", **KHOP, max_num_epochs=1, zero_shift=True)
    e0 = -102.5218071447532
    assert abs(evaluate(without, oxygen)["energy"].item() - e0) < 1e-9
    assert abs(evaluate(with_shift, oxygen)["energy"].item() - e0) > 1.0


def test_fine_tuning_starts_from_the_foundation(ethanol, tmp_path):
    base = trained(ethanol, tmp_path / "base", **KHOP)
    tuned = trained(
        ethanol, tmp_path / "tuned", **KHOP, lr=1e-300,
        foundation_model=tmp_path / "base/run.model",
    )  # fmt: skip
    ours = {k: v for k, v in tuned.state_dict().items() if "scale_shift" not in k}
    assert all(torch.equal(base.state_dict()[key], value) for key, value in ours.items())
    assert design_of(tuned) == design_of(base)


def test_fine_tuning_refuses_another_architecture(ethanol, tmp_path):
    trained(ethanol, tmp_path / "base", **KHOP, max_num_epochs=1)
    foundation = tmp_path / "base/run.model"
    with pytest.raises(EqPluginError, match="different architecture"):
        trained(ethanol, tmp_path / "a", **STEERABLE, foundation_model=foundation)
    with pytest.raises(EqPluginError, match="--model KHopInvariantMACE"):
        trained(ethanol, tmp_path / "b", model="MACE", foundation_model=foundation)


# ---- slow


@pytest.mark.slow
@pytest.mark.parametrize("family", [STEERABLE, KHOP])
def test_two_processes_on_cpu(ethanol, tmp_path, family):
    line = arguments(
        ethanol, tmp_path, **family, distributed=True, launcher="torchrun", batch_size=2,
        max_num_epochs=2,
    )  # fmt: skip
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
            "--master_port", str(20000 + os.getpid() % 20000), "--no_python",
            sys.executable, "-c", "from eqplugin.cli import app; app()", "mace-train", *line,
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Processes: 2" in log_of(tmp_path)
    assert design_of(torch.load(tmp_path / "run.model", weights_only=False)) is not None


def acac():
    root = Path(os.environ.get("EQPLUGIN_DATA", REPOSITORY.parent / "shared/data"))
    if not (root / "acac/train_300K.xyz").is_file():
        pytest.skip("public data not here: set EQPLUGIN_DATA to the folder that holds acac/")
    return root / "acac"


@pytest.mark.slow
@pytest.mark.parametrize("family", [{"model": "SteerableMACE", "feature_dim": 32, "max_L": 1},
                                    {"model": "KHopInvariantMACE", "feature_dim": 32, "max_L": 1,
                                     "hops": 1}])  # fmt: skip
def test_acac_for_a_few_epochs_resumed_equals_straight(tmp_path, family):
    folder = acac()
    frames = read(folder / "train_300K.xyz", ":180")
    write(tmp_path / "train.xyz", frames[:160])
    write(tmp_path / "valid.xyz", frames[160:])
    choice = {
        **family, "r_max": 5.0, "E0s": folder / "isolated_atoms.xyz", "batch_size": 5, "ema": True,
        "ema_decay": 0.9, "lr": 0.02,
    }  # fmt: skip
    straight = trained(tmp_path, tmp_path / "straight", **choice, max_num_epochs=6)
    train(arguments(tmp_path, tmp_path / "resumed", **choice, max_num_epochs=3))
    resumed = trained(
        tmp_path, tmp_path / "resumed", **choice, max_num_epochs=6, restart_latest=True
    )
    assert same_weights(straight, resumed)
    printed = without_eqplugin(
        """
import ase.io, numpy
from mace.calculators import MACECalculator
calculator = MACECalculator(model_paths=sys.argv[1], device="cpu", default_dtype="float64")
errors, sizes = [], []
for atoms in ase.io.read(sys.argv[2], ":20"):
    reference = atoms.get_forces()
    atoms.calc = calculator
    errors.append(numpy.abs(atoms.get_forces() - reference).mean())
    sizes.append(numpy.abs(reference).mean())
print(numpy.mean(errors) / numpy.mean(sizes))
""",
        tmp_path / "resumed/run.model",
        folder / "test_MD_300K.xyz",
    )
    assert float(printed.split()[-1]) < 0.6  # zero forces would give 1
