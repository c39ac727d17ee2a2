"""Structures as the batch that a MACE model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms
from mace import data
from mace.tools import torch_geometric
from mace.tools.utils import AtomicNumberTable

from eqplugin.exchange import default_dtype


def batch_of(
    frames: Sequence[Atoms], model: torch.nn.Module, cutoff: float | None = None
) -> dict[str, torch.Tensor]:
    """Input of ``model(batch)``, on the model's device and in its precision; no labels.

    Args:
        frames: structures of elements that the model knows; the head is the model's last.
        model: any MACE model.
        cutoff: A; None: the model's own.
    """
    weight = next(model.parameters())
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    heads = getattr(model, "heads", ["Default"])
    keys = data.KeySpecification({}, {})
    shared = {"z_table": table, "cutoff": cutoff or float(model.r_max), "heads": heads}
    items = []
    with default_dtype(weight.dtype):
        for atoms in frames:
            config = data.config_from_atoms(atoms, key_specification=keys)
            config.head = heads[-1]
            items.append(data.AtomicData.from_config(config, **shared))
    loader = torch_geometric.dataloader.DataLoader(items, batch_size=len(items), shuffle=False)
    return next(iter(loader)).to(weight.device).to_dict()
