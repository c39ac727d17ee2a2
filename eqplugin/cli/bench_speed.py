"""The command `eqplugin bench speed`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from eqplugin.cli._common import integer_range, user_errors
from eqplugin.errors import EqPluginError


@user_errors()
def speed(
    models: list[str] = typer.Argument(metavar="MODEL...", help="Models to time."),
    structure: Path = typer.Option(help="Structure file; its first frame is repeated."),
    repeat: str = typer.Option("1..3", help="Copies along each direction: `1..3` or `1,2,4`."),
    calls: int = typer.Option(20, help="Timed calls per model and size, at least 3."),
    memory: bool = typer.Option(
        True, help="Measure peak memory too (Linux): one process per model and size, seconds each."
    ),
    out: Path | None = typer.Option(None, help="Folder for speed.json and speed.png."),
    device: str = typer.Option("cpu", help="`cpu` or `cuda`."),
    dtype: str | None = typer.Option(
        None, help="`float32` or `float64`; default: that of the model."
    ),
    head: str | None = typer.Option(
        None, help="Head of MACE models with several; models with one run as they are."
    ),
) -> None:
    """How long does a force call take, and how much memory, as the number of atoms grows?

    The models take turns call by call, and every call sees new positions, as in dynamics. Ratios
    are relative to the first model. Compare on a quiet machine; OMP_NUM_THREADS sets the threads.

    **Examples**

        eqplugin bench speed demo/*/best.ckpt --structure examples/data/ethanol_xtb/test_300K.xyz

        eqplugin bench speed best.ckpt my.model --structure water.xyz --repeat 1,2,4 --no-memory
    """
    from dataclasses import replace

    from eqplugin.measure.models import check_head, labels_of, open_model
    from eqplugin.measure.scaling import (
        enlarged,
        peak_memory,
        scaling_table,
        time_by_size,
        write_scaling,
    )
    from eqplugin.structures import read_structure

    if calls < 3:
        raise EqPluginError(f"--calls {calls} is too few to show the spread: use 3 or more.")
    factors = integer_range("--repeat", repeat)
    check_head(models, head)
    atoms = read_structure(structure)
    structures = [enlarged(atoms, factor) for factor in factors]
    with Console(stderr=True, markup=False).status("loading models") as status:
        named = dict(zip(labels_of(models), models, strict=True))
        calculators = {
            label: open_model(name, device, dtype, head) for label, name in named.items()
        }
        timings = time_by_size(
            calculators, structures, calls, lambda n: status.update(f"timing on {n} atoms")
        )
        for label, name in named.items() if memory else ():
            status.update(Text(f"memory of {label}"))
            timings[label] = [
                replace(timing, peak_mib=peak_memory(name, large, device, dtype, head))
                for timing, large in zip(timings[label], structures, strict=True)
            ]
    console = Console(markup=False)
    console.print(scaling_table(timings).to_rich())
    if out is not None:
        write_scaling(timings, named, out)
        console.print(f"written: {out}/speed.json, speed.png")
