"""EqCalculator against NequIP's own calculator, against finite differences, and against itself."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from calculators_under_test import (
    R_MAX,
    STRUCTURES,
    TOLERANCE,
    assert_same,
    build,
    evaluate,
    random_structure,
    shared,
    stock,
    structure,
    walk,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import eqplugin
from eqplugin import EqCalculator
from eqplugin.calculator import StressError

ZBL = {
    "_target_": "nequip.nn.pair_potential.ZBL",
    "chemical_species": ["H", "C", "O"],
    "units": "metal",
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_numbers_are_those_of_nequips_calculator(name, dtype):
    model = shared(dtype)
    mine, none, theirs = EqCalculator(model), EqCalculator(model, skin=0), stock(model)
    for atoms in walk(structure(name), steps=3):
        expected = evaluate(atoms, theirs)
        assert_same(evaluate(atoms, mine), expected, TOLERANCE[dtype])
        assert_same(evaluate(atoms, none), expected, TOLERANCE[dtype])
    if name == "bulk":
        assert np.abs(expected["forces"]).max() > 0.1  # not a comparison of zeros


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), atoms=st.integers(1, 7), size=st.floats(2.5, 8.0))
def test_any_structure_agrees_with_nequips_calculator(seed, atoms, size):
    found = random_structure(np.random.default_rng(seed), atoms, size, closest=0.3)
    model = shared()
    expected = evaluate(found, stock(model))
    assert_same(evaluate(found, EqCalculator(model)), expected, 1e-10)


@pytest.mark.parametrize("name", ["molecule", "bulk", "slab"])
def test_dynamics_is_bitwise_that_without_a_skin(name):
    ends = []
    for skin in (0.0, 0.6):
        atoms = structure(name)
        calculator = EqCalculator(shared("float32"), skin=skin)
        atoms.calc = calculator
        thermalize_momenta(atoms, 800, rng=np.random.default_rng(0))
        VelocityVerlet(atoms, timestep=1.0 * units.fs).run(25)
        ends.append((atoms.positions, atoms.get_forces(), atoms.get_potential_energy()))
    for without, with_skin in zip(*ends, strict=True):
        np.testing.assert_array_equal(without, with_skin)
    assert calculator.neighbors.searches < 20


@pytest.mark.parametrize("library", ["matscipy", "nvalchemi"])
def test_no_number_depends_on_the_library(library):
    atoms = structure("cell smaller than the cutoff")
    found = evaluate(atoms, EqCalculator(shared(), neighbors=library))
    for key, value in evaluate(atoms, EqCalculator(shared(), neighbors="vesin")).items():
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("name", ["molecule", "bulk", "cell smaller than the cutoff"])
def test_forces_and_stress_are_derivatives_of_the_energy(name):
    atoms, step = structure(name), 1e-4
    atoms.calc = EqCalculator(shared())
    forces = atoms.get_forces()

    def energy(move):
        moved = atoms.copy()
        move(moved)
        moved.calc = atoms.calc
        return moved.get_potential_energy()

    for axis in range(3):

        def push(moved, by, axis=axis):
            moved.positions[1, axis] += by

        slope = energy(lambda m: push(m, step)) - energy(lambda m: push(m, -step))
        assert forces[1, axis] == pytest.approx(-slope / (2 * step), abs=1e-6)
    if not atoms.pbc.all():
        return
    atoms.calc.reset()
    stress = atoms.get_stress(voigt=False)
    for a, b in ((0, 0), (1, 2)):
        slope = 0.0
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            cell = atoms.cell.array @ strain
            slope += sign * energy(lambda m, cell=cell: m.set_cell(cell, scale_atoms=True))
        expected = slope / (2 * step) / atoms.get_volume()
        assert stress[a, b] == pytest.approx(expected, abs=1e-6)


def test_results_do_not_depend_on_wrapping_or_order():
    atoms = structure("atoms outside the cell")
    calculator = EqCalculator(shared())
    expected = evaluate(atoms, calculator)
    wrapped = atoms.copy()
    wrapped.wrap()
    assert_same(evaluate(wrapped, calculator), expected, 1e-11)
    order = np.random.default_rng(0).permutation(len(atoms))
    shuffled = evaluate(atoms[order], calculator)
    np.testing.assert_allclose(shuffled["forces"], expected["forces"][order], atol=1e-11)


def test_an_isolated_atom_has_its_shift():
    for atoms in (Atoms("O"), Atoms("O", cell=[30, 30, 30], pbc=True)):
        assert evaluate(atoms, EqCalculator(shared()))["energy"] == pytest.approx(-2042.0)


def test_cutoffs_per_pair_of_types():
    model = build(per_edge_type_cutoff={"H": 2.0, "C": {"H": 2.5, "C": 3.5, "O": 3.0}, "O": R_MAX})
    atoms = structure("molecule in a periodic box")
    assert_same(evaluate(atoms, EqCalculator(model)), evaluate(atoms, stock(model)), 1e-10)
    without = evaluate(atoms, EqCalculator(shared()))
    assert abs(without["energy"] - evaluate(atoms, EqCalculator(model))["energy"]) > 1e-3


def test_pair_potential():
    model = build(pair_potential=ZBL)
    atoms = structure("bulk")
    assert_same(evaluate(atoms, EqCalculator(model)), evaluate(atoms, stock(model)), 1e-10)


def test_types_that_are_not_symbols():
    mapping = {"H": "proton", "C": "carbon", "O": "oxygen"}
    model = build(
        type_names=list(mapping.values()),
        per_type_energy_shifts={"proton": -1.0, "carbon": -2.0, "oxygen": -3.0},
    )
    atoms = structure("molecule")
    found = evaluate(atoms, EqCalculator(model, species_to_type=mapping))
    assert_same(found, evaluate(atoms, stock(model, mapping)), 1e-10)


def test_models_that_take_positions_only(monkeypatch):
    # as those packaged by earlier versions of NequIP
    model = build()
    del model.irreps_out["edge_forces"]
    calculator = EqCalculator(model)
    assert not calculator.backends[0].takes_vectors
    for name in ("molecule in a box", "cell smaller than the cutoff"):
        atoms = structure(name)
        assert_same(evaluate(atoms, calculator), evaluate(atoms, EqCalculator(shared())), 1e-10)


def test_precision_can_be_chosen():
    atoms = structure("bulk")
    single, double = shared("float32"), shared("float64")
    up = EqCalculator(single, dtype="float64")
    assert up.backends[0].dtype == torch.float64
    # float32 weights in float64 arithmetic: what the float32 model computes but for its rounding
    close, exact = evaluate(atoms, EqCalculator(single)), evaluate(atoms, up)
    assert_same(close, exact, 1e-5)
    assert np.abs(close["forces"] - exact["forces"]).max() > 1e-12
    down = EqCalculator(double, dtype=torch.float32)
    assert_same(evaluate(atoms, down), evaluate(atoms, EqCalculator(double)), 1e-5)
    assert next(double.parameters()).dtype == torch.float64


def test_the_model_given_is_not_touched():
    model = build().train()
    before = copy.deepcopy(model.state_dict())
    atoms = structure("molecule")
    with torch.no_grad():
        found = evaluate(atoms, EqCalculator(model))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    assert all(torch.equal(value, before[key]) for key, value in build().state_dict().items())
    assert np.isfinite(found["energy"])


def count_stresses(monkeypatch, calculator):
    asked = []
    backend = calculator.backends[0]
    plain = backend.evaluate
    monkeypatch.setattr(
        backend, "evaluate", lambda graph, stress: asked.append(stress) or plain(graph, stress)
    )
    return asked


def test_stress_only_when_asked_for(monkeypatch):
    calculator = EqCalculator(shared())
    asked = count_stresses(monkeypatch, calculator)
    for atoms in walk(structure("bulk"), steps=3):
        atoms.calc = calculator
        atoms.get_forces()
        atoms.get_potential_energy()
    assert asked == [False] * 3
    assert "stress" not in calculator.results


def test_constant_pressure_takes_one_evaluation_per_step(monkeypatch):
    calculator = EqCalculator(shared())
    asked = count_stresses(monkeypatch, calculator)
    for atoms in walk(structure("bulk"), steps=3):
        atoms.calc = calculator
        atoms.get_forces()
        atoms.get_stress()
    assert asked == [False, True, True, True]
    for atoms in walk(structure("bulk"), steps=20, seed=5):
        atoms.calc = calculator
        atoms.get_forces()
    assert asked[-1] is False


def test_forces_are_bitwise_the_same_with_and_without_stress():
    atoms = structure("bulk")
    atoms.calc = EqCalculator(shared("float32"))
    forces = atoms.get_forces()
    atoms.get_stress()
    np.testing.assert_array_equal(atoms.get_forces(), forces)


def test_no_stress_without_a_volume():
    for name in ("molecule", "wire", "slab, third vector zero"):
        atoms = structure(name)
        atoms.calc = EqCalculator(shared())
        with pytest.raises(StressError, match="needs a cell with a volume"):
            atoms.get_stress()
        assert np.isfinite(atoms.get_forces()).all()


def test_descriptors_are_invariant_and_tell_atoms_apart():
    calculator, atoms = EqCalculator(shared()), structure("molecule")
    found = calculator.get_descriptors(atoms)
    assert found.shape == (len(atoms), 4)
    turned = atoms.copy()
    turned.rotate(77, (1, 2, 3))
    turned.translate((5, -3, 1))
    np.testing.assert_allclose(calculator.get_descriptors(turned), found, atol=1e-12)
    assert len(np.unique(found.round(9), axis=0)) == len(atoms)
    evaluate(atoms, calculator)
    np.testing.assert_array_equal(calculator.get_descriptors(), found)


def test_committee():
    models = [build(seed=seed) for seed in range(3)]
    atoms = structure("bulk")
    each = [evaluate(atoms, EqCalculator(model)) for model in models]
    committee = EqCalculator(models)
    found = evaluate(atoms, committee)
    for key in ("energy", "forces", "stress"):
        values = np.array([one[key] for one in each])
        np.testing.assert_allclose(found[key], values.mean(0), atol=1e-10)
        np.testing.assert_allclose(committee.results[f"{key}_comm"], values, atol=1e-10)
        np.testing.assert_allclose(committee.results[f"{key}_var"], values.var(0), atol=1e-10)
        assert np.max(committee.results[f"{key}_var"]) > 0
    copied = atoms.copy()
    copied.calc = committee
    variance = committee.get_property("forces_var", copied)
    assert variance.shape == (len(atoms), 3)
    assert committee.get_property("stress_var", copied).shape == (6,)
    assert [features.shape for features in committee.get_descriptors(atoms)] == [(16, 4)] * 3
    assert "forces_var" not in EqCalculator(models[0]).implemented_properties


def test_a_committee_of_equal_models_agrees_with_itself():
    committee = EqCalculator([shared()] * 2)
    evaluate(structure("molecule"), committee)
    assert committee.results["energy_var"] == 0.0
    assert not committee.results["forces_var"].any()


def test_it_is_exported_lazily():
    assert eqplugin.EqCalculator is EqCalculator
    with pytest.raises(AttributeError):
        eqplugin.Calculator  # noqa: B018


def test_ase_sees_a_calculator():
    atoms = molecule("H2O")
    atoms.calc = EqCalculator(shared())
    energy = atoms.get_potential_energy()
    assert isinstance(energy, float)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy)
    # the results of one structure are not those of the next
    atoms.positions[0, 2] += 0.1
    assert atoms.get_potential_energy() != energy
