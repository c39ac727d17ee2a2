"""Our builders train with modifiers that one line of the config names."""

import numpy as np
import pytest
import torch
from ase import Atoms
from models_under_test import build, graph
from nequip.model.modify_utils import only_apply_persistent_modifiers
from nequip.nn._tp_scatter_base import TensorProductScatter

from eqplugin.errors import EqPluginError

MODIFIERS = ["enable_FactorizedTP", "enable_FoldedSelfConnection"]
MODELS = {
    "steerable": {"l_max": 2, "num_layers": 3, "feature_dim": 36},
    "khop": {"l_max": 2, "num_layers": 2, "hops": 1, "feature_dim": 18},
}
R_MAX = 3.0


def stock_products(model):
    """How many of NequIP's own products a model has."""
    return sum(type(module) is TensorProductScatter for module in model.modules())


@pytest.mark.parametrize("builder", MODELS)
def test_the_same_weights_and_numbers(builder):
    stock = build(builder, r_max=R_MAX, **MODELS[builder])
    named = build(builder, r_max=R_MAX, modifiers=MODIFIERS, **MODELS[builder])
    assert stock_products(named) < stock_products(stock)  # narrow last layers stay stock
    weights, others = stock.state_dict(), named.state_dict()
    assert list(weights) == list(others)
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    positions = np.random.default_rng(1).uniform(0, 2.5, (6, 3))
    data = graph(Atoms("CHOHHO", positions, cell=[9.0] * 3), R_MAX)
    expected, found = (model(dict(data)) for model in (stock, named))
    for key in ("total_energy", "forces"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-12)


def test_a_package_or_a_loaded_model_is_a_stock_one():
    with only_apply_persistent_modifiers(True):  # as nequip-package and the calculators load
        model = build("steerable", r_max=R_MAX, modifiers=MODIFIERS, **MODELS["steerable"])
    stock = build("steerable", r_max=R_MAX, **MODELS["steerable"])
    assert stock_products(model) == stock_products(stock) > 0


@pytest.mark.parametrize("builder", MODELS)
def test_an_unknown_modifier_is_named_with_those_there_are(builder):
    with pytest.raises(EqPluginError, match=r"'enable_Magic' is not a model .*enable_FactorizedTP"):
        build(builder, modifiers=["enable_Magic"], **MODELS[builder])
