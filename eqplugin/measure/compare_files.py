"""What a comparison of models leaves behind: JSON, CSV, Markdown, plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from eqplugin.files import write_json, write_text
from eqplugin.measure.compare import KEYS, Comparison
from eqplugin.measure.comparison_plots import plot_comparison
from eqplugin.measure.force_errors import Errors, by_config_type, by_element
from eqplugin.measure.tables import error_rows, markdown, to_csv

__all__ = ["write_comparison"]


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write errors.json, errors.csv, errors.md and the plots; each file whole or not at all.

    Returns:
        What was written: plots only of labels that some frame has and some model predicts.
    """
    errors = comparison.errors()
    write_json(
        out / "errors.json",
        {
            "schema": "eqplugin.measure.forces/1",
            "units": {"energy": "meV/atom", "force": "meV/A", "stress": "meV/A^3"},
            "models": dict(comparison.models),
            "data": dict(comparison.files),
            "errors": _nested(errors),
            "by_element": _nested(comparison.groups(by_element)),
            "by_config_type": _nested(comparison.groups(by_config_type)),
        },
    )
    write_text(out / "errors.csv", to_csv(KEYS, errors))
    heads, rows = error_rows(errors)
    write_text(out / "errors.md", markdown(KEYS, heads, rows) + "\n")
    tables = [out / f"errors.{ending}" for ending in ("json", "csv", "md")]
    return tables + plot_comparison(comparison, out)


def _nested(errors: Mapping[tuple[str, ...], Errors]) -> dict:
    tree: dict = {}
    for (*path, last), value in errors.items():
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = asdict(value)
    return tree
