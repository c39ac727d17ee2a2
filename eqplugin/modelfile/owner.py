"""Whose files are these? Code is run from files and folders of the user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from eqplugin.errors import EqPluginError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def why_not_ours(path: str | Path) -> str | None:
    """Who else could have written a file or a folder; None where only the user could.

    Systems without owners of files, such as Windows, are not asked.
    """
    if not hasattr(os, "geteuid"):
        return None
    found = os.stat(path)
    if found.st_uid not in (os.geteuid(), 0):
        return "another user owns it"
    if found.st_mode & _OTHERS_WRITE:
        return "others can write it"
    return None


def private_folder(path: Path) -> Path:
    """Make a folder that the user alone can enter, or find it so.

    Raises:
        EqPluginError: where others own it or can write to it.
        OSError: where it cannot be made.
    """
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    require_ours(path)
    return path


def require_ours(path: Path) -> None:
    """Refuse a folder or file of a cache that others could have written.

    Raises:
        EqPluginError: naming it.
        OSError: where it is not there.
    """
    reason = why_not_ours(path)
    if reason is not None:
        raise EqPluginError(
            f"the cache {path} holds code to run, and {reason}: `chmod go-w {path}` where it is "
            f"yours, or set EQPLUGIN_CACHE_DIR to a folder of your own."
        )
