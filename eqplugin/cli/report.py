"""The command `eqplugin report`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.markdown import Markdown

from eqplugin.cli._common import user_errors


@user_errors()
def report(
    folder: Path = typer.Argument(help="A study's folder, or a .jsonl file of its lines."),
    out: Path | None = typer.Option(None, help="Where to write; default: FOLDER/report."),
    published: str | None = typer.Option(
        None, help="Print published errors beside: acac, 3bpa, or a YAML file of your own."
    ),
) -> None:
    """Tables, tests, plots and a recommendation from a study's results.

    Reads the JSON lines alone, so a folder that holds nothing but `results.jsonl` is enough.
    Writes `report.md`, its plots, and `report.html` with the plots inside.

    **Examples**

        eqplugin report outputs/study/quickstart-reduced

        eqplugin report benchmarks/results/study/acac-reduced --published acac --out acac
    """
    from eqplugin.report.published import read_published
    from eqplugin.report.write import write_report

    target = out or (folder if folder.is_dir() else folder.parent) / "report"
    beside = None if published is None else read_published(published)
    markdown, page = write_report(folder, target, beside)
    advice = markdown.read_text().split("\n## Accuracy", 1)[0]
    console = Console(markup=False)
    console.print(Markdown(advice))
    console.print(f"\nwritten: {markdown}, {page}")
