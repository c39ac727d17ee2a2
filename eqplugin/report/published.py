"""Published errors beside the best of a study's models."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eqplugin.errors import EqPluginError
from eqplugin.measure.tables import Table
from eqplugin.report.models import ModelResults, StudyResults

_SHIPPED = Path(__file__).with_suffix(".yaml")
_FORM = "rows of {model, source, TEST: [energy in meV a frame, force in meV/A]}, atoms and a note"
_Rmse = tuple[int | float, int | float]  # of the energy, meV a frame, and of the force, meV/A


class PublishedModel(BaseModel):
    """Errors of one publication; every further key is a test set."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, _Rmse] = Field(init=False)

    model: str
    source: str

    @property
    def errors(self) -> dict[str, _Rmse]:
        """Test set -> root mean square errors."""
        return self.__pydantic_extra__


class Published(BaseModel):
    """Root mean square errors of publications on one data set."""

    model_config = ConfigDict(frozen=True)

    note: str = ""  # what they were trained on, and how long
    atoms: int  # of a frame; all have the same number
    rows: list[PublishedModel]  # a publication each

    def markdown(self, results: StudyResults) -> list[str]:
        """The published errors, and below them the best model of each stack in this study."""
        tests = list(dict.fromkeys(test for row in self.rows for test in row.errors))
        rows = [
            [row.model, row.source, *_cells(row.errors.get(test) for test in tests)]
            for row in self.rows
        ]
        for _, models in groupby(results.models, key=lambda model: model.family):
            if best := _best(models, results.tests[0]):
                errors = [_rmse_texts(best, test, self.atoms) for test in tests]
                rows.append([best.label, "this study", *_cells(errors)])
        heads = [f"{test} {head}" for test in tests for head in ("E RMSE\nmeV", "F RMSE\nmeV/Å")]
        return [
            "## Beside publications",
            f"{self.note} This study: {results.first.steps} steps, the model of each stack "
            f"with the lowest force RMSE, mean over its seeds. The two are not comparable before "
            f"they have been trained alike: they show how far from converged the study is. "
            f"Energies per frame; ‘-’: not published or not tested here.",
            Table(("model", "source"), heads, rows).to_markdown(),
        ]


def read_published(name: str) -> Published:
    """Read a set that is shipped, by its name, or a file of the same form."""
    content = yaml.safe_load(_SHIPPED.read_text())
    if name in content:
        return Published.model_validate(content[name])
    path = Path(name)
    if not path.is_file():
        raise EqPluginError(
            f"--published {name} is neither a file nor one of {', '.join(content)}."
        )
    try:
        return Published.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError):
        raise EqPluginError(f"--published {name}: the file does not hold {_FORM}.") from None


def _cells(pairs: Iterable[tuple | None]) -> list[str]:
    return [text for pair in pairs for text in (map(str, pair) if pair else ("-", "-"))]


def _best(models: Iterable[ModelResults], test: str) -> ModelResults | None:
    spreads = [(m, spread) for m in models if (spread := m.spread(test, "force_rmse"))]
    return min(spreads, key=lambda pair: pair[1].mean, default=(None,))[0]


def _rmse_texts(model: ModelResults, test: str, atoms: int) -> tuple[str, str] | None:
    energy, force = (model.spread(test, metric) for metric in ("energy_rmse", "force_rmse"))
    if force is None:
        return None
    return ("-" if energy is None else f"{atoms * energy.mean:.1f}"), f"{force.mean:.1f}"
