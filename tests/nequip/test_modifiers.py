"""Model modifiers: any NequIP model, the same numbers to rounding, the same state dict."""

import copy
import functools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from ase import Atoms
from models_under_test import build, graph
from nequip.data import AtomicDataDict
from nequip.model import modify
from nequip.model.modify_utils import get_all_modifiers
from nequip.nn import InteractionBlock
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.scripts._workflow_utils import set_workflow_state

from eqplugin.errors import EqPluginError
from eqplugin.nequip._stock import find_stock, is_stock
from eqplugin.nequip.compiled_modifier import CompiledTensorProductScatter
from eqplugin.nequip.factorized_modifier import FactorizedTensorProductScatter
from eqplugin.nn.folded_selfconnection import FoldedSelfConnection
from eqplugin.nn.product.compiled import load_operators
from eqplugin.nn.product.paths import gains

TP, FOLD = "enable_FactorizedTP", "enable_FoldedSelfConnection"
COMPILED = "enable_CompiledTP"
FOR_GOOD = "enable_PermanentlyFoldedSelfConnection"
OUTPUTS = (
    AtomicDataDict.TOTAL_ENERGY_KEY,
    AtomicDataDict.PER_ATOM_ENERGY_KEY,
    AtomicDataDict.FORCE_KEY,
    AtomicDataDict.STRESS_KEY,
)
TOLERANCE = 1e-12
R_MAX = 3.0

MODELS = {
    "steerable": ("steerable", {"l_max": 2, "num_layers": 3, "feature_dim": 36}),
    "both parities": (
        "steerable",
        {"l_max": 1, "num_layers": 3, "parity": "both", "feature_dim": 24},
    ),
    "k-hop": (
        "khop",
        {"l_max": 1, "hops": 1, "num_blocks": 2, "contraction": "power", "feature_dim": 16},
    ),
    "stock": (
        "nequip",
        {
            "l_max": 1,
            "parity": True,
            "num_layers": 2,
            "num_features": 4,
            "type_embed_num_features": 16,
        },
    ),
}


@functools.cache
def shared(name):
    """A stock model with its initial weights; copy before changing it."""
    builder, options = MODELS[name]
    shifts = {"C": -3.0, "H": -1.0, "O": -2.0}
    return build(
        builder, **options, r_max=R_MAX, avg_num_neighbors=6.0, per_type_energy_shifts=shifts
    )


def named(modifier):
    """As in a config; these models are too narrow for the fold to choose by itself."""
    return {"modifier": modifier} | ({"smallest": 0} if modifier == FOLD else {})


def modified(name, *modifiers):
    return modify(copy.deepcopy(shared(name)), [named(m) for m in modifiers])


def structures():
    """A cluster, a crystal whose edges lie on the axes, and frames without any edge."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3) * 1.4
    cluster = Atoms("CHOCHOCH", grid + rng.uniform(-0.2, 0.2, grid.shape))
    cluster += Atoms("O", [[20.0, 0.0, 0.0]])  # no neighbour
    crystal = Atoms("CO", [[0, 0, 0], [2.0, 0, 0]], cell=[4.0, 2.0, 2.0], pbc=True)
    alone, apart = Atoms("H", [[0.0, 0.0, 0.0]]), Atoms("CH", [[0.0, 0, 0], [9, 9, 0]])
    for atoms in (cluster, alone, apart):
        atoms.cell = [30.0, 30.0, 30.0]  # a volume, for the stress
    return [cluster, crystal, alone, apart]


@functools.cache
def batch():
    return AtomicDataDict.batched_from_list([graph(atoms, R_MAX) for atoms in structures()])


def outputs_and_gradients(model, data):
    """Outputs, and the gradient of a force-training loss for every weight."""
    model.zero_grad()
    out = model({key: value.clone() for key, value in data.items()})
    loss = sum(out[key].square().sum() for key in OUTPUTS)
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    return {key: out[key].detach() for key in OUTPUTS}, gradients


def assert_same(ours, theirs, tolerance=TOLERANCE):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        scale = max(1.0, value.abs().max().item() if value.numel() else 0.0)
        torch.testing.assert_close(ours[key], value, rtol=0, atol=tolerance * scale, msg=key)


@functools.cache
def expected(name):
    return outputs_and_gradients(copy.deepcopy(shared(name)), batch())


@pytest.mark.parametrize("modifiers", [(TP,), (FOLD,), (TP, FOLD)], ids=" + ".join)
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_weight_gradients_are_those_of_stock(name, modifiers):
    model = modified(name, *modifiers)
    outputs, gradients = outputs_and_gradients(model, batch())
    assert_same(outputs, expected(name)[0])
    assert_same(gradients, expected(name)[1])
    assert outputs[AtomicDataDict.FORCE_KEY].abs().max() > 1e-6
    assert outputs[AtomicDataDict.STRESS_KEY].abs().max() > 1e-9
    products = list(find_stock(model, TensorProductScatter))
    factorized = [isinstance(product, FactorizedTensorProductScatter) for product in products]
    assert factorized == [TP in modifiers and gains(product.tp) for product in products]
    assert any(factorized) == (TP in modifiers)
    connections = [block.sc for block in find_stock(model, InteractionBlock) if block.sc]
    assert {isinstance(sc, FoldedSelfConnection) for sc in connections} == {FOLD in modifiers}


def kinds(model):
    """How many products of each kind a model has."""
    return Counter(type(module) for module in find_stock(model, TensorProductScatter))


@pytest.mark.skipif(load_operators() is not None, reason="no compiled operators here")
@pytest.mark.parametrize(
    "modifiers", [(TP, COMPILED), (COMPILED, TP), (TP, TP, COMPILED)], ids=" + ".join
)
def test_of_two_products_the_faster_one_stays(modifiers):
    together = modified("steerable", *modifiers)
    one_by_one = copy.deepcopy(shared("steerable"))
    for modifier in modifiers:
        one_by_one = modify(one_by_one, [named(modifier)])
    alone = kinds(modified("steerable", COMPILED))
    assert CompiledTensorProductScatter in alone
    assert kinds(together) == kinds(one_by_one) == alone


def test_twice_is_once():
    model = modify(modified("steerable", TP), [named(TP)])
    assert kinds(model) == kinds(modified("steerable", TP))
    ours, theirs = outputs_and_gradients(model, batch()), expected("steerable")
    for mine, others in zip(ours, theirs, strict=True):
        assert_same(mine, others)


@pytest.mark.parametrize("name", ["steerable", "stock"])
def test_graph_without_edges(name):
    data = graph(structures()[3], R_MAX)
    assert data[AtomicDataDict.EDGE_INDEX_KEY].shape == (2, 0)
    ours, _ = outputs_and_gradients(modified(name, TP, FOLD), data)
    theirs, _ = outputs_and_gradients(copy.deepcopy(shared(name)), data)
    assert_same(ours, theirs)


def test_permanent_fold_is_the_same_function_without_those_weights():
    model = modified("steerable", FOLD, FOR_GOOD)
    out = model(dict(batch()))
    assert_same({key: out[key].detach() for key in OUTPUTS}, expected("steerable")[0])
    left = {name for name, _ in model.named_parameters()}
    gone = {name for name, _ in shared("steerable").named_parameters()} - left
    assert gone
    assert all(name.endswith("conv.sc.weight") for name in gone)


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_goes_both_ways(name):
    stock, model = copy.deepcopy(shared(name)), modified(name, TP, FOLD)
    assert list(model.state_dict()) == list(stock.state_dict())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    stock.load_state_dict(model.state_dict())
    theirs, _ = outputs_and_gradients(stock, batch())
    ours, _ = outputs_and_gradients(model, batch())
    assert_same(ours, theirs)
    model.load_state_dict(shared(name).state_dict())
    ours, _ = outputs_and_gradients(model, batch())
    assert_same(ours, expected(name)[0])


def test_copies_are_independent():
    model = modified("steerable", TP, FOLD)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    ours, _ = outputs_and_gradients(model, batch())
    assert_same(ours, expected("steerable")[0])


def test_node_attributes_are_given_back():
    before = shared("steerable")(dict(batch()))[AtomicDataDict.NODE_ATTRS_KEY]
    out = modified("steerable", FOLD)(dict(batch()))
    torch.testing.assert_close(out[AtomicDataDict.NODE_ATTRS_KEY], before, rtol=0, atol=0)
    assert not [key for key in out if key.startswith("_")]


@pytest.mark.parametrize("features, kept", [(15, 1), (16, 0)])
def test_narrow_last_layers_keep_the_stock_product(features, kept):
    """The rule of docs/products.md: which product is chosen, not how long it takes."""
    # the last layer makes 0e alone: 4 paths from the degrees 0..3 with as many channels each
    model = build("nequip", l_max=3, parity=False, num_layers=3, num_features=features)
    modify(model, [{"modifier": TP}])
    assert kinds(model)[FactorizedTensorProductScatter] == 3 - kept
    stock = [m for m in find_stock(model, TensorProductScatter) if type(m) is TensorProductScatter]
    assert len(stock) == kept
    assert all(product.irreps_mid.lmax == 0 for product in stock)


def test_scalar_models_keep_the_stock_product():
    model = build("steerable", l_max=0, num_layers=2, feature_dim=8)
    modify(model, [{"modifier": TP}])
    assert kinds(model) == {TensorProductScatter: 2}


# ---- where they are offered


def test_narrow_self_connections_stay_stock():
    model = modify(copy.deepcopy(shared("steerable")), [{"modifier": FOLD}])
    connections = [block.sc for block in find_stock(model, InteractionBlock) if block.sc]
    assert connections
    assert not any(isinstance(sc, FoldedSelfConnection) for sc in connections)
    wide = build("steerable", l_max=1, num_layers=2, feature_dim=256)
    modify(wide, [{"modifier": FOLD}])
    connections = [block.sc for block in find_stock(wide, InteractionBlock) if block.sc]
    assert any(isinstance(sc, FoldedSelfConnection) for sc in connections)


def test_every_nequip_model_offers_them_by_name():
    offered = get_all_modifiers(shared("stock"))
    assert {TP, FOLD, FOR_GOOD} <= offered.keys()
    for name in (TP, FOLD, FOR_GOOD):
        assert "exact" in offered[name].__doc__ or "deployment" in offered[name].__doc__
    assert TP not in get_all_modifiers(torch.nn.Linear(1, 1))


def test_modules_of_a_package_are_recognised():
    packaged = type(
        "TensorProductScatter",
        (torch.nn.Module,),
        {"__module__": "<torch_package_3>.nequip.nn._tp_scatter_base"},
    )()
    assert is_stock(packaged, TensorProductScatter)
    assert not is_stock(packaged, InteractionBlock)
    other = type("TensorProductScatter", (torch.nn.Module,), {"__module__": "other.nn"})()
    assert not is_stock(other, TensorProductScatter)
    assert TP in get_all_modifiers(torch.nn.Sequential(packaged))


@pytest.mark.parametrize("first", ["eqplugin", "nequip"])
def test_offered_whatever_is_imported_first_and_importing_stays_light(first):
    code = (
        f"import {first}, sys\n"
        "assert 'eqplugin' in sys.modules and 'eqplugin.nequip' not in sys.modules\n"
        f"assert {first!r} == 'nequip' or 'torch' not in sys.modules\n"
        "import nequip.model\n"
        "from nequip.nn import InteractionBlock\n"
        f"assert InteractionBlock.{FOLD}\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


# ---- refusals


def embedding_a_field():
    from nequip.data import register_fields

    register_fields(graph_fields=["charge_state"])
    field = {"field": "charge_state", "num_features": 2, "min": 0, "max": 3}
    return build(
        "nequip",
        l_max=1,
        num_layers=2,
        num_features=4,
        type_embed_num_features=16,
        categorical_graph_field_embed=[field],
    )


def test_attributes_that_hold_more_than_the_type_are_refused():
    with pytest.raises(EqPluginError, match=r"atom type alone.*also embed charge_state"):
        modify(embedding_a_field(), [{"modifier": FOLD}])


def test_appended_attributes_are_refused():
    model = copy.deepcopy(shared("steerable"))
    for block in find_stock(model, InteractionBlock):
        irreps = block.irreps_in[AtomicDataDict.NODE_ATTRS_KEY]
        block.irreps_in[AtomicDataDict.NODE_ATTRS_KEY] = irreps + irreps
    with pytest.raises(EqPluginError, match=r"atom type alone.*appends"):
        modify(model, [{"modifier": FOLD}])


def test_permanent_fold_is_refused_in_training(capsys):
    set_workflow_state("train")
    try:
        with pytest.raises(SystemExit, match="train with enable_FoldedSelfConnection"):
            modified("steerable", FOR_GOOD)
    finally:
        set_workflow_state(None)


# ---- train-time compile


@pytest.mark.slow
def test_train_time_compile_traces_them(monkeypatch):
    # the traces and derivatives of train-time compile, without minutes of C++ code generation
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    options = {"l_max": 2, "num_layers": 2, "feature_dim": 18, "r_max": R_MAX}
    model = build("steerable", **options, compile_mode="compile")
    modify(model, [named(TP), named(FOLD)])
    stock = build("steerable", **options)
    stock.load_state_dict(model.state_dict())
    outputs, gradients = outputs_and_gradients(model, batch())
    assert model._compiled_cache[0]  # not the eager way, which single frames take
    theirs, their_gradients = outputs_and_gradients(stock, batch())
    assert_same(outputs, theirs)
    assert_same(gradients, their_gradients)
