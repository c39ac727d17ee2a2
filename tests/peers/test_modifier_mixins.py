"""NequIP's own model tests with our modifiers on, for a stock NequIP model and for ours.

`make test` runs the basic and energy mixins on the stock model; `make test-all` adds ours, and both
dtypes trained and compiled, from a checkpoint and from a package.
"""

import pytest
from nequip.model import modify
from nequip.utils.unittests.model_tests import BaseEnergyModelTests
from nequip.utils.unittests.model_tests_basic import EnergyModelTestsMixin

from eqplugin.nequip.compiled_modifier import CompiledTensorProductScatter
from eqplugin.nequip.factorized_modifier import FactorizedTensorProductScatter
from eqplugin.nn.folded_selfconnection import FoldedSelfConnection
from eqplugin.nn.product.compiled import load_operators

FOLD = "enable_FoldedSelfConnection"
FACTORIZED = ["enable_FactorizedTP", FOLD]
COMPILED = ["enable_CompiledTP", FOLD]
PRODUCTS = {
    "enable_FactorizedTP": FactorizedTensorProductScatter,
    "enable_CompiledTP": CompiledTensorProductScatter,
}
needs_operators = pytest.mark.skipif(
    load_operators() is not None, reason=f"no compiled operators here: {load_operators()}"
)
COMMON = {
    "seed": 123,
    "type_names": ["H", "C", "O"],
    "r_max": 4.0,
    "avg_num_neighbors": 20.0,
    "radial_mlp_width": 8,
    "type_embed_num_features": 16,  # wide enough for folding to pay with three types
    "per_type_energy_scales": 2.0,
    "per_type_energy_shifts": {"H": 1.19, "C": 2.12, "O": 0.7},
    "num_layers": 2,
}
STOCK = {
    "_target_": "nequip.model.NequIPGNNModel",
    "l_max": 1,
    "parity": True,
    "num_features": 6,
    **COMMON,
}
STEERABLE = {
    "_target_": "eqplugin.nequip.SteerableModel",
    "l_max": 2,
    "feature_dim": 27,
    **COMMON,
}

# nequip-compile takes names alone, no settings: so wide that the fold chooses them by itself
DEPLOYED = {
    "stock": {**STOCK, "num_features": 34, "type_embed_num_features": 32},
    "steerable": {**STEERABLE, "feature_dim": 306, "type_embed_num_features": 32},
}


def modified(model_config, device, modifiers):
    """A model with the modifiers on; they have to be in it, or the tests would test nothing."""
    model = EnergyModelTestsMixin.make_model(model_config, device)
    settings = {FOLD: {"smallest": 0}}  # narrow as they are, they are folded too
    model = modify(model, [{"modifier": m, **settings.get(m, {})} for m in modifiers])
    kind = PRODUCTS[modifiers[0]]
    assert any(isinstance(module, kind) for module in model.modules())
    return model


def with_modifiers(modifiers):
    """Facts the mixins ask for, and models with the modifiers on."""

    class Modified:
        @staticmethod
        def make_model(model_config, device):
            return modified(model_config, device, modifiers)

        @pytest.fixture
        def strict_locality(self):
            return False

        @pytest.fixture(scope="class")
        @classmethod
        def ase_compile_modifiers(cls):
            return lambda mode, device, model_dtype: modifiers

    return Modified


class Basic(EnergyModelTestsMixin):
    """Basic and energy tests, both dtypes."""

    @pytest.fixture(
        scope="class",
        params=[
            pytest.param(STOCK, id="stock"),
            pytest.param(STEERABLE, id="steerable", marks=pytest.mark.slow),
        ],
    )
    @classmethod
    def config(cls, request):
        return request.param


class TestFactorizedModels(with_modifiers(FACTORIZED), Basic):
    """The factorised product and the fold."""


@needs_operators
class TestCompiledModels(with_modifiers(COMPILED), Basic):
    """The C++ product and the fold."""


@needs_operators
@pytest.mark.slow
class TestCompiledModelsAlone(with_modifiers(COMPILED[:1]), Basic):
    """The C++ product with the stock self-connection."""


@pytest.mark.parametrize("name", DEPLOYED)
def test_deployed_models_are_folded_without_a_setting(name):
    model = EnergyModelTestsMixin.make_model({"model_dtype": "float32", **DEPLOYED[name]}, "cpu")
    model = modify(model, [{"modifier": FOLD}])
    assert any(isinstance(module, FoldedSelfConnection) for module in model.modules())


class Deployment(BaseEnergyModelTests):
    """Trained stock, compiled with the modifiers, equal to the stock checkpoint or package."""

    @pytest.fixture(scope="class", params=["minimal_toy_emt.yaml"])
    @classmethod
    def conffile(cls, request):
        return request.param

    @pytest.fixture(scope="class", params=DEPLOYED.values(), ids=DEPLOYED.keys())
    @classmethod
    def config(cls, request):
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def model_source(cls, model_dtype):
        return {"float32": "package", "float64": "fresh"}[model_dtype]


@pytest.mark.slow
class TestFactorizedDeployment(with_modifiers(FACTORIZED), Deployment):
    """The factorised product and the fold."""


@needs_operators
@pytest.mark.slow
class TestCompiledDeployment(with_modifiers(COMPILED), Deployment):
    """The C++ product and the fold."""
