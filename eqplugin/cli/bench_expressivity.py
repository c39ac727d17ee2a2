"""The command `eqplugin bench expressivity`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eqplugin.cli._common import user_errors
from eqplugin.errors import EqPluginError


@user_errors()
def expressivity(
    model: list[str] = typer.Option(
        ...,
        "--model",
        "-m",
        help="NequIP or MACE config (.yaml), NequIP .ckpt or .nequip.zip, MACE .model, .eqm, or an "
        "architecture such as steerable:L=2,layers=3. Repeat the option to compare models.",
    ),
    suite: list[str] = typer.Option(
        [],
        "--suite",
        "-s",
        help="chains, stars, rotors, many-body, articulation or controls. Repeat the option for "
        "several; default: all.",
    ),
    overrides: list[str] = typer.Option(
        [], "--set", help="key=value: change an entry of the config, e.g. --set hops=1."
    ),
    draws: int = typer.Option(4, help="Random draws of the weights; the time grows in proportion."),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Folder for expressivity.json and expressivity.png."
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Show only the disagreements."),
) -> None:
    """Which structures can this model not tell apart, however it is trained?

    The structures of a pair differ in one thing: a torsion across k atoms, the rotation of an
    n-fold rotor, the list of n-body fingerprints, or the angle between two fragments. The model
    evaluates both in float64, with several random draws of its weights (and with those in the
    file). The table shows the measured difference, what theory expects of the architecture, and
    why. Exit status 1 if the two disagree.

    Structures are scaled to the model's cutoff and use its species. Families for --model:
    steerable, khop, nequip, mace-steerable, mace-khop, mace. Their keys: L, D, layers, hops,
    contraction, nu (MACE's correlation), ell, and any argument of the model.

    **Examples**

        eqplugin bench expressivity --model configs/nequip/minimal.yaml --set hops=1

        eqplugin bench expressivity -m best.ckpt --suite chains --suite rotors --out out

        eqplugin bench expressivity -m nequip:L=2,layers=3 -m khop:L=2,hops=2,layers=4 -m mace:L=1
    """
    from eqplugin.measure.expressivity.loading import load_subject
    from eqplugin.measure.expressivity.suites import cases_of

    cases_of(suite)  # an unknown suite is said before anything is loaded
    if len(set(model)) < len(model):
        raise EqPluginError("A --model is given twice: give each one once.")
    if out is not None:
        _make_folder(out)
    # overrides go to configs; what is no config takes none
    subjects = {
        text: load_subject(text, overrides if text.endswith((".yaml", ".yml")) else ())
        for text in model
    }
    if overrides and not any(text.endswith((".yaml", ".yml")) for text in model):
        raise EqPluginError("--set changes configs, but no --model is a config: leave it out.")
    _run(subjects, suite, draws, out, quiet)


def _make_folder(out: Path) -> None:
    """Before minutes of measuring, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if out.is_file() else error.strerror or error
        raise EqPluginError(f"--out {out} cannot be used as a folder: {reason}.") from None


def _run(subjects: dict, suite: list[str], draws: int, out: Path | None, quiet: bool) -> None:
    from eqplugin.measure.expressivity.report import plot_heat_map, results_table, write_json
    from eqplugin.measure.expressivity.run import run_suites

    console = Console(markup=False)
    found = {}
    columns = (
        TextColumn("{task.fields[model]}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", style="dim", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False), transient=True) as progress:
        for text, subject in subjects.items():
            task = progress.add_task("", total=None, model=subject.name)

            def show(label: str, done: int, total: int, task: int = task) -> None:
                progress.update(task, description=label, completed=done, total=total)

            found[text] = (subject, run_suites(subject, suite, draws, show))
            progress.remove_task(task)
    wrong = 0
    for subject, results in found.values():
        wrong += sum(result.agrees is False for result in results)
        chosen = [result for result in results if not quiet or result.agrees is False]
        if chosen:
            console.print(results_table(subject, chosen))
    if out is not None:
        known = [subject.name for subject, _ in found.values()]
        # two files may share a name: then their paths tell them apart
        names = {
            pair[0].name if known.count(pair[0].name) == 1 else text: pair
            for text, pair in found.items()
        }
        write_json(out / "expressivity.json", names)
        plot_heat_map(out / "expressivity.png", names, "What the models tell apart")
        console.print(f"Written: {out / 'expressivity.json'}, {out / 'expressivity.png'}")
    answers = [result.agrees for _, results in found.values() for result in results]
    if wrong:
        console.print(f"{wrong} measurements disagree with theory.", style="bold red")
        raise typer.Exit(1)
    silent = answers.count(None)
    console.print(
        f"{answers.count(True)} of {len(answers)} measurements agree with theory"
        + (f"; {silent} have no rule or lie between the thresholds." if silent else ".")
    )
