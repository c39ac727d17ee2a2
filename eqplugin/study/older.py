"""Jobs that eqplugin 0.1 finished: its configs had other names, so fingerprints differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from eqplugin.errors import EqPluginError
from eqplugin.report.records import RESULT, FinishedJob, read_records
from eqplugin.study.job import Job

if TYPE_CHECKING:
    from eqplugin.study.storage import Storage

_DECIDES_WEIGHTS = ("data", "train", "nequip", "mace", "feature_dim", "reset_width")


def made_by_older_version(record: FinishedJob) -> bool:
    """Whether the fingerprint of a record cannot be compared with today's."""
    return record.versions.get("eqplugin", "").startswith("0.1.")


def find_older_folder(storage: Storage, job: Job) -> Path | None:
    """Folder in which eqplugin 0.1 finished a job under settings like the study's; None: none."""
    config = asdict(storage.config)
    if not config["mace"]["products"]:  # newer than those records
        del config["mace"]["products"]
    wanted = {key: config[key] for key in _DECIDES_WEIGHTS}
    for folder in sorted((storage.out / "jobs").glob(f"{job.name}-????????")):
        try:
            (record,) = read_records(folder / RESULT)
        except (EqPluginError, OSError, ValueError):
            continue
        if not isinstance(record, FinishedJob) or not made_by_older_version(record):
            continue
        if record.frames != storage.plan.frames:
            continue
        settings = record.config.model_dump()
        if {key: settings.get(key) for key in _DECIDES_WEIGHTS} == wanted:
            return folder
    return None
