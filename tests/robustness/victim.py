"""Run a command of this environment and kill it at the n-th change of a file's name.

    KILL_AT=7 python victim.py eqplugin md ...

Renames and deletions are where a run has written one file and not yet the next. Kills come before
the change (even numbers) or after it (odd ones). Without KILL_AT the command runs to its end and
writes the number of changes to the file CHANGES names.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path

KILL_AT = int(os.environ.get("KILL_AT", "-1"))
CHANGES = os.environ.get("CHANGES")
FOLDER = os.environ["VICTIM_FOLDER"]  # changes elsewhere, such as in caches, do not count
count = 0


def watched(change):
    @functools.wraps(change)
    def wrapper(path, *args, **kwargs):
        global count
        inside = str(Path(os.fsdecode(path)).absolute()).startswith(FOLDER)
        for late in (False, True):
            if inside and 2 * count + late == KILL_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            if not late:
                result = change(path, *args, **kwargs)
        count += inside
        if CHANGES:
            Path(CHANGES).write_text(str(count))
        return result

    return wrapper


def main() -> None:
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, watched(getattr(os, name)))
    program, sys.argv = sys.argv[1], sys.argv[1:]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        (script,) = entry_points(group="console_scripts", name=program)
        sys.exit(script.load()())


if __name__ == "__main__":
    main()
