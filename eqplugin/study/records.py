"""The JSON lines of a study: one per job, with everything a report needs and nothing else does."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eqplugin.errors import EqPluginError
from eqplugin.files import write_text
from eqplugin.measure.machine import commit, gpu_name, processor_name

__all__ = ["LINES", "SCHEMA", "read_records", "surroundings", "write_records"]

SCHEMA = "eqplugin.study/1"
LINES = "results.jsonl"
_PACKAGES = ("eqplugin", "nequip", "mace-torch", "e3nn", "torch", "ase", "numpy")


def surroundings() -> dict[str, Any]:
    """Versions, hardware, commit and time of a measurement."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "hardware": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "gpu": gpu_name(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, all or nothing."""
    lines = (json.dumps({"schema": SCHEMA, **record}, allow_nan=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read a study's lines: ``results.jsonl``, or those of the jobs while it still runs.

    Args:
        folder: of the study; or a .jsonl file.

    Raises:
        EqPluginError: nothing there, an unreadable line, another schema.
    """
    folder = Path(folder)
    if folder.is_file():
        files = [folder]
    elif (folder / LINES).is_file():
        files = [folder / LINES]
    else:
        files = sorted(folder.glob("jobs/*/result.jsonl"))
    if not files:
        raise EqPluginError(
            f"{folder} holds no results of a study ({LINES}): name the folder that `eqplugin "
            f"study` wrote to."
        )
    return [_checked(line, f"{file}, line {n}") for file in files for n, line in _lines(file)]


def _lines(file: Path) -> list[tuple[int, str]]:
    text = file.read_text(encoding="utf-8")
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _checked(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise EqPluginError(f"{where}: this is not JSON ({error}); remove the line.") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise EqPluginError(
            f"{where}: schema {schema}, but this version reads {SCHEMA}: use the eqplugin that "
            f"wrote it, or run the study again into another folder."
        )
    return record
