"""One job of a study: its design, its name, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from eqplugin.design import Design
from eqplugin.stack import Recipe
from eqplugin.stacks import stack_named
from eqplugin.study.schema import StudyConfig

# in files and configs; the stack is called family there
AXES_OF_DESIGN = ("family", "l_max", "hops", "contraction")


def design_for(config: StudyConfig, axes: Mapping[str, Any], feature_dim: int | None) -> Design:
    """The design that the axes of a study ask for.

    Args:
        config: of the study, for the number of layers and the width of resets.
        axes: ``family``, ``l_max``, ``hops`` and ``contraction``.
        feature_dim: D; None: still to be matched.

    Raises:
        DesignError: for an impossible combination.
    """
    chosen = stack_named(axes["family"]).simplified({key: axes[key] for key in AXES_OF_DESIGN[1:]})
    resets = chosen["hops"] is not None or chosen["contraction"] is not None
    return Design(
        feature_dim,
        **chosen,
        reset_width=config.reset_width if resets else None,
        num_layers=getattr(config, axes["family"]).num_layers,
        stack=axes["family"],
    )


def axes_of(design: Design) -> dict[str, Any]:
    """The axes of a design, as files and configs name them."""
    return {
        "family": design.stack,
        "l_max": design.l_max,
        "hops": design.hops,
        "contraction": design.contraction,
    }


def reference_of(config: StudyConfig) -> Design:
    """The model whose parameters or time all others are to have; it never resets."""
    axes = {
        "family": config.reference_family or config.family,
        "l_max": config.reference_l_max,
        "hops": None,
        "contraction": None,
    }
    return design_for(config, axes, config.feature_dim)


def recipe_for(config: StudyConfig, stack: str) -> Recipe:
    """How a study trains the models of a stack."""
    settings, train = getattr(config, stack), config.train
    return Recipe(
        grade=settings.grade,
        batch_size=train.batch_size,
        lr=train.lr,
        r_max=train.r_max,
        device=train.device,
        stress=config.data.stress,
        modifiers=tuple(settings.modifiers),
        products=getattr(settings, "products", False),
        options=settings.options,
    )


@dataclass(frozen=True)
class Job:
    """A design with a seed, and the arms it belongs to."""

    design: Design  # what is trained; without feature dimension where none meets the match
    seed: int  # of weights and data order
    # arm -> the rules under which it compares the job
    arms: dict[str, list[str]] = field(hash=False)
    unattainable: str | None = None  # why there is no such model; None where there is
    match: str | None = None  # the rule that no feature dimension meets

    @property
    def attainable(self) -> bool:
        """Whether there is a model to train."""
        return self.design.feature_dim is not None

    @property
    def name(self) -> str:
        """Unique within a study, and safe on Hydra's command line."""
        if self.attainable:
            return f"{self.design.name}-s{self.seed}"
        wanted = {"match": self.match, **axes_of(self.design)}
        parts = (f"{key}_{value}" for key, value in wanted.items())
        return "-".join(("none", *parts, f"s{self.seed}"))

    def to_json(self) -> dict[str, Any]:
        """Plain types, for the plan."""
        axes = axes_of(self.design)
        content = asdict(self) | {"variant": None, "wanted": None}
        del content["design"], content["match"]
        if self.attainable:
            return content | {"variant": axes | {"feature_dim": self.design.feature_dim}}
        return content | {"wanted": {"match": self.match, **axes}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], config: StudyConfig) -> Job:
        """Read what :meth:`to_json` wrote."""
        axes = content["variant"] or content["wanted"]
        return cls(
            design_for(config, axes, axes.get("feature_dim")),
            content["seed"],
            content["arms"],
            content["unattainable"],
            axes.get("match"),
        )
