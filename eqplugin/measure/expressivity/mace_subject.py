"""MACE models as subjects."""

from __future__ import annotations

from typing import Any

import e3nn
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

import eqplugin.mace  # noqa: F401 - repairs MACE for the e3nn it shares with NequIP
from eqplugin.measure.expressivity.rules import Architecture, Block
from eqplugin.measure.expressivity.subject import Subject

from eqplugin.mace.batch import batch_of  # isort: skip  (MACE only after the repair)
from e3nn.o3 import Irreps  # isort: skip


def in_float64(build: Any) -> Any:
    """Call a builder under float64 and without scripting.

    MACE takes the default dtype. NequIP leaves e3nn in its scripting mode, in which MACE models
    come to hold functions that cannot be pickled.
    """
    previous, mode = torch.get_default_dtype(), e3nn.get_optimization_defaults()["jit_mode"]
    torch.set_default_dtype(torch.float64)
    e3nn.set_optimization_defaults(jit_mode="eager")
    torch.manual_seed(0)
    try:
        return build()
    finally:
        torch.set_default_dtype(previous)
        e3nn.set_optimization_defaults(jit_mode=mode)


class MACESubject(Subject):
    """A MACE model; see :class:`Subject`."""

    stack = "MACE"

    def __init__(self, name: str, model: torch.nn.Module) -> None:
        symbols = [chemical_symbols[int(z)] for z in model.atomic_numbers]
        super().__init__(name, model, symbols, float(model.r_max), _architecture(model))
        for weight in model.parameters():
            weight.requires_grad_(True)
        with torch.no_grad():
            model.atomic_energies_fn.atomic_energies.zero_()
            if hasattr(model, "scale_shift"):
                model.scale_shift.shift.zero_()

    def _energies(self, atoms: Atoms, edges: NDArray | None) -> torch.Tensor:
        batch = in_float64(lambda: batch_of([atoms], self.model, self.r_max))
        if edges is not None:
            batch["edge_index"] = torch.as_tensor(edges)
            shape = (edges.shape[1], 3)
            batch["shifts"] = batch["unit_shifts"] = torch.zeros(shape, dtype=torch.float64)
        out = self.model(batch, compute_force=False)
        return out["node_energy"]


def _architecture(model: torch.nn.Module) -> Architecture:
    """Read the blocks off the products."""
    blocks, hops, orders, degrees = [], 0, set(), [0]
    last = len(model.products) - 1
    first = Irreps(str(model.products[0].linear.irreps_out))
    for index, product in enumerate(model.products):
        irreps = Irreps(str(product.linear.irreps_out))
        hops += 1
        orders.add(len(product.symmetric_contractions.contractions[0].weights) + 1)
        degrees.append(irreps.lmax)
        if irreps.lmax == 0 or index == last:
            # orders that differ within a block follow no rule: the lowest is sure to be there
            blocks.append(Block(hops, min(orders)))
            hops, orders = 0, set()
    local = Irreps(str(model.interactions[0].edge_attrs_irreps)).lmax
    natural = [ir.l for _, ir in first if ir.p == (-1) ** ir.l or getattr(model, "use_so3", False)]
    return Architecture(
        "MACE",
        tuple(blocks),
        max(degrees),
        min(max(natural, default=0), local),  # a star shows nothing of a higher degree to products
        local,
        handed=bool(getattr(model, "use_so3", False)),
    )
