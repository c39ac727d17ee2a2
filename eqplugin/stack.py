"""What the package asks a training stack; NequIP and MACE answer in their own ``stack.py``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eqplugin.design import Design

if TYPE_CHECKING:
    import torch
    from ase import Atoms

    from eqplugin.costs import NequIPOptions
    from eqplugin.modelfile.eqm import EqmHeader

__all__ = ["Recipe", "Stack", "TrainingFiles", "hydra_value", "oldest_first"]


def hydra_value(value: object) -> str:
    """A value as Hydra's command line takes it literally, whatever a path is made of.

    >>> hydra_value("data/train.xyz"), hydra_value("T=300K/train.xyz"), hydra_value(None)
    ('data/train.xyz', "'T=300K/train.xyz'", 'null')
    """
    if value is None:
        return "null"
    text = str(value)
    if not isinstance(value, str | Path) or re.fullmatch(r"[\w./+-]+", text, re.ASCII):
        return text
    text = text.replace("${", r"\${")
    # the grammar doubles the backslashes that stand before a quote, or at the end
    text = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), text)
    return f"'{text}'"


@dataclass(frozen=True)
class Recipe:
    """How a design is trained, in words that every stack knows."""

    # the config of configs/<stack> that states the rest: minimal, realistic, everything
    grade: str = "minimal"
    batch_size: int = 5  # frames of an optimizer step
    lr: float = 0.01  # learning rate at the start
    r_max: float = 5.0  # cutoff, A
    device: str = "cpu"  # `cpu` or `cuda`
    stress: bool = False  # train on stress too
    modifiers: tuple[str, ...] = ()  # NequIP model modifiers to train with
    products: bool = False  # train MACE models with compiled products
    # further ones, in the stack's own names; they win
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFiles:
    """What a training reads."""

    train: Path  # frames with the plain keys `energy`, `forces`, `stress`
    val: Path  # frames that choose the best epoch
    species: tuple[str, ...]  # chemical symbols, by atomic number
    # chemical symbol -> energy of the lone atom, eV; None: the mean per atom is used
    e0s: Mapping[str, float] | None = None
    e0s_file: Path | None = None  # the same as JSON


class Stack(Protocol):
    """A training stack; ``folder`` is that of one training run."""

    name: str
    packages: tuple[str, ...]  # whose versions decide the weights

    def build(self, design: Design, recipe: Recipe, species: Sequence[str]) -> torch.nn.Module:
        """The model as its trainer would build it, with weights nobody has trained."""

    def read(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        modifiers: Sequence[str] = (),
        trust: bool | None = None,
    ) -> torch.nn.Module:
        """A model file as a torch module that can be trained."""

    def convert(self, path: Path, out: Path, trust: bool | None = None) -> EqmHeader:
        """A model file written as ``.eqm``."""

    def modify(self, model: torch.nn.Module, modifiers: Sequence[str]) -> torch.nn.Module:
        """The model with model modifiers applied: the same numbers, faster."""

    def batch(
        self, model: torch.nn.Module, frames: Sequence[Atoms], r_max: float
    ) -> dict[str, torch.Tensor]:
        """Structures as the model takes them, on its device."""

    def predict(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies (num_frames,), eV, and forces (num_atoms, 3), eV/A, fit for a loss."""

    def command(
        self,
        design: Design,
        recipe: Recipe,
        files: TrainingFiles,
        seed: int,
        epochs: int,
        folder: Path,
    ) -> list[str]:
        """The trainer's command line, as a user would type it."""

    def configs(self, recipe: Recipe) -> list[Path]:
        """The config files that the command reads."""

    def resume(self, folder: Path) -> list[str]:
        """Further arguments that continue an interrupted run; none when there is nothing yet."""

    def model(self, folder: Path) -> Path:
        """The trained model."""

    def validation_curve(self, folder: Path) -> dict[int, float]:
        """Validation force MAE in eV/A by finished epoch."""

    def simplified(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a design without what changes nothing in this stack."""

    def cost_options(self, design: Design, recipe: Recipe, num_types: int) -> NequIPOptions | None:
        """What exact counts need; None where a model has to be built to be counted."""


def oldest_first(paths: Iterable[Path]) -> list[Path]:
    """Logs in the order in which they were last written to."""
    return sorted(paths, key=lambda path: path.stat().st_mtime)
