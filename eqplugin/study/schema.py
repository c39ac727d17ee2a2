"""What a study's config may say; Hydra checks names and types against it.

A config begins with ``defaults: [study_schema, _self_]`` and states what it wants otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

__all__ = ["AXES", "MATCHES", "Arm", "Axes", "Data", "StudyConfig", "epochs_of", "register"]

MATCHES = ("dimension", "parameters", "time")
AXES = ("family", "l_max", "hops", "contraction", "match", "seed")
Axes = dict[str, list[str | int | None]]  # axis -> values


@dataclass
class Data:
    """The frames. Files are anything ASE reads; ``null`` where there is none."""

    train: str = MISSING
    val: str | None = None  # null: drawn at random from train
    test: dict[str, str] = field(default_factory=dict)  # label: file; none: drawn from train
    isolated_atoms: str | None = None  # energies of lone atoms; needed with varying composition
    key_mapping: dict[str, str] = field(default_factory=dict)  # key in the files: energy, ...
    stress: bool = False  # train and test on stress too
    train_frames: int | None = None  # null: all that is left, a multiple of batch_size
    val_frames: int = 50  # where drawn from train
    test_frames: int | None = None  # null: all; else as many, evenly spaced (or drawn from train)
    split_seed: int = 0  # of the draw: the same frames for every job


@dataclass
class Train:
    """The budget of a training run, equal for every job."""

    steps: int = MISSING  # optimizer steps; rounded up to whole epochs
    batch_size: int = 5
    lr: float = 0.01
    r_max: float = 5.0  # A
    device: str = "cpu"
    threads: int = 1


@dataclass
class StackSettings:
    """What a stack is told beside the design."""

    grade: str = "minimal"  # config of configs/<stack>: minimal, realistic, everything
    num_layers: int = 2  # convolutions or interactions
    modifiers: list[str] = field(default_factory=list)  # of NequIP models: faster, same numbers
    options: dict[str, Any] = field(default_factory=dict)  # in the stack's own names


@dataclass
class MACESettings(StackSettings):
    """What MACE is told beside the design."""

    products: bool = False  # train with compiled products: faster, same numbers to rounding


@dataclass
class Arm:
    """A part of a study: every combination of these; null: the value at the top of the config."""

    family: list[str] | None = None
    l_max: list[int] | None = None
    hops: list[int | None] | None = None
    contraction: list[str | None] | None = None
    match: list[str] | None = None
    seed: list[int] | None = None


@dataclass
class Tolerance:
    """How well models are matched: relative difference to the reference."""

    parameters: float = 0.05
    time: float = 0.10


@dataclass
class StudyConfig:
    """A study."""

    name: str = MISSING
    out: str = MISSING  # results
    data_root: str = "."  # for use in the paths of data
    # --- the axes: what a job trains
    family: str = "nequip"  # or mace
    l_max: int = 1
    hops: int | None = None  # convolutions between resets; null: never reset
    contraction: str | None = None  # null: bispectrum where there are hops, none where not
    match: str = "dimension"  # what is held equal to the reference: or parameters, time
    seed: int = 1
    # --- what is held fixed
    feature_dim: int = MISSING  # D, of every model matched by dimension and of the reference
    reference_l_max: int = 1  # degree of the model whose parameters or time all others are to have
    reference_family: str | None = None  # its stack; null: `family` above. It never resets
    reset_width: int | None = None  # scalars a reset keeps; null: those of D
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    nequip: StackSettings = field(default_factory=StackSettings)
    mace: MACESettings = field(default_factory=MACESettings)
    tolerance: Tolerance = field(default_factory=Tolerance)
    # name: an Arm; not typed here, since typed lists cannot wait for the budgets they point to
    arms: dict[str, Any] = field(default_factory=dict)
    speed_repeats: int = 20  # timed force calls and training steps of each model
    budget: str | None = None  # name of one of the budgets below
    budgets: dict[str, Any] = field(default_factory=dict)
    job: str | None = None  # set by the study itself


def epochs_of(config: StudyConfig, train_frames: int) -> int:
    """Whole epochs that make at least ``train.steps`` steps."""
    return math.ceil(config.train.steps / (train_frames // config.train.batch_size))


def register() -> None:
    """Make ``study_schema`` known to Hydra."""
    ConfigStore.instance().store(name="study_schema", node=StudyConfig)
