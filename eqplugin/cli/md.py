"""`eqplugin md`: molecular dynamics with any model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from eqplugin.cli._common import print_error, user_errors

__all__ = ["md"]


class Engine(StrEnum):
    """What moves the atoms."""

    ase = "ase"
    torch_sim = "torch-sim"


def md(
    model: Path = typer.Argument(
        help="NequIP (.ckpt, .nequip.zip, .nequip.pt2) or MACE (.model) file; trust its maker."
    ),
    structure: Path = typer.Argument(help="Start: any file ASE reads (.xyz, .cif, POSCAR, ...)."),
    ensemble: str = typer.Option(
        "nvt-langevin", help="nve, nvt-langevin, nvt-bussi or npt.", rich_help_panel="Physics"
    ),
    steps: int = typer.Option(
        10_000, help="Steps in all; raise it later to go on.", rich_help_panel="Physics"
    ),
    timestep: float = typer.Option(
        0.5, help="fs: 0.5 with hydrogen, 1 to 5 without.", rich_help_panel="Physics"
    ),
    temperature: float = typer.Option(
        300.0, help="K: thermostat and starting velocities.", rich_help_panel="Physics"
    ),
    pressure: float = typer.Option(0.0, help="GPa, for npt.", rich_help_panel="Physics"),
    friction: float = typer.Option(
        0.01,
        help="1/fs, the thermostat's: 0.01 holds within 0.1 ps, 0.001 disturbs less.",
        rich_help_panel="Physics",
    ),
    velocities: str = typer.Option(
        "draw", help="draw from --temperature, or file: the structure's.", rich_help_panel="Physics"
    ),
    seed: int = typer.Option(0, help="Of velocities and noise.", rich_help_panel="Physics"),
    max_temperature: float = typer.Option(
        None, help="K: stop above it. Default: 10 x --temperature.", rich_help_panel="Physics"
    ),
    out: Path = typer.Option(Path("md"), help="Folder of the run.", rich_help_panel="Files"),
    traj: Path = typer.Option(
        None, help="Extended XYZ. Default: OUT/trajectory.xyz.", rich_help_panel="Files"
    ),
    log: Path = typer.Option(None, help="CSV. Default: OUT/log.csv.", rich_help_panel="Files"),
    every: int = typer.Option(
        100, help="Steps between frames: what a kill can cost.", rich_help_panel="Files"
    ),
    engine: Engine = typer.Option(
        Engine.ase, help="ase, or torch-sim for many structures.", rich_help_panel="Speed"
    ),
    device: str = typer.Option("cpu", help="cpu or cuda.", rich_help_panel="Speed"),
    dtype: str = typer.Option(
        None, help="float32 or float64. Default: the model's.", rich_help_panel="Speed"
    ),
    skin: float = typer.Option(
        0.5, help="Å of the neighbour list; numbers do not depend on it.", rich_help_panel="Speed"
    ),
    compile: str = typer.Option(
        None,
        help="aoti: compile once (minutes), run 2-3 x faster; aoti-cudagraphs: small systems on a "
        "GPU.",
        rich_help_panel="Speed",
    ),
) -> None:
    """Run molecular dynamics; run the same command again to go on where it stopped.

    Writes into `--out`: **trajectory.xyz** (`ase gui` and OVITO read it), **log.csv** (energies,
    temperature, pressure, density), **plot.png** and a restart file. A run that is killed loses at
    most one frame, and resumed it is the one it would have been, to the last bit (on a CPU).

    It stops, with the last good frame saved, on NaN, runaway temperature and atoms inside each
    other.

    * Does the model conserve energy? `eqplugin md MODEL start.xyz --ensemble nve`: the drift should
      stay below 1 meV/atom/ps.

    * Structure at 300 K: `eqplugin md MODEL start.xyz --steps 100000 --out run300`

    * Density at 1 bar: `eqplugin md MODEL liquid.xyz --ensemble npt --pressure 1e-4`

    * Many molecules on one GPU: `eqplugin md MODEL frames.xyz --engine torch-sim --device cuda`

    Thermostats: *nvt-langevin* samples anything; *nvt-bussi* disturbs the dynamics least, for
    diffusion and spectra; *npt* scales the cell isotropically.
    """
    with user_errors():
        from eqplugin.md.command import Request, run_request  # torch loads only when it really runs
        from eqplugin.md.settings import MdSettings

        settings = MdSettings(
            ensemble=ensemble,
            steps=steps,
            timestep=timestep,
            temperature=temperature,
            pressure=pressure,
            friction=friction,
            seed=seed,
            every=every,
            velocities=velocities,
            max_temperature=max_temperature,
        )
        request = Request(
            model=model,
            structure=structure,
            settings=settings,
            out=out,
            traj=traj,
            log=log,
            engine=engine.value,
            device=device,
            dtype=dtype,
            skin=skin,
            compile=compile,
        )
        try:
            run_request(request)
        except KeyboardInterrupt:
            print_error(f"interrupted; run the same command again to go on from {out}.")
            raise typer.Exit(130) from None
