"""Receptive field, what crosses block boundaries, and the limits of separated atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from models_under_test import (
    TYPE_NAMES,
    atomic_energies,
    build,
    cached,
    energy,
    evaluate,
    graph,
    hidden,
    random_rotation,
    redraw,
)
from nequip.data import AtomicDataDict

from eqplugin.design import CONTRACTIONS
from eqplugin.theory.structures import articulated

FEATURES = AtomicDataDict.NODE_FEATURES_KEY
CENTRE = 6


def chain():
    """13 atoms in a crooked row: each sees the one before and the one after, no other."""
    positions = np.outer(np.arange(13) * 1.5, [0.0, 0.0, 1.0])
    positions += np.random.default_rng(0).uniform(-0.12, 0.12, size=positions.shape)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    hops = np.abs(np.subtract.outer(np.arange(13), np.arange(13)))
    assert (distances[hops == 1] < 2.0).all()
    assert (distances[hops > 1] > 2.0).all()
    return Atoms("CHOCHOCHOCHOC", positions)


def reach(model, layer=None):
    """Hops from the centre to the farthest atom with a gradient; all nearer ones must have one.

    Of the features that leave ``layer``, or of the atom's energy.
    """
    data = graph(chain())
    positions = data[AtomicDataDict.POSITIONS_KEY].requires_grad_()
    outputs = []
    if layer is not None:
        module = getattr(model.model.func, f"layer{layer}_convnet")
        handle = module.register_forward_hook(lambda _m, _i, out: outputs.append(out[FEATURES]))
    try:
        out = model(data)
    finally:
        if layer is not None:
            handle.remove()
    value = out[AtomicDataDict.PER_ATOM_ENERGY_KEY] if layer is None else outputs[0]
    weights = torch.randn(value.shape[1], dtype=torch.float64, generator=torch.manual_seed(0))
    (gradient,) = torch.autograd.grad(value[CENTRE] @ weights, positions)
    size = gradient.norm(dim=-1)
    seen = {abs(i - CENTRE) for i in range(len(size)) if size[i] != 0.0}  # exactly
    assert seen == set(range(max(seen) + 1))
    for i in range(len(size)):
        if abs(i - CENTRE) in seen:
            assert size[i] > 1e-12
    return max(seen)


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_a_block_reaches_exactly_its_hops(hops, contraction):
    model = cached("khop", l_max=1, hops=hops, num_blocks=1, contraction=contraction)
    redraw(model, 0)
    assert reach(model) == hops
    assert reach(model, layer=hops - 1) == hops


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("hops, num_blocks", [(1, 2), (2, 2), (1, 3)])
def test_blocks_add_up(hops, num_blocks, contraction):
    model = cached("khop", l_max=1, hops=hops, num_blocks=num_blocks, contraction=contraction)
    redraw(model, 0)
    for block in range(num_blocks):
        assert reach(model, layer=(block + 1) * hops - 1) == (block + 1) * hops
    assert reach(model) == hops * num_blocks


def test_steerable_reaches_its_layers():
    model = cached("steerable", l_max=1, num_layers=4)
    redraw(model, 0)
    assert reach(model) == 4


# ---- what crosses


def scalars_only(irreps):
    return all(ir == (0, 1) for _, ir in irreps)


BLOCKED = [
    (hops, num_blocks, contraction, parity, width)
    for hops, num_blocks in ((1, 3), (2, 2))
    for contraction in CONTRACTIONS
    for parity, width in (("natural", None), ("both", 5))
]


@pytest.mark.parametrize("hops, num_blocks, contraction, parity, width", BLOCKED)
def test_only_scalars_cross_a_boundary(hops, num_blocks, contraction, parity, width):
    model = cached(
        "khop",
        l_max=2,
        hops=hops,
        num_blocks=num_blocks,
        contraction=contraction,
        parity=parity,
        reset_width=width,
        feature_dim=144,
    )
    redraw(model, 0)
    network = model.model.func
    kept = width or network.layer0_convnet.irreps_out[FEATURES][0].mul
    molecule = articulated(2)
    turned = molecule.copy()
    turned.positions = molecule.positions @ random_rotation(1).T
    inverted = molecule.copy()
    inverted.positions *= -1

    for layer in range(hops * num_blocks):
        module = getattr(network, f"layer{layer}_convnet")
        features = hidden(model, molecule, layer)
        scale = features.abs().max()
        assert scale > 1e-6
        changes = [(hidden(model, x, layer) - features).abs().max() for x in (turned, inverted)]
        if (layer + 1) % hops:  # inside a block
            assert not scalars_only(module.irreps_out[FEATURES])
            assert min(changes) > 1e-3 * scale
            continue
        assert scalars_only(module.irreps_out[FEATURES])
        assert module.irreps_out[FEATURES].dim == features.shape[1] == kept
        assert max(changes) < 1e-12 * scale
        if contraction != "drop":
            assert scalars_only(module.contraction.irreps_out[FEATURES])
            assert not scalars_only(module.convolution.irreps_out[FEATURES])
        if layer + 1 < hops * num_blocks:
            following = getattr(network, f"layer{layer + 1}_convnet")
            assert scalars_only(following.irreps_in[FEATURES])


# ---- separated atoms

SHIFTS = {"C": -1030.123456789, "H": -13.6, "O": -2041.987654321}
SEPARABLE = [
    ("steerable", {"l_max": 1, "num_layers": 2}),
    ("steerable", {"l_max": 2, "num_layers": 2, "parity": "both", "feature_dim": 72}),
    ("khop", {"l_max": 0, "hops": 1, "num_blocks": 2, "contraction": "bispectrum"}),
    ("khop", {"l_max": 1, "hops": 1, "num_blocks": 2, "contraction": "power"}),
    ("khop", {"l_max": 2, "hops": 2, "num_blocks": 1, "contraction": "bispectrum"}),
    ("khop", {"l_max": 1, "hops": 2, "num_blocks": 2, "contraction": "drop"}),
    ("khop", {"l_max": 2, "hops": None, "num_layers": 2, "contraction": "bispectrum"}),
    (
        "khop",
        {
            "l_max": 1,
            "hops": 1,
            "num_blocks": 2,
            "contraction": "bispectrum",
            "parity": "both",
            "feature_dim": 48,
        },
    ),
]


@pytest.mark.parametrize("builder, options", SEPARABLE)
def test_isolated_atom_has_exactly_its_shift(builder, options):
    model = build(builder, per_type_energy_shifts=SHIFTS, per_type_energy_scales=2.5, **options)
    for symbol in TYPE_NAMES:
        out = evaluate(model, Atoms(symbol, [[0.1, 0.2, 0.3]]))
        assert out[AtomicDataDict.TOTAL_ENERGY_KEY].item() == SHIFTS[symbol]
        assert not out[AtomicDataDict.FORCE_KEY].any()
    bound = evaluate(model, Atoms("CO", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]))
    assert abs(bound[AtomicDataDict.TOTAL_ENERGY_KEY].item() - SHIFTS["C"] - SHIFTS["O"]) > 1e-4


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_isolated_atom_with_residual_updates(contraction):
    # l_max = 0 and equal widths: every layer's input has the irreps of its output
    model = build(
        "khop",
        l_max=0,
        feature_dim=32,
        hops=1,
        num_blocks=2,
        contraction=contraction,
        convnet_resnet=True,
        per_type_energy_shifts=SHIFTS,
    )
    for symbol in TYPE_NAMES:
        assert energy(model, Atoms(symbol, [[0.0, 0.0, 0.0]])) == SHIFTS[symbol]


@pytest.mark.parametrize("builder, options", SEPARABLE)
def test_size_consistency(builder, options):
    model = cached(builder, **options)
    redraw(model, 0)
    molecule = articulated(2)
    copy = molecule.copy()
    copy.positions = molecule.positions @ random_rotation(2).T + [40.0, 10.0, -20.0]
    single = atomic_energies(model, molecule)
    both = atomic_energies(model, molecule + copy)
    scale = single.abs().max()
    assert scale > 1e-6
    assert (both - single.repeat(2)).abs().max() < 1e-12 * scale
    assert abs(both.sum() - 2 * single.sum()) < 1e-12 * single.abs().sum()
    # within the cutoff the copies do interact
    copy.positions = molecule.positions + np.array([1.3, 0.0, 0.0])
    close = energy(model, molecule + copy)
    assert abs(close - 2 * single.sum()) > 1e-4 * scale
