"""Small float64 models, built once per configuration, and what the tests measure on them."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
from ase import Atoms
from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

from eqplugin.nequip import KHopInvariantModel, SteerableModel
from eqplugin.theory.structures import CUTOFF

TYPE_NAMES = ["C", "H", "O"]
CHANNELS = 8
BUILDERS = {
    "steerable": SteerableModel,
    "khop": KHopInvariantModel,
    "nequip": NequIPGNNModel,
}
# thresholds of the separability tables, for the metric of `signal`
MUST_NOT = 5e-12
MUST = 5e-11

_to_types = ChemicalSpeciesToAtomTypeMapper(TYPE_NAMES)


def build(builder: str, **options):
    """Build a model that nothing else holds; CHANNELS copies of every irrep unless told."""
    set_global_state()
    common = {
        "seed": 0,
        "model_dtype": "float64",
        "r_max": CUTOFF,
        "type_names": TYPE_NAMES,
        "avg_num_neighbors": 2.0,
    }
    if builder != "nequip":
        common["feature_dim"] = CHANNELS * (options["l_max"] + 1) ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return BUILDERS[builder](**{**common, **options})


@functools.cache
def cached(builder: str, **options):
    """Return a shared model without forces; its weights are whatever the last test drew."""
    return build(builder, do_derivatives=False, **options)


def redraw(model: torch.nn.Module, seed: int) -> None:
    """Draw all weights anew from unit normals, NequIP's and e3nn's own scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))


def graph(atoms: Atoms, r_max: float = CUTOFF) -> dict:
    """Return the model input of a structure."""
    return compute_neighborlist_(_to_types(from_ase(atoms)), r_max)


def evaluate(model: torch.nn.Module, atoms: Atoms, r_max: float = CUTOFF) -> dict:
    """Return the model's outputs, detached."""
    out = model(graph(atoms, r_max))
    return {key: value.detach() for key, value in out.items() if isinstance(value, torch.Tensor)}


def energy(model: torch.nn.Module, atoms: Atoms) -> float:
    return evaluate(model, atoms)[AtomicDataDict.TOTAL_ENERGY_KEY].item()


def atomic_energies(model: torch.nn.Module, atoms: Atoms) -> torch.Tensor:
    return evaluate(model, atoms)[AtomicDataDict.PER_ATOM_ENERGY_KEY].squeeze(-1)


def rattled(atoms: Atoms, seed: int = 0, width: float = 0.05) -> Atoms:
    """Return the structure with normal noise of 0.05 A: the yardstick of `signal`."""
    noisy = atoms.copy()
    noisy.positions += np.random.default_rng(seed).normal(scale=width, size=(len(atoms), 3))
    return noisy


def signals(model: torch.nn.Module, first: Atoms, second: Atoms, seeds: int) -> list[float]:
    """|E0 - E1| / |E(noisy) - E0| for several draws of the weights.

    A draw that does not answer to noise would make any difference look large or undefined.
    """
    values = []
    for seed in range(seeds):
        redraw(model, seed)
        base, noisy = energy(model, first), energy(model, rattled(first))
        assert abs(noisy - base) > 1e-6
        values.append(abs(base - energy(model, second)) / abs(noisy - base))
    return values


def hidden(model: torch.nn.Module, atoms: Atoms, layer: int) -> torch.Tensor:
    """Return the node features that leave one convolution (or block boundary)."""
    found = []
    module = getattr(model.model.func, f"layer{layer}_convnet")
    handle = module.register_forward_hook(
        lambda _module, _inputs, data: found.append(data[AtomicDataDict.NODE_FEATURES_KEY])
    )
    try:
        model(graph(atoms))
    finally:
        handle.remove()
    return found[0]


def random_rotation(seed: int) -> np.ndarray:
    """Return a proper rotation matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))
