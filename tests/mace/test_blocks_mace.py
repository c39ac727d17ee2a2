"""Blocks of MACE models, ours and stock."""

from math import prod

import pytest
import torch
from e3nn import o3
from mace.modules import ScaleShiftMACE
from mace_under_test import NUMBERS, options

from eqplugin.mace.models import KHopInvariantMACE, SteerableMACE
from eqplugin.optim import parameter_blocks

MODELS = {
    "stock": lambda: ScaleShiftMACE(
        hidden_irreps=o3.Irreps("8x0e+8x1o"), **options(correlation=3, pair_repulsion=True)
    ),
    "other interactions": lambda: ScaleShiftMACE(
        hidden_irreps=o3.Irreps("8x0e"),
        **options(
            interaction_cls="RealAgnosticResidualNonLinearInteractionBlock",
            interaction_cls_first="RealAgnosticDensityInteractionBlock",
        ),
    ),
    "steerable": lambda: SteerableMACE(feature_dim=21, max_L=1, **options()),
    "reset": lambda: KHopInvariantMACE(feature_dim=24, max_L=1, hops=1, **options()),
}


@pytest.mark.parametrize("name", MODELS)
def test_mace_models_are_tiled(name, caplog):
    model = MODELS[name]()
    blocks = parameter_blocks(model)
    assert "optimised as vectors" not in caplog.text
    parameters = dict(model.named_parameters())
    assert blocks.keys() == parameters.keys()
    for key, parameter in parameters.items():
        seen = torch.zeros(parameter.numel(), dtype=torch.int)
        for offset, shape, _ in blocks[key]:
            seen[offset : offset + prod(shape)] += 1
        assert (seen == 1).all(), key


def test_contractions_have_a_matrix_of_paths_and_channels_per_element():
    model = MODELS["stock"]()
    parameters = dict(model.named_parameters())
    found = {k: b for k, b in parameter_blocks(model).items() if "symmetric_contractions" in k}
    assert len(found) == 9
    for key, blocks in found.items():
        assert len(blocks) == len(NUMBERS)
        for element, (offset, shape, _) in enumerate(blocks):
            block = parameters[key].reshape(-1)[offset : offset + prod(shape)].view(shape)
            torch.testing.assert_close(block, parameters[key][element])
