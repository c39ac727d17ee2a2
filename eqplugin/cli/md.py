"""`eqplugin md`: molecular dynamics with any model."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import get_type_hints

import typer

from eqplugin.cli._common import print_error, user_errors
from eqplugin.md.settings import MdRequest, MdSettings

# by panel of --help; types and defaults are those of the two dataclasses
_HELP = {
    "Physics": {
        "ensemble": "nve, nvt-langevin, nvt-bussi or npt.",
        "steps": "Total number of steps; raise it to continue a finished run.",
        "timestep": "fs; 0.5 with hydrogen, 1 to 5 without.",
        "temperature": "K, of the thermostat and of the starting velocities.",
        "pressure": "GPa, for npt.",
        "friction": "1/fs, of the thermostat; 0.01 acts within 0.1 ps, 0.001 disturbs less.",
        "velocities": "draw: random, at --temperature; file: from the structure file.",
        "seed": "Random seed of velocities and thermostat.",
        "max_temperature": "K; stop above it. Default: 10 x --temperature, at least 3000 K.",
        "head": "Head of a MACE model with several.",
    },
    "Files": {
        "out": "Folder of the run.",
        "traj": "Trajectory (extended XYZ). Default: OUT/trajectory.xyz.",
        "log": "Log (CSV). Default: OUT/log.csv.",
        "every": "Steps between frames; a killed run loses at most that many.",
    },
    "Speed": {
        "engine": "ase: one structure; torch-sim: many structures at once.",
        "device": "cpu or cuda.",
        "dtype": "float32 or float64. Default: that of the model.",
        "skin": "Å added to the cutoff of the neighbour list; results do not depend on it.",
        "compile": "aoti: compile once (minutes), then run 2-3 x faster; aoti-cudagraphs: for "
        "small systems on a GPU. Default: not compiled.",
    },
}
_SETTINGS = {field.name for field in dataclasses.fields(MdSettings)}


def _option_parameters() -> list[inspect.Parameter]:
    types = get_type_hints(MdSettings) | get_type_hints(MdRequest)
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(
                getattr(MdSettings if name in _SETTINGS else MdRequest, name),
                help=text,
                rich_help_panel=panel,
            ),
            annotation=types[name],
        )
        for panel, options in _HELP.items()
        for name, text in options.items()
    ]


@user_errors()
def md(
    model: Path = typer.Argument(
        help="NequIP (.ckpt, .nequip.zip, .nequip.pt2) or MACE (.model) file, or .eqm of either."
    ),
    structure: Path = typer.Argument(
        help="Starting structure: any file that ASE reads (.xyz, .cif, POSCAR, ...)."
    ),
    **options: object,
) -> None:
    """Run molecular dynamics; run the same command again to resume it.

    Writes to `--out`: **trajectory.xyz** (for `ase gui` and OVITO), **log.csv** (energies,
    temperature, pressure, density), **plot.png** and a restart file. A killed run loses at most one
    frame. On a CPU, a resumed run equals an uninterrupted one to the last bit.

    The run stops and keeps the last good frame if it meets NaN, a runaway temperature or
    overlapping atoms.

    * Does the model conserve energy? `eqplugin md best.ckpt start.xyz --ensemble nve`: the drift
      should stay below 1 meV/atom/ps.

    * Structure at 300 K: `eqplugin md best.ckpt start.xyz --steps 100000 --out run300`

    * Density at 1 bar: `eqplugin md best.ckpt liquid.xyz --ensemble npt --pressure 1e-4`

    * Many molecules on one GPU: `eqplugin md best.ckpt frames.xyz --engine torch-sim --device cuda`

    Ensembles: *nve* conserves energy; *nvt-langevin* suits any system; *nvt-bussi* disturbs the
    dynamics least, for diffusion and spectra; *npt* scales the cell isotropically.
    """
    settings = MdSettings(**{name: options.pop(name) for name in _SETTINGS})
    request = MdRequest(model, structure, settings, **options)
    from eqplugin.md.command import run_request  # torch loads only when it really runs

    try:
        run_request(request)
    except KeyboardInterrupt:
        print_error(f"interrupted; run the same command again to continue from {request.out}.")
        raise typer.Exit(130) from None


# typer reads the signature: in place of **options it finds the fields of the two dataclasses
_OWN = [p for p in inspect.signature(md, eval_str=True).parameters.values() if p.name != "options"]
md.__signature__ = inspect.Signature([*_OWN, *_option_parameters()])
md.__annotations__ = {p.name: p.annotation for p in md.__signature__.parameters.values()}
