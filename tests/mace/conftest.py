"""Data of the MACE trainings."""

import pytest
from ase.io import read, write
from mace_training import ETHANOL


@pytest.fixture(scope="session")
def ethanol(tmp_path_factory):
    """Return a folder with 12 training and 6 validation frames."""
    folder = tmp_path_factory.mktemp("ethanol")
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", ":12"))
    write(folder / "valid.xyz", read(ETHANOL / "val_300K.xyz", ":6"))
    return folder


@pytest.fixture
def without_torchscript(request, monkeypatch):
    """Leave out the TorchScript file, seconds per training, where a test does not look at it."""
    if "writes_stock_files" not in request.node.name:

        def refuse(*_args, **_kwargs):
            raise RuntimeError("left out in this test")

        monkeypatch.setattr("eqplugin.mace.train.jit.compile", refuse)
