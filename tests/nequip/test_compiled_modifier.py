"""``enable_CompiledTP`` on whole models: the stock model's numbers, weights and trainings."""

import copy
import subprocess
import sys
import textwrap
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
import torch
from ase import Atoms
from e3nn.o3 import TensorProduct
from models_under_test import build, graph
from nequip.data import AtomicDataDict
from nequip.model.modify_utils import get_all_modifiers, modify
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.aoti_metadata import embed_custom_ops_libs

from eqplugin.nequip import compiled_modifier
from eqplugin.nequip.compiled_modifier import CompiledTensorProductScatter, compile_products
from eqplugin.nn.product.compiled import OPS_MODULE, load_operators

NO_OPERATORS = load_operators()
needs_operators = pytest.mark.skipif(NO_OPERATORS is not None, reason=str(NO_OPERATORS))
EXACT = 1e-12
MODELS = {
    "steerable-L1": ("steerable", {"l_max": 1, "num_layers": 3}),
    "steerable-L2-both": ("steerable", {"l_max": 2, "num_layers": 2, "parity": "both"}),
    "khop-L2": ("khop", {"l_max": 2, "hops": 1, "num_layers": 2}),
    "stock": (
        "nequip",
        {"l_max": 3, "num_layers": 2, "num_features": [9, 5, 4, 3], "parity": False},
    ),
    "stock-scalars": ("nequip", {"l_max": 0, "num_layers": 2, "num_features": 64}),
}
KEYS = ("total_energy", "atomic_energy", "forces", "stress", "virial")


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=MODELS, scope="module")
def pair(request):
    """A stock model and its modified copy."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    builder, options = MODELS[request.param]
    stock = build(builder, **options)
    torch.set_default_dtype(before)
    return stock, compile_products(copy.deepcopy(stock))


def batch():
    """A periodic cell, a molecule, and a molecule with an atom beyond every cutoff."""
    rng = np.random.default_rng(0)
    periodic = Atoms("CHOCHO", rng.uniform(0, 3, (6, 3)), cell=np.diag([3.0, 3.2, 3.4]), pbc=True)
    molecule = Atoms("COH", [[0, 0, 0], [0, 0, 1.2], [1.0, 0, 0]], cell=np.eye(3) * 20)
    lonely = Atoms("CHO", [[0, 0, 0], [0, 1.1, 0], [9.0, 9.0, 9.0]], cell=np.eye(3) * 20)
    frames = [graph(atoms) for atoms in (periodic, molecule, lonely)]
    for frame in frames:
        frame.setdefault(AtomicDataDict.EDGE_CELL_SHIFT_KEY, torch.zeros(0, 3))
    return AtomicDataDict.batched_from_list(frames)


def outputs_and_gradients(model, data):
    """Outputs, and gradients of a loss on energies, forces and stress by all parameters."""
    model.zero_grad()
    out = model({key: value.clone() for key, value in data.items()})
    loss = sum((out[key] - 0.1).square().sum() for key in ("total_energy", "forces", "stress"))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {key: out[key].detach() for key in KEYS if key in out}, gradients


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        assert (found[key] - value).abs().max() < EXACT * scale, key


@needs_operators
def test_energies_forces_stress_and_gradients_equal_stock(pair):
    stock, modified = pair
    products = [m for m in modified.modules() if isinstance(m, TensorProductScatter)]
    assert products
    assert all(isinstance(m, CompiledTensorProductScatter) for m in products)
    data = batch()
    expected, expected_gradients = outputs_and_gradients(stock, data)
    found, gradients = outputs_and_gradients(modified, data)
    assert {"total_energy", "forces", "stress"} <= expected.keys()
    assert_same(found, expected)
    assert expected_gradients
    assert_same(gradients, expected_gradients)


@needs_operators
@pytest.mark.parametrize("l_max, features, kept", [(0, 63, 2), (0, 64, 0), (1, 4, 0)])
def test_few_channels_of_scalars_keep_the_stock_product(l_max, features, kept):
    """The rule of docs/products.md: which product is chosen, not how long it takes."""
    model = compile_products(build("nequip", l_max=l_max, num_layers=2, num_features=features))
    products = [m for m in model.modules() if isinstance(m, TensorProductScatter)]
    compiled = [isinstance(m, CompiledTensorProductScatter) for m in products]
    assert len(products) == 2
    assert compiled.count(False) == kept


@needs_operators
def test_no_edges_at_all(pair):
    lonely = graph(Atoms("CH", [[0, 0, 0], [50.0, 0, 0]]))
    assert lonely["edge_index"].shape == (2, 0)
    stock, modified = pair
    for key in ("total_energy", "forces"):
        assert torch.equal(modified(dict(lonely))[key], stock(dict(lonely))[key])


@needs_operators
def test_state_dicts_are_interchangeable(pair):
    stock, modified = pair
    assert list(modified.state_dict()) == list(stock.state_dict())
    fresh = copy.deepcopy(stock)
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(0.1)
    fresh.load_state_dict(modified.state_dict())
    other = compile_products(copy.deepcopy(fresh))
    other.load_state_dict(stock.state_dict())
    data = batch()
    for model in (fresh, other):
        assert_same(outputs_and_gradients(model, data)[0], outputs_and_gradients(stock, data)[0])


@needs_operators
def test_same_loss_curve():
    data = batch()
    curves = []
    for change in (lambda m: m, compile_products):
        model = change(build("steerable", l_max=2, num_layers=2))
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        losses = []
        for _ in range(6):
            optimiser.zero_grad()
            out = model({key: value.clone() for key, value in data.items()})
            loss = (out["forces"] - 0.3).square().mean() + out["total_energy"].square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < 0.9 * curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-9)


@needs_operators
def test_works_by_name_and_twice():
    model = build("nequip", l_max=1, num_layers=2, num_features=4)
    offered = get_all_modifiers(model)["enable_CompiledTP"]
    assert "C++" in offered.__doc__
    for _ in range(2):
        model = modify(model, [{"modifier": "enable_CompiledTP"}])
    assert sum(isinstance(m, CompiledTensorProductScatter) for m in model.modules()) == 2
    assert model.metadata["nequip_custom_ops_libs"] == OPS_MODULE


@needs_operators
def test_unsupported_products_stay_stock_and_say_so(capfd, monkeypatch):
    monkeypatch.setattr(compiled_modifier, "_notices", set())
    monkeypatch.setattr(compiled_modifier, "why_not", lambda tp: "it has degree 7")
    model = compile_products(build("nequip", l_max=1, num_layers=2, num_features=4))
    assert not any(isinstance(m, CompiledTensorProductScatter) for m in model.modules())
    assert capfd.readouterr().err == (
        "eqplugin: a tensor product stays the stock one, because it has degree 7.\n"
    )


@needs_operators
def test_other_coefficients_stay_stock_and_say_so(capfd, monkeypatch):
    model = build("nequip", l_max=1, num_layers=2, num_features=4)
    tp = next(m.tp for m in model.modules() if isinstance(m, TensorProductScatter))
    stock_forward = tp.forward
    monkeypatch.setattr(compiled_modifier, "_notices", set())
    monkeypatch.setattr(tp, "forward", lambda *inputs: 1.5 * stock_forward(*inputs))
    compile_products(model)
    replaced = [isinstance(m, CompiledTensorProductScatter) for m in model.modules()]
    assert sum(replaced) == 1  # the other layer
    assert "enable_CompiledTP" in get_all_modifiers(model)  # two of one name would be refused
    assert "stays the stock one, because its coefficients" in capfd.readouterr().err


@needs_operators
def test_other_devices_use_the_stock_product(capfd, monkeypatch):
    monkeypatch.setattr(compiled_modifier, "_notices", set())
    module = next(
        m
        for m in compile_products(build("nequip", l_max=1, num_features=4)).modules()
        if isinstance(m, CompiledTensorProductScatter)
    )
    x, y = torch.randn(3, module.feature_irreps_in.dim), torch.randn(4, 4)
    w, edges = torch.randn(4, module.tp.weight_numel), torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
    meta = [t.to("meta") for t in (x, y, w, *edges)]
    for _ in range(2):
        assert module.to("meta")(*meta).shape == (3, module.irreps_mid.dim)
    err = capfd.readouterr().err
    assert err.count("works on the CPU only") == 1
    assert len(err.splitlines()) == 1


class ConvolutionLikeOpenEquivariance(torch.nn.Module):
    """Stands in for OpenEquivariance's, which needs a GPU: its arguments, e3nn's numbers."""

    def __init__(self, problem, *, torch_op, deterministic, use_opaque):
        super().__init__()
        *irreps, instructions = problem["arguments"]
        weights = {"shared_weights": False, "internal_weights": False}
        # in a tuple: like its kernels not a part of the state
        self.tp = (TensorProduct(*irreps, instructions, **weights),)

    def forward(self, x, edge_attr, edge_weight, edge_dst, edge_src):
        messages = self.tp[0](x[edge_src], edge_attr, edge_weight)
        return x.new_zeros(len(x), messages.shape[1]).index_add(0, edge_dst, messages)


def pretend_openequivariance(monkeypatch, convolution):
    def problem(*arguments, irrep_dtype, weight_dtype, **options):
        assert irrep_dtype == weight_dtype == "float64"
        assert options == {"shared_weights": False, "internal_weights": False}
        return {"arguments": arguments}

    package = ModuleType("openequivariance")
    package.TPProblem, package.TensorProductConv = problem, convolution
    package.torch_to_oeq_dtype = lambda dtype: str(dtype).removeprefix("torch.")
    package.__spec__ = ModuleSpec("openequivariance", None)
    monkeypatch.setitem(sys.modules, "openequivariance", package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compiled_modifier, "_notices", set())


@needs_operators
def test_on_a_gpu_openequivariance_does_the_work(capfd, monkeypatch):
    pretend_openequivariance(monkeypatch, ConvolutionLikeOpenEquivariance)
    stock = build("nequip", l_max=2, num_features=4)
    model = compile_products(copy.deepcopy(stock))
    assert list(model.state_dict()) == list(stock.state_dict())
    module = next(m for m in model.modules() if isinstance(m, CompiledTensorProductScatter))
    x, y = torch.randn(3, module.feature_irreps_in.dim), torch.randn(4, 9)
    w, edges = torch.randn(4, module.tp.weight_numel), torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
    found, expected = module.elsewhere(x, y, w, *edges), module(x, y, w, *edges)
    assert_same({"sums": found}, {"sums": expected})
    calls = []
    module.elsewhere.register_forward_hook(lambda *_: calls.append(1))
    module.to("meta")(*(t.to("meta") for t in (x, y, w, *edges)))
    assert calls == [1]
    assert capfd.readouterr().err == ""


@needs_operators
def test_an_openequivariance_that_does_not_work_is_said_and_left_out(capfd, monkeypatch):
    def broken(problem, **options):
        raise RuntimeError("no kernel for this GPU\nmore")

    pretend_openequivariance(monkeypatch, broken)
    model = compile_products(build("nequip", l_max=1, num_features=4))
    found = [m.elsewhere for m in model.modules() if isinstance(m, CompiledTensorProductScatter)]
    assert found
    assert not any(found)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "eqplugin: OpenEquivariance cannot be used on this GPU: no kernel for this GPU"


def test_without_compiler_the_numbers_stay_and_one_line_says_so(capfd, monkeypatch):
    reason = "eqplugin's compiled operators cannot be used: no C++ compiler was found."
    monkeypatch.setattr(compiled_modifier, "_notices", set())
    monkeypatch.setattr(compiled_modifier, "load_operators", lambda: reason)
    stock = build("steerable", l_max=2, num_layers=2)
    for _ in range(2):
        other = modify(copy.deepcopy(stock), [{"modifier": "enable_CompiledTP"}])
    assert not any(isinstance(m, CompiledTensorProductScatter) for m in other.modules())
    assert list(other.state_dict()) == list(stock.state_dict())
    data = batch()
    both = [outputs_and_gradients(model, data) for model in (other, stock)]
    for found, expected in zip(*both, strict=True):
        assert_same(found, expected)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"eqplugin: {reason} The factorised product ")


@needs_operators
@pytest.mark.slow
def test_train_time_compile_equals_eager():
    """NequIP's torch.compile of energies, forces and their gradients, with the operators inside."""
    options = {"l_max": 1, "num_layers": 2, "seed": 1}
    eager = build("steerable", **options)
    compiled = compile_products(build("steerable", compile_mode="compile", **options))
    data = batch()
    expected, expected_gradients = outputs_and_gradients(eager, data)
    found, gradients = outputs_and_gradients(compiled, data)
    assert_same({k: found[k] for k in expected}, expected)
    assert_same(gradients, expected_gradients)


@needs_operators
@pytest.mark.slow
def test_compiled_package_equals_eager_in_a_process_that_never_heard_of_the_operators(tmp_path):
    """AOTInductor, the way nequip-compile and NequIP's calculators go."""
    model = build("steerable", l_max=2, num_layers=2)
    data = COMPILE_TARGET_DICT["ase"]["data_settings"](graph(molecular_crystal()))
    expected = model(dict(data))["forces"].detach()
    export(compile_products(model), data, tmp_path / "model.nequip.pt2")
    torch.save(data, tmp_path / "data.pt")
    code = f"""
        import sys, torch
        from nequip.model.inference_models.aotinductor import load_aotinductor_model
        assert {OPS_MODULE!r} not in sys.modules
        model, _ = load_aotinductor_model({str(tmp_path / "model.nequip.pt2")!r}, "cpu")
        data = torch.load({str(tmp_path / "data.pt")!r})
        torch.save(model(data)["forces"], {str(tmp_path / "forces.pt")!r})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "forces.pt")
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < EXACT


def molecular_crystal():
    rng = np.random.default_rng(1)
    return Atoms("CHOCHOCHO", rng.uniform(0, 4, (9, 3)), cell=np.eye(3) * 4.0, pbc=True)


def export(model, data, path):
    """What nequip-compile does after loading a model."""
    target = COMPILE_TARGET_DICT["ase"]
    metadata = {key: str(value) for key, value in model.metadata.items()}
    metadata["nequip_aoti_inputs"] = " ".join(target["input"])
    metadata["nequip_aoti_outputs"] = " ".join(target["output"])
    dims = {name: torch.export.Dim(f"num_{name}s", min=2) for name in ("node", "edge")}
    aot_export_model(
        model, "cpu", target["input"], target["output"], data,
        {**dims, "graph": torch.export.Dim.STATIC}, str(path), {"aot_inductor.metadata": metadata},
    )  # fmt: skip
    embed_custom_ops_libs(str(path), set(metadata["nequip_custom_ops_libs"].split()))
