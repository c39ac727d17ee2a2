"""The files of a run, such that a kill at any moment loses one frame and corrupts nothing.

Trajectory and log only ever grow. After each frame a small restart file is replaced as a whole; it
holds the state of the run and how long the other files were. On a restart they are cut to these
lengths: what a kill left half-written, or written after the last restart file, goes, and the run
writes it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.files import disk_refusals, whole_file

_FORMAT = 1


@dataclass(frozen=True)
class Restart:
    """State of a run at a frame."""

    step: int  # of the frame
    arrays: dict[str, NDArray]  # state of atoms and integrator
    rng: Mapping[str, Any]  # state of the random numbers, as JSON keeps it
    sizes: dict[str, int]  # bytes of each growing file
    options: dict[str, object]  # those that the run was started with


class RunStore:
    """Restart file and growing files of one run.

    Args:
        restart: the restart file.
        files: growing files by name.
        options: what may not change between start and restart.
    """

    def __init__(
        self, restart: Path, files: Mapping[str, Path], options: Mapping[str, object]
    ) -> None:
        self.restart = restart
        self.files = dict(files)
        # as it will read after a round trip: 1.0 stays 1.0, a tuple becomes a list
        self.options = json.loads(json.dumps(dict(options)))
        # no open handles: a batch of structures has more files than a process may open
        self._sizes: dict[str, int] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's folder against other processes; the lock goes with the process."""
        folder = self.restart.parent
        place = folder / ".lock"
        if place.is_symlink():  # opening the lock would empty what it points to
            raise EqPluginError(f"{place} is a link: delete it.")
        try:
            with disk_refusals(place):
                folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(place).acquire(timeout=0)
        except Timeout:
            raise EqPluginError(
                f"another run is writing to {folder}: wait for it, or give this run another --out."
            ) from None
        with lock:
            yield

    def load(self) -> Restart | None:
        """Read the restart file, if there is one, and check that its options are this run's."""
        if not self.restart.is_file():
            return None
        try:
            with np.load(self.restart, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(str(arrays.pop("meta")))
            known = meta.pop("format") == _FORMAT
            written = meta.pop("sha256", None)  # eqplugin up to 0.2.0 did not record it
            found = Restart(arrays=arrays, **meta) if known else None
        except Exception as error:  # zip, JSON and NumPy fail in their own ways
            raise EqPluginError(
                f"the restart file {self.restart} cannot be read ({type(error).__name__}): delete "
                f"it to start over, or give another --out."
            ) from error
        if found is None:
            raise EqPluginError(
                f"the restart file {self.restart} was written by another version of eqplugin: "
                f"give another --out."
            )
        if written not in (None, _digest(arrays, meta)):
            raise EqPluginError(
                f"the restart file {self.restart} was changed after the run wrote it: delete it to "
                f"start over, or give another --out."
            )
        self._check_options(found.options)
        return found

    def _check_options(self, before: Mapping[str, object]) -> None:
        for name, value in self.options.items():
            if name in before and before[name] == value:
                continue
            if name == "constraints":
                if name not in before:  # eqplugin up to 0.2.0 did not record them
                    continue
                raise EqPluginError(
                    f"{self.restart.parent} holds a run with other constraints, such as fixed "
                    f"atoms: continue it with the structure file it began with, or give another "
                    f"--out."
                )
            if name in ("model", "structure"):
                raise EqPluginError(
                    f"{self.restart.parent} holds a run of another {name} file: continue it with "
                    f"the same one, or give another --out."
                )
            option = f"--{name.replace('_', '-')}"
            raise EqPluginError(
                f"{self.restart.parent} holds a run with {option} {before.get(name)}, not {value}: "
                f"continue it with the same options (only --steps may grow), or give another --out."
            )

    def begin(self, heads: Mapping[str, str]) -> None:
        """Start the growing files with their first lines."""
        for name, path in self.files.items():
            # without a restart file what is there was killed before its first frame, or is not ours
            ours = self.restart.parent in path.parents
            if path.exists() and path.stat().st_size and not ours:
                raise EqPluginError(f"{path} already exists: name another file, or delete it.")
            _change(path, "wb")
            self._sizes[name] = 0
            self.append(name, heads.get(name, ""))

    def resume(self, restart: Restart) -> None:
        """Cut the growing files to where the restart file was written."""
        for name, path in self.files.items():
            size = restart.sizes.get(name)
            if size is None or not path.is_file() or path.stat().st_size < size:
                raise EqPluginError(
                    f"{path} has been removed or cut since the run wrote it: delete "
                    f"{self.restart} to start over, or give another --out."
                )
            _change(path, "r+b", size)
            self._sizes[name] = size

    def append(self, name: str, text: str) -> None:
        """Write to the end of a growing file, at once."""
        data = text.encode("utf-8")
        with disk_refusals(self.files[name]), self.files[name].open("ab") as file:
            file.write(data)
        self._sizes[name] += len(data)

    def commit(self, step: int, arrays: Mapping[str, NDArray], rng: object) -> None:
        """Replace the restart file: from now on the run would continue from here."""
        meta = {"step": step, "rng": rng, "sizes": self._sizes, "options": self.options}
        meta |= {"sha256": _digest(arrays, meta), "format": _FORMAT}
        # frames may come every few milliseconds, and waiting for the disk takes longer than that
        with whole_file(self.restart, durable=False) as unfinished:
            np.savez(unfinished, meta=np.array(json.dumps(meta)), **arrays)


def _digest(arrays: Mapping[str, NDArray], meta: Mapping[str, object]) -> str:
    """Hash of everything that a restart file holds."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _change(path: Path, mode: str, size: int = 0) -> None:
    with disk_refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.truncate(size)
