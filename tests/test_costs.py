"""Counted costs against built models."""

import pytest
import torch
from ase.build import bulk
from nequip.data import from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.nn import InteractionBlock
from nequip.utils.global_state import set_global_state

from eqplugin.costs import NequIPOptions, count_costs, match_parameters
from eqplugin.design import Design, DesignError
from eqplugin.nequip import KHopInvariantModel, SteerableModel
from eqplugin.nn.contraction import InvariantContraction

COMMON = {
    "seed": 0,
    "model_dtype": "float64",
    "type_names": ["H", "C", "O"],
    "r_max": 4.0,
    "avg_num_neighbors": 10.0,
}


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    set_global_state()
    yield
    torch.set_default_dtype(before)


def modules(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def numel(*parts):
    return sum(p.numel() for part in parts if part is not None for p in part.parameters())


def compare(model, cost):
    blocks = modules(model, InteractionBlock)
    assert cost.total == numel(model)
    assert cost.radial == sum(numel(b.edge_mlp) for b in blocks)
    assert cost.linear == sum(numel(b.linear_1, b.linear_2) for b in blocks)
    assert cost.self_connection == sum(numel(b.sc) for b in blocks)
    assert cost.contraction == numel(*modules(model, InvariantContraction))
    assert cost.paths == max(len(b.tp_scatter.instructions) for b in blocks)
    assert cost.radial_outputs == max(b.tp_scatter.tp.weight_numel for b in blocks)


@pytest.mark.parametrize("parity", ["natural", "both"])
@pytest.mark.parametrize("l_max", [0, 1, 2, 3, pytest.param(6, marks=pytest.mark.slow)])
def test_steerable_counts_equal_the_built_model(l_max, parity):
    model = SteerableModel(feature_dim=100, l_max=l_max, parity=parity, num_layers=3, **COMMON)
    compare(model, count_costs(Design(100, l_max, parity=parity, num_layers=3)))


@pytest.mark.parametrize("reset_width", [None, 30])
@pytest.mark.parametrize(
    "l_max, parity, hops, contraction",
    [
        (0, "natural", 1, "power"),
        (1, "natural", 2, "bispectrum"),
        (2, "natural", 1, "bispectrum"),
        (2, "both", 2, "bispectrum"),
        (3, "natural", 2, "power"),
        (2, "natural", None, "bispectrum"),
        (1, "natural", 1, "drop"),
    ],
)
def test_khop_counts_equal_the_built_model(l_max, parity, hops, contraction, reset_width):
    options = {"hops": hops, "contraction": contraction, "reset_width": reset_width}
    model = KHopInvariantModel(
        feature_dim=60, l_max=l_max, parity=parity, num_layers=2, **options, **COMMON
    )
    cost = count_costs(Design(60, l_max, parity=parity, num_layers=2, **options))
    compare(model, cost)


def test_counts_follow_the_rest_of_the_architecture():
    options = {"type_embed_num_features": 7, "radial_mlp_depth": 2, "radial_mlp_width": 11}
    model = SteerableModel(
        feature_dim=40, l_max=1, num_layers=2, num_bessels=5, **options, **COMMON
    )
    compare(
        model,
        count_costs(Design(40, 1, num_layers=2), NequIPOptions(num_bessels=5, **options)),
    )


@pytest.mark.parametrize("feature_dim, hops", [(96, None), (512, None), (512, 1), (512, 2)])
def test_matched_parameters_agree_within_two_percent(feature_dim, hops):
    reference = Design(feature_dim, 1, hops=hops)
    matched = match_parameters(reference, range(7))
    totals = [count_costs(design).total for design in matched]
    assert max(totals) <= 1.02 * min(totals)
    assert [design.l_max for design in matched] == list(range(7))
    assert matched[1] == reference


def test_parameters_out_of_reach_are_refused():
    with pytest.raises(DesignError, match="closest"):
        match_parameters(Design(4, 0), [4])


def test_hops_that_do_not_divide_the_layers_are_refused():
    with pytest.raises(DesignError, match="multiple of hops=3"):
        Design(64, 1, hops=3, contraction="power")


@pytest.mark.parametrize("feature_dim, l_max", [(128, 1), (128, 3), (512, 2)])
def test_predicted_memory_is_good_to_forty_percent(feature_dim, l_max):
    """Unique bytes that autograd keeps for a training step on forces, per edge."""
    set_global_state()
    crystal = bulk("Cu", cubic=True) * (2, 2, 2)
    crystal.rattle(0.1, seed=1)
    types = ["H", "C", "Cu"]
    mapper = ChemicalSpeciesToAtomTypeMapper(types, {t: t for t in types})
    data = NeighborListTransform(r_max=4.8)(mapper(from_ase(crystal)))
    model = SteerableModel(
        feature_dim=feature_dim, l_max=l_max, **{**COMMON, "type_names": types, "r_max": 4.8,
                                                 "model_dtype": "float32"},
    )  # fmt: skip
    kept = {}

    def pack(tensor):
        # the tensor itself is kept too, so that its address is not used again
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model({key: value.clone() for key, value in data.items()})["forces"].square().sum()
    measured = sum(size for size, _ in kept.values()) / data["edge_index"].shape[1]
    predicted = count_costs(Design(feature_dim, l_max)).training_bytes_per_edge()
    assert predicted == pytest.approx(measured, rel=0.4)
