"""Every test here runs in a folder of its own."""

import pytest
from lammps_runs import need_lammps


@pytest.fixture
def folder(tmp_path, monkeypatch):
    need_lammps()
    monkeypatch.chdir(tmp_path)
    return tmp_path
