"""Whole or absent."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from eqplugin import files
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


def test_a_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "private"
    path.write_text("old")
    for mode in (0o600, 0o664):
        path.chmod(mode)
        write_text(path, "new")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_stays_one(tmp_path):
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "real.json", tmp_path / "link.json"
    link.symlink_to("data/real.json")
    for content in (1, 2):  # a link to what is not there yet, and to a file
        write_json(link, content)
        assert link.is_symlink()
        assert json.loads(target.read_text()) == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "link.json"]


def test_devices_and_pipes_are_written_to(tmp_path):
    write_text("/dev/null", "text")
    assert not Path("/dev/null").is_file()
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through the pipe")
    reader.join(10)
    assert read == ["through the pipe"]
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("to_file", [True, False])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output(tmp_path, name, to_file):
    code = (
        "from eqplugin.files import write_text; print('table', flush=True);"
        f"write_text({name!r}, 'text\\n')"
    )
    out = tmp_path / "out"
    with out.open("w") if to_file else nullcontext(subprocess.PIPE) as stdout:
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True)
    assert (out.read_bytes() if to_file else done.stdout) == b"table\ntext\n"


def test_leftovers_of_killed_writers_go_and_those_of_others_stay(tmp_path):
    path = tmp_path / "best[1].json"
    code = (
        "import os; from eqplugin.files import whole_file\n"
        f"with whole_file({str(path)!r}): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    (leftover,) = tmp_path.iterdir()
    write_text(path, "young ones might be at work still")
    assert leftover.exists()
    other = tmp_path / ".bester.x.tmp.json"
    other.write_text("")
    long_ago = time.time() - 3600
    for file in (leftover, other):
        os.utime(file, (long_ago, long_ago))
    with whole_file(path) as unfinished:
        assert not leftover.exists()
        os.utime(unfinished, (long_ago, long_ago))
        write_text(path, "another writer, at the same time")
        assert unfinished.exists()
    assert sorted(tmp_path.iterdir()) == sorted([other, path])


def save_text(path):
    np.savetxt(path, np.ones(10_000))


def save_tensor(path):
    torch.save(torch.ones(10_000), path)


@pytest.mark.parametrize("write", [save_text, save_tensor])
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, write, monkeypatch):
    path = tmp_path / "numbers"
    path.write_text("old")
    monkeypatch.setattr(files, "_FULL", float("inf"))  # for those who do not say why they failed
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with (
            pytest.raises(EqPluginError, match=r"numbers cannot be written: (No space|File too)"),
            whole_file(path) as unfinished,
        ):
            write(unfinished)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_mistakes_of_our_own_are_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(RuntimeError, match="bug"), whole_file(tmp_path / "a"):
        raise RuntimeError("bug")
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        (tmp_path / "absent").read_text()
    assert not list(tmp_path.iterdir())
