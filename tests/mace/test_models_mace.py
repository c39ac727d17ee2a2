"""The two MACE families: exact dimensions, symmetries, equality with stock MACE, files."""

import copy
import io

import numpy as np
import pytest
import torch
from ase import Atoms
from e3nn.o3 import Irreps
from mace.modules import ScaleShiftMACE
from mace_under_test import (
    RESIDUAL,
    evaluate,
    graph,
    khop,
    molecule,
    random_rotation,
    steerable,
    stock,
    without_eqplugin,
)

from eqplugin.design import DesignError
from eqplugin.mace.models import KHopInvariantMACE, SteerableMACE, as_family, as_stock
from eqplugin.mace.plan import design_of

DENSITY = "RealAgnosticDensityResidualInteractionBlock"
NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"
WIDE = {"r_max": 4.0, "avg_num_neighbors": 6.0}


def layer_irreps(model):
    return [str(product.linear.irreps_out) for product in model.products]


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---- dimensions


@pytest.mark.parametrize(
    "dim, degree, expected",
    [
        (512, 2, "64x0e+56x1o+56x2e"),
        (128, 1, "32x0e+32x1o"),
        (20, 2, "4x0e+2x1o+2x2e"),
        (7, 0, "7x0e"),
    ],
)
def test_feature_dimension_is_met_exactly_between_layers(dim, degree, expected):
    model = steerable(feature_dim=dim, max_L=degree, num_interactions=3, radial_MLP=[4])
    scalars = expected.split("+")[0]
    assert layer_irreps(model) == [expected, expected, scalars]
    features = evaluate(model, molecule(), forces=False)["node_feats"]
    assert features.shape == (9, 2 * dim + Irreps(scalars).dim)


def test_resets_stand_after_every_hth_product():
    model = khop(2, feature_dim=20, max_L=1, num_interactions=5, max_ell=1)
    full = "5x0e+5x1o"
    assert layer_irreps(model) == [full, "5x0e", full, "5x0e", "5x0e"]


def test_reset_width_and_channels():
    model = khop(2, feature_dim=20, max_L=2, num_interactions=4, reset_width=20, num_channels=3)
    assert layer_irreps(model)[1] == "20x0e"
    assert model.products[0].symmetric_contractions.irreps_out == Irreps("3x0e+3x1o+3x2e")
    assert evaluate(model, molecule())["forces"].abs().max() > 1e-6


def test_parity_is_dropped_with_use_so3():
    model = steerable(feature_dim=20, max_L=2, use_so3=True, **WIDE)
    assert layer_irreps(model)[0] == "4x0e+2x1e+2x2e"
    check_symmetries(model, inversion=False)


# ---- the same as stock MACE where stock MACE can follow


@pytest.mark.parametrize("interaction", [RESIDUAL, DENSITY, NONLINEAR])
def test_equal_channels_give_stock_mace(interaction):
    choice = {"interaction_cls": interaction, "num_interactions": 3, **WIDE}
    ours = steerable(feature_dim=32, max_L=1, **choice)
    theirs = stock("8x0e+8x1o", **choice)
    assert same_weights(ours, theirs)
    for key in ("energy", "forces", "node_feats"):
        assert torch.equal(evaluate(ours, molecule())[key], evaluate(theirs, molecule())[key])


@pytest.mark.parametrize("first", ["RealAgnosticInteractionBlock", RESIDUAL])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_one_hop_is_mace_with_scalars_alone(layers, first):
    choice = {"num_interactions": layers, "interaction_cls_first": first, **WIDE}
    ours = khop(1, feature_dim=32, max_L=1, **choice)
    theirs = stock("8x0e", **choice)
    assert same_weights(ours, theirs)
    for key in ("energy", "forces"):
        assert torch.equal(evaluate(ours, molecule())[key], evaluate(theirs, molecule())[key])


def test_never_resetting_is_the_steerable_model():
    choice = {"feature_dim": 20, "max_L": 1, "num_interactions": 3}
    assert same_weights(khop(None, **choice), steerable(**choice))
    assert not same_weights(khop(2, **choice), steerable(**choice))


# ---- symmetries


def check_symmetries(model, inversion=True):
    atoms = molecule()
    start = evaluate(model, atoms)
    assert start["forces"].abs().max() > 1e-4
    turn = random_rotation(1)
    for matrix in [turn, -turn][: 1 + inversion]:
        moved = Atoms(atoms.symbols, atoms.positions @ matrix.T + [0.3, -0.2, 0.1])
        out = evaluate(model, moved)
        assert abs(out["energy"] - start["energy"]).item() < 1e-10
        turned = start["forces"] @ torch.tensor(matrix).T
        assert (out["forces"] - turned).abs().max() < 1e-10
    order = np.random.default_rng(0).permutation(len(atoms))
    out = evaluate(model, atoms[order])
    assert abs(out["energy"] - start["energy"]).item() < 1e-10
    assert (out["forces"] - start["forces"][order]).abs().max() < 1e-10


@pytest.mark.parametrize(
    "model",
    [
        lambda: steerable(feature_dim=20, max_L=2, correlation=3, **WIDE),
        lambda: steerable("6x0e+3x1o", interaction_cls_first=RESIDUAL, **WIDE),
        lambda: steerable("4x0e+2x0o+3x1o+2x1e", **WIDE),
        lambda: steerable("6x0e+3x1o", interaction_cls=NONLINEAR, **WIDE),
        lambda: khop(2, "6x0e+3x1o+2x2e", num_interactions=4, **WIDE),
        lambda: khop(2, "6x0e+3x1o", num_interactions=3, interaction_cls=DENSITY, **WIDE),
        lambda: khop(2, "6x0e+3x1o", num_interactions=3, edge_irreps=Irreps("4x0e+4x1o"), **WIDE),
    ],
)
def test_rotation_inversion_permutation(model):
    check_symmetries(model())


def test_forces_are_minus_the_gradient():
    model, atoms, step = khop(2, "6x0e+3x1o", num_interactions=3, **WIDE), molecule(), 1e-4
    forces = evaluate(model, atoms)["forces"]
    for atom, axis in [(0, 0), (4, 2)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(evaluate(model, moved)["interaction_energy"].item())
        slope = (energies[0] - energies[1]) / (2 * step)
        assert abs(slope + forces[atom, axis].item()) < 1e-7


def test_an_isolated_atom_has_its_e0():
    model = khop(2, "6x0e+3x1o", num_interactions=4)
    assert evaluate(model, Atoms("C", [[0, 0, 0]]))["energy"].item() == pytest.approx(-1029.0)


def test_two_heads_answer_differently():
    energies = np.array([[-13.0, -1029.0, -2042.0], [-1.0, -2.0, -3.0]])
    model = steerable(
        feature_dim=20,
        max_L=2,
        heads=["first", "second"],
        atomic_energies=energies,
        atomic_inter_scale=[1.0, 2.0],
        atomic_inter_shift=[0.0, 0.0],
    )
    batch = graph(molecule(), model)
    forces = []
    for head in (0, 1):
        batch["head"] = torch.tensor([head])
        forces.append(model(batch)["forces"])
    assert (forces[0] - forces[1]).abs().max() > 1e-4


# ---- files and copies


def test_saved_file_needs_no_eqplugin_and_gives_the_same_numbers(tmp_path):
    from ase.io import write

    model = khop(2, "6x0e+3x1o", num_interactions=3, correlation=3, **WIDE)
    atoms = molecule()
    torch.save(model, tmp_path / "khop.model")
    write(tmp_path / "atoms.json", atoms)
    code = """
import torch
from ase.io import read
from mace.calculators import MACECalculator
calculator = MACECalculator(model_paths=sys.argv[1], device="cpu", default_dtype="float64")
atoms = read(sys.argv[2])
atoms.calc = calculator
print(type(calculator.models[0]).__module__, repr(atoms.get_potential_energy()))
print([[float(x) for x in row] for row in atoms.get_forces()])
"""
    printed = without_eqplugin(code, tmp_path / "khop.model", tmp_path / "atoms.json")
    first, second = printed.strip().splitlines()[-2:]
    module, found = first.split()
    out = evaluate(model, atoms)
    assert module == "mace.modules.models"
    assert abs(float(found) - out["energy"].item()) < 1e-9  # of 1e4 eV
    assert np.abs(np.array(eval(second)) - out["forces"].numpy()).max() < 1e-12


def test_the_helper_really_blocks_eqplugin():
    with pytest.raises(AssertionError, match="eqplugin"):
        without_eqplugin("import eqplugin.design")


def test_class_survives_copies_and_returns_after_loading():
    model = khop(2, "6x0e+3x1o", num_interactions=3)
    assert type(copy.deepcopy(model)) is KHopInvariantMACE
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded) is ScaleShiftMACE
    assert design_of(loaded) == design_of(model)
    assert type(as_family(loaded)) is KHopInvariantMACE
    assert same_weights(loaded, model)
    assert torch.equal(
        evaluate(as_stock(model), molecule())["forces"], evaluate(model, molecule())["forces"]
    )


def test_a_copy_is_independent():
    model = steerable("4x0e+2x1o")
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    assert not same_weights(model, other)


# ---- refusals


@pytest.mark.parametrize(
    "choice, culprit",
    [
        ({"feature_dim": 8, "max_L": 2}, "feature_dim=8"),
        ({"feature_dim": 0, "max_L": 0}, "feature_dim=0"),
        ({"feature_dim": 32, "max_L": -1}, "l_max=-1 .*max_L in MACE"),
        ({"feature_dim": 32}, "max_L"),
        ({"max_L": 1}, "feature_dim"),
        ({"feature_dim": 64, "max_L": 3}, "max_ell=2"),
        ({"feature_dim": 32, "max_L": 1, "num_channels": 0}, "num_channels=0"),
        (
            {"feature_dim": 32, "max_L": 1, "num_interactions": 0},
            "num_layers=0 .*num_interactions in MACE",
        ),
        ({"feature_dim": 32, "max_L": 1, "hidden_irreps": "8x0e"}, "not both"),
        ({"hidden_irreps": "8x1o"}, "no scalars"),
        ({"hidden_irreps": "eight"}, "'eight'"),
        ({"feature_dim": 32, "max_L": 1, "cueq_config": object()}, "cueq_config"),
        ({"feature_dim": 32, "max_L": 1, "oeq_config": object()}, "oeq_config"),
    ],
)
def test_impossible_models_are_refused_in_one_sentence(choice, culprit):
    with pytest.raises(DesignError, match=culprit) as caught:
        steerable(**choice)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hops", [0, -1, 3, 1.5, True])
def test_impossible_hops_are_refused(hops):
    with pytest.raises(DesignError, match=f"hops={hops}"):
        khop(hops, "4x0e+2x1o", num_interactions=2)


def test_classes_are_scale_shift_mace():
    assert issubclass(SteerableMACE, ScaleShiftMACE)
    assert SteerableMACE.forward is ScaleShiftMACE.forward
    assert KHopInvariantMACE.forward is ScaleShiftMACE.forward
