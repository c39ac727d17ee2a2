"""Fixtures of the data tests."""

from pathlib import Path

import pytest
from ase.io import write


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Write frames in an empty working folder, so that sentences show short paths."""
    monkeypatch.chdir(tmp_path)

    def save(frames, name="train.xyz"):
        if isinstance(frames, str):
            Path(name).write_text(frames)
        else:
            write(name, frames, format="extxyz")
        return name

    return save
