"""The work of `eqplugin md`: open, run with a progress bar, plot, print averages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ase import Atoms
from rich.console import Console
from rich.table import Table

from eqplugin.calculator import EqCalculator
from eqplugin.errors import EqPluginError
from eqplugin.md.progress import progress_line
from eqplugin.md.run import MdFiles, MdRun, run_md
from eqplugin.md.settings import Engine, MdRequest
from eqplugin.md.start import read_structures
from eqplugin.quiet import quiet
from eqplugin.stacks import file_kind

_PLOTS = 20  # of a batch; plots of hundreds of structures take longer than they are looked at


def run_request(request: MdRequest, console: Console | None = None) -> None:
    """Run what the command line asks for."""
    from eqplugin.md.plots import plot_run

    console = console or Console()
    origin = _origin(request)
    structures = read_structures(request.structure)
    with quiet():  # the stacks' loading messages would tear the progress bar apart
        run = _run_batch if request.engine == Engine.torch_sim else _run_one
        runs = run(request, structures, origin, console)
        _say_resumed(console, runs[0])
        for index, done in enumerate(runs[:_PLOTS]):
            name = done.atoms.get_chemical_formula()
            name = name if request.engine == Engine.ase else f"structure {index} ({name})"
            title = f"{name}, {request.model.name}: {request.settings}"
            files = done.files
            plot_run(files.traj, files.log, files.plot, request.settings, done.degrees, title)
        _print_summary(console, runs)


def _origin(request: MdRequest) -> dict[str, object]:
    """Options beside the settings that may not change when the run is continued."""
    file_kind(request.model)  # says so where the file is missing
    with request.model.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    paths = {"traj": request.traj, "log": request.log}
    names = ("engine", "device", "dtype", "skin", "compile")
    return (
        {"model": model}
        | {name: None if path is None else str(path) for name, path in paths.items()}
        | {name: getattr(request, name) for name in names}
    )


def _run_one(
    request: MdRequest, structures: list[Atoms], origin: dict[str, object], console: Console
) -> list[MdRun]:
    if len(structures) > 1:
        raise EqPluginError(
            f"{request.structure} has {len(structures)} frames and one structure runs at a time: "
            f"keep one of them, or run all with --engine torch-sim."
        )
    atoms, settings = structures[0], request.settings
    files = MdFiles(request.out, request.traj, request.log)
    calculator = EqCalculator(
        request.model, request.device, request.dtype, request.skin, compile=request.compile
    )
    console.print(f"{atoms.get_chemical_formula()}, {len(atoms)} atoms: {settings}")
    with progress_line(console, settings, len(atoms)) as watch:
        return [run_md(atoms, calculator, settings, files, origin, watch)]


def _run_batch(
    request: MdRequest, structures: list[Atoms], origin: dict[str, object], console: Console
) -> list[MdRun]:
    for option in ("skin", "compile", "traj", "log"):
        value = getattr(request, option)
        if value != getattr(MdRequest, option):  # the default
            raise EqPluginError(
                f"--{option} {value} is not possible with --engine torch-sim: leave it out."
            )
    from eqplugin.md.batched import check_batch, open_batch_model, run_batch

    settings = request.settings
    check_batch(structures, settings)
    model = open_batch_model(request.model, request.device, request.dtype)
    atoms = sum(len(frame) for frame in structures)
    console.print(f"{len(structures)} structures, {atoms} atoms: {settings}")
    mean = atoms / len(structures)
    with progress_line(console, settings, mean, len(structures)) as watch:
        return run_batch(structures, model, settings, request.out, origin, watch)


def _say_resumed(console: Console, run: MdRun) -> None:
    if run.resumed_from == run.steps:
        console.print(f"Nothing to run: all {run.steps} steps are there; raise --steps to go on.")
    elif run.resumed_from is not None:
        console.print(f"Went on from step {run.resumed_from}.")


def _print_summary(console: Console, runs: Sequence[MdRun]) -> None:
    """Print averages over the second half, a line per structure; columns without numbers go."""
    names = ("T (K)", "E_pot (eV)", "drift (meV/atom/ps)", "p (GPa)", "ρ (g/cm³)", "in")
    rows = [_averages(run) for run in runs[:_PLOTS]]
    table = Table(box=None, pad_edge=False)
    used = [column for column in range(len(names)) if any(row[column] for row in rows)]
    for column in used:
        justify = "left" if names[column] == "in" else "right"
        table.add_column(names[column], justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in used))
    console.print("Second half of the run:")
    console.print(table)
    if len(runs) > _PLOTS:
        console.print(f"... and {len(runs) - _PLOTS} more, with logs and trajectories only.")


def _averages(run: MdRun) -> list[str]:
    from eqplugin.md.observables import drift, read_log, second_half

    log = read_log(run.files.log)
    half = second_half(log).mean()
    slope = drift(log["time_ps"], log["conserved_eV"], len(run.atoms))
    cells = (
        f"{half['temperature_K']:.0f}",
        f"{half['potential_eV']:.3f}",
        f"{slope:+.3g}",
        f"{half['pressure_GPa']:.3f}",
        f"{half['density_g_cm3']:.3f}",
    )
    return [*("" if "nan" in cell else cell for cell in cells), str(run.files.traj.parent)]
