"""A study's report, assembled and written: Markdown, plots, and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.token import Token

from eqplugin.errors import EqPluginError
from eqplugin.files import write_text
from eqplugin.measure.tables import Table
from eqplugin.report.advice import WORTH, caveats, findings, recommendation
from eqplugin.report.efficiency import has_processor_time, target_errors, time_table
from eqplugin.report.models import MATCHES, StudyResults, architecture_label, study_results
from eqplugin.report.plots import plot_curves, plot_degrees, plot_pareto, plot_time
from eqplugin.report.records import read_records
from eqplugin.report.tables import (
    accuracy_table,
    cost_table,
    equivalence_table,
    pairs_along,
    pairs_table,
)

if TYPE_CHECKING:
    from eqplugin.report.published import Published

__all__ = ["report_markdown", "write_report"]

_RULES = {
    "dimension": "the same feature dimension D",
    "parameters": "the reference's number of parameters",
    "time": "the reference's measured time per training step",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; margin-top: 2rem; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.9rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; white-space: normal; vertical-align: bottom; }
img { max-width: 100%; }
"""


def write_report(folder: Path, out: Path, published: Published | None = None) -> tuple[Path, Path]:
    """Read a study's lines and write the plots, report.md and report.html; returns these two.

    Args:
        folder: of the study, or a .jsonl file.
        out: where to write.
        published: errors to print beside those of the study.

    Raises:
        EqPluginError: no lines, lines of another schema, no finished job.
    """
    results = study_results(read_records(folder))
    if not results.models:
        reasons = [record.error for record in results.with_status("failed")]
        why = f" (the first failure: {reasons[0]})" if reasons else ""
        raise EqPluginError(f"{folder}: no job of this study is finished{why}; run it again.")
    text = report_markdown(results, out, published)
    write_text(out / "report.md", text)
    write_text(out / "report.html", _html_page(text, out))
    return out / "report.md", out / "report.html"


def report_markdown(results: StudyResults, out: Path, published: Published | None = None) -> str:
    """The report as Markdown; its plots are written to ``out``."""
    shared = results.first
    budget = f", budget {shared.budget}" if shared.budget else ""
    parts = [
        f"# Study {shared.study}{budget}",
        _summary(results),
        *_recommendation(results),
        *_accuracy(results, out),
        *_cost(results, out),
        *_tests(results),
        *_learning_curves(results, out),
        *([] if published is None else published.markdown(results)),
        *_failures(results),
        "## Made with",
        _made_with(results),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(results: StudyResults) -> str:
    shared = results.first
    frames = ", ".join(f"{name} {number}" for name, number in shared.frames.items())
    done = results.with_status("done")
    seeds = ", ".join(map(str, sorted({record.seed for record in done})))
    return (
        f"{len(done)} finished jobs, {len(results.models)} models, seeds {seeds}; "
        f"every training: {shared.steps} steps ({shared.epochs} epochs). Frames: {frames}."
    )


def _recommendation(results: StudyResults) -> list[str]:
    sentences = recommendation(results)
    if not sentences:
        test = results.tests[0]
        none = f"None: no model has a force error on {test}, the test that decides."
        return ["## Recommendation", none]
    first, *reasons = sentences
    return [
        "## Recommendation",
        first,
        _bullets([*reasons, *findings(results)]),
        "What stands against it:",
        _bullets(caveats(results)),
        "The rule: of all models whose mean force error on the first test is within 5 % of "
        "the lowest, the one with the fastest force call.",
    ]


def _bullets(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _accuracy(results: StudyResults, out: Path) -> list[str]:
    parts = ["## Accuracy"]
    for match, rule in _RULES.items():
        if models := results.matched_by(match):
            ratios = results.ratios_to_reference(match) or None
            table = accuracy_table(models, results.tests, ratios)
            parts += [f"### Equal {match}: {rule}", table.to_markdown()]
    parts.append("Mean ± standard deviation over the seeds; ‘-’: not labelled.")
    return parts + _image(plot_degrees, results, out / "degrees.png", "force error against L")


def _cost(results: StudyResults, out: Path) -> list[str]:
    image = _image(plot_pareto, results, out / "pareto.png", "force error against time")
    return ["## Cost", cost_table(results.models).to_markdown(), _timing(results), *image]


def _image(
    plot: Callable[[StudyResults, Path], None], results: StudyResults, path: Path, text: str
) -> list[str]:
    """A plot's line of Markdown; none where there was nothing to draw."""
    path.unlink(missing_ok=True)
    plot(results, path)
    return [f"![{text}]({path.name})"] if path.is_file() else []


def _timing(results: StudyResults) -> str:
    speed = results.speed
    if speed is None:
        return "Times: each job by itself."
    modifiers = ", ".join(results.first.config.nequip.modifiers)
    return (
        f"Times: all models in turn (A B C A B C ...), {speed.atoms} atoms a force call, "
        f"{speed.batch_size} frames a training step (forward, loss, backward), eager models"
        f"{f' (those of NequIP with {modifiers})' if modifiers else ''}, "
        f"{speed.hardware.processor}, load {speed.hardware.load}."
    )


def _tests(results: StudyResults) -> list[str]:
    parts = []
    for match in MATCHES:
        for axis, word in (("l_max", "values of L"), ("hops", "hops")):
            if pairs := pairs_along(results, match, axis):
                parts += [f"### Equal {match}, between {word}", pairs_table(pairs).to_markdown()]
                equal = equivalence_table(pairs, WORTH)
                parts += [equal.to_markdown()] if equal.rows else []
    if not parts:
        return []
    explanation = (
        "Force MAE, paired over seeds (the same frames, another start). Interval: Student's t on "
        "the differences; effect: their mean over their standard deviation; p: of no difference, "
        "adjusted for the pairs compared (Holm). Second tables: the margin within which two "
        f"one-sided tests call a pair equal (5 % level), their p value for {WORTH:.0%} of the "
        "first model's error, and the true difference that these seeds show in 80 % of all studies."
    )
    return ["## Tests", explanation, *parts]


def _learning_curves(results: StudyResults, out: Path) -> list[str]:
    text = "Thin: each seed; thick: their mean. Dashed: matched by parameters; dotted: by time."
    image = _image(plot_curves, results, out / "curves.png", "validation error along training")
    return ["## Learning curves", text, *image, *_time_to_error(results, out)]


def _time_to_error(results: StudyResults, out: Path) -> list[str]:
    targets, clock = target_errors(results), has_processor_time(results)
    if not targets:
        return []
    table = time_table(results.models, targets, clock)
    text = (
        "Training time until the validation force MAE was as low as this, from what every model "
        "reaches to what the best one does; ‘-’: never. Thick lines in the plot: equal dimension; "
        "thin ones: equal parameters or time."
    )
    image = _image(plot_time, results, out / "time.png", "validation error against training time")
    return ["### Time to accuracy", text, table.to_markdown(), *image]


def _failures(results: StudyResults) -> list[str]:
    rows = [
        [record.job, architecture_label(record), record.status, " ".join(str(record.error).split())]
        for status in ("failed", "unattainable")
        for record in results.with_status(status)
    ]
    if not rows:
        return []
    table = Table(("job", "model", "status", "why"), (), rows)
    return ["## Jobs without a result", table.to_markdown()]


def _made_with(results: StudyResults) -> str:
    shared = results.first
    versions = ", ".join(f"{name} {number}" for name, number in shared.versions.items())
    hardware = shared.hardware
    device = hardware.gpu or f"{hardware.processor}, {hardware.cores} cores"
    commits = ", ".join(f"{name} ({jobs} jobs)" for name, jobs in results.commits.items())
    return f"{versions}; {device}; commit {commits}; {shared.time}."


def _html_page(markdown: str, folder: Path) -> str:
    """The report, which begins with its title, as a page that stands alone."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    _embed_images(tokens, folder)
    body = parser.renderer.render(tokens, parser.options, {})
    title = html.escape(markdown.split("\n", 1)[0].lstrip("# "))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


def _embed_images(tokens: Sequence[Token], folder: Path) -> None:
    for token in tokens:
        if token.type == "image":
            data = base64.b64encode((folder / token.attrs["src"]).read_bytes()).decode()
            token.attrs["src"] = f"data:image/png;base64,{data}"
        _embed_images(token.children or (), folder)
