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
    config: Path = typer.Argument(help="A config, or the name of a shipped one: quickstart."),
    multirun: bool = typer.Option(
        False, "--multirun", "-m", help="Sweep the axes named behind it, instead of the arms."
    ),
    workers: int | None = typer.Option(
        None, min=1, help="Jobs at a time on this machine (Hydra's joblib launcher)."
    ),
    dry_run: bool = typer.Option(
        False, help="List the jobs with parameters and measured time; train nothing."
    ),
    plan_only: bool = typer.Option(
        False, help="Match and write the plan, then end: for a cluster, before the jobs."
    ),
) -> None:
    """Which L, how many hops, NequIP or MACE, at what cost, on your data?

    Trains every model of the study's arms with the stack's own trainer for the same number of
    steps, tests them, measures time and memory, and writes one JSON line per job. Finished jobs
    are reused and interrupted ones resumed when it is run again; a failed job is a line with its
    error. `eqplugin report` makes tables, tests and plots of the lines.

    **Examples**

        eqplugin study quickstart --dry-run

        eqplugin study quickstart --workers 2

        eqplugin study acac data_root=PATH budget=reduced

        eqplugin study acac data_root=PATH -m family=nequip,mace l_max=0,1,2
        seed=1,2,3 match=dimension,time

        eqplugin study acac data_root=PATH budget=full
        hydra/launcher=submitit_slurm hydra.launcher.partition=gpu
    """
    from eqplugin.report.records import read_records
    from eqplugin.study.estimate import print_estimate
    from eqplugin.study.run import plan_study, prepare, run_study

    console = Console(markup=False)  # a path may hold brackets
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
        f"{len(failed)} of {len(jobs)} jobs failed, {failed[0].job} because: "
        f"{failed[0].error} Run the study again to try them again."
    )
    if not any(record.status == "done" for record in jobs):
        raise EqPluginError(sentence)
    print_warning(sentence)
