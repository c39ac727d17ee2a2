"""NVE runs: energy is conserved where it should be, and a breakdown is said."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from eqplugin.errors import EqPluginError
from eqplugin.md.nve import NveRun, partial_log, run_nve


@pytest.fixture
def copper():
    return bulk("Cu", cubic=True) * (2, 2, 2)


class Leaky(EMT):
    """EMT whose forces are 5 % too strong: they do not belong to its energies."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"] = 1.05 * self.results["forces"]


class Broken(EMT):
    """EMT that returns NaN from its tenth call on."""

    calls = 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.calls += 1
        if self.calls > 10:
            self.results["energy"] = float("nan")


def test_energy_is_conserved_and_the_log_is_complete(copper, tmp_path):
    run = run_nve(copper, EMT(), tmp_path / "nve.csv", steps=100, timestep=2.0, every=10)
    np.testing.assert_allclose(run.time, np.arange(11) * 0.02)
    assert np.ptp(run.energy) < 0.5  # meV/atom
    assert run.temperature[0] > 100
    assert not partial_log(tmp_path / "nve.csv").exists()
    again = NveRun.read(tmp_path / "nve.csv", len(copper))
    np.testing.assert_array_equal(again.energy, run.energy)


def test_forces_that_do_not_belong_to_the_energy_show_up(copper, tmp_path):
    options = {"steps": 100, "timestep": 2.0, "every": 5}
    good = run_nve(copper, EMT(), tmp_path / "good.csv", **options)
    leaky = run_nve(copper, Leaky(), tmp_path / "leaky.csv", **options)
    assert np.std(leaky.energy) > 5 * np.std(good.energy)


def test_same_seed_same_run(copper, tmp_path):
    runs = [run_nve(copper, EMT(), tmp_path / f"{i}.csv", steps=20, seed=3) for i in range(2)]
    np.testing.assert_array_equal(runs[0].energy, runs[1].energy)
    other = run_nve(copper, EMT(), tmp_path / "other.csv", steps=20, seed=4)
    assert not np.array_equal(runs[0].temperature, other.temperature)


def test_start_structure_is_left_alone(copper, tmp_path):
    before = copper.positions.copy()
    run_nve(copper, EMT(), tmp_path / "nve.csv", steps=5)
    np.testing.assert_array_equal(copper.positions, before)
    assert copper.calc is None


def test_drift_is_the_slope():
    time = np.linspace(0.0, 2.0, 50)
    assert NveRun(time, 0.3 * time + 1.0, time).drift == pytest.approx(0.3)


def test_nan_stops_the_run_and_keeps_the_log(copper, tmp_path):
    log = tmp_path / "nve.csv"
    with pytest.raises(EqPluginError, match="broke down"):
        run_nve(copper, Broken(), log, steps=100, every=2)
    assert not log.exists()
    assert len(partial_log(log).read_text().splitlines()) > 3
