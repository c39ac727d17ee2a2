"""`eqplugin budget`: what a feature dimension buys at each degree, and what it costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eqplugin.cli._common import integer_range, user_errors
from eqplugin.errors import EqPluginError

if TYPE_CHECKING:
    from eqplugin.costs import ModelCost
    from eqplugin.design import Design


_PARTS = ("radial", "linear", "self_connection", "contraction", "other", "total")


@user_errors()
def budget(
    feature_dim: int = typer.Option(
        ..., "--feature-dim", "-D", help="Feature dimension D: sum over l of mul_l (2l + 1)."
    ),
    l_max: str = typer.Option(
        "0..4", "--l-max", "-L", help="Highest degrees L: 2, or 0,1,4, or 0..6."
    ),
    parity: Literal["natural", "both"] = typer.Option(
        "natural", help="natural: 0e, 1o, 2e, ...; both: every degree with both parities."
    ),
    profile: Literal["uniform", "decreasing"] = typer.Option(
        "uniform", help="uniform: equal multiplicities; decreasing: halved with each degree."
    ),
    match: Literal["dimension", "parameters"] = typer.Option(
        "dimension",
        help="dimension: the same D for every L; parameters: a D for each L, so that the total "
        "numbers of parameters agree within 2 % with that of --feature-dim at the first L.",
    ),
    num_layers: int = typer.Option(4, help="Number of convolutions."),
    num_types: int = typer.Option(3, help="Number of species."),
    type_embed: int = typer.Option(32, help="Width of the type embedding."),
    radial_depth: int = typer.Option(1, help="Hidden layers of the radial network."),
    radial_width: int = typer.Option(128, help="Width of these hidden layers."),
    hops: int | None = typer.Option(
        None, help="Convolutions between resets of a k-hop invariant model; default: never reset."
    ),
    contraction: str = typer.Option(
        "bispectrum", help="How a reset forms invariants, with --hops: bispectrum, power or drop."
    ),
    reset_width: int | None = typer.Option(
        None, help="Scalars after a reset, with --hops; default: those of the features."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """What does each L cost at one feature dimension? Irreps, paths, parameters and memory.

    Counts are exact for NequIP models (`eqplugin.nequip.SteerableModel`, `KHopInvariantModel`).
    Memory is predicted to about 30 %, for one training step on forces in float32.

    **Examples**

        eqplugin budget --feature-dim 512 --l-max 0..6

        eqplugin budget --feature-dim 128 --l-max 0..3 --match parameters

        eqplugin budget --feature-dim 128 --l-max 1 --hops 2 --num-layers 4
    """
    from eqplugin.costs import NequIPOptions, count_costs, match_parameters
    from eqplugin.design import Design

    options = NequIPOptions(
        num_types=_positive("--num-types", num_types),
        type_embed_num_features=_positive("--type-embed", type_embed),
        radial_mlp_depth=radial_depth,
        radial_mlp_width=_positive("--radial-width", radial_width),
    )
    degrees = integer_range("--l-max", l_max)
    designs = [
        Design(
            feature_dim,
            degree,
            hops=hops,
            contraction=None if hops is None else contraction,
            reset_width=reset_width,
            num_layers=_positive("--num-layers", num_layers),
            parity=parity,
            profile=profile,
        )
        for degree in (degrees[:1] if match == "parameters" else degrees)
    ]
    if match == "parameters":
        designs = match_parameters(designs[0], degrees, options)
    rows = [(design, count_costs(design, options)) for design in designs]
    _print_json(rows) if as_json else _print_table(rows, match)


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise EqPluginError(f"{option}={value} is not valid: give an integer >= 1.")
    return value


def _print_json(rows: list[tuple[Design, ModelCost]]) -> None:
    records = [
        {
            "feature_dim": chosen.feature_dim,
            "l_max": chosen.l_max,
            "irreps": str(chosen.irreps),
            "paths": cost.paths,
            "radial_outputs_per_edge": cost.radial_outputs,
            "parameters": {part: getattr(cost, part) for part in _PARTS},
            "training_bytes_per_edge": cost.training_bytes_per_edge(),
        }
        for chosen, cost in rows
    ]
    typer.echo(json.dumps(records, indent=2))


def _print_table(rows: list[tuple[Design, ModelCost]], match: str) -> None:
    first = rows[0][0]
    kind = f"{first.hops}-hop invariant" if first.has_resets else "steerable"
    # two tables: together with the irreps the counts would not fit a terminal of 80 columns
    features = Table(box=SIMPLE_HEAD, padding=(0, 1))
    counts = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1),
        caption="paths, radial outputs: widest layer; memory: one training step on forces, "
        "float32, predicted to about 30 %",
        caption_justify="left",
    )
    for name in ("L", "D"):
        features.add_column(name, justify="right", no_wrap=True)
    features.add_column("irreps", overflow="fold")
    names = ["L", "paths", "radial\nout/edge", "radial\nparams", "linear", "self-\nconn."]
    if first.has_resets:
        names.append("contr.")
    for name in [*names, "total", "memory\nkB/edge"]:
        counts.add_column(name, justify="right", no_wrap=True)
    for chosen, cost in rows:
        degree = str(chosen.l_max)
        features.add_row(degree, str(chosen.feature_dim), str(chosen.irreps).replace("+", " "))
        parts = [cost.radial, cost.linear, cost.self_connection]
        if first.has_resets:
            parts.append(cost.contraction)
        counts.add_row(
            degree,
            str(cost.paths),
            str(cost.radial_outputs),
            *(_short(part) for part in parts),
            f"{cost.total:,}",
            f"{cost.training_bytes_per_edge() / 1e3:.1f}",
        )
    console = Console(markup=False)
    console.print(
        f"\n{kind} NequIP model, {first.num_layers} convolutions, equal {match}", style="bold"
    )
    console.print(features)
    console.print(counts)


def _short(count: int) -> str:
    """Counts in at most five characters: 736, 12.3k, 25.2M."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.1f}k" if count < 1_000_000 else f"{count / 1e6:.2f}M"
