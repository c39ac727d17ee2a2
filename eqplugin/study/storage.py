"""Where a study keeps what: its plan, its data, a folder per job, and the lines for the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from eqplugin.errors import EqPluginError
from eqplugin.files import write_json
from eqplugin.stacks import STACKS
from eqplugin.study.commands import CONFIGS, epochs_of, training_command
from eqplugin.study.frames import Frames, write_frames
from eqplugin.study.job import Job
from eqplugin.study.records import SCHEMA
from eqplugin.study.schema import StudyConfig
from eqplugin.study.training import TrainingRun, fingerprint_of

__all__ = ["Storage", "read_plan", "write_plan"]

PLAN = "plan.json"


class Storage:
    """A study's folder, read from its plan; every job, on whatever machine, starts from here.

    Args:
        out: the folder.

    Raises:
        EqPluginError: no plan, or one of another schema version.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out).absolute()
        self.plan = read_plan(self.out)
        if self.plan is None:
            raise EqPluginError(f"{out} holds no study ({PLAN}): run `eqplugin study CONFIG`.")

    @cached_property
    def config(self) -> StudyConfig:
        """Of the study."""
        merged = OmegaConf.merge(OmegaConf.structured(StudyConfig), self.plan["config"])
        return OmegaConf.to_object(merged)

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs, the unattainable ones too."""
        return [Job.from_dict(content) for content in self.plan["jobs"]]

    def job(self, name: str) -> Job:
        """One job by name."""
        for job in self.jobs:
            if job.name == name:
                return job
        raise EqPluginError(f"{self.out / PLAN} has no job {name}: plan the study again.")

    @cached_property
    def files(self) -> dict[str, Path]:
        """``train``, ``val``, perhaps ``e0s``, and the tests -> file."""
        return {name: self.out / file for name, file in self.plan["files"].items()}

    @property
    def tests(self) -> list[str]:
        """Labels of the test sets."""
        return [name for name in self.files if name not in ("train", "val", "e0s")]

    @property
    def epochs(self) -> int:
        """Of every job."""
        return epochs_of(self.config, self.plan["frames"]["train"])

    @property
    def steps(self) -> int:
        """Optimizer steps of every job."""
        return self.epochs * (self.plan["frames"]["train"] // self.config.train.batch_size)

    def folder(self, job: Job) -> Path:
        """Of a job; another config, data set or version has another folder, nothing is deleted."""
        return self.out / "jobs" / f"{job.name}-{self.fingerprint(job)[:8]}"

    def fingerprint(self, job: Job) -> str:
        """Of everything that decides the weights and what is measured of them."""
        places = {name: Path(name) for name in self.files}
        command = self._command(job, places, Path(job.name))
        command = [part for part in command if not part.startswith("/")]  # wherever the clone lies
        command += [str(self.config.speed_repeats), *sorted(self.tests)]
        data = [self.files[name] for name in sorted(self.files)]
        return fingerprint_of(STACKS[job.variant.family], command, [*data, *self._configs(job)])

    def _configs(self, job: Job) -> list[Path]:
        grade = getattr(self.config, job.variant.family).grade
        folder = CONFIGS / job.variant.family
        kind = "khop" if job.variant.khop else "steerable"
        names = {f"steerable_{grade}", f"{kind}_{grade}"}
        sets = ["_files_stress", "_stress", "_files"]
        files = [folder / f"{name}.yaml" for name in sorted(names)]
        files += [folder / "dataset" / f"{name}.yaml" for name in sets]
        return [file for file in files if file.is_file()]

    def _command(self, job: Job, files: dict[str, Path], folder: Path) -> list[str]:
        return training_command(
            self.config, job, files, tuple(self.plan["species"]), self.plan["e0s"], self.epochs,
            folder,
        )  # fmt: skip

    def training_run(self, job: Job) -> TrainingRun:
        """The job's training."""
        # a folder inside the job's: MACE names its model after it
        folder = self.folder(job) / job.name
        return TrainingRun(
            job.name,
            STACKS[job.variant.family],
            folder,
            tuple(self._command(job, self.files, folder)),
            self.epochs,
            self.fingerprint(job),
            again="run the study again to go on",
            threads=self.config.train.threads,
        )


def read_plan(out: Path) -> dict[str, Any] | None:
    """The plan in a folder; None where there is none.

    Raises:
        EqPluginError: a plan of another schema version, or a damaged one.
    """
    file = out / PLAN
    if not file.is_file():
        return None
    try:
        plan = json.loads(file.read_text())
    except ValueError as error:
        raise EqPluginError(f"{file} is damaged ({error}): remove it.") from error
    if plan.get("schema") != SCHEMA:
        raise EqPluginError(
            f"{out} holds a study of schema {plan.get('schema')}, but this version writes "
            f"{SCHEMA}: name another folder with out=, or move the old one away."
        )
    return plan


def write_plan(
    out: Path, config: StudyConfig, frames: Frames, jobs: list[Job], notes: list[str]
) -> Storage:
    """Write the data and the plan of a study; jobs that are done stay done."""
    files = write_frames(frames, config, out / "data")
    write_json(
        out / PLAN,
        {
            "schema": SCHEMA,
            "config": asdict(config),
            "files": {name: str(file.relative_to(out)) for name, file in files.items()},
            "frames": frames.counts,
            "species": list(frames.species),
            "e0s": frames.e0s,
            "warnings": [*frames.warnings, *notes],
            "jobs": [job.to_dict() for job in jobs],
        },
    )
    return Storage(out)
