"""Blocks tile every parameter of every builder exactly once, with the shapes of its matrices."""

import logging
from math import prod
from pathlib import Path

import pytest
import torch
from e3nn import nn, o3

from eqplugin.errors import EqPluginError
from eqplugin.nequip.config import build_model, read_model_section
from eqplugin.optim import block_groups, parameter_blocks
from eqplugin.optim.blocks import check_cover

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "nequip"
TRAINABLE = [
    f"++training_module.model.{key}=true"
    for key in ("per_type_energy_shifts_trainable", "per_type_energy_scales_trainable")
]
NEQUIP = {
    "never reset": ["feature_dim=32", "l_max=2", "num_layers=3"],
    "both parities": ["feature_dim=33", "l_max=1", "++training_module.model.parity=both"],
    "bispectrum": ["feature_dim=32", "l_max=2", "hops=1", "num_layers=2", "reset_width=32"],
    "power": ["feature_dim=32", "l_max=1", "hops=2", "num_layers=2", "contraction=power"],
    "drop": ["feature_dim=32", "l_max=1", "hops=2", "num_layers=4", "contraction=drop"],
    "trainable": ["feature_dim=16", "num_layers=2", *TRAINABLE,
                  "++training_module.model.bessel_trainable=true"],
    "modified": ["feature_dim=64", "num_layers=2",
                 "modifiers=[enable_CompiledTP,enable_FoldedSelfConnection]"],
    "stock": None,
}  # fmt: skip


def nequip_model(overrides):
    if overrides is None:
        return build_model(
            {
                "_target_": "nequip.model.NequIPGNNModel", "seed": 1, "model_dtype": "float32",
                "r_max": 4.0, "type_names": ["H", "C"], "num_layers": 2, "l_max": 1,
                "num_features": [8, 8], "parity": True, "avg_num_neighbors": 10.0,
                "radial_mlp_depth": 1, "radial_mlp_width": 8, "pair_potential": None,
            }
        )  # fmt: skip
    return build_model(read_model_section(CONFIGS, "minimal", overrides))


def assert_tiled(model):
    blocks = parameter_blocks(model)
    parameters = dict(model.named_parameters())
    assert blocks.keys() == parameters.keys()
    for name, parameter in parameters.items():
        seen = torch.zeros(parameter.numel(), dtype=torch.int)
        for offset, shape, ranks in blocks[name]:
            seen[offset : offset + prod(shape)] += 1
            assert len(ranks) == len(shape)
            assert all(0 < r <= d for r, d in zip(ranks, shape, strict=True))
        assert (seen == 1).all(), name
    return blocks


@pytest.mark.parametrize("name", NEQUIP)
def test_nequip_models_are_tiled(name, caplog):
    with caplog.at_level(logging.WARNING):
        blocks = assert_tiled(nequip_model(NEQUIP[name]))
    assert "optimised as vectors" not in caplog.text
    flat = [b for n, b in blocks.items() if "linear_" in n]
    assert flat
    assert all(len(shape) == 2 for b in flat for _, shape, _ in b)


def test_self_connections_turn_among_as_many_directions_as_there_are_types():
    model = nequip_model(NEQUIP["never reset"])
    blocks = parameter_blocks(model)["model.func.layer1_convnet.conv.sc.weight"]
    assert {(shape[1], ranks[1]) for _, shape, ranks in blocks} == {(32, 3)}
    # and gradients have no more: what is left out of the basis is zero
    weight = model.model.func.layer1_convnet.conv.sc
    attrs = model.model.func.type_embed.embed_module.weight
    x = torch.randn(40, weight.irreps_in1.dim, dtype=attrs.dtype)
    out = weight(x, attrs[torch.arange(40) % 3])
    (gradient,) = torch.autograd.grad(out.square().sum(), weight.weight)
    offset, shape, _ = blocks[0]
    block = gradient[offset : offset + prod(shape)].view(shape).movedim(1, 0).flatten(1)
    values = torch.linalg.svdvals(block)
    assert values[3] < 1e-4 * values[2]


def test_blocks_are_the_views_of_e3nn():
    linear = o3.Linear("4x0e+3x1o+0x2e", "2x0e+5x1o+3x0e", biases=True)
    blocks = parameter_blocks(linear)
    for (offset, shape, _), view in zip(blocks["weight"], linear.weight_views(), strict=False):
        torch.testing.assert_close(linear.weight[offset : offset + prod(shape)].view(shape), view)
    assert [shape for _, shape, _ in blocks["bias"]] == [(2,), (3,)]
    product = o3.FullyConnectedTensorProduct("4x0e+3x1o", "2x0e+2x1o", "3x0e+2x1o")
    blocks = parameter_blocks(product)["weight"]
    for (offset, shape, _), view in zip(blocks, product.weight_views(), strict=True):
        assert shape == tuple(view.shape)
        assert len(shape) == 3
        torch.testing.assert_close(product.weight[offset : offset + prod(shape)].view(shape), view)


def test_other_modules_of_e3nn_are_tiled():
    partly = o3.TensorProduct(
        "4x0e+4x1o", "1x0e+1x1o", "4x0e+4x1o",
        [(0, 0, 0, "uvu", True), (1, 0, 1, "uvu", False), (0, 1, 1, "uvu", True)],
    )  # fmt: skip
    channels = o3.Linear("4x0e+3x1o", "2x0e+5x1o", f_in=3, f_out=2)
    parts = (partly, channels, nn.FullyConnectedNet([4, 8, 3], torch.relu), nn.BatchNorm("4x0e"))
    for module in parts:
        assert_tiled(module)


def test_unknown_flat_weights_are_vectors_with_one_notice(caplog):
    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(12))
            self.table = torch.nn.Parameter(torch.randn(3, 4))

    Foreign.__module__ = "cuequivariance_torch.primitives"
    model = torch.nn.ModuleList([Foreign(), Foreign(), torch.nn.Linear(3, 2)])
    with caplog.at_level(logging.WARNING):
        blocks = assert_tiled(model)
    assert blocks["0.weight"] == [(0, (12,), (12,))]
    assert blocks["0.table"] == [(0, (3, 4), (3, 4))]
    assert caplog.text.count("optimised as vectors") == 1
    assert "cuequivariance_torch.primitives" in caplog.text


def test_blocks_that_do_not_cover_a_weight_are_refused():
    linear = o3.Linear("4x0e", "3x0e")
    linear.weight = torch.nn.Parameter(torch.randn(13))
    with pytest.raises(EqPluginError, match=r"weight describe 12 weights, but it has 13"):
        block_groups(torch.nn.Sequential(linear))
    for blocks in (
        [(0, (2, 2), (2, 2))],
        [(0, (2, 3), (2, 3)), (5, (7,), (7,))],
        [(1, (12,), (12,))],
    ):
        with pytest.raises(EqPluginError, match="exactly once"):
            check_cover(torch.zeros(12), blocks, "weight")
