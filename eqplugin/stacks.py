"""What differs between the training stacks: resuming, where the model lies, how far it has come."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["STACKS", "Mace", "NequIP", "Stack"]


class Stack(Protocol):
    """What is needed to run a stack's own trainer; ``folder`` is that of one training run."""

    packages: tuple[str, ...]  # whose versions decide the weights

    def resume(self, folder: Path) -> list[str]:
        """Further arguments that continue an interrupted run; none when there is nothing yet."""

    def model(self, folder: Path) -> Path:
        """The trained model."""

    def force_maes(self, folder: Path) -> dict[int, float]:
        """Validation force MAE in eV/A by finished epoch."""


class NequIP:
    """`nequip-train` with callbacks and logger as in configs/nequip."""

    packages = ("torch", "e3nn", "nequip", "eqplugin")

    def resume(self, folder: Path) -> list[str]:
        """See :class:`Stack`."""
        last = folder / "last.ckpt"
        return [f"++ckpt_path={last}"] if last.is_file() else []

    def model(self, folder: Path) -> Path:
        """See :class:`Stack`."""
        return folder / "best.ckpt"

    def force_maes(self, folder: Path) -> dict[int, float]:
        """See :class:`Stack`."""
        key = "val0_epoch/forces_mae"
        values: dict[int, float] = {}
        # every resumed run writes a log of its own
        for log in _by_age(folder.glob("metrics/version_*/metrics.csv")):
            with log.open(newline="") as file:
                for row in csv.DictReader(file):
                    if row.get(key):
                        values[int(row["epoch"])] = float(row[key])
        return values


class Mace:
    """`eqplugin mace-train`, its ``--name`` that of its folder."""

    packages = ("torch", "e3nn", "mace-torch", "eqplugin")

    def resume(self, folder: Path) -> list[str]:
        """See :class:`Stack`."""
        return ["--restart_latest"] if any(folder.glob("checkpoints/*")) else []

    def model(self, folder: Path) -> Path:
        """See :class:`Stack`."""
        return folder / f"{folder.name}.model"

    def force_maes(self, folder: Path) -> dict[int, float]:
        """See :class:`Stack`."""
        values: dict[int, float] = {}
        for log in _by_age(folder.glob("results/*_train.txt")):
            for line in log.read_text().splitlines():
                row = json.loads(line) if line.endswith("}") else {}
                if row.get("mode") == "eval" and row.get("epoch") is not None:
                    values[row["epoch"]] = row["mae_f"]
        return values


def _by_age(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime)


STACKS: dict[str, Stack] = {"nequip": NequIP(), "mace": Mace()}
