"""Whole models of random irreps: with modifiers they are the stock model, derivatives too."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models_under_test import build
from nequip.model import modify
from test_modifiers import assert_same, batch, outputs_and_gradients

from eqplugin.nequip.compiled_modifier import CompiledTensorProductScatter
from eqplugin.nequip.factorized_modifier import FactorizedTensorProductScatter
from eqplugin.nn.product.compiled import load_operators

FOLD = "enable_FoldedSelfConnection"
R_MAX = 3.0
KINDS = {
    "enable_FactorizedTP": FactorizedTensorProductScatter,
    "enable_CompiledTP": CompiledTensorProductScatter,
}


@st.composite
def architectures(draw):
    """Degrees, both parities or one, other multiplicities of every degree, a type embedding."""
    l_max = draw(st.integers(1, 3))
    return {
        "l_max": l_max,
        "parity": draw(st.booleans()),
        "num_layers": draw(st.integers(2, 3)),
        "num_features": draw(st.lists(st.integers(1, 6), min_size=l_max + 1, max_size=l_max + 1)),
        "type_embed_num_features": draw(st.integers(12, 20)),
        "seed": draw(st.integers(0, 999)),
    }


def check(options, modifier):
    """On a cluster, a crystal with edges on the axes, an isolated atom and frames without edges."""
    stock = build("nequip", **options, r_max=R_MAX, avg_num_neighbors=6.0)
    model = modify(
        copy.deepcopy(stock), [{"modifier": modifier}, {"modifier": FOLD, "smallest": 0}]
    )
    assert any(isinstance(module, KINDS[modifier]) for module in model.modules())
    assert list(model.state_dict()) == list(stock.state_dict())
    ours, our_gradients = outputs_and_gradients(model, batch())
    theirs, their_gradients = outputs_and_gradients(stock, batch())
    assert_same(ours, theirs)
    assert_same(our_gradients, their_gradients)


@pytest.mark.parametrize("modifier", KINDS)
@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(options=architectures())
def test_random_models_keep_their_numbers(modifier, options):
    reason = load_operators() if modifier == "enable_CompiledTP" else None
    if reason is not None:
        pytest.skip(f"no compiled operators here: {reason}")
    torch.set_default_dtype(torch.float64)
    check(options, modifier)
