"""Real `nequip-train` runs with the shipped configs: training, resuming, deploying, refusing.

Runs are as small as they can be (a dozen frames, D = 16); what is tested is that the whole chain
from a config to a deployed model holds.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write

from eqplugin import EqPluginError, load_model
from eqplugin.nequip import load_calculator

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "nequip"
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
SMALL = ("feature_dim=16", "num_layers=2", "training_module.lr_scheduler.scheduler.T_max=4")


def command(name, *arguments, cwd=None):
    program = Path(sys.executable).parent / name
    return subprocess.run(
        [str(program), *map(str, arguments)], cwd=cwd or ROOT, capture_output=True, text=True
    )


def nequip_train(config, folder, *overrides):
    return command(
        "nequip-train", "-cp", CONFIGS, "-cn", config, f"hydra.run.dir={folder}", *overrides
    )


@pytest.fixture(scope="module")
def few_frames(tmp_path_factory):
    """Overrides that point a config at twelve training and four validation frames."""
    folder = tmp_path_factory.mktemp("data")
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", "::38"))
    write(folder / "val.xyz", read(ETHANOL / "val_300K.xyz", "::13"))
    return (f"train_files={folder}/train.xyz", f"val_files={folder}/val.xyz", *SMALL)


@pytest.fixture(scope="module")
def trained(few_frames, tmp_path_factory):
    """A khop_minimal checkpoint after one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    result = nequip_train("khop_minimal", folder, *few_frames, "max_epochs=1")
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / "best.ckpt"


def weights(checkpoint):
    stored = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    return {name: value for name, value in stored.items() if isinstance(value, torch.Tensor)}


def test_resumed_training_equals_uninterrupted_training(few_frames, tmp_path):
    common = ("khop_minimal", *few_frames, "model_dtype=float64")
    straight = nequip_train(common[0], tmp_path / "straight", *common[1:], "max_epochs=4")
    first = nequip_train(common[0], tmp_path / "parts", *common[1:], "max_epochs=2")
    last = tmp_path / "parts" / "last.ckpt"
    second = nequip_train(
        common[0], tmp_path / "parts", *common[1:], "max_epochs=4", f"++ckpt_path={last}"
    )
    for result in (straight, first, second):
        assert result.returncode == 0, result.stderr[-2000:]
    expected = weights(tmp_path / "straight" / "last.ckpt")
    resumed = weights(last)
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_checkpoint_runs_in_ase(trained):
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    atoms.calc = load_calculator(trained)
    assert np.isfinite(atoms.get_potential_energy())
    assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-4


def test_checkpoint_is_loaded_as_a_module(trained):
    stored = load_calculator(trained).model.state_dict()
    model = load_model(trained)
    assert not model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, stored[name], rtol=0, atol=0, msg=name)
    with pytest.raises(EqPluginError, match="enable_Nothing"):
        load_model(trained, modifiers=["enable_Nothing"])


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


def test_package_runs_without_eqplugin_and_holds_only_what_models_need(trained, tmp_path):
    package = tmp_path / "model.nequip.zip"
    built = command("nequip-package", "build", trained, package, cwd=tmp_path)
    assert built.returncode == 0, built.stderr[-2000:]
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    atoms.calc = load_calculator(trained)
    result = command("python", "-c", WITHOUT_EQPLUGIN, package, ETHANOL / "test_300K.xyz")
    assert result.returncode == 0, result.stderr[-2000:]
    energy = float.fromhex(result.stdout.split("energy ")[1].split()[0])
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    listed = command("nequip-package", "list", package).stdout
    ours = {line.split("/", 1)[1] for line in listed.splitlines() if "/eqplugin/" in line}
    assert "eqplugin/nn/contraction.py" in ours
    assert not [name for name in ours if "/data/" in name or "/cli/" in name or "/demo/" in name]


def test_packaging_without_the_training_data_says_what_to_do(few_frames, trained, tmp_path):
    stored = torch.load(trained, map_location="cpu", weights_only=False)
    stored["hyper_parameters"]["info_dict"]["data"]["train_file_path"] = "moved/train.xyz"
    moved = tmp_path / "moved.ckpt"
    torch.save(stored, moved)
    result = command("nequip-package", "build", moved, tmp_path / "m.nequip.zip", cwd=tmp_path)
    check_refusal(result, ["moved/train.xyz", "example frame"])
    assert not (tmp_path / "m.nequip.zip").exists()


def test_lammps_file_is_written(trained, tmp_path):
    out = tmp_path / "model.nequip.lmp.pt"
    result = command("nequip-prepare-lmp-mliap", trained, out, "--no-compile", cwd=tmp_path)
    if "No module named 'lammps'" in result.stderr:
        pytest.skip("nequip-prepare-lmp-mliap needs the lammps Python package")
    assert result.returncode == 0, result.stderr[-2000:]
    assert out.stat().st_size > 0


def frames_with(edit):
    frames = read(ETHANOL / "train_300K.xyz", ":6")
    edit(frames)
    return frames


def no_forces(frames):
    for frame in frames:
        del frame.calc.results["forces"]


def nan_energy(frames):
    frames[3].calc.results["energy"] = float("nan")


def unknown_species(frames):
    for frame in frames[2:3]:
        frame.symbols[0] = "N"


def zero_cell(frames):
    frames[1].pbc = True


@pytest.mark.parametrize(
    "edit, words",
    [
        (no_forces, ["bad.xyz", "forces"]),
        (nan_energy, ["bad.xyz", "3", "energy"]),
        (unknown_species, ["bad.xyz", "N"]),
        (zero_cell, ["bad.xyz", "frame 1", "periodic", "zero"]),
        (lambda frames: frames.clear(), ["bad.xyz"]),
    ],
)
def test_bad_data_stops_nequip_train_with_one_sentence(tmp_path, edit, words):
    frames = frames_with(edit)
    path = tmp_path / "bad.xyz"
    path.touch()
    if frames:
        write(path, frames, format="extxyz")
    result = nequip_train("steerable_minimal", tmp_path / "run", f"train_files={path}")
    check_refusal(result, words)
    assert not list((tmp_path / "run").glob("*.ckpt"))


@pytest.mark.parametrize(
    "config, override, words",
    [
        ("steerable_minimal", "feature_dim=3", ["feature_dim=3", "l_max=1"]),
        ("steerable_minimal", "l_max=-1", ["l_max=-1"]),
        ("steerable_minimal", "r_max=0", ["r_max"]),
        ("khop_minimal", "hops=0", ["hops=0"]),
        ("khop_minimal", "hops=3", ["hops=3", "num_layers=4"]),
        ("khop_minimal", "contraction=norm", ["contraction='norm'", "bispectrum"]),
        (
            "steerable_minimal",
            "training_module.model.per_type_energy_shifts={H: -13.0, C: -1027.0}",
            ["per_type_energy_shifts", "O"],
        ),
        ("steerable_realistic", "isolated_atoms={H: -13.0, C: -1027.0}", ["O"]),
    ],
)
def test_bad_options_stop_nequip_train_with_one_sentence(tmp_path, config, override, words):
    check_refusal(nequip_train(config, tmp_path / "run", override), words)


def check_refusal(result, words):
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("eqplugin: error: ")]
    assert len(errors) == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in errors[0]
