"""MACE models, eager, with the input built here: no DataLoader, no copies, stress when asked for.

The model's forward is MACE's own, and so are its numbers. Two differences from MACECalculator are
meant. The energy is the sum of the atoms' energies in float64, where MACE adds up a float32 model
in float32 and rounds the energy of a large system to 1e-3 eV. And the stress is the virial over
the volume of the structure's own cell: where a direction is not periodic, MACECalculator divides
by the volume of a box that it makes from the largest coordinate.
"""

from __future__ import annotations

import copy

import eqplugin.mace  # isort: skip  (repairs MACE before anything of it is imported)

import numpy as np
import torch
from e3nn.o3 import Irreps
from numpy.typing import NDArray

from eqplugin.calculator.graph import Graph
from eqplugin.calculator.results import scalars_of
from eqplugin.errors import EqPluginError
from eqplugin.mace.loading import require_energies


class MACEBackend:
    """A MACE model, run eagerly.

    Args:
        model: MACE or ScaleShiftMACE, or a class of ours.
        name: what messages call it.
        device: where it runs.
        dtype: float32 or float64; None: the model's own. float64 costs about twice as much.
        head: of a model with several; None: the only one, or the one called ``Default``.
        owned: the model may be changed; otherwise a copy runs.

    Raises:
        EqPluginError: for models that need more than positions and species, and unknown heads.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        device: torch.device,
        dtype: torch.dtype | None = None,
        head: str | None = None,
        owned: bool = False,
    ) -> None:
        require_energies(model, f"the model {name}")
        if hasattr(model, "joint_embedding"):
            raise EqPluginError(
                f"the model {name} needs more than positions and species "
                f"({', '.join(model.embedding_specs)}): use mace.calculators.MACECalculator."
            )
        model = (model if owned else _copied(model)).to(device=device)
        self.model = (model if dtype is None else model.to(dtype)).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.name = name
        self.dtype = next(self.model.parameters()).dtype
        self.device = device
        self.r_max = float(self.model.r_max)
        self.species = tuple(int(z) for z in self.model.atomic_numbers)
        self._head = torch.tensor([chosen_head(self.model, head, name)], device=device)
        self._known: tuple[NDArray, dict[str, torch.Tensor]] | None = None

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """See :class:`eqplugin.calculator.graph.Backend`."""
        with torch.enable_grad():  # the caller may have switched gradients off
            out = self.model(self._input(graph), compute_stress=want_stress)
        energies = out["node_energy"].detach().double()
        found = {
            "energy": energies.sum(),
            "energies": energies,
            "forces": out["forces"].detach().double(),
        }
        if want_stress:
            found["stress"] = out["stress"].detach().view(3, 3).double()
        return found

    def descriptors(self, graph: Graph) -> NDArray:
        """Scalars (0e) after each layer, side by side, (num_atoms, n)."""
        with torch.no_grad():
            out = self.model(self._input(graph), compute_force=False)
        features = out["node_feats"].detach().cpu().numpy()
        layers = (Irreps(str(product.linear.irreps_out)) for product in self.model.products)
        return scalars_of(features, sum(layers, Irreps()))

    def _input(self, graph: Graph) -> dict[str, torch.Tensor]:
        return {
            **self._constant(graph.numbers),
            # never the graph's own tensor: MACE makes it require a gradient
            "positions": graph.positions.to(self.dtype, copy=True),
            "edge_index": graph.edges.index,
            "unit_shifts": graph.edges.shifts.to(self.dtype),
            "shifts": graph.edge_shift_vectors.to(self.dtype),
            "cell": graph.cell.to(self.dtype),
        }

    def _constant(self, numbers: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """What depends on the species alone; kept as long as the numbers are the same array."""
        if self._known is None or self._known[0] is not numbers:
            table = {z: n for n, z in enumerate(self.species)}
            index = torch.tensor([table[int(z)] for z in numbers], device=self.device)
            one_hot = torch.nn.functional.one_hot(index, len(self.species)).to(self.dtype)
            constant = {
                "node_attrs": one_hot,
                "batch": torch.zeros(len(numbers), dtype=torch.int64, device=self.device),
                "ptr": torch.tensor([0, len(numbers)], device=self.device),
                "head": self._head,
            }
            self._known = (numbers, constant)
        return self._known[1]


def _copied(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception:  # e3nn may have scripted a function of it, which cannot be copied
        return eqplugin.mace.rebuild(model)


def chosen_head(model: torch.nn.Module, head: str | None, name: str) -> int:
    """Index of a model's head; None: the only one, or the one called ``Default``.

    Raises:
        EqPluginError: for an unknown head, or none where one has to be chosen.
    """
    heads = list(getattr(model, "heads", None) or ["Default"])
    if head is not None:
        if head not in heads:
            raise EqPluginError(
                f"the model {name} has no head {head!r}: it has {', '.join(heads)}."
            )
        return heads.index(head)
    if len(heads) == 1:
        return 0
    default = [index for index, known in enumerate(heads) if known.lower() == "default"]
    if not default:
        raise EqPluginError(
            f"the model {name} has several heads: set head to one of {', '.join(heads)}."
        )
    return default[0]
