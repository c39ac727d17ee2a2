"""Where a study keeps what: its plan, its data, a folder per job, and the lines for the report."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from eqplugin.errors import EqPluginError
from eqplugin.stack import TrainingFiles
from eqplugin.stacks import stack_named
from eqplugin.study.frames import Frames, write_frames
from eqplugin.study.job import Job, recipe_for
from eqplugin.study.older import find_older_folder
from eqplugin.study.plan_file import PLAN, Plan
from eqplugin.study.schema import StudyConfig, epochs_of
from eqplugin.study.training import TrainingRun, fingerprint_of


class Storage:
    """A study's folder, read from its plan; every job, on whatever machine, starts from here.

    Args:
        out: the folder.

    Raises:
        EqPluginError: no plan, or one of another schema version.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out).absolute()
        self.plan = Plan.read(self.out)
        self.config, self.jobs = self.plan.config, self.plan.jobs

    def job(self, name: str) -> Job:
        """One job by name."""
        for job in self.jobs:
            if job.name == name:
                return job
        raise EqPluginError(f"{self.out / PLAN} has no job {name}: plan the study again.")

    @cached_property
    def files(self) -> dict[str, Path]:
        """``train``, ``val``, perhaps ``e0s``, and the tests -> file."""
        return {name: self.out / file for name, file in self.plan.files.items()}

    @property
    def tests(self) -> list[str]:
        """Labels of the test sets."""
        return [name for name in self.files if name not in ("train", "val", "e0s")]

    @property
    def epochs(self) -> int:
        """Of every job."""
        return epochs_of(self.config, self.plan.frames["train"])

    @property
    def steps(self) -> int:
        """Optimizer steps of every job."""
        return self.epochs * (self.plan.frames["train"] // self.config.train.batch_size)

    def folder(self, job: Job) -> Path:
        """Folder of a job; another config, data set or version has another, nothing is deleted."""
        folder = self.out / "jobs" / f"{job.name}-{self.fingerprint(job)[:8]}"
        return folder if folder.exists() else find_older_folder(self, job) or folder

    def fingerprint(self, job: Job) -> str:
        """Hash of everything that decides the weights and what is measured of them."""
        stack, recipe = stack_named(job.design.stack), recipe_for(self.config, job.design.stack)
        places = {name: Path(name) for name in self.files}
        command = self._command(job, places, Path(job.name))
        command = [part for part in command if not part.startswith("/")]  # wherever the clone lies
        command += [str(self.config.speed_repeats), *sorted(self.tests)]
        data = [self.files[name] for name in sorted(self.files)]
        return fingerprint_of(stack, command, [*data, *stack.configs(recipe)])

    def _command(self, job: Job, files: dict[str, Path], folder: Path) -> list[str]:
        reads = TrainingFiles(
            files["train"],
            files["val"],
            tuple(self.plan.species),
            self.plan.e0s,
            files.get("e0s"),
        )
        recipe = recipe_for(self.config, job.design.stack)
        return stack_named(job.design.stack).command(
            job.design, recipe, reads, job.seed, self.epochs, folder
        )

    def model(self, job: Job) -> Path:
        """The trained model of a job, once there is one."""
        return stack_named(job.design.stack).model(self.folder(job) / job.name)

    def training_run(self, job: Job) -> TrainingRun:
        """The job's training."""
        # a folder inside the job's: MACE names its model after it
        folder = self.folder(job) / job.name
        return TrainingRun(
            job.name,
            stack_named(job.design.stack),
            folder,
            tuple(self._command(job, self.files, folder)),
            self.epochs,
            self.fingerprint(job),
            again="run the study again to go on",
            threads=self.config.train.threads,
        )


def write_plan(
    out: Path, config: StudyConfig, frames: Frames, jobs: list[Job], notes: list[str]
) -> Storage:
    """Write the data and the plan of a study; jobs that are done stay done."""
    files = write_frames(frames, config, out / "data")
    Plan(
        config=config,
        files={name: str(file.relative_to(out)) for name, file in files.items()},
        frames=frames.counts,
        species=list(frames.species),
        e0s=frames.e0s,
        warnings=[*frames.warnings, *notes],
        jobs=jobs,
    ).write(out)
    return Storage(out)
