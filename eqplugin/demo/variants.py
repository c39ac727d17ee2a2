"""The models the demo compares; add one here and it appears in the table and the plots."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FEATURE_DIM", "VARIANTS", "Variant"]

FEATURE_DIM = 128


@dataclass(frozen=True)
class Variant:
    """One model of the comparison.

    Attributes:
        name: folder name.
        label: as it appears in tables and plots.
        config: name of a config in configs/nequip.
        overrides: Hydra overrides beside the common ones.
    """

    name: str
    label: str
    config: str
    overrides: tuple[str, ...]


VARIANTS = (
    Variant("steerable-L1", "steerable, L=1", "steerable_minimal", ("l_max=1",)),
    Variant("steerable-L2", "steerable, L=2", "steerable_minimal", ("l_max=2",)),
    Variant("khop-h2-L1", "2-hop invariant, L=1", "khop_minimal", ("l_max=1", "hops=2")),
)
