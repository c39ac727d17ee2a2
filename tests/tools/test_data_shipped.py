"""The data in ``examples/data``: labels as recorded, seeds independent, molecules whole."""

import json
from pathlib import Path

import pytest
from ase.io import read
from quickstart_data import ethanol, make
from quickstart_data.verify import verify_labels

SHIPPED = Path(__file__).parents[2] / "examples" / "data"
FOLDERS = {"ethanol-xtb": "ethanol_xtb", "cuau-emt": "cuau_emt"}


@pytest.mark.parametrize("name", FOLDERS)
def test_record_is_the_recipe(name):
    record = json.loads((SHIPPED / FOLDERS[name] / "dataset.json").read_text())
    dataset = make.get_dataset(name)
    assert record["method"] == dataset.method
    assert record["sampling"] == dataset.sampling
    assert {n: entry["trajectories"] for n, entry in record["files"].items()} == {
        recipe.filename: recipe.plan() for recipe in dataset.files
    }
    assert all((SHIPPED / FOLDERS[name] / n).is_file() for n in record["files"])
    # the record's hashes are those of the files, so `make` would reuse them all
    made = make.make_dataset(name, SHIPPED / FOLDERS[name])
    assert all(file.reused for file in made)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_trajectory_has_its_own_seed(name):
    runs = [run.seed for recipe in make.get_dataset(name).files for run in recipe.trajectories]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("name", FOLDERS)
def test_labels_are_the_methods(name):
    if name == "ethanol-xtb":
        pytest.importorskip("tblite", reason="GFN2-xTB labels need tblite")
    verdict = verify_labels(SHIPPED / FOLDERS[name], every=10)
    assert verdict.problems == ()
    assert sum(file.checked for file in verdict.files) > 10


def test_ethanol_stays_bonded():
    folder = SHIPPED / "ethanol_xtb"
    whole = ethanol.molecule("CH3CH2OH")
    for path in sorted(folder.glob("*K.xyz")):
        changes = [ethanol.changed_bonds(whole, atoms) for atoms in read(path, ":")]
        assert not any(changes), path.name


def test_data_stays_small():
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size < 1.7e6
