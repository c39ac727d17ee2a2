"""The commands `eqplugin bench ...`."""

from __future__ import annotations

import typer

from eqplugin.cli.bench_expressivity import expressivity
from eqplugin.cli.bench_forces import forces
from eqplugin.cli.bench_physics import physics
from eqplugin.cli.bench_speed import speed

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Measure models: errors against labelled data, speed, what they can tell apart.",
)
app.command()(forces)
app.command()(physics)
app.command()(speed)
app.command()(expressivity)
