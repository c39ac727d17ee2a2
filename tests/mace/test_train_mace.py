"""`eqplugin mace-train`: short trainings on a few ethanol frames, resuming, refusals."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write
from mace.modules import ScaleShiftMACE
from mace_under_test import REPOSITORY, RESIDUAL, evaluate, without_eqplugin
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.mace._irreps import ModelSpec
from eqplugin.mace.train import parse, train

ETHANOL = REPOSITORY / "examples/data/ethanol_xtb"
E0S = str(ETHANOL / "isolated_atoms.xyz")
STEERABLE = {"model": "SteerableMACE", "feature_dim": 20, "max_L": 2}
KHOP = {"model": "KHopInvariantMACE", "feature_dim": 32, "max_L": 1, "hops": 1}


@pytest.fixture(scope="session")
def ethanol(tmp_path_factory):
    """Return a folder with 12 training and 6 validation frames."""
    folder = tmp_path_factory.mktemp("ethanol")
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", ":12"))
    write(folder / "valid.xyz", read(ETHANOL / "val_300K.xyz", ":6"))
    return folder


@pytest.fixture(autouse=True)
def torchscript(request, monkeypatch):
    """Leave out the TorchScript file, seconds per training, where a test does not look at it."""
    if "writes_stock_files" not in request.node.name:

        def refuse(*_args, **_kwargs):
            raise RuntimeError("left out in this test")

        monkeypatch.setattr("eqplugin.mace.train.jit.compile", refuse)


def arguments(data, work_dir, **changes):
    """Command line of a training of seconds; None drops an option, True makes it a flag."""
    options = {
        "name": "run",
        "train_file": data / "train.xyz",
        "valid_file": data / "valid.xyz",
        "energy_key": "energy",
        "forces_key": "forces",
        "E0s": E0S,
        "r_max": 3.0,
        "max_ell": 2,
        "correlation": 2,
        "radial_MLP": "[8]",
        "MLP_irreps": "4x0e",
        "num_radial_basis": 4,
        "batch_size": 4,
        "valid_batch_size": 6,
        "max_num_epochs": 2,
        "interaction_first": "RealAgnosticInteractionBlock",
        "default_dtype": "float64",
        "pin_memory": False,
        "plot": False,
        "work_dir": work_dir,
    } | changes
    line = []
    for key, value in options.items():
        if value is not None:
            line += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return line


def trained(data, work_dir, **changes):
    """Train and return the final model."""
    train(arguments(data, work_dir, **changes))
    stage = "_stagetwo" if changes.get("swa") else ""
    return torch.load(work_dir / f"run{stage}.model", weights_only=False)


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_of(work_dir):
    return next((work_dir / "logs").glob("*[0-9].log")).read_text()


# ---- training


@pytest.mark.parametrize("family", [STEERABLE, KHOP])
def test_short_training_lowers_the_loss(ethanol, tmp_path, family):
    model = trained(ethanol, tmp_path, **family, max_num_epochs=20, lr=0.03)
    assert ModelSpec.of(model).model == family["model"]
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
    trained(ethanol, tmp_path, **KHOP, max_num_epochs=50, lr=0.0, patience=2)
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
        ethanol, tmp_path / "tuned", **KHOP, lr=0.0,
        foundation_model=tmp_path / "base/run.model",
    )  # fmt: skip
    ours = {k: v for k, v in tuned.state_dict().items() if "scale_shift" not in k}
    assert all(torch.equal(base.state_dict()[key], value) for key, value in ours.items())
    assert ModelSpec.of(tuned) == ModelSpec.of(base)


def test_fine_tuning_refuses_another_architecture(ethanol, tmp_path):
    trained(ethanol, tmp_path / "base", **KHOP, max_num_epochs=1)
    foundation = tmp_path / "base/run.model"
    with pytest.raises(EqPluginError, match="another architecture"):
        trained(ethanol, tmp_path / "a", **STEERABLE, foundation_model=foundation)
    with pytest.raises(EqPluginError, match="--model KHopInvariantMACE"):
        trained(ethanol, tmp_path / "b", model="MACE", foundation_model=foundation)


# ---- bad input: one sentence, exit 1, nothing written


@pytest.fixture
def spoilt(ethanol, tmp_path):
    """Write a training file with something wrong and return its path."""

    def spoil(how):
        frames = read(ethanol / "train.xyz", ":")
        how(frames)
        write(tmp_path / "spoilt.xyz", frames)
        return tmp_path / "spoilt.xyz"

    return spoil


def refused(data, tmp_path, **changes):
    """Return the sentence with which the command refuses."""
    with pytest.raises(EqPluginError) as caught:
        train(arguments(data, tmp_path / "never", **{**STEERABLE, **changes}))
    assert not (tmp_path / "never").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"feature_dim": 8}, "feature_dim=8"),
        ({"feature_dim": None}, "feature_dim is missing"),
        ({"max_L": -1}, "max_L=-1"),
        ({"max_L": 3, "feature_dim": 64}, "max_ell=2"),
        ({"num_channels": 0}, "num_channels=0"),
        ({"hops": 1}, "--hops belongs"),
        ({**KHOP, "hops": 0}, "hops=0"),
        ({**KHOP, "hops": 3}, "hops=3"),
        ({**KHOP, "hops": "many"}, "many"),
        ({"model": "MACE"}, "--feature_dim is not an option"),
        ({"model": "MACE", "feature_dim": None, "num_channels": 0}, "num_channels=0"),
        ({"model": "MICE"}, "MICE"),
        ({"enable_cueq": True}, "enable_cueq"),
        ({"enable_oeq": True}, "enable_oeq"),
        ({"zero_shift": True, "interaction_first": RESIDUAL}, "--zero_shift"),
        ({"model": "MACE", "feature_dim": None, "zero_shift": True}, "--zero_shift is not"),
        ({"r_max": 0}, "r_max"),
        ({"max_num_epochs": 0}, "max_num_epochs=0"),
        ({"name": None}, "--name"),
        ({"nonsense": 3}, "nonsense"),
        ({"train_file": "/no/such/file.xyz"}, "/no/such/file.xyz"),
        ({"train_file": None}, "--train_file"),
        ({"config": "/no/such/config.yaml"}, "config.yaml"),
        ({"E0s": None}, "E0s are missing"),
        ({"E0s": "{1: -13.6, 6: -1029}"}, "No E0 for O"),
        ({"E0s": "{1: -13.6"}, "--E0s"),
        ({"E0s": "/no/e0s.xyz"}, "/no/e0s.xyz"),
        ({"E0s": "foundation"}, "--foundation_model"),
        ({"atomic_numbers": "[1, 6]"}, "O is not among"),
        ({"heads": "{'a': 3}"}, "'a'"),
        ({"heads": "{"}, "--heads"),
        ({"energy_key": "REF_energy"}, "--energy_key energy"),
        ({"forces_key": "dft_forces"}, "--forces_key forces"),
        ({"loss": "stress"}, "stress"),
        ({"loss": "virials"}, "REF_virials"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(ethanol, tmp_path, changes, culprit):
    assert culprit in refused(ethanol, tmp_path, **changes)


def _drop_forces(frames):
    for atoms in frames:
        del atoms.calc.results["forces"]


def _drop_one_energy(frames):
    del frames[3].calc.results["energy"]


def _drop_all(frames):
    for atoms in frames:
        atoms.calc = None


def _not_a_number(frames):
    frames[2].calc.results["forces"][0, 0] = np.nan


@pytest.mark.parametrize(
    "how, culprit",
    [
        (_drop_forces, "--forces_weight 0"),
        (_drop_one_energy, "1 of 12 frames (first: 3)"),
        (_drop_all, "it has no label at all"),
        (_not_a_number, "frame 2"),
    ],
)
def test_bad_frames_are_refused_in_one_sentence(ethanol, tmp_path, spoilt, how, culprit):
    sentence = refused(ethanol, tmp_path, train_file=spoilt(how))
    assert "spoilt.xyz" in sentence
    assert culprit in sentence


def test_unknown_element_in_test_data_is_refused(ethanol, tmp_path):
    frames = read(ethanol / "valid.xyz", ":")
    frames[0].symbols[0] = "N"
    write(tmp_path / "test.xyz", frames)
    assert "holds N" in refused(ethanol, tmp_path, test_file=tmp_path / "test.xyz").replace(
        "hold N", "holds N"
    )


def test_missing_labels_are_accepted_when_asked_for(ethanol, tmp_path, spoilt):
    path = spoilt(_drop_one_energy)
    args = parse(
        [*arguments(ethanol, tmp_path, **STEERABLE, train_file=path), "--allow_missing_labels"]
    )
    assert args.allow_missing_labels


def test_isolated_atom_without_energy_is_refused(ethanol, tmp_path, spoilt):
    def with_bare_atom(frames):
        atom = read(E0S, 0)
        atom.calc = None
        frames.insert(0, atom)

    assert "isolated H atom" in refused(
        ethanol, tmp_path, train_file=spoilt(with_bare_atom), E0s=None
    )


def test_a_resume_file_of_another_model_is_refused(ethanol, tmp_path):
    train(arguments(ethanol, tmp_path, **STEERABLE, max_num_epochs=1))
    with pytest.raises(EqPluginError, match="another model"):
        train(arguments(ethanol, tmp_path, **KHOP, restart_latest=True))
    resume = next((tmp_path / "checkpoints").glob("*_resume.pt"))
    resume.write_bytes(b"not a checkpoint")
    with pytest.raises(EqPluginError, match="cannot be read"):
        train(arguments(ethanol, tmp_path, **STEERABLE, restart_latest=True))


def command(*line, **more):
    return subprocess.run(
        [sys.executable, "-c", "from eqplugin.cli import app; app()", *map(str, line)],
        capture_output=True, text=True, check=False, **more,
    )  # fmt: skip


def test_command_says_one_sentence_and_exits_with_1(ethanol, tmp_path):
    line = arguments(ethanol, tmp_path / "never", **STEERABLE, energy_key="REF_energy")
    done = command("mace-train", *line)
    assert done.returncode == 1
    said = [text for text in done.stderr.splitlines() if "eqplugin: error:" in text]
    assert len(said) == 1
    assert "forces, energy" in said[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "never").exists()


def test_help_lists_both_kinds_of_options():
    done = CliRunner().invoke(app, ["mace-train", "--help"])
    assert done.exit_code == 0
    for option in ("--feature_dim", "--hops", "--swa", "--restart_latest", "--foundation_model"):
        assert option in done.stdout


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
    assert ModelSpec.of(torch.load(tmp_path / "run.model", weights_only=False)) is not None


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
