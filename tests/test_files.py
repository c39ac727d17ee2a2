"""Whole or absent."""

from __future__ import annotations

import os
import stat

import pytest

from eqplugin.errors import EqPluginError
from eqplugin.files import whole_file, write_json, write_text


def test_the_name_is_taken_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "new" / "figure.png"
    with whole_file(path) as unfinished:
        assert unfinished.suffix == ".png"
        assert unfinished.parent == path.parent
        unfinished.write_text("picture")
        assert not path.exists()
    assert path.read_text() == "picture"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "precious.txt"
    path.write_text("precious")

    def half():
        with whole_file(path) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        half()
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_permissions_of_any_other(tmp_path):
    write_text(tmp_path / "a", "text")
    (tmp_path / "b").write_text("text")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in "ab"]
    assert modes[0] == modes[1]


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    class MyError(EqPluginError):
        pass

    with pytest.raises(MyError, match=r"file/x\.json cannot be written"):
        write_json(tmp_path / "file" / "x.json", {}, error=MyError)
    with pytest.raises(EqPluginError, match="is a directory"):
        write_text(tmp_path, "text")
