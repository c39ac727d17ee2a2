"""EqCalculator with MACE models, stock and ours, against MACECalculator."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from mace.calculators import MACECalculator
from mace_under_test import khop, redraw, steerable, stock

from eqplugin import EqCalculator
from eqplugin.calculator import StressError
from eqplugin.errors import EqPluginError
from eqplugin.exchange import default_dtype

IRREPS = "8x0e+8x1o"
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def _bulk():
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.numbers[::3] = 8
    return atoms


STRUCTURES = {
    "molecule": lambda: molecule("CH3CH2OH"),
    "bulk": _bulk,
    "slab": lambda: Atoms(_bulk(), cell=[3.6, 3.6, 15.0], pbc=[True, True, False]),
    "wire": lambda: Atoms(
        "COH", [[0, 0, 0], [0.3, 1.2, 0.9], [0.1, 0.4, 2.0]], cell=[0, 0, 3.1], pbc=[0, 0, 1]
    ),
    "tiny cell": lambda: Atoms("CO", [[0, 0, 0], [0.7, 0.8, 0.9]], cell=[1.9, 2.0, 2.1], pbc=True),
    "one atom": lambda: Atoms("O"),
    "two atoms out of reach": lambda: Atoms("OH", [[0, 0, 0], [20, 0, 0]]),
}


def structure(name, seed=0):
    atoms = STRUCTURES[name]()
    atoms.positions += np.random.default_rng(seed).normal(scale=0.04, size=(len(atoms), 3))
    return atoms


def built(kind, dtype="float64", seed=0):
    build = {"stock": lambda: stock(IRREPS), "steerable": lambda: steerable("9x0e+8x1o"),
             "khop": lambda: khop(1, IRREPS)}  # fmt: skip
    model = build[kind]()
    redraw(model, seed)
    return model.to(getattr(torch, dtype))


def theirs(model):
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return MACECalculator(models=copy.deepcopy(model), default_dtype=dtype)


def evaluate(atoms, calculator, keys=("energy", "energies", "forces", "stress")):
    atoms = atoms.copy()
    return {key: np.array(calculator.get_property(key, atoms)) for key in keys}


def assert_same(found, expected, tolerance):
    for key, value in found.items():
        scale = max(1.0, np.abs(expected[key]).max())
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["stock", "steerable", "khop"])
def test_numbers_are_those_of_macecalculator(kind, dtype):
    model = built(kind, dtype)
    mine, none, reference = EqCalculator(model), EqCalculator(model, skin=0), theirs(model)
    for name in STRUCTURES:
        atoms = structure(name)
        keys = ["energy", "energies", "forces"] + ["stress"] * bool(atoms.pbc.all())
        for step in range(3):
            atoms.rattle(0.05, seed=step)
            expected = evaluate(atoms, reference, keys)
            assert_same(evaluate(atoms, mine, keys), expected, TOLERANCE[dtype])
            for key, value in evaluate(atoms, none, keys).items():
                np.testing.assert_array_equal(value, evaluate(atoms, mine, keys)[key])
        if name == "bulk":
            assert np.abs(expected["forces"]).max() > 1e-2  # not a comparison of zeros


def test_the_stress_of_a_slab_is_over_its_own_cell():
    model, atoms, step = built("stock"), structure("slab"), 1e-4
    calculator = EqCalculator(model)
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ np.diag([1 + sign * step, 1, 1]), scale_atoms=True)
        energies.append(calculator.get_property("energy", strained))
    expected = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    assert calculator.get_property("stress", atoms)[0] == pytest.approx(expected, rel=1e-5)
    # MACECalculator's as well, where MACE is repaired
    reference = theirs(model).get_property("stress", atoms)
    assert calculator.get_property("stress", atoms) == pytest.approx(reference, rel=1e-6)


def test_files(tmp_path):
    for kind in ("stock", "khop"):
        model = built(kind)
        path = tmp_path / f"{kind}.model"
        torch.save(model, path)
        atoms = structure("bulk")
        assert_same(evaluate(atoms, EqCalculator(path)), evaluate(atoms, theirs(model)), 1e-10)
    (tmp_path / "broken.model").write_bytes(b"PK not really")
    with pytest.raises(EqPluginError, match=r"broken\.model cannot be read as a MACE model"):
        EqCalculator(tmp_path / "broken.model")


def test_precision_can_be_chosen():
    atoms, model = structure("bulk"), built("stock", "float32")
    exact = EqCalculator(model, dtype="float64")
    assert exact.backends[0].dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32
    assert_same(evaluate(atoms, EqCalculator(model)), evaluate(atoms, exact), 1e-5)


def test_energies_are_summed_in_float64():
    atoms = structure("bulk").repeat((2, 2, 1))
    model = built("stock", "float32")
    exact = evaluate(atoms, EqCalculator(model, dtype="float64"))["energy"]
    mine = abs(evaluate(atoms, EqCalculator(model))["energy"] - exact)
    assert mine < 1e-4 < abs(np.spacing(np.float32(exact)))  # float32 cannot even write it down


def test_committee():
    models = [built("stock", seed=seed) for seed in range(3)]
    atoms = structure("bulk")
    found, reference = EqCalculator(models), MACECalculator(models=models, default_dtype="float64")
    keys = ["energy", "forces", "stress", "energy_var", "forces_comm"]
    assert_same(evaluate(atoms, found, keys), evaluate(atoms, reference, keys), 1e-9)
    assert found.results["forces_var"].max() > 0


def test_descriptors_are_those_of_macecalculator():
    atoms = structure("molecule")
    model = built("stock")
    expected = theirs(model).get_descriptors(atoms)
    np.testing.assert_allclose(EqCalculator(model).get_descriptors(atoms), expected, atol=1e-12)
    turned = atoms.copy()
    turned.rotate(50, (1, 2, 3))
    np.testing.assert_allclose(EqCalculator(model).get_descriptors(turned), expected, atol=1e-10)


def of_two_heads():
    model = stock(IRREPS, heads=["first", "second"],
                  atomic_energies=np.array([[-13.0, -1029.0, -2042.0], [-1.0, -2.0, -3.0]]),
                  atomic_inter_scale=[1.0, 2.0], atomic_inter_shift=[0.0, 0.1])  # fmt: skip
    redraw(model, 0)
    return model


def test_heads():
    model, atoms = of_two_heads(), structure("molecule")
    for head in ("first", "second"):
        reference = MACECalculator(models=copy.deepcopy(model), default_dtype="float64", head=head)
        found = evaluate(atoms, EqCalculator(model, head=head), ["energy", "forces"])
        assert_same(found, evaluate(atoms, reference, ["energy", "forces"]), 1e-10)
    with pytest.raises(EqPluginError, match="several heads: set head to one of first, second"):
        EqCalculator(model)
    with pytest.raises(EqPluginError, match="has no head 'third': it has first, second"):
        EqCalculator(model, head="third")


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_heads_in_any_default_dtype(dtype, default):
    model, atoms = of_two_heads(), structure("molecule")
    expected = evaluate(atoms, EqCalculator(model, head="first"), ["energy", "forces"])
    with default_dtype(default):
        calculator = EqCalculator(model, head="first", dtype=dtype)
        found = evaluate(atoms, calculator, ["energy", "forces"])
    assert_same(found, expected, 1e-10 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "aoti"}, "it is for NequIP models, and a MACE model runs eagerly"),
        ({"modifiers": ["enable_OpenEquivariance"]}, "they are for NequIP models"),
        ({"species_to_type": {"H": "H"}}, "a MACE model knows its elements"),
    ],
)
def test_options_for_the_other_stack(options, message):
    with pytest.raises(EqPluginError, match=message):
        EqCalculator(built("stock"), **options)


def test_mistakes_are_sentences():
    calculator = EqCalculator(built("stock"))
    with pytest.raises(EqPluginError, match=r"does not know Cu \(atom 0\)"):
        calculator.get_property("forces", Atoms("Cu"))
    with pytest.raises(EqPluginError, match="have the same position"):
        calculator.get_property("forces", Atoms("OC"))
    with pytest.raises(StressError):
        calculator.get_property("stress", structure("molecule"))


def test_a_copy_runs():
    model = built("stock").train()
    before = evaluate(structure("bulk"), calculator := EqCalculator(model))
    redraw(model, 5)
    calculator.reset()
    np.testing.assert_array_equal(
        evaluate(structure("bulk"), calculator)["forces"], before["forces"]
    )
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
