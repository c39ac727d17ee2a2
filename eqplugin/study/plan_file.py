"""plan.json: what a study trains, on which frames; every job, wherever it runs, starts from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.files import write_json
from eqplugin.report.records import SCHEMA
from eqplugin.study.job import Job
from eqplugin.study.schema import StudyConfig

__all__ = ["PLAN", "Plan", "refuse_other_schema"]

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """A planned study; the names are those of the file's keys."""

    config: StudyConfig
    files: dict[str, str]  # `train`, `val`, perhaps `e0s`, and the tests -> file, from the folder
    frames: dict[str, int]  # set -> number
    species: list[str]  # chemical symbols, by atomic number
    e0s: dict[str, float] | None  # chemical symbol -> energy of the lone atom, eV
    warnings: list[str]  # sentences about what flatters or misleads
    jobs: list[Job]  # the unattainable ones too

    def write(self, folder: Path) -> None:
        """Write plan.json, whole."""
        plain = {"config": asdict(self.config), "jobs": [job.to_json() for job in self.jobs]}
        write_json(folder / PLAN, {"schema": SCHEMA} | vars(self) | plain)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read what :meth:`write` wrote.

        Raises:
            EqPluginError: no plan, a damaged one, or one of another schema version.
        """
        content = _content(folder)
        if content is None:
            raise EqPluginError(f"{folder} holds no study ({PLAN}): run `eqplugin study CONFIG`.")
        missing = [field.name for field in fields(cls) if field.name not in content]
        if missing:
            raise EqPluginError(f"{folder / PLAN} is damaged ({missing[0]} is missing): remove it.")
        try:
            merged = OmegaConf.merge(OmegaConf.structured(StudyConfig), content["config"])
            typed = {"config": (config := OmegaConf.to_object(merged))}
            typed |= {"jobs": [Job.from_json(job, config) for job in content["jobs"]]}
        except (OmegaConfBaseException, KeyError, TypeError, AttributeError, ValueError) as error:
            raise EqPluginError(
                f"{folder / PLAN} is damaged ({reason_of(error, named=True)}): remove it, and run "
                f"the study again."
            ) from error
        return cls(**{field.name: content[field.name] for field in fields(cls)} | typed)


def refuse_other_schema(folder: Path) -> None:
    """Leave a plan of another schema version alone.

    Raises:
        EqPluginError: there is one, or a damaged one.
    """
    _content(folder)


def _content(folder: Path) -> dict[str, Any] | None:
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise EqPluginError(f"{file} is damaged ({error}): remove it.") from error
    if not isinstance(content, dict):
        raise EqPluginError(f"{file} is damaged: it is no JSON object; remove it.")
    if content.get("schema") != SCHEMA:
        raise EqPluginError(
            f"{folder} holds a study of schema {content.get('schema')}, but this version writes "
            f"{SCHEMA}: name another folder with out=, or move the old one away."
        )
    return content
