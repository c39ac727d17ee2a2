"""What `eqplugin md` does: open, run with a progress bar, plot, and say what came out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from rich.console import Console
from rich.table import Table

from eqplugin.errors import EqPluginError
from eqplugin.md.opening import file_hash, open_batch_model, open_calculator
from eqplugin.md.progress import progress_line
from eqplugin.md.run import MdFiles, run_md
from eqplugin.md.settings import MdSettings
from eqplugin.md.start import read_structures

__all__ = ["Request", "run_request"]

_SKIN = 0.5  # default of --skin
_PLOTS = 20  # of a batch; plots of hundreds of structures take longer than they are looked at


@dataclass(frozen=True)
class Request:
    """The command line of `eqplugin md`; see ``eqplugin md --help``."""

    model: Path
    structure: Path
    settings: MdSettings
    out: Path
    traj: Path | None = None
    log: Path | None = None
    engine: str = "ase"
    device: str = "cpu"
    dtype: str | None = None
    skin: float = _SKIN
    compile: str | None = None

    def origin(self) -> dict[str, object]:
        """Options beside the settings that may not change when the run is continued."""
        return {
            "model": file_hash(self.model),
            "traj": None if self.traj is None else str(self.traj),
            "log": None if self.log is None else str(self.log),
            "engine": self.engine,
            "device": self.device,
            "dtype": self.dtype,
            "skin": self.skin,
            "compile": self.compile,
        }


def run_request(request: Request, console: Console | None = None) -> None:
    """Run what the command line asks for.

    Raises:
        EqPluginError: see :func:`eqplugin.md.run.run_md`.
    """
    console = console or Console()
    origin = request.origin()
    structures = read_structures(request.structure)
    with _quiet():
        if request.engine == "torch-sim":
            _run_batch(request, structures, origin, console)
        else:
            _run_one(request, structures, origin, console)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the stacks' loading messages: they would tear the progress bar apart."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _run_one(
    request: Request, structures: list[Atoms], origin: dict[str, object], console: Console
) -> None:
    if len(structures) > 1:
        raise EqPluginError(
            f"{request.structure} has {len(structures)} frames and one structure runs at a time: "
            f"keep one of them, or run all with --engine torch-sim."
        )
    atoms, settings = structures[0], request.settings
    files = MdFiles(request.out, request.traj, request.log)
    calculator = open_calculator(
        request.model, request.device, request.dtype, request.skin, request.compile
    )
    console.print(f"{atoms.get_chemical_formula()}, {len(atoms)} atoms: {_what(settings)}")
    with progress_line(console, settings, len(atoms)) as watch:
        done = run_md(atoms, calculator, settings, files, origin, watch)
    _say_resumed(console, done.resumed_from, done.steps)
    title = f"{atoms.get_chemical_formula()}, {request.model.name}: {_what(settings)}"
    _plot(files, settings, done.degrees, title)
    _summary(console, [(files, len(atoms))])


def _run_batch(
    request: Request, structures: list[Atoms], origin: dict[str, object], console: Console
) -> None:
    settings = request.settings
    for option, value, usual in (
        ("--skin", request.skin, _SKIN),
        ("--compile", request.compile, None),
        ("--traj", request.traj, None),
        ("--log", request.log, None),
    ):
        if value != usual:
            raise EqPluginError(
                f"{option} {value} is not possible with --engine torch-sim: leave it out."
            )
    from eqplugin.md.batched import check_batch, files_of, run_batch

    check_batch(structures, settings)
    model = open_batch_model(request.model, request.device, request.dtype)
    atoms = sum(len(frame) for frame in structures)
    console.print(f"{len(structures)} structures, {atoms} atoms: {_what(settings)}")
    mean = atoms / len(structures)
    with progress_line(console, settings, mean, len(structures)) as watch:
        done = run_batch(structures, model, settings, request.out, origin, watch)
    _say_resumed(console, done.resumed_from, done.steps)
    parts = [files_of(request.out, index) for index in range(len(structures))]
    for index, (files, frame) in enumerate(zip(parts, structures, strict=True)):
        if index < _PLOTS:
            name = f"structure {index} ({frame.get_chemical_formula()}), {request.model.name}"
            _plot(files, settings, done.degrees[index], f"{name}: {_what(settings)}")
    _summary(console, [(f, len(s)) for f, s in zip(parts, structures, strict=True)])


def _what(settings: MdSettings) -> str:
    pressure = f", {settings.pressure:g} GPa" if settings.ensemble == "npt" else ""
    length = settings.steps * settings.timestep / 1e3
    return f"{settings.ensemble}, {settings.temperature:g} K{pressure}, {length:g} ps"


def _say_resumed(console: Console, resumed_from: int | None, steps: int) -> None:
    if resumed_from is None:
        return
    if resumed_from == steps:
        console.print(f"Nothing to run: all {steps} steps are there; raise --steps to go on.")
    else:
        console.print(f"Went on from step {resumed_from}.")


def _plot(files: MdFiles, settings: MdSettings, degrees: int, title: str) -> None:
    from eqplugin.md.plots import plot_run

    plot_run(files.traj, files.table, files.plot, settings, degrees, title)


def _summary(console: Console, runs: list[tuple[MdFiles, int]]) -> None:
    """Print averages over the second half, a line per structure."""
    from eqplugin.md.observables import read_log
    from eqplugin.md.plots import drift

    rows = []
    for files, num_atoms in runs[:_PLOTS]:
        log = read_log(files.table)
        half = log.iloc[len(log) // 2 :].mean()
        cells = (
            f"{half['temperature_K']:.0f}",
            f"{half['potential_eV']:.3f}",
            f"{drift(log, num_atoms):+.3g}",
            f"{half['pressure_GPa']:.3f}",
            f"{half['density_g_cm3']:.3f}",
        )
        rows.append([*("" if "nan" in cell else cell for cell in cells), str(files.traj.parent)])
    names = ("T (K)", "E_pot (eV)", "drift (meV/atom/ps)", "p (GPa)", "ρ (g/cm³)", "in")
    console.print("Second half of the run:")
    table = Table(box=None, pad_edge=False)
    used = [column for column in range(len(names)) if any(row[column] for row in rows)]
    for column in used:
        justify = "left" if names[column] == "in" else "right"
        table.add_column(names[column], justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in used))
    console.print(table)
    if len(runs) > _PLOTS:
        console.print(f"... and {len(runs) - _PLOTS} more, with logs and trajectories only.")
