"""One interface to every model under test: NequIP and MACE, ours and stock, always float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.rules import Architecture
from eqplugin.theory.capture import LayerFeatures, capture_features
from eqplugin.theory.structures import CUTOFF

__all__ = ["Subject"]

_WIDTHS = (2.0, 1.0, 3.0)


class Subject(ABC):
    """A model in float64 whose weights can be drawn anew.

    The structures of the suites are made of C, H and O with neighbours at 1.2 to 1.9 A and a cutoff
    of 2 A. They are rescaled to the model's cutoff, and their species replaced by the model's own.

    Args:
        name: for tables.
        model: the torch module, in float64.
        symbols: species the model knows.
        r_max: its cutoff in A.
        architecture: what decides its expressivity.
    """

    stack: str

    def __init__(
        self,
        name: str,
        model: torch.nn.Module,
        symbols: Sequence[str],
        r_max: float,
        architecture: Architecture,
    ) -> None:
        if not 0 < r_max < float("inf"):
            raise EqPluginError(f"{name} has a cutoff of {r_max} A: give one above zero.")
        self.model = model
        self.symbols = tuple(symbols)
        self.r_max = r_max
        self.architecture = architecture
        self.trained = False
        self.remember(name)

    def remember(self, name: str) -> None:
        """Take the model's present weights for its own, under a name."""
        self.name = name
        self._own = [weight.detach().clone() for weight in self.model.parameters()]

    def take(self, weights: Mapping[str, torch.Tensor], name: str) -> None:
        """Take over trained parameters, of any precision, and the name of their file.

        Buffers stay: the coupling coefficients of a float32 model have 7 digits, and with those
        what must vanish does not.

        Raises:
            EqPluginError: when a parameter of the model is not among them.
        """
        own = dict(self.model.named_parameters())
        missing = [key for key, value in own.items()
                   if key not in weights or weights[key].shape != value.shape]  # fmt: skip
        if missing:
            raise EqPluginError(
                f"{name} has other weights than its own configuration describes (first: "
                f"{missing[0]}): was it made with a model modifier?"
            )
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(weights[key])
        self.remember(name)
        self.trained = True

    @property
    def scale(self) -> float:
        """Factor on all lengths of the suites."""
        return self.r_max / CUTOFF

    def adapt(self, atoms: Atoms) -> Atoms:
        """Return a structure of the suites at the model's length scale, in its own species."""
        wanted = ("C", "H", "O")
        known = [symbol for symbol in wanted if symbol in self.symbols]
        others = [symbol for symbol in self.symbols if symbol not in wanted]
        replaced = {}
        for symbol in wanted:
            if symbol in self.symbols:
                replaced[symbol] = symbol
            else:  # another species as long as there is one, else one that is in use already
                replaced[symbol] = others.pop(0) if others else (known or list(self.symbols))[0]
        adapted = atoms.copy()
        adapted.numbers = [atomic_numbers[replaced[chemical_symbols[z]]] for z in atoms.numbers]
        adapted.positions *= self.scale
        return adapted

    def draw(self, seed: int | None) -> None:
        """Draw all weights from normals; None: back to the weights the model came with.

        Their width changes from seed to seed: the signals of a model with a long cutoff vanish in
        round-off at width 1, those of a deep model with a short one may at width 3.
        """
        generator = torch.Generator().manual_seed(seed or 0)
        width = _WIDTHS[(seed or 0) % len(_WIDTHS)]
        with torch.no_grad():
            for weight, own in zip(self.model.parameters(), self._own, strict=True):
                if seed is None:
                    weight.copy_(own)
                else:
                    new = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                    weight.copy_(width * new)

    def energies(self, atoms: Atoms, edges: NDArray | None = None) -> torch.Tensor:
        """Energies of the atoms without their per-species constants, (num_atoms,), eV.

        Args:
            atoms: as :meth:`adapt` returns them.
            edges: (2, num_edges) to use instead of the neighbour list.
        """
        with torch.no_grad():
            return self._energies(atoms, edges)

    def energy(self, atoms: Atoms, edges: NDArray | None = None) -> float:
        """Sum of :meth:`energies`."""
        return self.energies(atoms, edges).sum().item()

    def layers(self, atoms: Atoms) -> list[LayerFeatures]:
        """Hidden node features, layer by layer."""
        with capture_features(self.model) as layers:
            self.energies(atoms)
        return layers

    @abstractmethod
    def _energies(self, atoms: Atoms, edges: NDArray | None) -> torch.Tensor: ...


def require_symbols(symbols: Sequence[str], name: str) -> None:
    """Species must be chemical ones: the structures are made of atoms."""
    if not symbols:
        raise EqPluginError(f"{name} knows no species: structures cannot be built for it.")
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise EqPluginError(
            f"{name} names its species {', '.join(symbols)}, of which {', '.join(unknown)} are not "
            f"chemical symbols: structures cannot be built from them."
        )
