"""Modifiers in NequIP's own commands: training, restarting, packaging, compiling, ASE."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from eqplugin.errors import EqPluginError
from eqplugin.nequip import load_calculator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
MODIFIERS = ["enable_FactorizedTP", "enable_FoldedSelfConnection"]
COMPILED = ["enable_CompiledTP", "enable_FoldedSelfConnection"]
FOR_GOOD = "enable_PermanentlyFoldedSelfConnection"
CHANGES = {"modified": MODIFIERS, "compiled": COMPILED, "permanent": [FOR_GOOD]}
# wide enough for the fold to choose it without a setting, which the commands do not take
SMALL = ("feature_dim=306", "l_max=2", "num_layers=2", "model_dtype=float64")


def command(name, *arguments, cwd=None):
    program = Path(sys.executable).parent / name
    return subprocess.run(
        [str(program), *map(str, arguments)], cwd=cwd or ROOT, capture_output=True, text=True
    )


def succeeded(result):
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A folder with steerable_minimal, small: stock.yaml, and one file for each of CHANGES."""
    folder = tmp_path_factory.mktemp("configs")
    for name, every in (("train", 38), ("val", 13)):
        frames = read(ETHANOL / f"{name}_300K.xyz", f"::{every}")
        for frame in frames:
            frame.cell = [20.0, 20.0, 20.0]  # nequip-compile compares stresses
        write(folder / f"{name}.xyz", frames)
    files = (f"train_files={folder}/train.xyz", f"val_files={folder}/val.xyz")
    with initialize_config_dir(str(ROOT / "configs" / "nequip"), version_base=None):
        config = compose("steerable_minimal", [*files, *SMALL])
    # a fixed horizon of the schedule, so that one more epoch continues the same curve
    config.training_module.lr_scheduler.scheduler.T_max = 5
    OmegaConf.save(config, folder / "stock.yaml")
    plain = config.training_module.model
    for name, modifiers in CHANGES.items():
        with open_dict(config):
            config.training_module.model = {
                "_target_": "nequip.model.modify",
                "modifiers": [{"modifier": name} for name in modifiers],
                "model": plain,
            }
        OmegaConf.save(config, folder / f"{name}.yaml")
    return folder


def train(configs, name, folder, epochs, *overrides):
    return command(
        "nequip-train", "-cp", configs, "-cn", name, f"hydra.run.dir={folder}",
        f"max_epochs={epochs}", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(configs, tmp_path_factory):
    """Folders of two epochs of training without and with modifiers."""
    folders = {}
    for name in ("stock", "modified", "compiled"):
        folders[name] = tmp_path_factory.mktemp(name)
        succeeded(train(configs, name, folders[name], 2))
    return folders


def losses(folder):
    """All numbers of the metrics file whose names speak of losses or errors."""
    rows = []
    for path in sorted(folder.glob("metrics/version_*/metrics.csv")):
        with open(path) as file:
            rows += list(csv.DictReader(file))
    names = [key for key in rows[0] if "loss" in key or "mae" in key]
    assert names
    return np.array([[float(row[name] or 0) for name in names] for row in rows])


@pytest.mark.parametrize("name", ["modified", "compiled"])
def test_the_same_loss_curve(trained, name):
    stock, modified = losses(trained["stock"]), losses(trained[name])
    assert len(stock) > 2
    assert np.ptp(stock, axis=0).max() > 1e-3
    np.testing.assert_allclose(modified, stock, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("changed", ["modified", "compiled"])
def test_checkpoints_continue_in_each_others_config(configs, trained, tmp_path, changed):
    for name, other in (("stock", changed), (changed, "stock")):
        last = trained[other] / "last.ckpt"
        succeeded(train(configs, name, tmp_path / name, 3, f"++ckpt_path={last}"))
    np.testing.assert_allclose(
        losses(tmp_path / "stock"), losses(tmp_path / changed), rtol=1e-8, atol=1e-10
    )
    weights = {
        name: torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("stock", changed)
    }
    assert weights["stock"].keys() == weights[changed].keys()


def test_permanent_fold_does_not_start_training(configs, tmp_path):
    result = train(configs, "permanent", tmp_path / "run", 1)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("eqplugin: error: ")]
    assert len(errors) == 1
    assert "enable_FoldedSelfConnection" in errors[0]
    assert "Traceback" not in result.stderr


def evaluate(calculator):
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    atoms.calc = calculator
    return np.array([atoms.get_potential_energy(), *atoms.get_forces().ravel()])


def test_calculators(trained):
    expected = evaluate(load_calculator(trained["modified"] / "best.ckpt"))
    assert np.abs(expected[1:]).max() > 1e-3
    for modifiers in (MODIFIERS, [*MODIFIERS, FOR_GOOD]):
        calculator = load_calculator(trained["stock"] / "best.ckpt", modifiers=modifiers)
        assert "FactorizedTensorProduct" in str(calculator.model)
        assert "FoldedSelfConnection" in str(calculator.model)
        np.testing.assert_allclose(evaluate(calculator), expected, rtol=1e-8)
    with pytest.raises(EqPluginError, match=r"enable_Nothing.*enable_FactorizedTP"):
        load_calculator(trained["stock"] / "best.ckpt", modifiers=["enable_Nothing"])


@pytest.fixture(scope="module")
def package(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    path = folder / "model.nequip.zip"
    built = command("nequip-package", "build", trained["modified"] / "best.ckpt", path, cwd=folder)
    succeeded(built)
    return path


# A process in which eqplugin is not installed: no entry point, no import.
WITHOUT_EQPLUGIN = """
import importlib.metadata, sys
found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **by: (
    [] if by.get("group") == "nequip.extension" else found(**by)
)
sys.modules["eqplugin"] = None
from ase.io import read
from nequip.integrations.ase import NequIPCalculator
atoms = read(sys.argv[2], 0)
atoms.calc = NequIPCalculator._from_saved_model(sys.argv[1], chemical_species_to_atom_type_map=True)
print("energy", float(atoms.get_potential_energy()).hex())
"""


def test_package_holds_the_stock_model_and_takes_modifiers(trained, package, tmp_path):
    expected = evaluate(load_calculator(trained["stock"] / "best.ckpt"))
    np.testing.assert_allclose(evaluate(load_calculator(package)), expected, rtol=1e-8)
    calculator = load_calculator(package, modifiers=MODIFIERS)
    assert "FactorizedTensorProduct" in str(calculator.model)
    assert "FoldedSelfConnection" in str(calculator.model)
    np.testing.assert_allclose(evaluate(calculator), expected, rtol=1e-8)
    listed = succeeded(command("nequip-package", "info", package, "--get-modifiers"))
    for modifier in (*MODIFIERS, FOR_GOOD):
        assert modifier in listed.stdout

    folded = tmp_path / "folded.nequip.zip"
    succeeded(command("nequip-package", "modify", package, folded, "--modifier", FOR_GOOD))
    calculator = load_calculator(folded)
    assert "permanent" in str(calculator.model)
    np.testing.assert_allclose(evaluate(calculator), expected, rtol=1e-8)
    alone = succeeded(command("python", "-c", WITHOUT_EQPLUGIN, folded, ETHANOL / "test_300K.xyz"))
    energy = float.fromhex(alone.stdout.split("energy ")[1].split()[0])
    assert energy == pytest.approx(expected[0], rel=1e-8)


@pytest.mark.parametrize("source", ["checkpoint", "package"])
def test_compiled_with_modifiers(source, trained, package, tmp_path):
    saved = package if source == "package" else trained["modified"] / "best.ckpt"
    modifiers = [MODIFIERS[0], FOR_GOOD if source == "package" else MODIFIERS[1]]
    compiled = tmp_path / "model.nequip.pt2"
    result = command(
        "nequip-compile", saved, compiled, "--mode", "aotinductor", "--device", "cpu",
        "--target", "ase", "--modifiers", *modifiers, cwd=tmp_path,
    )  # fmt: skip
    succeeded(result)
    expected = evaluate(load_calculator(trained["stock"] / "best.ckpt"))
    np.testing.assert_allclose(evaluate(load_calculator(compiled)), expected, rtol=1e-8)
    with pytest.raises(EqPluginError, match="nequip-compile --modifiers enable_FactorizedTP"):
        load_calculator(compiled, modifiers=MODIFIERS)
