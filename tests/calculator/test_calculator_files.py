"""The files that NequIP's commands write: checkpoint, package, compiled file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from calculators_under_test import assert_same, evaluate
from nequip.integrations.ase import NequIPCalculator

from eqplugin import EqCalculator
from eqplugin.errors import EqPluginError

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
pytestmark = pytest.mark.slow


def command(name, *arguments, cwd):
    program = Path(sys.executable).parent / name
    done = subprocess.run(
        [str(program), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoint, package and compiled file of one model, trained for an epoch."""
    folder = tmp_path_factory.mktemp("files")
    for name, every in (("train", 38), ("val", 13)):
        write(folder / f"{name}.xyz", read(ETHANOL / f"{name}_300K.xyz", f"::{every}"))
    command(
        "nequip-train", "-cp", ROOT / "configs" / "nequip", "-cn", "khop_minimal",
        f"hydra.run.dir={folder}", f"train_files={folder}/train.xyz",
        f"val_files={folder}/val.xyz", "feature_dim=16", "num_layers=2", "model_dtype=float64",
        "training_module.lr_scheduler.scheduler.T_max=4", "max_epochs=1", cwd=folder,
    )  # fmt: skip
    command("nequip-package", "build", "best.ckpt", "m.nequip.zip", cwd=folder)
    command("nequip-compile", "best.ckpt", "m.nequip.pt2", "--mode", "aotinductor",
            "--device", "cpu", "--target", "ase", cwd=folder)  # fmt: skip
    return folder


def test_all_files_give_the_numbers_of_nequips_calculator(files):
    reference = NequIPCalculator._from_saved_model(
        files / "best.ckpt", chemical_species_to_atom_type_map=True
    )
    for name in ("best.ckpt", "m.nequip.zip", "m.nequip.pt2"):
        calculator = EqCalculator(files / name)
        for atoms in read(ETHANOL / "test_300K.xyz", ":3"):
            atoms.calc = None
            boxed = atoms.copy()
            boxed.set_cell([7, 7, 8])
            boxed.pbc = True
            single = atoms[:1]  # fewer atoms and edges than compiled code takes
            for structure in (atoms, boxed, single):
                expected = evaluate(structure, reference)
                assert_same(evaluate(structure, calculator), expected, 1e-10)


def test_a_package_compiles_and_checks_itself(files, tmp_path):
    calculator = EqCalculator(files / "m.nequip.zip", compile="aoti", cache_dir=tmp_path)
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    expected = evaluate(atoms, EqCalculator(files / "best.ckpt"))
    assert_same(evaluate(atoms, calculator), expected, 1e-10)
    assert max(calculator.backends[0].worst.values()) < 1e-10


def test_a_compiled_file_is_used_as_it_is(files):
    for options in ({"dtype": "float32"}, {"compile": "aoti"}, {"modifiers": ["x"]}):
        with pytest.raises(EqPluginError, match="the file is already compiled"):
            EqCalculator(files / "m.nequip.pt2", **options)
    with pytest.raises(EqPluginError, match="returns no features"):
        EqCalculator(files / "m.nequip.pt2").get_descriptors(read(ETHANOL / "test_300K.xyz", 0))


def test_a_committee_of_files(files):
    committee = EqCalculator([files / "best.ckpt", files / "m.nequip.pt2"])
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    evaluate(atoms, committee)
    assert np.sqrt(committee.results["energy_var"]) < 1e-9
