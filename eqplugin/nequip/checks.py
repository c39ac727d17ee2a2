"""Whether model, loss and data of a training speak of the same atoms, labels and frames."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from ase.calculators.calculator import all_properties

from eqplugin.data import DataError, DataReport, Labels
from eqplugin.data.report import FileSummary
from eqplugin.errors import EqPluginError

_FIELDS = {"energy": "total_energy", "forces": "forces", "stress": "stress"}


def unused_results(kept: Collection[str]) -> list[str]:
    """What ASE calls results and NequIP would read, but no training here uses.

    NequIP batches every result that a frame has, and stops where it does not know its shape or
    where the next frame lacks it.

    Args:
        kept: further keys that are wanted.
    """
    return [name for name in all_properties if name not in _FIELDS and name not in kept]


def partial_keys(files: Sequence[FileSummary], labels: Labels) -> list[str]:
    """Keys of the labels that some frames of these files have and some have not."""
    keys: set[str] = set()
    for label in _FIELDS:
        counts = [_counts(file, labels, label) for file in files]
        numbers = [sum(count.values()) for count in counts]
        whole = all(number >= file.frames for number, file in zip(numbers, files, strict=True))
        if any(numbers) and not whole:
            keys = keys.union(*counts)
    return sorted(keys)


def _counts(summary: FileSummary, labels: Labels, label: str) -> dict[str, int]:
    return {
        key: number
        for key, number in summary.labels.items()
        if labels.targets.get(key) == label and key not in labels.exclude_keys
    }


def check_labels(module: Any, files: Sequence[FileSummary], labels: Labels) -> None:
    """Require that the frames have what the loss is made of.

    Args:
        module: NequIP's Lightning module.
        files: those trained and validated on.
        labels: how labels are found in them.

    Raises:
        DataError: naming file and label.
    """
    entries = getattr(module.loss, "entries", {}).values()
    used = {getattr(entry.field, "field", None) for entry in entries if not entry.ignore_nan}
    for label, field in _FIELDS.items():
        # a mapped key with a name of its own is not among the counted ones
        mapped = any(labels.targets.get(key) == label for key in labels.targets if key != label)
        if field not in used:
            continue
        for file in files:
            number = sum(_counts(file, labels, label).values())
            if number < file.frames and not (mapped and number == 0):
                raise DataError(
                    f"{file.path}: the loss is made of {label} too, but {number} of {file.frames} "
                    f"frames have one: add it, or take another training_module.loss."
                )


def check_model(module: Any, type_names: Sequence[str], r_max: float | None) -> None:
    """Require that the model means the types and the cutoff that the data are prepared with.

    Args:
        module: NequIP's Lightning module, whose model may come from a file.
        type_names: of the data, in the order of their numbers; none: unknown.
        r_max: cutoff of the neighbour lists, A; None: unknown.

    Raises:
        EqPluginError: naming both.
    """
    for model in module.model.values():
        known = list(getattr(model, "type_names", []))
        if type_names and known and known != list(type_names):
            wanted = ",".join(known)
            raise EqPluginError(
                f"the data have type_names [{','.join(type_names)}], but the model has [{wanted}] "
                f"and would take atoms for others: give type_names=[{wanted}]."
            )
        cutoff = getattr(model, "metadata", {}).get("r_max")
        if r_max is not None and cutoff is not None and not math.isclose(float(cutoff), r_max):
            raise EqPluginError(
                f"the data have neighbours up to r_max={r_max:g} A, but the model was made for "
                f"{float(cutoff):g} A: give r_max={float(cutoff):g}."
            )


def check_splits(splits: Any, report: DataReport) -> None:
    """Require that a random split gives every part its frames.

    Raises:
        DataError: naming file, parts and frames.
    """
    frames = {summary.path: summary.frames for summary in report.files}
    for split in [splits] if isinstance(splits, Mapping) else splits or []:
        path, total = str(split.get("file_path")), frames.get(str(split.get("file_path")))
        parts = {name: size for name, size in split.items() if name != "file_path"}
        if total is None or not parts:
            continue
        asked = ", ".join(f"{name}: {size}" for name, size in parts.items())
        if any(isinstance(size, bool) or not isinstance(size, int | float) or not size > 0
               for size in parts.values()):  # fmt: skip
            raise DataError(f"data.split_dataset of {path} asks for {asked}: give numbers above 0.")
        if math.isclose(sum(parts.values()), 1) and len(parts) > 1:
            if any(math.floor(total * size) < 1 for size in parts.values()):
                raise DataError(
                    f"data.split_dataset asks for {asked} of {path}, whose {total} frames are too "
                    f"few for that: give more frames, or a file of its own to each part."
                )
        elif sum(parts.values()) != total:
            raise DataError(
                f"data.split_dataset asks for {asked} of {path}, which has {total} frames: make "
                f"the numbers add up to {total}, or fractions to 1."
            )


class Statistics(dict[str, Any]):
    """Statistics of the training data; one that is no number is refused when it is used.

    Raises:
        DataError: naming the statistic and the type.
    """

    def get(self, name: str, default: Any = None) -> Any:
        """What NequIP's resolver calls."""
        value = super().get(name, default)
        for key, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(one, float | torch.Tensor) and not math.isfinite(one):
                of = f" of {key}" if key else ""
                raise DataError(
                    f"the statistic {name}{of} is {float(one)}: "
                    + (f"no training frame holds {key}, so take it out of type_names, or add "
                       f"frames with it." if key else "the training frames do not determine it.")
                )  # fmt: skip
        return value
