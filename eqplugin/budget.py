"""Feature budgets: from a feature dimension D and a highest degree L to irreps.

The feature dimension is D = sum_l mul_l (2l + 1). Holding D fixed while L changes is the
comparison of Wang et al., ICLR 2024 ("Rethinking the benefits of steerable features in 3D
equivariant graph neural networks"): at full-rank inputs D, not the degree, sets what a feature
can carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from e3nn.o3 import Irrep, Irreps

from eqplugin.errors import EqPluginError

__all__ = ["BudgetError", "FeatureBudget", "minimum_feature_dim", "normalize_parity"]

Parity = Literal["natural", "both"]
Profile = Literal["uniform", "decreasing"]

PARITIES: tuple[Parity, ...] = ("natural", "both")
PROFILES: tuple[Profile, ...] = ("uniform", "decreasing")


class BudgetError(EqPluginError):
    """A feature budget that cannot be met; the message names the option and the way out."""


def normalize_parity(parity: str | bool) -> Parity:
    """Return ``"natural"`` or ``"both"``; accepts NequIP's booleans (``True`` is ``"both"``).

    Raises:
        BudgetError: for anything else.
    """
    if isinstance(parity, bool):
        return "both" if parity else "natural"
    if parity not in PARITIES:
        raise BudgetError(
            f"parity={parity!r} is not known: use 'natural' (0e, 1o, 2e, ...) or 'both'."
        )
    return parity


def _require_int(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BudgetError(f"{name}={value!r} is not possible: give an integer >= {least}.")
    return value


def _irreps_of(l_max: int, parity: Parity) -> list[Irrep]:
    """One entry per irrep in NequIP's order: l rising, natural parity first at even l."""
    if parity == "natural":
        return [Irrep(l, (-1) ** l) for l in range(l_max + 1)]  # noqa: E741
    return [Irrep(l, p) for l in range(l_max + 1) for p in (1, -1)]  # noqa: E741


def _ratios(irreps: list[Irrep], profile: Profile) -> list[float]:
    """Multiplicities relative to those of l = 0."""
    if profile == "uniform":
        return [1.0 for _ in irreps]
    return [2.0**-ir.l for ir in irreps]


def minimum_feature_dim(l_max: int, parity: str | bool = "natural") -> int:
    """Smallest feature dimension that holds one copy of every irrep up to ``l_max``.

    >>> minimum_feature_dim(3)
    16
    """
    l_max = _require_int("l_max", l_max, 0)
    return sum(ir.dim for ir in _irreps_of(l_max, normalize_parity(parity)))


@dataclass(frozen=True)
class FeatureBudget:
    """Irreps of exactly ``feature_dim`` dimensions up to degree ``l_max``.

    Args:
        feature_dim: D = sum_l mul_l (2l + 1), met exactly: what does not divide evenly becomes
            extra scalars (0e). Cost grows about linearly with D per edge, quadratically per node.
        l_max: highest degree L. At fixed D the number of tensor-product paths, and with it the
            time per step, grows quickly with L; the number of parameters falls.
        parity: ``"natural"`` keeps 0e, 1o, 2e, ... (NequIP's ``parity=False``); ``"both"`` keeps
            both parities of every degree, at half the multiplicity.
        profile: ``"uniform"`` gives every irrep the same multiplicity; ``"decreasing"`` halves it
            with each degree (128, 64, 32, ..., the shape of NequIP's foundation models).

    Raises:
        BudgetError: when ``feature_dim`` is too small for ``l_max`` or an option is unknown.

    >>> budget = FeatureBudget(feature_dim=100, l_max=2)
    >>> str(budget.irreps), budget.feature_dim
    ('12x0e+11x1o+11x2e', 100)
    """

    feature_dim: int
    l_max: int
    parity: Parity = "natural"
    profile: Profile = "uniform"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parity", normalize_parity(self.parity))
        _require_int("l_max", self.l_max, 0)
        _require_int("feature_dim", self.feature_dim, 1)
        if self.profile not in PROFILES:
            raise BudgetError(
                f"profile={self.profile!r} is not known: use 'uniform' or 'decreasing'."
            )
        least = minimum_feature_dim(self.l_max, self.parity)
        if self.feature_dim < least:
            raise BudgetError(
                f"feature_dim={self.feature_dim} is too small for l_max={self.l_max} with "
                f"{self.parity} parity: one copy of every irrep takes {least} dimensions; "
                f"raise feature_dim to at least {least} or lower l_max."
            )

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Copies of each irrep, in the order of :attr:`irreps`."""
        irreps = _irreps_of(self.l_max, self.parity)
        ratios = _ratios(irreps, self.profile)
        share = self.feature_dim / sum(r * ir.dim for r, ir in zip(ratios, irreps, strict=True))
        # At least one copy of each: a decreasing profile at small D would otherwise drop degrees.
        muls = [max(1, int(share * r + 1e-9)) for r in ratios]
        rest = self.feature_dim - sum(m * ir.dim for m, ir in zip(muls, irreps, strict=True))
        # Raising small multiplicities to one can overdraw the budget: take it back from the
        # widest irreps until it is met again; what is left over goes to the scalars.
        while rest < 0:
            widest = max(range(len(muls)), key=lambda i: (muls[i], irreps[i].l))
            muls[widest] -= 1
            rest += irreps[widest].dim
        muls[0] += rest
        return tuple(muls)

    @property
    def irreps(self) -> Irreps:
        """The irreps, scalars first, with ``irreps.dim == feature_dim``."""
        irreps = _irreps_of(self.l_max, self.parity)
        return Irreps(list(zip(self.multiplicities, irreps, strict=True)))

    @property
    def scalars(self) -> int:
        """Number of invariant (0e) features."""
        return self.multiplicities[0]

    def __str__(self) -> str:
        return f"D={self.feature_dim} L={self.l_max}: {self.irreps}"
