"""The command `eqplugin report`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.markdown import Markdown

from eqplugin.cli._common import user_errors


@user_errors()
def report(
    folder: Path = typer.Argument(help="A study's folder, or its results as a .jsonl file."),
    out: Path | None = typer.Option(None, help="Folder to write to; default: FOLDER/report."),
    published: str | None = typer.Option(
        None, help="Add published errors for comparison: acac, 3bpa, or a YAML file of your own."
    ),
) -> None:
    """Which model does a study recommend? Tables, statistical tests and plots of its results.

    Reads `results.jsonl` only; the rest of the study's folder is not needed. Writes `report.md`,
    its plots, and `report.html`, which contains the plots.

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
