"""A model's design: feature dimension D, highest degree L, hops h, and the irreps they make.

The feature dimension is D = sum_l mul_l (2l + 1). Holding D fixed while L changes is the
comparison of Wang et al., ICLR 2024 ("Rethinking the benefits of steerable features in 3D
equivariant graph neural networks"): at full-rank inputs D, not the degree, sets what a feature
can carry. Everything that builds, counts, trains or names a model takes it from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from e3nn.o3 import Irrep, Irreps

from eqplugin.errors import EqPluginError

__all__ = ["CONTRACTIONS", "STACKS", "Design", "DesignError", "minimum_feature_dim"]

Parity = Literal["natural", "both"]
Profile = Literal["uniform", "decreasing"]

STACKS = ("nequip", "mace")
CONTRACTIONS = ("bispectrum", "power", "drop")
PARITIES: tuple[Parity, ...] = ("natural", "both")
PROFILES: tuple[Profile, ...] = ("uniform", "decreasing")

# how MACE calls what a sentence names
_IN_MACE = {"l_max": " (max_L in MACE)", "num_layers": " (num_interactions in MACE)"}


class DesignError(EqPluginError):
    """A design that cannot be built; the message names the option and the way out."""


def minimum_feature_dim(l_max: int, parity: str | bool = "natural") -> int:
    """Smallest feature dimension that holds one copy of every irrep up to ``l_max``.

    >>> minimum_feature_dim(3)
    16
    """
    _require_int("l_max", l_max, 0)
    return sum(ir.dim for ir in _irreps_up_to(l_max, _parity(parity)))


@dataclass(frozen=True)
class Design:
    """What distinguishes one model from another, checked once, for either stack.

    Args:
        feature_dim: D = sum_l mul_l (2l + 1), met exactly: what does not divide evenly becomes
            extra scalars (0e). Cost grows about linearly with D per edge, quadratically per node.
            None: still to be matched, see :meth:`with_feature_dim`.
        l_max: highest degree L. At fixed D the number of tensor-product paths, and with it the
            time per step, grows quickly with L; the number of parameters falls.
        hops: convolutions between two resets to invariants; None never resets. 1 is the cheapest
            and sees the least.
        contraction: how steerable features become invariants at a reset, in NequIP:
            ``"bispectrum"`` (keeps D - 3 invariants; the default where there are hops),
            ``"power"`` or ``"drop"`` (cheapest). Without hops: of the readout alone; None: the
            last convolution keeps scalars only. In MACE the product basis contracts: None.
        reset_width: scalars that a reset keeps; None: those of the irreps.
        num_layers: convolutions (NequIP) or interactions (MACE). Time grows linearly.
        parity: ``"natural"`` keeps 0e, 1o, 2e, ... (NequIP's ``parity=False``); ``"both"`` keeps
            both parities of every degree, at half the multiplicity.
        profile: ``"uniform"`` gives every irrep the same multiplicity; ``"decreasing"`` halves it
            with each degree (128, 64, 32, ..., the shape of NequIP's foundation models).
        stack: ``"nequip"`` or ``"mace"``.
        hidden_irreps: in MACE, any irreps with scalars in place of the first two numbers.
        num_channels: in MACE, copies of every degree inside the product basis; None: the largest
            multiplicity of the layer. Time per step is about linear in it.

    Raises:
        DesignError: for an option that is impossible, alone or beside the others.

    >>> design = Design(feature_dim=100, l_max=2)
    >>> str(design.irreps), design.name
    ('12x0e+11x1o+11x2e', 'nequip-L2-D100')
    """

    feature_dim: int | None = None
    l_max: int | None = None
    hops: int | None = None
    contraction: str | None = None
    reset_width: int | None = None
    num_layers: int = 4
    parity: Parity = "natural"
    profile: Profile = "uniform"
    stack: str = "nequip"
    hidden_irreps: str | None = None
    num_channels: int | None = None

    def __post_init__(self) -> None:
        _require_one_of("stack", self.stack, STACKS)
        object.__setattr__(self, "parity", _parity(self.parity))
        _require_one_of("profile", self.profile, PROFILES)
        self._check_irreps()
        _require_int("num_layers", self.num_layers, 1)
        self._check_hops()
        for name in ("reset_width", "num_channels"):
            if getattr(self, name) is not None:
                _require_int(name, getattr(self, name), 1)
        if self.reset_width is not None and not self.has_resets:
            raise DesignError(
                f"reset_width={self.reset_width} has no effect without hops, since nothing is "
                f"reset: give hops, or leave it out."
            )

    def _check_irreps(self) -> None:
        if self.hidden_irreps is not None:
            if self.feature_dim is not None or self.l_max is not None:
                raise DesignError(
                    "hidden_irreps says the same as feature_dim and l_max (max_L in MACE): give "
                    "either hidden_irreps or the other two, not both."
                )
            _parsed(self.hidden_irreps)
            return
        if self.l_max is None:
            raise DesignError(_missing("l_max"))
        _require_int("l_max", self.l_max, 0)
        if self.feature_dim is None:
            return
        _require_int("feature_dim", self.feature_dim, 1)
        least = minimum_feature_dim(self.l_max, self.parity)
        if self.feature_dim < least:
            raise DesignError(
                f"feature_dim={self.feature_dim} is too small for l_max={self.l_max}"
                f"{_IN_MACE['l_max']} with {self.parity} parity: one copy of every irrep takes "
                f"{least} dimensions; raise feature_dim to at least {least} or lower the degree."
            )

    def _check_hops(self) -> None:
        if self.hops is not None:
            _require_int("hops", self.hops, 1, " (or null to never reset)")
        if self.stack == "mace":
            if self.contraction is not None:
                raise DesignError(
                    f"contraction={self.contraction!r} is for NequIP: in MACE the product basis is "
                    f"the contraction; leave it out."
                )
            if self.hops is not None and self.hops > self.num_layers:
                raise DesignError(
                    f"hops={self.hops} is more than num_layers={self.num_layers}"
                    f"{_IN_MACE['num_layers']}, so nothing would ever be reset: lower hops, raise "
                    f"num_layers, or leave hops out."
                )
            return
        if self.hops is not None and self.contraction is None:
            object.__setattr__(self, "contraction", CONTRACTIONS[0])
        if self.contraction is not None:
            _require_one_of("contraction", self.contraction, CONTRACTIONS)
        if self.hops is not None and self.num_layers % self.hops:
            raise DesignError(
                f"num_layers={self.num_layers} is not a multiple of hops={self.hops}: use "
                f"{self.hops * (self.num_layers // self.hops + 1)} layers or other hops."
            )

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Copies of each irrep, in the order of :attr:`irreps`."""
        return tuple(mul for mul, _ in self.irreps)

    @property
    def irreps(self) -> Irreps:
        """Steerable features between two resets, scalars first; ``irreps.dim == feature_dim``."""
        if self.hidden_irreps is not None:
            return _parsed(self.hidden_irreps)
        if self.feature_dim is None or self.l_max is None:
            raise DesignError(_missing("feature_dim"))
        irreps = _irreps_up_to(self.l_max, self.parity)
        return Irreps(list(zip(self._shares(irreps), irreps, strict=True)))

    def _shares(self, irreps: Sequence[Irrep]) -> list[int]:
        """Multiplicities that add up to the feature dimension."""
        ratios = [1.0 if self.profile == "uniform" else 2.0**-ir.l for ir in irreps]
        share = self.feature_dim / sum(r * ir.dim for r, ir in zip(ratios, irreps, strict=True))
        # At least one copy of each: a decreasing profile at small D would otherwise drop degrees.
        muls = [max(1, int(share * r + 1e-9)) for r in ratios]
        rest = self.feature_dim - sum(m * ir.dim for m, ir in zip(muls, irreps, strict=True))
        # Raising small multiplicities to one can overdraw the dimension: take it back from the
        # widest irreps until it is met again; what is left over goes to the scalars.
        while rest < 0:
            widest = max(range(len(muls)), key=lambda i: (muls[i], irreps[i].l))
            muls[widest] -= 1
            rest += irreps[widest].dim
        muls[0] += rest
        return muls

    @property
    def scalars(self) -> int:
        """Number of invariant (0e) features between two resets."""
        return self.irreps.count(Irrep(0, 1))

    @property
    def has_resets(self) -> bool:
        """Whether features are contracted to invariants anywhere, be it before the readout."""
        return self.hops is not None or self.contraction is not None

    def resets_after(self, layer: int) -> bool:
        """Whether only invariants leave convolution ``layer``, counted from 0."""
        if self.hops is not None:
            return (layer + 1) % self.hops == 0
        return self.contraction is not None and layer == self.num_layers - 1

    def contracts_after(self, layer: int) -> bool:
        """Whether convolution ``layer`` returns steerable features to a contraction.

        ``"drop"`` needs none: the convolution does not compute what would be dropped.
        """
        return self.resets_after(layer) and self.contraction not in (None, "drop")

    def layers(self, keep_last: bool = False) -> tuple[Irreps, ...]:
        """Irreps that leave each convolution, after its reset where there is one.

        Args:
            keep_last: keep l > 0 after the last one, which the readout does not use.
        """
        scalars = Irreps([(self.scalars, (0, 1))])
        reset = scalars if self.reset_width is None else Irreps([(self.reset_width, (0, 1))])
        last = self.irreps if keep_last else scalars
        inner = [self.irreps] * (self.num_layers - 1)
        return tuple(
            reset if self.resets_after(layer) else irreps
            for layer, irreps in enumerate([*inner, last])
        )

    def with_feature_dim(self, feature_dim: int | None) -> Design:
        """The same design at another feature dimension; None leaves it open."""
        return replace(self, feature_dim=feature_dim)

    @property
    def name(self) -> str:
        """As a folder: ``nequip-L1-h2-bispectrum-D64``; without D while that is open."""
        parts = [self.stack, f"L{self.l_max}"]
        parts += [f"h{self.hops}"] if self.hops else []
        parts += [self.contraction] if self.contraction else []
        return "-".join(parts if self.feature_dim is None else [*parts, f"D{self.feature_dim}"])

    @property
    def label(self) -> str:
        """For tables, without degree and dimension: ``nequip 2-hop bispectrum``."""
        hops = [f"{self.hops}-hop"] if self.hops else []
        return " ".join([self.stack, *hops, *([self.contraction] if self.contraction else [])])


def _require_int(name: str, value: object, least: int, hint: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DesignError(
            f"{name}={value!r} is not valid{_IN_MACE.get(name, '')}: give an integer >= "
            f"{least}{hint}."
        )


def _require_one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise DesignError(f"{name}={value!r} is not known: use one of {', '.join(known)}.")


def _missing(name: str) -> str:
    return (
        f"{name} is missing{_IN_MACE.get(name, '')}: give the feature dimension and the highest "
        f"degree, such as feature_dim=128 and l_max=1."
    )


def _parity(parity: str | bool) -> Parity:
    """NequIP's booleans mean a parity too: True is ``"both"``."""
    if isinstance(parity, bool):
        return "both" if parity else "natural"
    if parity not in PARITIES:
        raise DesignError(
            f"parity={parity!r} is not known: use 'natural' (0e, 1o, 2e, ...) or 'both'."
        )
    return parity


def _irreps_up_to(l_max: int, parity: Parity) -> list[Irrep]:
    """One entry per irrep in NequIP's order: l rising, natural parity first at even l."""
    if parity == "natural":
        return [Irrep(l, (-1) ** l) for l in range(l_max + 1)]  # noqa: E741
    return [Irrep(l, p) for l in range(l_max + 1) for p in (1, -1)]  # noqa: E741


def _parsed(text: str) -> Irreps:
    """One entry per irrep, degrees rising, natural parity first."""
    try:
        irreps = Irreps(text)
    except (ValueError, TypeError, IndexError) as error:
        raise DesignError(
            f"hidden_irreps={text!r} cannot be read: write them like 64x0e+32x1o."
        ) from error
    if irreps.count(Irrep(0, 1)) == 0:
        raise DesignError(
            f"hidden_irreps={text!r} has no scalars (0e), and energies are read from them: add "
            f"some."
        )
    present = {ir for mul, ir in irreps if mul}
    rising = sorted(present, key=lambda ir: (ir.l, -ir.p * (-1) ** ir.l))
    return Irreps([(irreps.count(ir), ir) for ir in rising])
