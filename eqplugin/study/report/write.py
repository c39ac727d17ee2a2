"""A study's report, assembled and written: Markdown, self-contained HTML, plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqplugin.errors import EqPluginError
from eqplugin.files import write_text
from eqplugin.study.records import read_records
from eqplugin.study.report.advice import caveats, findings, recommendation
from eqplugin.study.report.blocks import (
    Block,
    Bullets,
    Heading,
    Image,
    Table,
    Text,
    to_html,
    to_markdown,
)
from eqplugin.study.report.models import Results, label_of, results_of
from eqplugin.study.report.plots import plot_curves, plot_degrees, plot_pareto
from eqplugin.study.report.published import Published, published_blocks
from eqplugin.study.report.tables import accuracy_table, cost_table, pairs_along, pairs_table

__all__ = ["report_blocks", "write_report"]

_RULES = {
    "dimension": "the same feature dimension D",
    "parameters": "the reference's number of parameters",
    "time": "the reference's measured time per training step",
}


def write_report(folder: Path, out: Path, published: Published | None = None) -> tuple[Path, Path]:
    """Read a study's lines and write report.md, report.html and the plots.

    Args:
        folder: of the study, or a .jsonl file.
        out: where to write.
        published: errors to print beside those of the study.

    Returns:
        report.md and report.html.

    Raises:
        EqPluginError: no lines, lines of another schema, no finished job.
    """
    results = results_of(read_records(folder))
    if not results.models:
        reasons = [record["error"] for record in results.failed]
        why = f" (the first failure: {reasons[0]})" if reasons else ""
        raise EqPluginError(f"{folder}: no job of this study is finished{why}; run it again.")
    blocks = report_blocks(results, out, published)
    write_text(out / "report.md", to_markdown(blocks))
    write_text(out / "report.html", to_html(blocks))
    return out / "report.md", out / "report.html"


def report_blocks(results: Results, out: Path, published: Published | None = None) -> list[Block]:
    """The report's parts; its plots are written to ``out``."""
    shared = results.any
    budget = f", budget {shared['budget']}" if shared.get("budget") else ""
    blocks: list[Block] = [
        Heading(1, f"Study {shared['study']}{budget}"),
        Text(_summary(results)),
        Heading(2, "Recommendation"),
        *_advice(results),
        Heading(2, "Accuracy"),
    ]
    for match, rule in _RULES.items():
        if models := results.under(match):
            blocks += [
                Heading(3, f"Equal {match}: {rule}"),
                accuracy_table(models, results.tests, results.ratios(match) or None),
            ]
    blocks.append(Text("Mean ± standard deviation over the seeds; ‘-’: not labelled."))
    blocks += _image(plot_degrees, results, out / "degrees.png", "force error against L")
    blocks += [Heading(2, "Cost"), cost_table(results.models), Text(_timing(results))]
    blocks += _image(plot_pareto, results, out / "pareto.png", "force error against time")
    blocks += _tests(results)
    plot_curves(results, out / "curves.png")
    blocks += [
        Heading(2, "Learning curves"),
        Text("Thin: each seed; thick: their mean. Dashed: matched by parameters; dotted: by time."),
        Image(out / "curves.png", "validation error along training"),
    ]
    if published is not None:
        blocks += published_blocks(results, published)
    return [*blocks, *_failures(results), Heading(2, "Made with"), Text(_made_with(results))]


def _summary(results: Results) -> str:
    shared = results.any
    frames = ", ".join(f"{name} {number}" for name, number in shared["frames"].items())
    seeds = sorted({seed for model in results.models for seed in model.records})
    jobs = sum(len(model.records) for model in results.models)
    return (
        f"{jobs} finished jobs, {len(results.models)} models, seeds {', '.join(map(str, seeds))}; "
        f"every training: {shared['steps']} steps ({shared['epochs']} epochs). Frames: {frames}."
    )


def _advice(results: Results) -> list[Block]:
    found = recommendation(results)
    if not found:
        return [
            Text(f"None: no model has a force error on {results.tests[0]}, the test that decides.")
        ]
    first, *reasons = found
    return [
        Text(first),
        Bullets([*reasons, *findings(results)]),
        Text("What stands against it:"),
        Bullets(caveats(results)),
        Text(
            "The rule: of all models whose mean force error on the first test is within 5 % of "
            "the lowest, the one with the fastest force call."
        ),
    ]


def _image(plot: Any, results: Results, path: Path, alt: str) -> list[Block]:
    path.unlink(missing_ok=True)
    plot(results, results.tests[0], path)
    return [Image(path, alt)] if path.is_file() else []


def _timing(results: Results) -> str:
    if results.speed is None:
        return "Times: each job by itself."
    speed = results.speed
    processor, load = speed["hardware"]["processor"], speed["hardware"]["load"]
    return (
        f"Times: all models in turn (A B C A B C ...), {speed['atoms']} atoms a force call, "
        f"{speed['batch_size']} frames a training step (forward, loss, backward), eager models"
        f"{_modifiers(results)}, {processor}, load {load}."
    )


def _modifiers(results: Results) -> str:
    names = results.any["config"].get("nequip", {}).get("modifiers", [])
    return f" (those of NequIP with {', '.join(names)})" if names else ""


def _tests(results: Results) -> list[Block]:
    blocks: list[Block] = []
    for match in _RULES:
        for axis, word in (("l_max", "values of L"), ("hops", "hops")):
            if pairs := pairs_along(results, match, axis):
                blocks += [Heading(3, f"Equal {match}, between {word}"), pairs_table(pairs)]
    if not blocks:
        return []
    explanation = (
        "Force MAE, paired over seeds (the same frames, another start). Interval: Student's t on "
        "the differences; effect: their mean over their standard deviation; p: of no difference, "
        "adjusted for the pairs compared (Holm)."
    )
    return [Heading(2, "Tests"), Text(explanation), *blocks]


def _failures(results: Results) -> list[Block]:
    rows: Sequence[list[str]] = [
        [record["job"], label_of(record), record["status"], " ".join(str(record["error"]).split())]
        for record in [*results.failed, *results.unattainable]
    ]
    if not rows:
        return []
    table = Table(("job", "model", "status", "why"), (), rows)
    return [Heading(2, "Jobs without a result"), table]


def _made_with(results: Results) -> str:
    shared = results.any
    versions = ", ".join(f"{name} {number}" for name, number in shared["versions"].items())
    hardware = shared["hardware"]
    device = hardware["gpu"] or f"{hardware['processor']}, {hardware['cores']} cores"
    commits = ", ".join(f"{name} ({jobs} jobs)" for name, jobs in results.commits.items())
    return f"{versions}; {device}; commit {commits}; {shared['time']}."
