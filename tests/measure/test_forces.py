"""Error measures against numbers worked out by hand; timing that alternates."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes

from eqplugin.measure.force_errors import error_metrics
from eqplugin.measure.forces import evaluate
from eqplugin.measure.labels import LabelledFrame
from eqplugin.measure.speed import time_force_calls


class Constant(Calculator):
    """The same energy and the same force on every atom."""

    implemented_properties = ("energy", "forces")

    def __init__(self, energy, force, log=None):
        super().__init__()
        self.energy, self.force, self.log = energy, force, log

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.log is not None:
            self.log.append((self.energy, tuple(atoms.positions[0])))
        self.results = {
            "energy": self.energy,
            "forces": np.tile(np.asarray(self.force, dtype=float), (len(atoms), 1)),
        }


def labelled(num_atoms, energy, force):
    atoms = Atoms("H" * num_atoms, positions=np.arange(3.0 * num_atoms).reshape(-1, 3))
    forces = np.tile(np.asarray(force, dtype=float), (num_atoms, 1))
    return LabelledFrame(atoms, energy, forces, None, "-")


def test_errors_by_hand():
    frames = [labelled(2, energy=1.0, force=(0, 0, 0)), labelled(4, energy=3.0, force=(0, 0, 1))]
    errors = error_metrics(evaluate(Constant(energy=2.0, force=(0, 0, 0.5)), frames))
    # forces: |0.5| in a third of the components of both frames
    assert errors.force_mae == pytest.approx(1e3 * 0.5 / 3)
    assert errors.force_rmse == pytest.approx(1e3 * np.sqrt(0.25 / 3))
    # energies: 1 eV over two atoms, 1 eV over four
    assert errors.energy_mae == pytest.approx(1e3 * (0.5 + 0.25) / 2)
    assert errors.frames == 2


def test_predictions_keep_reference_and_prediction_apart():
    (result,) = evaluate(Constant(2.0, (0, 0, 0.5)), [labelled(2, 1.0, (0, 0, 1))])
    np.testing.assert_allclose(result.energy, [1.0, 2.0])
    np.testing.assert_allclose(result.forces[0, 2], [1.0, 0.5])


def test_timing_alternates_and_moves_the_atoms():
    log = []
    calculators = {"a": Constant(1.0, (0, 0, 0), log), "b": Constant(2.0, (0, 0, 0), log)}
    times = time_force_calls(calculators, molecule("H2O"), repeats=3, warmup=1)
    assert {name: values.shape for name, values in times.items()} == {"a": (3,), "b": (3,)}
    assert [energy for energy, _ in log] == [1.0, 2.0] * 4
    positions = [position for _, position in log]
    assert positions[0] == positions[1] != positions[2]
