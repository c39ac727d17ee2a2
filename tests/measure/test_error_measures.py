"""The measures of `bench forces` against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eqplugin.measure.force_errors import error_metrics, metrics_by_config_type, metrics_by_element
from eqplugin.measure.forces import FrameResult


def frame(numbers, energy=None, forces=None, stress=None, config_type="-"):
    """Reference and prediction given as pairs."""
    numbers = np.array(numbers)
    if forces is not None:
        forces = np.stack([np.broadcast_to(f, (len(numbers), 3)) for f in forces], axis=-1)
    if stress is not None:
        stress = np.stack([np.broadcast_to(s, 6) for s in stress], axis=-1).astype(float)
    energy = None if energy is None else np.array(energy, dtype=float)
    return FrameResult(numbers, config_type, energy, forces, stress)


def test_energies_are_per_atom_and_relative_within_a_composition():
    # errors per atom: +10 and +20 meV for H2, -50 meV for CO
    results = [
        frame([1, 1], energy=(1.0, 1.02)),
        frame([1, 1], energy=(3.0, 3.04)),
        frame([6, 8], energy=(5.0, 4.9)),
    ]
    errors = error_metrics(results)
    assert errors.frames == 3
    assert errors.energy_mae == pytest.approx((10 + 20 + 50) / 3)
    assert errors.energy_rmse == pytest.approx(np.sqrt((100 + 400 + 2500) / 3))
    assert errors.energy_max == pytest.approx(50)
    # about the mean of H2: -5 and +5; of one CO alone nothing would remain, so it does not count
    assert errors.relative_energy_mae == pytest.approx(5)
    assert error_metrics(results[1:]).relative_energy_mae is None


def test_composition_does_not_depend_on_the_order_of_atoms():
    results = [frame([1, 8], energy=(0.0, 0.2)), frame([8, 1], energy=(0.0, 0.2))]
    assert error_metrics(results).relative_energy_mae == pytest.approx(0.0)


def test_forces_by_hand():
    results = [
        frame([1], forces=([[1.0, 0, 0]], [[1.0, 0.1, 0]])),
        frame([1, 1], forces=([[0, 2.0, 0]], [[0, -2.0, 0]])),
    ]
    errors = error_metrics(results)
    assert errors.force_mae == pytest.approx(1e3 * (0.1 + 4.0 + 4.0) / 9)
    assert errors.force_rmse == pytest.approx(1e3 * np.sqrt((0.01 + 16 + 16) / 9))
    assert errors.force_max == pytest.approx(4000)
    assert errors.force_rms == pytest.approx(1e3 * np.sqrt((1 + 4 + 4) / 9))
    assert errors.force_cosine == pytest.approx((1 / np.sqrt(1.01) - 1 - 1) / 3)


def test_a_zero_force_has_no_direction():
    errors = error_metrics([frame([1], forces=([[0, 0, 0.0]], [[1.0, 0, 0]]))])
    assert errors.force_cosine is None
    assert errors.force_mae == pytest.approx(1e3 / 3)


def test_what_is_not_labelled_is_none():
    errors = error_metrics([frame([1], energy=(0, 0)), frame([1], stress=(0.0, 0.001))])
    assert errors.frames == 2
    assert errors.energy_mae == 0.0
    assert errors.force_mae is None
    assert errors.force_cosine is None
    assert errors.stress_mae == pytest.approx(1.0)
    assert errors.stress_max == pytest.approx(1.0)
    assert error_metrics([frame([1], energy=(0, 0))]).stress_rmse is None


def test_shear_stands_twice_in_the_stress_tensor():
    """xx, yy, zz off by 1 meV/A^3 and yz, xz, xy by 4: nine entries of 3 ones and 6 fours."""
    errors = error_metrics([frame([1], stress=(0.0, [1e-3, 1e-3, 1e-3, 4e-3, 4e-3, 4e-3]))])
    assert errors.stress_mae == pytest.approx((3 * 1 + 6 * 4) / 9)
    assert errors.stress_rmse == pytest.approx(np.sqrt((3 * 1 + 6 * 16) / 9))
    assert errors.stress_max == pytest.approx(4)


def test_groups():
    one = [[1.0, 0, 0], [0, 0, 0]]
    results = [
        frame([8, 1], forces=(one, [[1.3, 0, 0], [0, 0, 0.6]]), config_type="hot"),
        frame([1], forces=([[0, 0, 0]], [[0, 0, 0.0]]), config_type="cold"),
    ]
    elements = metrics_by_element(results)
    assert list(elements) == ["H", "O"]  # by atomic number
    assert elements["O"].force_mae == pytest.approx(100)
    assert elements["O"].frames == 1
    assert elements["H"].force_mae == pytest.approx(1e3 * 0.6 / 6)
    assert elements["H"].frames == 2
    types = metrics_by_config_type(results)
    assert list(types) == ["hot", "cold"]
    assert types["cold"].force_mae == 0.0
    assert types["hot"].force_mae == pytest.approx(1e3 * 0.9 / 6)
