"""The command `eqplugin bench speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eqplugin.cli._common import integer_range, user_errors
from eqplugin.errors import EqPluginError

__all__ = ["speed"]


@user_errors()
def speed(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="models")],
    structure: Annotated[Path, typer.Option(help="file whose first frame is enlarged")],
    repeat: Annotated[
        str, typer.Option(help="`1..3` or `1,2,4`: copies along each direction")
    ] = "1..3",
    calls: Annotated[int, typer.Option(help="timed calls of each model and size")] = 20,
    memory: Annotated[
        bool, typer.Option(help="also peak memory, each in a process of its own (seconds each)")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="folder for speed.json and speed.png")] = None,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="`float32` or `float64`; default: the model's own")
    ] = None,
) -> None:
    """Time and memory of a force call, by number of atoms, the models alternated call by call.

    Every call sees new positions, as in dynamics. Ratios are against the first model. Compare on a
    quiet machine; OMP_NUM_THREADS sets the threads.

    **Example**

        eqplugin bench speed demo/*/best.ckpt --structure examples/data/ethanol_xtb/test_300K.xyz
    """
    from eqplugin.measure.models import labels_of, open_model
    from eqplugin.measure.scaling import enlarged, measure, memory_of
    from eqplugin.measure.tables import rich_table
    from eqplugin.structures import read_structure

    if calls < 3:
        raise EqPluginError(f"--calls {calls} says nothing about spread: use 3 or more.")
    factors = integer_range("--repeat", repeat)
    atoms = read_structure(structure)
    structures = [enlarged(atoms, factor) for factor in factors]
    labels = labels_of(models)
    with Console(stderr=True).status("opening") as status:
        named = dict(zip(labels, models, strict=True))
        calculators = {label: open_model(name, device, dtype) for label, name in named.items()}
        timings = measure(
            calculators, structures, calls, lambda n: status.update(f"timing on {n} atoms")
        )
        peaks = {}
        for label, name in named.items() if memory else ():
            status.update(f"memory of {label}")
            peaks[label] = [memory_of(name, large, device, dtype) for large in structures]
    console = Console()
    heads = ["atoms", "ms/call", "10-90 %", "µs/atom", "ratio", "MiB"]
    console.print(rich_table("", ["model"], heads, _rows(timings, peaks)))
    if out is not None:
        _write(timings, peaks, named, out)
        console.print(f"written: {out}/speed.json, speed.png")


def _rows(timings: dict, peaks: dict) -> list[list[str]]:
    import numpy as np

    first = next(iter(timings.values()))
    rows = []
    for label, of_model in timings.items():
        for number, (timing, reference) in enumerate(zip(of_model, first, strict=True)):
            low, high = timing.spread_ms
            # call by call: both saw the machine in the same moment
            ratio = np.median(np.array(timing.times_ms) / np.array(reference.times_ms))
            memory = f"{peaks[label][number]:.0f}" if label in peaks else "-"
            rows.append([
                label, str(timing.atoms), f"{timing.median_ms:.2f}", f"{low:.1f}-{high:.1f}",
                f"{timing.us_per_atom:.1f}", f"{ratio:.2f}", memory,
            ])  # fmt: skip
    return rows


def _write(timings: dict, peaks: dict, named: dict, out: Path) -> None:
    from eqplugin.files import write_json
    from eqplugin.measure.scaling import hardware
    from eqplugin.measure.speed_plot import plot_scaling

    content = {
        "schema": "eqplugin.measure.speed/1",
        "hardware": hardware(),
        "models": named,
        "timings": {label: [t.as_dict() for t in of_model] for label, of_model in timings.items()},
        "peak_mib": peaks,
    }
    write_json(out / "speed.json", content)
    plot_scaling(timings, peaks, out / "speed.png")
