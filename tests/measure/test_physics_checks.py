"""Each physical check passes a potential and fails a calculator that breaks just that law."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import write
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.measure.physics.pairs import pair_checks, pair_curves
from eqplugin.measure.physics.suite import check_physics, dynamics_checks
from eqplugin.measure.physics.symmetry import Precision, symmetry_checks

FINE = Precision.of("float64")


class Pairs(Calculator):
    """A smooth pair potential, to which subclasses add a fault."""

    implemented_properties = ("energy", "forces")
    cutoff = 4.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        for i in range(len(atoms)):
            for j in range(i):
                vector = atoms.positions[i] - atoms.positions[j]
                distance = np.linalg.norm(vector)
                e, slope = self.pair(distance)
                energy += e
                forces[i] -= slope * vector / distance
                forces[j] += slope * vector / distance
        energy, forces = self.spoil(atoms, energy, forces)
        self.results = {"energy": energy, "forces": forces}

    def pair(self, distance):
        x = 1 - distance / self.cutoff
        if x <= 0:
            return 0.0, 0.0
        return 5 * x**3, -15 * x**2 / self.cutoff

    def spoil(self, atoms, energy, forces):
        return energy, forces


class FieldAlongZ(Pairs):  # breaks rotations, and translations too
    def spoil(self, atoms, energy, forces):
        z = atoms.positions[:, 2]
        forces = forces.copy()
        forces[:, 2] -= 0.01 * np.cos(z)
        return energy + 0.01 * np.sin(z).sum(), forces


class Chiral(Pairs):  # a pseudoscalar: rotations keep it, inversion does not
    def spoil(self, atoms, energy, forces):
        if len(atoms) < 4:
            return energy, forces
        a, b, c = (atoms.positions[i] - atoms.positions[0] for i in (1, 2, 3))
        forces = forces.copy()
        gradient = [np.cross(b, c), np.cross(c, a), np.cross(a, b)]
        for i, g in enumerate(gradient):
            forces[i + 1] -= 0.01 * g
            forces[0] += 0.01 * g
        return energy + 0.01 * np.dot(a, np.cross(b, c)), forces


class FirstAtomIsSpecial(Pairs):
    def spoil(self, atoms, energy, forces):
        vector = atoms.positions[0] - atoms.positions.mean(axis=0)
        forces = forces - 0.02 * vector * (np.arange(len(atoms)) == 0)[:, None]
        forces += 0.02 * vector / len(atoms)
        return energy + 0.01 * vector @ vector, forces


class NotAGradient(Pairs):
    def spoil(self, atoms, energy, forces):
        return energy, 1.01 * forces


class NetForce(Pairs):
    def spoil(self, atoms, energy, forces):
        return energy, forces + np.array([0, 0, 1e-3])


class NotExtensive(Pairs):
    def spoil(self, atoms, energy, forces):
        return energy + 1e-3 * len(atoms) ** 2, forces


class EnergyJumps(Pairs):
    def pair(self, distance):
        energy, slope = super().pair(distance)
        return energy + (1e-3 if distance < 3.5 else 0.0), slope


class ForceJumps(Pairs):
    def pair(self, distance):
        energy, slope = super().pair(distance)
        inside = distance < 3.5
        return energy + inside * 1e-3 * (distance - 3.5), slope + inside * 1e-3


class Explodes(Pairs):
    def spoil(self, atoms, energy, forces):
        if abs(energy - getattr(self, "first", energy)) > 1e-12:
            return float("nan"), forces
        self.first = energy
        return energy, forces


@pytest.fixture(scope="module")
def atoms():
    found = molecule("CH3OH")
    found.rattle(0.1, seed=3)
    return found


def failed(calculator, atoms):
    checks = symmetry_checks(calculator, atoms, FINE)
    curves = pair_curves(calculator, ["C", "H"])
    checks += pair_checks(calculator, curves, FINE)
    return {check.name for check in checks if check.passed is False}


@pytest.mark.parametrize(
    "calculator, culprits",
    [
        (Pairs(), set()),
        (FieldAlongZ(), {"rotation", "inversion", "translation", "no net force"}),
        (Chiral(), {"inversion"}),
        (FirstAtomIsSpecial(), {"permutation"}),
        (NotAGradient(), {"forces = -dE/dx"}),
        (NetForce(), {"no net force", "rotation", "inversion", "forces = -dE/dx"}),
        (NotExtensive(), {"extensivity", "isolated atoms"}),
        (EnergyJumps(), {"no jump of the energy"}),
        (ForceJumps(), {"no jump of the force"}),
    ],
)
def test_each_fault_is_found_and_nothing_else(calculator, culprits, atoms):
    found = failed(calculator, atoms)
    assert culprits <= found
    # a fault may show in other checks as well, but those of the sound potential all pass
    allowed = {
        "FieldAlongZ": {"isolated atoms"},
        "FirstAtomIsSpecial": {"extensivity", "isolated atoms"},
        "Chiral": {"extensivity", "permutation"},
        "NotAGradient": set(),
        "NetForce": {"isolated atoms"},
    }.get(type(calculator).__name__, set())
    assert found <= culprits | allowed


def test_fixed_atoms_are_free_in_the_checks(atoms):
    fixed = atoms.copy()
    fixed.set_constraint(FixAtoms([0, 1, 2]))
    free = check_physics(Pairs(), atoms, "float64", md_steps=5)
    assert check_physics(Pairs(), fixed, "float64", md_steps=5).checks == free.checks
    assert not free.failures
    assert fixed.constraints


def test_the_cutoff_is_found_without_being_told():
    argon = Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]])
    hard = LennardJones(sigma=3.4, epsilon=0.01, rc=8.0, smooth=False)
    smooth = LennardJones(sigma=3.4, epsilon=0.01, rc=8.0, smooth=True)
    by_name = {}
    for calculator in (hard, smooth):
        curves = pair_curves(calculator, ["Ar"])
        checks = pair_checks(calculator, curves, FINE)
        by_name[calculator] = {check.name: check for check in checks}
    jump = by_name[hard]["no jump of the force"]
    assert not jump.passed
    # the force of a Lennard-Jones pair at the cutoff, by hand
    x = (3.4 / 8.0) ** 6
    assert jump.value == pytest.approx(24 * 0.01 * (x - 2 * x**2) / 8.0, rel=1e-3)
    assert "8.00" in jump.remark
    assert by_name[smooth]["no jump of the force"].passed
    assert check_physics(smooth, argon, "float64").failures == []


def test_dynamics_that_break_down_are_a_failure(atoms):
    (check,) = dynamics_checks(Explodes(), atoms, 5)
    assert check.passed is False
    assert "broke down" in check.remark
    checks = dynamics_checks(EMT(), bulk("Cu", cubic=True), 20)
    assert [c.name for c in checks] == ["dynamics survive", "energy drift", "highest temperature"]
    assert checks[0].passed
    assert checks[-1].passed
    # far from this potential's minimum the molecule flies apart, every number finite
    survive, _, hottest = dynamics_checks(Pairs(), atoms, 20)
    assert survive.passed
    assert hottest.passed is False


def run(*arguments):
    result = CliRunner().invoke(app, ["bench", "physics", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_command(tmp_path):
    peroxide = molecule("H2O2")
    peroxide.rattle(0.1, seed=3)
    write(tmp_path / "peroxide.xyz", peroxide)
    common = ("--structure", tmp_path / "peroxide.xyz", "--md-steps", 0, "--out", tmp_path / "out")
    result = run(f"{__name__}:Pairs", *common)
    assert result.exit_code == 0, result.stdout + result.stderr
    result = run(f"{__name__}:Pairs", f"{__name__}:NotAGradient", *common)
    assert result.exit_code == 1
    assert "✗" in result.stdout
    stored = json.loads((tmp_path / "out/physics.json").read_text())["models"]
    assert [c["name"] for c in stored["NotAGradient"] if c["passed"] is False] == [
        "forces = -dE/dx"
    ]
    assert (tmp_path / "out/pairs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, culprit",
    [
        (("--structure", "missing.xyz"), "missing.xyz"),
        (("--structure", "here.xyz", "--dtype", "float16"), "float16"),
        (("--structure", "here.xyz", "--md-steps", "-1"), "--md-steps -1"),
    ],
)
def test_mistakes_are_one_sentence(options, culprit, atoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("here.xyz", atoms)
    result = run(f"{__name__}:Pairs", *options)
    assert result.exit_code == 1
    assert culprit in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
