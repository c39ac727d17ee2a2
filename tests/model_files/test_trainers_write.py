"""Both trainers leave the model without code beside the file that they always wrote."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from old_models import needs

from eqplugin import EqCalculator
from eqplugin.modelfile.eqm import read_header

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples/data/ethanol_xtb"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", "::60"))
    write(folder / "val.xyz", read(ETHANOL / "val_300K.xyz", "::20"))
    return folder


def run(*words):
    program, *arguments = map(str, words)
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def same(before, after, data):
    atoms = read(data / "val.xyz", 0)
    expected = EqCalculator(before).get_forces(atoms)
    np.testing.assert_array_equal(EqCalculator(after, trust=False).get_forces(atoms), expected)
    digest = hashlib.sha256((data / "train.xyz").read_bytes()).hexdigest()
    assert read_header(after).extra["training_data"] == digest


def test_nequip_train(data, tmp_path):
    run(
        "nequip-train", "-cp", ROOT / "configs/nequip", "-cn", "minimal",
        f"hydra.run.dir={tmp_path}", f"train_files={data}/train.xyz", f"val_files={data}/val.xyz",
        "feature_dim=16", "num_layers=2", "max_epochs=1", "run=[train,val]",
    )  # fmt: skip
    same(tmp_path / "best.ckpt", tmp_path / "best.eqm", data)
    assert not (tmp_path / "latest.eqm").exists()


def test_mace_train(data, tmp_path):
    needs("x.model")
    run(
        "eqplugin", "mace-train", "--name", "run", "--work_dir", tmp_path,
        "--train_file", data / "train.xyz", "--valid_file", data / "val.xyz", "--E0s", "average",
        "--energy_key", "energy", "--forces_key", "forces", "--model", "SteerableMACE",
        "--feature_dim", 20, "--max_L", 1, "--r_max", 3, "--correlation", 2, "--max_ell", 2,
        "--radial_MLP", "[8]", "--MLP_irreps", "4x0e", "--num_radial_basis", 4,
        "--max_num_epochs", 1, "--batch_size", 4, "--default_dtype", "float64",
    )  # fmt: skip
    same(tmp_path / "run.model", tmp_path / "run.eqm", data)
    assert [path.name for path in tmp_path.glob("*.eqm")] == ["run.eqm"]
