"""The JSON lines of a study: one per job, with everything a report needs and nothing else does."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from eqplugin.errors import EqPluginError
from eqplugin.files import write_text
from eqplugin.measure.force_errors import ErrorMetrics
from eqplugin.measure.machine import commit, gpu_name, processor_name
from eqplugin.resources import installed_version

__all__ = [
    "LINES",
    "RESULT",
    "SCHEMA",
    "FinishedJob",
    "JobCost",
    "JobRecord",
    "Measurement",
    "Quantiles",
    "Record",
    "SpeedRecord",
    "Timing",
    "current_environment",
    "parse_record",
    "read_records",
    "read_speed",
    "write_records",
]

SCHEMA = "eqplugin.study/1"
LINES = "results.jsonl"  # of a study
RESULT = "result.jsonl"  # of one job
_PACKAGES = ("eqplugin", "nequip", "mace-torch", "e3nn", "torch", "ase", "numpy")


class Quantiles(NamedTuple):
    """10, 50 and 90 % of repeated timings, ms."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.low:.1f}-{self.high:.1f})"


class ValidationPoint(NamedTuple):
    """Validation force MAE after an epoch, meV/A; None where it was not finite."""

    epoch: int
    force_mae: float | None


class _Part(BaseModel):
    """Keys of newer versions are kept, so that writing a record again loses nothing."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _in_order(times: Quantiles) -> Quantiles:
    if not 0 <= times.low <= times.median <= times.high < math.inf:
        raise ValueError("three times from low to high are wanted")
    return times


Times = Annotated[Quantiles, AfterValidator(_in_order)]


class Timing(_Part):
    """Time of a force call and of a training step."""

    force_ms: Times
    step_ms: Times


class Measurement(Timing):
    """What is measured of one trained model."""

    errors: dict[str, ErrorMetrics]  # by test set
    parameters: int
    peak_bytes: int | None  # of inference


class JobCost(Timing):
    """Time and memory of one job; None where the system does not tell."""

    train_s: float  # wall time
    train_cpu_s: float | None = None
    epoch_s: float | None = None  # of one epoch, validation included
    train_peak_bytes: int | None = None
    force_peak_bytes: int | None = None


class Hardware(_Part):
    """The machine of a measurement."""

    processor: str
    cores: int | None
    load: float | None  # average of the last minute
    gpu: str | None = None
    system: str | None = None


class Environment(_Part):
    """Versions, hardware, commit and time of a measurement."""

    versions: dict[str, str]
    hardware: Hardware
    commit: str | None
    time: str


class StackSettings(_Part):
    """The settings of one stack that a report mentions."""

    modifiers: list[str] = []


class Tolerance(_Part):
    """How well models were to be matched, relative."""

    time: float = float("inf")


class StudySettings(_Part):
    """What a report reads of a study's config; everything else is kept as it is."""

    family: str | None = None
    feature_dim: int | None = None
    reference_family: str | None = None
    reference_l_max: int | None = None
    nequip: StackSettings = StackSettings()
    tolerance: Tolerance = Tolerance()


class _Line(Environment):
    kind: ClassVar[str]

    def to_json(self) -> dict[str, object]:
        """The line, in the order of its keys: what it is, what came out, where."""
        content = self.model_dump(exclude_unset=True)
        last = [name for name in (*Environment.model_fields, "config") if name in content]
        ordered = {name: content.pop(name) for name in last}
        return {"schema": SCHEMA, "kind": self.kind, **content, **ordered}


def _as_list(rules: object) -> object:
    return [rules] if isinstance(rules, str) else rules  # one rule an arm in old lines


_Rules = Annotated[
    list[Literal["dimension", "parameters", "time"]],
    Field(min_length=1),
    BeforeValidator(_as_list),
]


class JobRecord(_Line):
    """A job: what it is and what it ran under; one that is done is a :class:`FinishedJob`."""

    kind: ClassVar[str] = "job"

    study: str
    budget: str | None
    job: str  # its name, unique within the study
    status: Literal["done", "failed", "unattainable"]
    error: str | None  # why it has no result
    family: Literal["nequip", "mace"]
    l_max: int
    hops: int | None  # convolutions between two resets; None: never
    contraction: str | None  # at a reset
    feature_dim: int | None  # None where no dimension meets the match
    seed: int
    arms: Annotated[dict[str, _Rules], Field(min_length=1)]  # -> rules that compare it
    steps: int  # of the optimizer
    epochs: int
    frames: dict[str, int]  # set -> number
    fingerprint: str | None  # of everything that decides the weights
    warnings: list[str]  # of the study
    config: StudySettings


class FinishedJob(JobRecord):
    """A job that is done, with its results."""

    feature_dim: int
    errors: dict[str, ErrorMetrics]  # by test set
    parameters: int
    validation: list[ValidationPoint]
    cost: JobCost
    model: str  # file, relative to the study's folder


class SpeedRecord(_Line):
    """The common timing of a study's models."""

    kind: ClassVar[str] = "speed"

    study: str
    atoms: int  # of a force call
    batch_size: int  # frames of a training step
    fingerprints: dict[str, str]  # model -> that of the job that was timed
    models: dict[str, Timing]


Record = JobRecord | SpeedRecord
_Kind = TypeVar("_Kind", bound=_Line)


def current_environment() -> Environment:
    """Versions, hardware, commit and time of a measurement made here and now."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        if (version := installed_version(package)) is not None:
            versions[package] = version
    hardware = Hardware(
        processor=processor_name(),
        cores=os.cpu_count(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        gpu=gpu_name(),
        system=f"{platform.system()} {platform.machine()}",
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Environment(versions=versions, hardware=hardware, commit=commit(), time=now)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write JSON lines, all or nothing."""
    lines = (json.dumps(record.to_json(), allow_nan=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_records(folder: Path) -> list[Record]:
    """Read a study's lines: ``results.jsonl``, or those of the jobs while it still runs.

    Args:
        folder: of the study; or a .jsonl file.

    Raises:
        EqPluginError: nothing there, another schema, or a damaged line; the sentence names file,
            line and field.
    """
    folder = Path(folder)
    if folder.is_file():
        files = [folder]
    elif (folder / LINES).is_file():
        files = [folder / LINES]
    else:
        files = sorted(folder.glob(f"jobs/*/{RESULT}"))
    if not files:
        raise EqPluginError(
            f"{folder} holds no results of a study ({LINES}): name the folder that `eqplugin "
            f"study` wrote to."
        )
    records = [
        parse_record(line, f"{file}, line {number}")
        for file in files
        for number, line in enumerate(_text(file).split("\n"), 1)
        if line.strip()
    ]
    return [record for record in records if record is not None]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise EqPluginError(f"{file} is damaged: it is not UTF-8 ({error}).") from error


def parse_record(line: str, where: str) -> Record | None:
    """A line as a record; None for a kind of newer versions."""
    try:
        content = json.loads(line)
    except ValueError as error:
        raise EqPluginError(f"{where}: this is not JSON ({error}); remove the line.") from error
    content = content if isinstance(content, dict) else {}
    if content.get("schema") != SCHEMA:
        raise EqPluginError(
            f"{where}: schema {content.get('schema')}, but this version reads {SCHEMA}: use the "
            f"eqplugin that wrote it, or run the study again in another folder."
        )
    match content.get("kind"):
        case "speed":
            return _validated(SpeedRecord, line, where)
        case "job":
            kind = FinishedJob if content.get("status") == "done" else JobRecord
            return _validated(kind, line, where)
    return None


def read_speed(file: Path) -> SpeedRecord | None:
    """The common timing that ``speed.json`` holds; None where there is no such file."""
    return _validated(SpeedRecord, _text(file), str(file)) if file.is_file() else None


def _validated(kind: type[_Kind], text: str, where: str) -> _Kind:
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise EqPluginError(
            f"{where}: {field} is wrong ({first['msg']}): correct or remove it."
        ) from None
