"""The modifiers on a GPU, against the stock model on the CPU in float64.

Every case runs on the CPU, too, so that a machine without a GPU still tests the test.
"""

import copy
from importlib.util import find_spec

import pytest
import torch
from nequip.data import AtomicDataDict
from nequip.model import modify
from test_modifiers import (
    COMPILED,
    FOLD,
    MODELS,
    TP,
    assert_same,
    batch,
    expected,
    named,
    outputs_and_gradients,
    shared,
)

from eqplugin.nn.product.compiled import load_operators

OEQ, CUEQ = "enable_OpenEquivariance", "enable_CuEquivariance"
PACKAGES = {OEQ: "openequivariance", CUEQ: "cuequivariance_torch"}
COMBINATIONS = [
    (TP,),
    (FOLD,),
    (TP, FOLD),
    (COMPILED,),
    (COMPILED, FOLD),
    (OEQ, FOLD),
    (CUEQ, FOLD),
]
# sums on a GPU are in another order, in some kernels in a new one each time
TOLERANCE = 1e-11

devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(
                not torch.cuda.is_available(), reason="there is no CUDA device"
            ),
        ),
    ],
)


def needs(modifiers, device):
    for modifier in modifiers:
        package = PACKAGES.get(modifier)
        if package and (device == "cpu" or find_spec(package) is None):
            pytest.skip(f"{modifier} needs a GPU and the package {package}")
        if modifier == COMPILED and load_operators() is not None:
            pytest.skip("no compiled operators here")


@devices
@pytest.mark.parametrize("modifiers", COMBINATIONS, ids=" + ".join)
@pytest.mark.parametrize("name", MODELS)
def test_energies_forces_stress_and_gradients_are_those_of_stock(name, modifiers, device):
    needs(modifiers, device)
    model = modify(copy.deepcopy(shared(name)).to(device), [named(m) for m in modifiers])
    model = model.to(device)  # constants of the modifiers
    data = AtomicDataDict.to_(dict(batch()), torch.device(device))
    outputs, gradients = outputs_and_gradients(model, data)
    assert outputs[AtomicDataDict.FORCE_KEY].device.type == device
    for found, wanted in zip((outputs, gradients), expected(name), strict=True):
        on_cpu = {key: value.cpu() for key, value in found.items()}
        assert_same(on_cpu, wanted, tolerance=TOLERANCE)
