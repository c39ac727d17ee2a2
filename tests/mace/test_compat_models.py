"""Copies, jit mode and the record of the signs."""

from __future__ import annotations

import copy

import e3nn
import e3nn.o3
import pytest
import torch
from e3nn.util import jit
from mace_under_test import steerable
from nequip.utils.compile import conditional_torchscript_mode
from torch.optim.swa_utils import AveragedModel

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.mace import reference
from eqplugin.mace.compat import signs
from eqplugin.mace.compat.convention import (
    ATTRIBUTE,
    ConventionError,
    convention_of,
    detect_convention,
    require_legacy,
)
from eqplugin.mace.compat.jitmode import building_eagerly

STORED = reference.stored_results()


@pytest.fixture(scope="module")
def model():
    return reference.build("so3-1e-corr2")


@pytest.fixture(scope="module")
def modern():
    """A model with the signs of e3nn 0.6, as MACE without eqplugin builds it there."""
    with signs.building_with(e3nn.o3):
        built = reference.build("so3-1e-corr2")
    delattr(built, ATTRIBUTE)
    return built


def test_a_copy_is_equal_and_shares_nothing(model):
    copied = copy.deepcopy(model)
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    copies = {**dict(copied.named_buffers()), **dict(copied.named_parameters())}
    assert list(tensors) == list(copies)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, copies[name])
        assert tensor.numel() == 0 or tensor.data_ptr() != copies[name].data_ptr()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        for name, buffer in copied.named_buffers():
            if "w3j" in name:
                buffer.zero_()
    found = reference.evaluate(model)
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= 1e-12


def test_a_copy_keeps_the_order_of_buffers_whatever_the_graph_uses_first():
    # AveragedModel pairs buffers by position; fx orders those of a copy by first use
    with building_eagerly():  # other tests of the process may have left another mode
        module = e3nn.o3.FullyConnectedTensorProduct("1o+2e", "1o+2e", "1o+2e")
    signs.flip_to_legacy(module)
    graph = module._compiled_main_left_right
    graph._buffers = dict(reversed(graph._buffers.items()))
    names = [name for name, _ in module.named_buffers()]
    assert sum("w3j" in name for name in names) > 1
    assert [name for name, _ in copy.deepcopy(module).named_buffers()] == names


def test_the_copy_does_not_trace_again(model, monkeypatch):
    def traced(*_args, **_kwargs):
        raise AssertionError("the copy was traced")

    monkeypatch.setattr(torch.fx.Tracer, "trace", traced)
    copy.deepcopy(model.interactions[0].conv_tp)


def test_stage_two_averages_an_equivariant_model(model):
    averaged = AveragedModel(model)
    for _ in range(2):
        averaged.update_parameters(model)
    found = reference.evaluate(averaged.module)
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= 1e-12


def test_a_compiled_model_agrees(model):
    compiled = jit.compile(copy.deepcopy(model))
    assert isinstance(compiled, torch.jit.ScriptModule)
    found = reference.evaluate(compiled)
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= 1e-12


@pytest.mark.parametrize("jit_mode", ["eager", "script"])
def test_e3nns_jit_mode_is_restored_even_after_an_error(jit_mode):
    from mace.tools.compile import disable_e3nn_codegen

    before = e3nn.get_optimization_defaults()
    try:
        e3nn.set_optimization_defaults(jit_mode=jit_mode)
        expected = e3nn.get_optimization_defaults()
        with disable_e3nn_codegen():
            assert e3nn.get_optimization_defaults()["jit_mode"] == "eager"
        assert e3nn.get_optimization_defaults() == expected
        with pytest.raises(RuntimeError, match="inside"), disable_e3nn_codegen():
            raise RuntimeError("inside")
        assert e3nn.get_optimization_defaults() == expected
    finally:
        e3nn._OPT_DEFAULTS.update(before)


def test_a_model_built_after_nequip_left_mode_script_is_the_same(tmp_path):
    before = e3nn.get_optimization_defaults()
    try:
        # e3nn's own defaults on this torch, whatever other tests have left
        e3nn._OPT_DEFAULTS.update(jit_script_fx=True, jit_mode="eager")
        with conditional_torchscript_mode(False):  # as NequIP does around every compiled build
            pass
        left = e3nn.get_optimization_defaults()["jit_mode"]
        models = [reference.build("so3-1e-corr2"), steerable("8x0e+4x1o")]
        assert e3nn.get_optimization_defaults()["jit_mode"] == left
    finally:
        e3nn._OPT_DEFAULTS.update(before)
    assert left == "script", "NequIP restores the mode by now: the test compares nothing"
    for number, model in enumerate(models):
        copy.deepcopy(model)
        torch.save(model, tmp_path / f"{number}.model")
        torch.load(tmp_path / f"{number}.model", weights_only=False)
    found = reference.evaluate(models[0])
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= 1e-12


def test_the_record_says_what_the_buffers_say(model):
    assert getattr(model, ATTRIBUTE) == "0.4"
    assert detect_convention(model) == "0.4"
    assert detect_convention(copy.deepcopy(model).float()) == "0.4"


def test_signs_of_e3nn_0_6_are_found_and_refused(modern):
    assert convention_of(modern) == "0.6"
    with pytest.raises(ConventionError, match="without eqplugin"):
        require_legacy(modern, "Conversion to cuEquivariance")


def test_the_signs_of_the_product_basis_alone_are_found():
    with signs.building_with(e3nn.o3):
        built = reference.build("1o-corr3")
    assert not any(
        signs.is_flipped(*map(int, name.rsplit("_", 3)[1:]))
        for name, _ in built.named_buffers()
        if "w3j" in name
    )
    assert detect_convention(built) == "0.6"
    assert detect_convention(reference.build("1o-corr3")) == "0.4"


def test_a_mixture_is_refused(model, modern):
    mixed = copy.deepcopy(model)
    mixed.interactions[1] = copy.deepcopy(modern.interactions[1])
    with pytest.raises(ConventionError, match="mixes"):
        detect_convention(mixed)


def test_the_conversion_to_cuequivariance_refuses_the_signs_of_e3nn_0_6(modern, tmp_path):
    from mace.cli import convert_e3nn_cueq

    with pytest.raises(ConventionError, match="cuEquivariance"):
        convert_e3nn_cueq.run(modern)
    torch.save(modern, tmp_path / "modern.model")
    with pytest.raises(ConventionError, match="cuEquivariance"):
        convert_e3nn_cueq.run(str(tmp_path / "modern.model"))
