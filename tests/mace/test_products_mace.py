"""The C++ product inside MACE: the same numbers, the same state dict, and the way back."""

import copy
import sys
import zipfile

import pytest
import torch
from e3nn import o3
from mace.modules.symmetric_contraction import SymmetricContraction
from mace_under_test import graph, khop, molecule, rattled, stock

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.errors import EqPluginError
from eqplugin.mace import load_model as open_model
from eqplugin.mace import reference
from eqplugin.mace.convert import convert_model
from eqplugin.mace.export import export_lammps
from eqplugin.mace.model_file import read_model_file
from eqplugin.mace.products import (
    CompiledConvolution,
    compile_products,
    convert_products,
    count_converted,
    restore_products,
)
from eqplugin.mace.products_contraction import MonomialContraction, restore_contractions
from eqplugin.nn.product.compiled import load_operators

if load_operators() is not None:
    pytest.skip(f"no compiled operators here: {load_operators()}", allow_module_level=True)

EXACT = 1e-12
MODELS = {
    "stock-L1": lambda: stock("8x0e + 8x1o"),
    "stock-density-L2": lambda: stock(
        "4x0e + 4x1o + 4x2e", interaction_cls="RealAgnosticDensityResidualInteractionBlock",
        interaction_cls_first="RealAgnosticDensityInteractionBlock",
    ),
    "stock-correlation-3": lambda: stock("4x0e + 4x1o", correlation=3),
    "stock-one-product-for-all-elements": lambda: stock("8x0e", use_agnostic_product=True),
    "khop": lambda: khop(1, "8x0e + 8x1o"),
    # conv_tp with the signs of e3nn 0.4, which e3nn 0.6 does not have
    "so3": lambda: reference.build("so3-1e-corr2"),
}  # fmt: skip


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    return MODELS[request.param]()


def outputs_and_gradients(model):
    """Outputs of a molecule, and the gradients of a loss on its energy and forces."""
    model.zero_grad()
    out = model(graph(rattled(molecule()), model), training=True, compute_stress=True)
    (out["energy"].square().sum() * 1e-6 + out["forces"].square().sum()).backward()
    found = {key: out[key].detach() for key in ("energy", "forces", "stress", "node_energy")}
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found | {f"gradient of {name}": value for name, value in gradients.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        assert (found[key] - value).abs().max() < EXACT * scale, key


def contractions(model):
    return [block.symmetric_contractions for block in model.products]


def plain(model):
    own = all(type(block.conv_tp) is o3.TensorProduct for block in model.interactions)
    return own and all(type(c) is SymmetricContraction for c in contractions(model))


def test_equals_plain_and_comes_back_bit_for_bit(model):
    expected = outputs_and_gradients(model)
    assert any(key.startswith("gradient") for key in expected)
    converted = compile_products(copy.deepcopy(model))
    assert all(isinstance(block.conv_tp, CompiledConvolution) for block in converted.interactions)
    assert all(isinstance(c, MonomialContraction) for c in contractions(converted))
    assert list(converted.state_dict()) == list(model.state_dict())
    assert_same(outputs_and_gradients(converted), expected)
    assert_same(outputs_and_gradients(copy.deepcopy(converted)), expected)
    back = restore_products(converted)
    assert plain(back)
    again = outputs_and_gradients(back)
    assert all(torch.equal(again[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    "channels, max_ell, correlation, gains",
    [(8, 1, 1, False), (40, 2, 1, False), (8, 1, 2, False), (32, 1, 2, True), (8, 2, 2, True),
     (8, 1, 3, True)],
)  # fmt: skip
def test_small_contractions_stay_mace_s_own(channels, max_ell, correlation, gains):
    """The rule of docs/products.md: which form is chosen, not how long it takes."""
    model = stock(f"{channels}x0e", max_ell=max_ell, correlation=correlation, num_interactions=1)
    assert count_converted(compile_products(model)) == (1, int(gains))


def test_other_devices_use_mace_s_own():
    contraction = contractions(compile_products(stock("4x0e + 4x1o")))[0].to("meta")
    contraction.fast = None  # it would fail
    x, y = (torch.empty(s, device="meta", dtype=torch.float64) for s in ((3, 4, 9), (3, 3)))
    assert contraction(x, y).shape == (3, 16)


def test_files_converted_before_contractions_were_come_back():
    model = stock("8x0e + 8x1o")
    expected = outputs_and_gradients(model)
    restore_contractions(compile_products(model))
    assert count_converted(model) == (2, 0)
    again = outputs_and_gradients(restore_products(model))
    assert plain(model)
    assert all(torch.equal(again[key], value) for key, value in expected.items())


def test_files_there_and_back(tmp_path):
    model = stock("8x0e + 8x1o")
    torch.save(model, tmp_path / "plain.model")
    convert_products(tmp_path / "plain.model", tmp_path / "compiled.model")
    compiled = read_model_file(tmp_path / "compiled.model")
    assert not plain(compiled)
    expected = outputs_and_gradients(model)
    assert_same(outputs_and_gradients(compiled), expected)
    convert_products(tmp_path / "compiled.model", tmp_path / "back.model", back=True)
    back = read_model_file(tmp_path / "back.model")
    assert plain(back)
    found = outputs_and_gradients(back)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("format", ["libtorch", "mliap"])
def test_exports_are_those_of_the_plain_model(format, tmp_path):
    model = compile_products(stock("8x0e + 8x1o", correlation=3))
    counts = count_converted(model)
    export_lammps(model, tmp_path / "model.pt", format)
    assert count_converted(model) == counts  # the caller's model is not touched
    if format == "mliap":
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        assert not any(type(m).__module__.startswith("eqplugin") for m in loaded.model.modules())
    else:
        torch.jit.load(tmp_path / "model.pt")


def test_mistakes_are_sentences(monkeypatch):
    model = stock("8x0e + 8x1o")
    with pytest.raises(EqPluginError, match="no faster products: nothing to convert back"):
        restore_products(model)
    with pytest.raises(EqPluginError, match="Linear is not a MACE model"):
        compile_products(torch.nn.Linear(1, 1))
    with pytest.raises(EqPluginError, match="already has faster products"):
        compile_products(compile_products(model))
    foreign = stock("8x0e + 8x1o")
    foreign.interactions[0].conv_fusion = True
    with pytest.raises(EqPluginError, match="Interaction 0 has a TensorProduct in place of e3nn's"):
        compile_products(foreign)
    module = sys.modules["eqplugin.mace.products"]
    monkeypatch.setattr(module, "load_operators", lambda: "No compiler.")
    with pytest.raises(EqPluginError, match="No compiler"):
        compile_products(stock("8x0e + 8x1o"))


def test_a_file_s_mistakes_name_the_file(tmp_path):
    torch.save(stock("8x0e + 8x1o"), tmp_path / "plain.model")
    with pytest.raises(EqPluginError, match=r"plain\.model was not converted: .* no faster"):
        convert_products(tmp_path / "plain.model", tmp_path / "out.model", back=True)
    torch.save({"epoch": 3}, tmp_path / "other.model")
    with pytest.raises(EqPluginError, match=r"other\.model does not hold .* give a \.model file"):
        convert_products(tmp_path / "other.model", tmp_path / "out.model")
    assert not (tmp_path / "out.model").exists()


def test_a_model_that_cannot_be_converted_stays_what_it_was():
    half = stock("8x0e + 8x1o").to(torch.bfloat16)
    with pytest.raises(EqPluginError, match=r"Interaction 0 cannot be compiled: .*bfloat16"):
        compile_products(half)
    model = stock("8x0e + 8x1o")
    other = model.interactions[1].conv_tp
    other.forward = lambda *inputs: 1.5 * o3.TensorProduct.forward(other, *inputs)
    with pytest.raises(EqPluginError, match="Interaction 1 cannot be compiled: its coefficients"):
        compile_products(model)
    assert plain(model)
    assert not hasattr(model.interactions[0], "conv_fusion")


def test_a_file_of_float32_gives_stock_s_numbers_in_float64():
    model = stock("8x0e + 8x1o", correlation=3).float()
    converted = compile_products(copy.deepcopy(model)).double()
    assert_same(outputs_and_gradients(converted), outputs_and_gradients(model.double()))


def test_without_a_compiler_files_come_back_and_are_not_opened(tmp_path, monkeypatch):
    model = stock("8x0e + 8x1o")
    torch.save(model, tmp_path / "plain.model")
    convert_products(tmp_path / "plain.model", tmp_path / "fast.model")
    for name in ("eqplugin.mace.products", "eqplugin.nn.product.compiled"):
        monkeypatch.setattr(sys.modules[name], "load_operators", lambda: "There is no compiler.")
    with pytest.raises(EqPluginError, match=r"fast\.model has faster .* no compiler.*--back"):
        open_model(tmp_path / "fast.model")
    unaware = torch.load(tmp_path / "fast.model", weights_only=False)
    with pytest.raises(RuntimeError, match=r"There is no compiler\."):
        outputs_and_gradients(unaware)
    convert_products(tmp_path / "fast.model", tmp_path / "back.model", back=True)
    back = open_model(tmp_path / "back.model")
    assert plain(back)
    found, expected = outputs_and_gradients(back), outputs_and_gradients(model)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_files_for_plain_mace_have_its_own_products(tmp_path):
    torch.save(compile_products(reference.build("so3-1e-corr2")), tmp_path / "fast.model")
    convert_model(tmp_path / "fast.model", tmp_path / "old.model", "0.4")
    with zipfile.ZipFile(tmp_path / "old.model") as archive:
        pickled = next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    assert b"mace.modules" in pickled
    assert b"eqplugin.mace.products" not in pickled
    assert b"eqplugin.nn" not in pickled
