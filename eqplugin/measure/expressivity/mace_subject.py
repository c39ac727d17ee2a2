"""MACE models as subjects, in float64."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.data import chemical_symbols
from e3nn.o3 import Irreps
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.exchange import default_dtype
from eqplugin.mace.batch import batch_of
from eqplugin.mace.build import build_untrained
from eqplugin.mace.compat.jitmode import building_eagerly
from eqplugin.mace.train import build_parser, check_model
from eqplugin.measure.expressivity.rules import Architecture, Block
from eqplugin.measure.expressivity.subject import Subject
from eqplugin.quiet import quiet

_DEFAULT_ELEMENTS = (1, 6, 8)


def in_float64(build: Callable[[], Any]) -> Any:
    """Call a builder of a MACE model, which takes the default dtype, under float64 and one seed."""
    with building_eagerly(), default_dtype(torch.float64):
        torch.manual_seed(0)
        return build()


def model_from_options(path: Path, overrides: list[str]) -> torch.nn.Module:
    """Build the model of a MACE config in float64, with random weights and without its data.

    Raises:
        EqPluginError: for an override without "=", and all that the trainer refuses.
    """
    argv = ["--config", str(path)]
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise EqPluginError(f"--set {override} is not an override: write key=value.")
        argv += [f"--{key}", value]
    args = build_parser().parse_args(argv)
    if args.foundation_model is not None:
        raise EqPluginError(f"{path} starts from a foundation model: give that .model file itself.")
    check_model(args)
    numbers = _elements(args.atomic_numbers)
    with quiet(logging.CRITICAL, stdout=True):
        return in_float64(lambda: build_untrained(args, numbers))


def _elements(text: str | None) -> tuple[int, ...]:
    if text is None:
        return _DEFAULT_ELEMENTS
    try:
        return tuple(int(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        raise EqPluginError(f"atomic_numbers={text} is not a list such as [1, 6, 8].") from None


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
        batch = batch_of([atoms], self.model, self.r_max)
        if edges is not None:
            batch["edge_index"] = torch.as_tensor(edges)
            shape = (edges.shape[1], 3)
            batch["shifts"] = batch["unit_shifts"] = torch.zeros(shape, dtype=torch.float64)
        return self.model(batch, compute_force=False)["node_energy"]


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
