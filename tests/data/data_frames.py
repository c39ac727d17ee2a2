"""Labelled frames for the tests, and a way to run the commands."""

import numpy as np
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from eqplugin.cli.data import app


def labelled(atoms, seed=0, **changes):
    """A copy with random positions nearby and random labels without net force."""
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    forces = rng.normal(0, 1, (len(atoms), 3))
    labels = {"energy": -10.0 + seed, "forces": forces - forces.mean(0), **changes}
    labels = {name: value for name, value in labels.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def water(seed=0, **changes):
    return labelled(molecule("H2O"), seed, **changes)


def renamed(seed, prefix="REF_"):
    """The labels under names of their own, as many programs write them; MACE's by default."""
    atoms = water(seed)
    atoms.info[f"{prefix}energy"] = atoms.calc.results["energy"]
    atoms.arrays[f"{prefix}forces"] = atoms.calc.results["forces"]
    atoms.calc = None
    return atoms


def with_value(label, index, value):
    atoms = water(1)
    np.asarray(atoms.calc.results[label])[index] = value
    return atoms


def moved(atom, position):
    atoms = water(1)
    results = atoms.calc.results
    atoms.positions[atom] = position
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystal(cell):
    atoms = labelled(bulk("Cu", cubic=True), 1)
    results = atoms.calc.results
    atoms.cell = cell
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def run_check(*arguments):
    return CliRunner().invoke(app, ["check", *arguments])
