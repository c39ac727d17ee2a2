"""What theory says a model of given blocks can tell apart, and why, before anything is run.

Source: Wang et al., ICLR 2024 (k-hop invariant models); docs/khop.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Convolutions between two points where only scalars go on."""

    hops: int  # convolutions
    # how many features are multiplied at once where they meet: 1 when only scalars are kept (stock
    # NequIP's last convolution), 2 for a `power` contraction, 3 for a `bispectrum`; MACE's
    # correlation
    product: int


@dataclass(frozen=True)
class Expectation:
    """A prediction."""

    separates: bool | None  # None where theory is silent and the model is only measured
    why: str  # one short sentence


@dataclass(frozen=True)
class Architecture:
    """What decides a model's expressivity."""

    stack: str  # `"NequIP"` or `"MACE"`
    blocks: tuple[Block, ...]  # in order
    # highest degree that features carry from one convolution to the next, or into a contraction
    degree: int
    first_degree: int  # highest degree, of parity (-1)^l, of the features after the first layer
    # highest degree of what is multiplied within one neighbourhood: that of the edges in MACE.
    # Features of a higher degree must be put together from several layers
    local_degree: int
    handed: bool = False  # whether features ignore parity, so that mirror images may differ

    def __str__(self) -> str:
        blocks = "+".join(str(block.hops) for block in self.blocks)
        products = "/".join(sorted({str(block.product) for block in self.blocks}))
        return f"{self.stack}, layers {blocks}, products of {products}, l <= {self.degree}"

    # ---- how far orientation travels

    @property
    def reach(self) -> int:
        """Longest straight chain across which the orientation of one end reaches the other."""
        return max(self._reach(block) for block in self.blocks)

    def _reach(self, block: Block) -> int:
        if not self.local_degree or (block.hops > 1 and not self.degree):
            return 0
        return 2 * block.hops - 1 if block.product > 1 else block.hops - 1

    @property
    def hops(self) -> int:
        """Convolutions of the longest block."""
        return max(block.hops for block in self.blocks)

    def _reach_words(self, k: int) -> str:
        if all(block.product > 1 for block in self.blocks):
            return f"ends meet halfway: h = {self.hops}, needed {k // 2 + 1}"
        if all(block.product == 1 for block in self.blocks):
            return f"end must travel: h = {self.hops}, needed {k + 1}"
        return f"it travels {self.reach} atoms, needed {k}"

    def _blind(self) -> Expectation | None:
        """Without directions, or without passing them on, nothing is known of other atoms' ends."""
        if self.degree and self.local_degree:
            return None
        return Expectation(False, "no l > 0 leaves an atom")

    def chain(self, k: int) -> Expectation:
        """Cis against trans across k collinear atoms."""
        if blind := self._blind():
            return blind
        return Expectation(self.reach >= k, self._reach_words(k))

    def rotor(self, n: int, k: int) -> Expectation:
        """Twist of n spokes at each end of an axis of k atoms."""
        if self.degree < n:
            return Expectation(False, f"needs l = {n}, features have {self.degree}")
        if self.local_degree < n and self.reach >= k:
            return Expectation(None, f"edges have l <= {self.local_degree}: no rule")
        return Expectation(self.reach >= k, self._reach_words(k))

    def star(self, n: int) -> Expectation:
        """Turn of n spokes, as the centre sees it after one layer."""
        return Expectation(
            self.first_degree >= n, f"needs l = {n}, first layer has {self.first_degree}"
        )

    def articulation(self, k: int) -> Expectation:
        """Turn of one fragment against another, on a linker of k atoms; every atom's energy."""
        if self.hops > 1 and (blind := self._blind()):
            return blind
        return Expectation(self.reach >= k, f"seen across {max(self.reach, 0)} atoms at most")

    def many_body(self, order: int) -> Expectation:
        """Neighbourhoods of one centre with equal n-body fingerprints."""
        enough = self.local_degree >= (1 if order == 2 else 2)
        if self.hops == 1 or not self.degree:
            product = max(block.product for block in self.blocks)
            if product < order:
                return Expectation(False, f"{product}-fold products, needed {order}")
            why = f"{product}-fold products of l <= {self.local_degree}"
            return Expectation(True if enough else None, why)
        if all(block.product > 1 for block in self.blocks) and enough and self.degree > 1:
            return Expectation(True, "a second hop compares the neighbours")
        return Expectation(None, "no rule: measured only")

    def mirror(self) -> Expectation:
        """Mirror images."""
        if self.handed:
            return Expectation(None, "features ignore parity: no rule")
        return Expectation(False, "O(3): energies equal those of the image")
