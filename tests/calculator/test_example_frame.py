"""The frame that nequip-compile and nequip-package take from the training data has a volume."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from nequip.data import AtomicDataDict
from nequip.scripts._workflow_utils import set_workflow_state

from eqplugin.nequip import CheckedASEDataModule

TYPES = ["H", "C", "O"]
TRANSFORMS = "nequip.data.transforms."


@pytest.fixture
def state():
    yield set_workflow_state
    set_workflow_state(None)


def example(atoms, path):
    """Return the first frame that a data module gives."""
    forces = np.zeros((len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    write(path, [atoms] * 2)
    transforms = [
        {"_target_": f"{TRANSFORMS}ChemicalSpeciesToAtomTypeMapper", "model_type_names": TYPES},
        {"_target_": f"{TRANSFORMS}NeighborListTransform", "r_max": 4.0},
    ]
    module = CheckedASEDataModule(
        seed=0, train_file_path=str(path), val_file_path=str(path), transforms=transforms,
        train_dataloader={"_target_": "torch.utils.data.DataLoader", "batch_size": 1},
    )  # fmt: skip
    module.setup(stage="fit")
    return next(iter(module.train_dataloader()))


def edges(frame):
    positions, index = frame[AtomicDataDict.POSITIONS_KEY], frame[AtomicDataDict.EDGE_INDEX_KEY]
    return np.sort((positions[index[1]] - positions[index[0]]).norm(dim=1).numpy())


@pytest.mark.parametrize("workflow", ["compile", "package"])
def test_a_molecule_without_a_cell_is_given_one(workflow, state, tmp_path):
    plain = example(molecule("CH3OH"), tmp_path / "plain.xyz")
    assert not plain[AtomicDataDict.CELL_KEY].any()  # in training nothing is changed
    state(workflow)
    boxed = example(molecule("CH3OH"), tmp_path / "boxed.xyz")
    assert np.linalg.det(boxed[AtomicDataDict.CELL_KEY].numpy().reshape(3, 3)) > 100
    assert not boxed[AtomicDataDict.PBC_KEY].any()
    np.testing.assert_allclose(edges(boxed), edges(plain), atol=1e-6)


def test_a_frame_with_a_cell_is_left_alone(state, tmp_path):
    state("compile")
    crystal = bulk("C", "diamond", a=3.6)
    inside = Atoms(molecule("CH3OH"), cell=[9, 9, 9])
    for name, atoms in (("crystal", crystal), ("inside", inside)):
        found = example(atoms.copy(), tmp_path / f"{name}.xyz")
        cell = found[AtomicDataDict.CELL_KEY].numpy().reshape(3, 3)
        np.testing.assert_allclose(cell, atoms.cell.array, atol=1e-6)
        np.testing.assert_allclose(
            found[AtomicDataDict.POSITIONS_KEY].numpy(), atoms.positions, atol=1e-6
        )
