"""One job of a study: its variant, its name, and how it is written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Job", "Variant"]


@dataclass(frozen=True, order=True)
class Variant:
    """A model without its seed.

    Attributes:
        family: ``nequip`` or ``mace``.
        l_max: highest degree L.
        hops: convolutions between two resets; None: never.
        contraction: at a reset, of NequIP models; None: the last convolution keeps scalars only.
        feature_dim: D.
    """

    family: str
    l_max: int
    hops: int | None
    contraction: str | None
    feature_dim: int

    @property
    def name(self) -> str:
        """As a folder: ``nequip-L1-h2-bispectrum-D64``."""
        parts = [self.family, f"L{self.l_max}"]
        parts += [f"h{self.hops}"] if self.hops else []
        parts += [self.contraction] if self.contraction else []
        return "-".join([*parts, f"D{self.feature_dim}"])

    @property
    def khop(self) -> bool:
        """Is it a k-hop invariant model (or one whose readout contracts)?"""
        return self.hops is not None or self.contraction is not None


@dataclass(frozen=True)
class Job:
    """A variant with a seed, and the arms it belongs to.

    Attributes:
        variant: what is trained; None where no feature dimension meets the match.
        seed: of weights and data order.
        arms: arm -> the rules under which it compares the job.
        unattainable: why there is no such model; None where there is.
        wanted: the axes as asked for, for the row of an unattainable job.
    """

    variant: Variant | None
    seed: int
    arms: dict[str, list[str]] = field(hash=False)
    unattainable: str | None = None
    wanted: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """Unique within a study, and safe on Hydra's command line."""
        if self.variant is None:
            parts = (f"{key}_{value}" for key, value in (self.wanted or {}).items())
            return "-".join(("none", *parts, f"s{self.seed}"))
        return f"{self.variant.name}-s{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Job:
        """From JSON."""
        variant = content["variant"]
        return cls(**{**content, "variant": Variant(**variant) if variant else None})
