"""Files that are either whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eqplugin.errors import EqPluginError

# what a disk or its owner refuses, as against mistakes in the code that writes
_REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
}
_YOUNG = 60  # s; no leftover yet
_OPEN_FILES = re.compile(r"/proc/\d+/fd$|/dev/fd$")
_FULL = 64 * 1024  # bytes left on a disk that is full


@contextmanager
def whole_file(
    path: str | Path, error: type[EqPluginError] = EqPluginError, *, durable: bool = True
) -> Iterator[Path]:
    """Give a temporary file that takes the name ``path`` only if the block ends well.

    The folder is made if need be. A link stays one: what it points to is replaced. A device or a
    pipe is written to. A file keeps its permissions.

    Args:
        path: name of the file.
        error: raised where it cannot be written.
        durable: survive a power cut, too; costs milliseconds.
    """
    path = Path(path)
    if path.is_dir():
        raise error(f"{path} is a directory: name a file to write.")
    with disk_refusals(path, error):
        if _is_stream(path):
            with _temporary_file(Path(tempfile.gettempdir()), path) as temporary:
                yield temporary
                _pour(temporary, path)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        with _temporary_file(target.parent, target) as temporary:
            yield temporary
            _take_permissions(temporary, target)
            if durable:
                _sync(temporary)
            temporary.replace(target)
            if durable:
                _sync(target.parent)


@contextmanager
def disk_refusals(path: str | Path, error: type[EqPluginError] = EqPluginError) -> Iterator[None]:
    """Say in a sentence that a full disk, or one that may not be written, stopped the block."""
    try:
        yield
    except EqPluginError:
        raise
    except OSError as problem:
        # the folder of the file may also be none
        if is_refusal(problem) or isinstance(problem, FileExistsError | NotADirectoryError):
            raise error(f"{path} cannot be written: {problem.strerror}.") from problem
        raise
    except RuntimeError as problem:  # torch and HDF5 do not pass on what the file system said
        if _is_full(Path(path)):
            raise error(f"{path} cannot be written: {os.strerror(errno.ENOSPC)}.") from problem
        raise


def is_refusal(problem: OSError) -> bool:
    """Whether a full disk or missing permissions are at fault, and not the code."""
    return problem.errno in _REFUSALS


def _is_full(path: Path) -> bool:
    folder = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
    return shutil.disk_usage(folder).free < _FULL


def _is_stream(path: Path) -> bool:
    """Whether the name stands for a device, a pipe or an open file, such as ``/dev/stdout``."""
    if path.exists() and not path.is_file():
        return True
    names = [path, *([path.parent / path.readlink()] if path.is_symlink() else [])]
    return any(_OPEN_FILES.match(os.path.realpath(name.parent)) for name in names)


def _pour(source: Path, stream: Path) -> None:
    # appended: standard output may be a file that has lines already
    handle = os.open(stream, os.O_WRONLY | os.O_APPEND)
    with open(handle, "wb", buffering=0) as sink, source.open("rb") as file:
        shutil.copyfileobj(file, sink)


@contextmanager
def _temporary_file(folder: Path, target: Path) -> Iterator[Path]:
    # the suffix stays the last part of the name: numpy and matplotlib go by it
    handle, name = tempfile.mkstemp(
        dir=folder, prefix=f".{target.stem}.", suffix=f".tmp{target.suffix}"
    )
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)  # ends with the process, however that comes about
        yield Path(name)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    """Delete what killed writers of this file left behind."""
    pattern = f".{literal_pattern(target.stem)}.*.tmp{literal_pattern(target.suffix)}"
    for leftover in target.parent.glob(pattern):
        try:
            if time.time() - leftover.stat().st_mtime < _YOUNG:
                continue
            with leftover.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink(missing_ok=True)
        except OSError:  # somebody still writes it, or it is not ours
            continue


def literal_pattern(name: str) -> str:
    """Write a name such that a pattern of :meth:`Path.glob` matches just this."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _take_permissions(temporary: Path, target: Path) -> None:
    """Give the new file the old one's mode and owner; a first one those of any other file."""
    try:
        before = target.stat()
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; results are not private
        return
    with suppress(PermissionError):  # then it belongs to whoever wrote it
        os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode))


def _sync(path: Path) -> None:
    """Let the disk hold the file, or the names in the folder, before we go on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str, error: type[EqPluginError] = EqPluginError) -> None:
    """Write text, all or nothing, with the same bytes (hence the same hash) on every system."""
    with whole_file(path, error) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(
    path: str | Path, content: object, error: type[EqPluginError] = EqPluginError
) -> None:
    """Write indented JSON, all or nothing.

    Raises:
        ValueError: for NaN and infinity, which are not JSON.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n", error)
