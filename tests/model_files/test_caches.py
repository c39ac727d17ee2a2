"""Caches of code are the user's own, or are not used."""

import os
import stat

import pytest

from eqplugin import EqPluginError
from eqplugin.calculator.cache import cached_file, inductor_cache
from eqplugin.modelfile.owner import private_folder, why_not_ours
from eqplugin.nn.product import build

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def make(path):
    path.write_bytes(b"code")


def test_new_folders_and_files_are_private(tmp_path):
    before = os.umask(0o002)
    try:
        found = cached_file(tmp_path / "a" / "cache", "key", ".pt2", make)
    finally:
        os.umask(before)
    assert mode(found.parent) == 0o700
    assert mode(found) == 0o600
    assert cached_file(tmp_path / "a" / "cache", "key", ".pt2", make) == found


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o1777, 0o720])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path, bits):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(EqPluginError, match=r"others can write it: `chmod go-w .*_CACHE_DIR"):
        cached_file(folder, "key", ".pt2", make)
    assert not list(folder.glob("*.pt2"))


def test_a_file_that_others_could_have_written_is_refused(tmp_path):
    found = cached_file(tmp_path / "cache", "key", ".pt2", make)
    found.chmod(0o666)
    with pytest.raises(EqPluginError, match=r"key\.pt2 holds code to run, and others can write it"):
        cached_file(tmp_path / "cache", "key", ".pt2", make)


def test_another_users_folder_is_refused(tmp_path, monkeypatch):
    folder = private_folder(tmp_path / "mine")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    os.chown(folder, 54321, -1) if os.getuid() == 0 else pytest.skip(
        "only root can give files away"
    )
    assert why_not_ours(folder) == "another user owns it"
    with pytest.raises(EqPluginError, match="another user owns it"):
        private_folder(folder)


def test_the_operators_are_not_loaded_from_others_folders(tmp_path, monkeypatch):
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("EQPLUGIN_CACHE_DIR", str(shared))
    with pytest.raises(build.Unavailable, match="others can write it"):
        build.build()
    assert not list(shared.iterdir())


def test_a_library_with_a_right_hash_beside_it_is_not_trusted_for_that(tmp_path, monkeypatch):
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    import hashlib

    monkeypatch.setenv("EQPLUGIN_CACHE_DIR", str(tmp_path / "cache"))
    library = build.library_path()
    private_folder(private_folder(library.parents[1]) / library.parent.name)
    library.write_bytes(b"planted")
    library.with_suffix(".sha256").write_text(hashlib.sha256(b"planted").hexdigest())
    library.chmod(0o666)
    with pytest.raises(build.Unavailable, match="others can write it"):
        build.build()


def test_torchs_compiler_works_inside_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    seen = []
    with inductor_cache(tmp_path / "cache"):
        seen.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert seen == [str(tmp_path / "cache" / "inductor")]
    assert mode(tmp_path / "cache" / "inductor") == 0o700
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    with inductor_cache(tmp_path / "cache"):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
