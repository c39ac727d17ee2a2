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
        config: name of a config in configs/<stack>.
        overrides: arguments beside the common ones, in the stack's own form.
        stack: ``"nequip"`` or ``"mace"``.
    """

    name: str
    label: str
    config: str
    overrides: tuple[str, ...]
    stack: str = "nequip"


VARIANTS = (
    Variant("steerable-L1", "NequIP L=1", "steerable_minimal", ("l_max=1",)),
    Variant("steerable-L2", "NequIP L=2", "steerable_minimal", ("l_max=2",)),
    Variant("khop-h2-L1", "NequIP 2-hop", "khop_minimal", ("l_max=1", "hops=2")),
    Variant("mace-L1", "MACE L=1", "steerable_minimal", ("--max_L", "1"), "mace"),
    Variant("mace-h1", "MACE 1-hop", "khop_minimal", ("--hops", "1", "--max_L", "0"), "mace"),
)
