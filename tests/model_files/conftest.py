"""Model files that earlier versions wrote, and structures that they were tried on."""

import lzma
import shutil

import pytest
from ase.io import read
from old_models import OLD


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder with all of them, the compressed one unpacked."""
    place = tmp_path_factory.mktemp("models") / "models"
    shutil.copytree(OLD / "models", place)
    for packed in place.glob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    return place


@pytest.fixture(scope="session")
def structures():
    return read(OLD / "data/structures.xyz", ":")
