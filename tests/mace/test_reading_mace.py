"""MACE reads structure files as the rest of the package does."""

import copy

import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.io import read, write
from mace.data import KeySpecification
from mace.data import utils as mace_data

from eqplugin.errors import EqPluginError


def configurations(path, forces="forces"):
    keys = KeySpecification(
        info_keys={"energy": "energy", "stress": "stress", "head": "head"},
        arrays_keys={"forces": forces},
    )
    return mace_data.load_from_xyz(str(path), copy.deepcopy(keys))[1]


@pytest.mark.parametrize("name", ["fixed.xyz", "fixed.traj", "fixed@2.xyz"])
def test_forces_on_fixed_atoms_are_those_of_the_file(ethanol, tmp_path, name):
    frames = read(ethanol / "train.xyz", ":")
    forces = [atoms.get_forces() for atoms in frames]
    for atoms in frames:
        atoms.set_constraint(FixAtoms([0, 1, 2]))
    write(tmp_path / name, frames)
    found = configurations(tmp_path / name)
    assert len(found) == len(frames)
    for config, expected in zip(found, forces, strict=True):
        np.testing.assert_allclose(config.properties["forces"], expected, atol=1e-8)
        assert np.abs(expected[:3]).max() > 0


def test_frames_after_an_empty_line_are_refused(ethanol, tmp_path):
    text = (ethanol / "train.xyz").read_text().splitlines(keepends=True)
    (tmp_path / "gap.xyz").write_text("".join([*text[:11], "\n", *text[11:]]))
    with pytest.raises(EqPluginError, match=r"gap\.xyz: line 12 is empty, and reading stops there"):
        configurations(tmp_path / "gap.xyz")
