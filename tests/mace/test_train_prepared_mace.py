"""Training on what mace_prepare_data wrote, and what is refused there."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ase.io import read, write
from mace import tools
from mace.cli import preprocess_data
from mace_training import E0S, KHOP, arguments, trained

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.errors import EqPluginError
from eqplugin.mace.train import train


def prepare(data, folder, **changes):
    """HDF5 shards of the ethanol frames, as `mace_prepare_data` writes them."""
    options = {
        "train_file": data / "train.xyz",
        "valid_file": data / "valid.xyz",
        "h5_prefix": f"{folder}/",
        "energy_key": "energy",
        "forces_key": "forces",
        "r_max": 3.0,
        "num_process": 2,
        "work_dir": folder,
    } | changes
    line = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    preprocess_data.run(tools.build_preprocess_arg_parser().parse_args(line))
    return {"train_file": f"{folder}/train", "valid_file": f"{folder}/val"}


@pytest.fixture(scope="module")
def prepared(ethanol, tmp_path_factory):
    return prepare(ethanol, tmp_path_factory.mktemp("prepared"))


ELEMENTS = {"atomic_numbers": "[1, 6, 8]"}


def refused(ethanol, work_dir, **changes):
    with pytest.raises(EqPluginError) as error:
        train(arguments(ethanol, work_dir, **KHOP, **ELEMENTS | changes))
    assert not work_dir.exists() or not list(work_dir.iterdir())
    return str(error.value)


def test_prepared_data_train_as_the_frames_do(ethanol, prepared, tmp_path):
    choice = {**KHOP, **ELEMENTS, "valid_batch_size": 3}
    model = trained(ethanol, tmp_path, **choice, **prepared)
    assert len(model.interactions) == 2
    energies = model.atomic_energies_fn.atomic_energies.ravel().tolist()
    isolated = {a.get_chemical_symbols()[0]: a.get_potential_energy() for a in read(E0S, ":")}
    assert energies == pytest.approx([isolated[s] for s in "HCO"])


def test_a_wrong_key_at_preparation_is_found(ethanol, tmp_path):
    paths = prepare(ethanol, tmp_path / "h5", forces_key="dft_forces")
    sentence = refused(ethanol, tmp_path / "run", **paths)
    assert "no frame has the label forces" in sentence
    assert "--forces_key" in sentence


def test_single_frames_without_labels_are_named(ethanol, tmp_path):
    frames = read(ethanol / "train.xyz", ":")
    del frames[4].calc.results["energy"]
    write(tmp_path / "some.xyz", frames)
    paths = prepare(ethanol, tmp_path / "h5", train_file=tmp_path / "some.xyz")
    sentence = refused(ethanol, tmp_path / "run", **paths)
    assert "1 of 12 frames" in sentence
    assert "have no energy" in sentence


def test_labels_that_are_not_finite_are_named(ethanol, tmp_path):
    paths = prepare(ethanol, tmp_path / "h5")
    file = tmp_path / "h5/train/train_1.h5"
    with h5py.File(file, "r+") as opened:
        opened["config_batch_0/config_2/properties/forces"][0, 0] = np.nan
    sentence = refused(ethanol, tmp_path / "run", **paths)
    assert "train_1.h5:/config_batch_0/config_2" in sentence


def test_other_hdf5_files_are_refused(ethanol, prepared, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as opened:
        opened["x"] = 1.0
    (tmp_path / "broken.h5").write_bytes(b"not HDF5")
    for name in ("other.h5", "broken.h5"):
        sentence = refused(ethanol, tmp_path / "run", **prepared | {"train_file": tmp_path / name})
        assert name in sentence


def test_e0s_have_to_be_given(ethanol, prepared, tmp_path):
    assert "--statistics_file" in refused(ethanol, tmp_path / "run", **prepared, E0s=None)
