"""NequIP's own model tests with our modifiers on, for a stock NequIP model and for ours.

`make test` runs the basic and energy mixins on the stock model; `make test-all` adds ours, both
dtypes compiled from a checkpoint and from a package, and LAMMPS ML-IAP.
"""

import pytest
from nequip.model import modify
from nequip.utils.unittests.model_tests import BaseEnergyModelTests
from nequip.utils.unittests.model_tests_basic import EnergyModelTestsMixin

MODIFIERS = ["enable_FactorizedTP", "enable_FoldedSelfConnection"]
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


def modified(model_config, device):
    model = EnergyModelTestsMixin.make_model(model_config, device)
    return modify(model, [{"modifier": modifier} for modifier in MODIFIERS])


class Modified:
    """Facts the mixins ask for, and models with the modifiers on."""

    make_model = staticmethod(modified)

    @pytest.fixture
    def strict_locality(self):
        return False


class TestModifiedModels(Modified, EnergyModelTestsMixin):
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


@pytest.mark.slow
class TestModifiedDeployment(Modified, BaseEnergyModelTests):
    """Trained stock, compiled with the modifiers, equal to the stock checkpoint or package."""

    @pytest.fixture(scope="class", params=["minimal_toy_emt.yaml"])
    @classmethod
    def conffile(cls, request):
        return request.param

    @pytest.fixture(scope="class", params=[STOCK, STEERABLE], ids=["stock", "steerable"])
    @classmethod
    def config(cls, request):
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def model_source(cls, model_dtype):
        return {"float32": "package", "float64": "fresh"}[model_dtype]

    @pytest.fixture(scope="class")
    @classmethod
    def ase_compile_modifiers(cls):
        return lambda mode, device, model_dtype: MODIFIERS
