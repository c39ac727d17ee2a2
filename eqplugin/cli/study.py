"""The command `eqplugin study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from eqplugin.cli._common import print_warning, user_errors
from eqplugin.errors import EqPluginError

if TYPE_CHECKING:
    from eqplugin.report.records import Record

# overrides of the config come after it, as on Hydra's own command line
STUDY_SETTINGS = {"allow_extra_args": True}


@user_errors()
def study(
    context: typer.Context,
    config: Path = typer.Argument(
        help="A config (.yaml), or the name of a shipped one, such as quickstart."
    ),
    multirun: bool = typer.Option(
        False,
        "--multirun",
        "-m",
        help="Sweep the axes given after it (l_max=0,1,2 ...) instead of the arms.",
    ),
    workers: int | None = typer.Option(
        None, min=1, help="Jobs at a time on this machine (Hydra's joblib launcher); default: 1."
    ),
    dry_run: bool = typer.Option(
        False, help="List the jobs with their parameters and estimated time; train nothing."
    ),
    plan_only: bool = typer.Option(
        False,
        help="Match the models and write the plan, then stop: run this before jobs on a cluster.",
    ),
) -> None:
    """Which L, how many hops, NequIP or MACE, and at what cost, for your data?

    Trains all models of the study's arms for the same number of steps, each with its stack's own
    trainer. Tests them, measures time and memory, and writes one JSON line per job; a failed job's
    line holds its error. Run it again to resume: finished jobs are reused. `eqplugin report` turns
    the lines into tables, statistical tests and plots.

    **Examples**

        eqplugin study quickstart --dry-run

        eqplugin study quickstart --workers 2

        eqplugin study acac data_root=PATH budget=reduced

        eqplugin study acac data_root=PATH -m family=nequip,mace l_max=0,1,2 \\
          seed=1,2,3 match=dimension,time

        eqplugin study acac data_root=PATH budget=full \\
          hydra/launcher=submitit_slurm hydra.launcher.partition=gpu
    """
    from eqplugin.report.records import read_records
    from eqplugin.study.estimate import print_estimate
    from eqplugin.study.run import plan_study, prepare, restore_finished, run_study

    console = Console(markup=False)
    chosen, frames, requests = prepare(config, context.args, multirun)
    for warning in frames.warnings:
        print_warning(warning)
    if dry_run:
        print_estimate(chosen, frames, requests, console)
        return
    storage = plan_study(chosen, frames, requests, console)
    if plan_only:
        console.print(f"{len(storage.jobs)} jobs planned in {storage.out}")
        return
    if restored := restore_finished(storage):
        console.print(f"{restored} finished jobs are taken from {storage.out / 'results.jsonl'}")
    lines = run_study(storage, chosen, workers, console)
    _tell_failures(read_records(lines))
    console.print(f"written: {lines}; next: eqplugin report {storage.out}")


def _tell_failures(records: list[Record]) -> None:
    """Failed jobs are no crash; a study without any finished job is."""
    jobs = [record for record in records if record.kind == "job"]
    failed = [record for record in jobs if record.status == "failed"]
    if not failed:
        return
    sentence = (
        f"{len(failed)} of {len(jobs)} jobs failed; the first, {failed[0].job}: "
        f"{failed[0].error} Run the study again to retry them."
    )
    if not any(record.status == "done" for record in jobs):
        raise EqPluginError(sentence)
    print_warning(sentence)
