"""Published errors beside the best of a study's models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqplugin.errors import EqPluginError
from eqplugin.study.report.blocks import Block, Heading, Table, Text
from eqplugin.study.report.models import Model, Results

__all__ = ["Published", "published_blocks", "read_published"]

_SHIPPED = Path(__file__).with_suffix(".yaml")
_FORM = "rows of {model, source, TEST: [energy in meV a frame, force in meV/A]}, atoms and a note"


@dataclass(frozen=True)
class Published:
    """Root mean square errors of publications on one data set.

    Attributes:
        note: what they were trained on, and how long.
        atoms: of a frame; all have the same number.
        rows: ``model``, ``source`` and, by test set, (energy in meV a frame, force in meV/A).
    """

    note: str
    atoms: int
    rows: tuple[dict[str, Any], ...]


def read_published(name: str) -> Published:
    """Read a set that is shipped, by its name, or a file of the same form.

    Raises:
        EqPluginError: no such set, or a file that does not hold one.
    """
    shipped = yaml.safe_load(_SHIPPED.read_text())
    content: Any = shipped.get(name)
    if content is None:
        path = Path(name)
        if not path.is_file():
            raise EqPluginError(
                f"--published {name} is neither a file nor one of {', '.join(shipped)}."
            )
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            content = None
    try:
        rows = tuple(dict(row) for row in content["rows"])
        published = Published(str(content.get("note", "")), int(content["atoms"]), rows)
        for row in rows:
            row["model"], row["source"]
            for test in _tests(row):
                energy, force = row[test]
                float(energy), float(force)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise EqPluginError(f"--published {name}: the file does not hold {_FORM}.") from None
    return published


def _tests(row: dict[str, Any]) -> list[str]:
    return [key for key in row if key not in ("model", "source")]


def published_blocks(results: Results, published: Published) -> list[Block]:
    """The published errors, and below them the best model of each stack in this study."""
    tests = list(dict.fromkeys(test for row in published.rows for test in _tests(row)))
    rows = [
        [row["model"], row["source"], *_cells(row.get(test) for test in tests)]
        for row in published.rows
    ]
    for family in ("nequip", "mace"):
        if best := _best(results, family):
            errors = [_errors(best, test, published.atoms) for test in tests]
            rows.append([f"{best.label}", "this study", *_cells(errors)])
    heads = [f"{test} {head}" for test in tests for head in ("E RMSE\nmeV", "F RMSE\nmeV/Å")]
    return [
        Heading(2, "Beside publications"),
        Text(
            f"{published.note} This study: {results.any['steps']} steps, the model of each stack "
            f"with the lowest force RMSE, mean over its seeds. The two are not comparable before "
            f"they have been trained alike: they show how far from converged the study is. "
            f"Energies per frame; ‘-’: not published or not tested here."
        ),
        Table(("model", "source"), heads, rows),
    ]


def _cells(pairs: Any) -> list[str]:
    return [text for pair in pairs for text in (map(str, pair) if pair else ("-", "-"))]


def _best(results: Results, family: str) -> Model | None:
    test = results.tests[0]
    models = [m for m in results.models if m.family == family and m.spread(test, "force_rmse")]
    return min(models, key=lambda m: m.spread(test, "force_rmse").mean, default=None)


def _errors(model: Model, test: str, atoms: int) -> tuple[str, str] | None:
    energy, force = (model.spread(test, measure) for measure in ("energy_rmse", "force_rmse"))
    if force is None:
        return None
    return ("-" if energy is None else f"{atoms * energy.mean:.1f}"), f"{force.mean:.1f}"
