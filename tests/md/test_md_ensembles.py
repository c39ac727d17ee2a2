"""Thermostats and the barostat sample what they should, and what should fail these tests fails."""

import dataclasses
import warnings

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from cheap_models import IdealGas, Springs, Wells, cluster
from scipy.stats import chi2, gamma, kstest

from eqplugin.md import integrators
from eqplugin.md.health import temperature_limit
from eqplugin.md.integrators import build_dynamics
from eqplugin.md.observables import kinetic_energy
from eqplugin.md.settings import MdSettings
from eqplugin.md.start import degrees_of_freedom, draw_momenta

T = 300.0
KT = units.kB * T
SETTINGS = MdSettings(temperature=T, timestep=1.0, friction=0.05, steps=1, every=1)


def ethanol():
    """Nine atoms of three masses at the places of ethanol's."""
    from ase.build import molecule

    return molecule("CH3CH2OH")


def trajectory(atoms, calculator, settings, samples, stride, dynamics=None, seed=1):
    """Return kinetic energies (samples,), those by atom, and volumes."""
    atoms = atoms.copy()
    atoms.calc = calculator
    rng = np.random.default_rng(seed)
    draw_momenta(atoms, settings, rng)
    dynamics = (dynamics or build_dynamics)(atoms, settings, rng)
    dynamics.run(10 * stride)
    energies, volumes, positions = [], [], []
    for _ in range(samples):
        dynamics.run(stride)
        energies.append((atoms.get_momenta() ** 2 / atoms.get_masses()[:, None] / 2).sum(axis=1))
        volumes.append(atoms.cell.volume)
        positions.append(atoms.positions.copy())
    return np.array(energies), np.array(volumes), np.array(positions)


def p_value(energies, degrees):
    """Probability of kinetic energies this far from a canonical distribution."""
    return kstest(2 * energies.sum(axis=1) / KT, chi2(degrees).cdf).pvalue


@pytest.fixture(scope="module")
def runs():
    """600 nearly independent samples of a springy molecule with each thermostat."""
    start, found = ethanol(), {}
    for ensemble in ("nvt-langevin", "nvt-bussi"):
        chosen = dataclasses.replace(SETTINGS, ensemble=ensemble)
        found[ensemble] = trajectory(start, Springs(start, 3.0), chosen, 600, 12)[0]
    return found


@pytest.mark.parametrize("ensemble, degrees", [("nvt-langevin", 27), ("nvt-bussi", 21)])
def test_kinetic_energy_is_canonical(runs, ensemble, degrees):
    assert (
        degrees_of_freedom(ethanol(), dataclasses.replace(SETTINGS, ensemble=ensemble)) == degrees
    )
    assert p_value(runs[ensemble], degrees) > 0.01
    # the same samples do not pass for other degrees of freedom: the test can fail
    assert p_value(runs[ensemble], degrees - 3) < 1e-6
    assert p_value(runs[ensemble], degrees + 3) < 1e-6


def test_energy_is_shared_equally_among_light_and_heavy_atoms(runs):
    by_atom = runs["nvt-langevin"].mean(axis=0) / (1.5 * KT)
    error = np.sqrt(2 / 3 / 600)
    assert np.abs(by_atom - 1).max() < 4.5 * error


def test_ases_default_langevin_would_fail(runs):
    def fixed_centre(atoms, settings, rng):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coupling = settings.friction / units.fs
            step = settings.timestep * units.fs
            return Langevin(atoms, step, temperature_K=T, friction=coupling, fixcm=True, rng=rng)

    start = ethanol()
    energies, *_ = trajectory(start, Springs(start, 3.0), SETTINGS, 300, 12, fixed_centre)
    temperature = 2 * energies.sum(axis=1).mean() / (24 * units.kB)
    assert temperature > 1.1 * T  # 3N - 3 degrees: the centre of mass stands still
    langevin = 2 * runs["nvt-langevin"].sum(axis=1).mean() / (27 * units.kB)
    assert langevin == pytest.approx(T, rel=4 * np.sqrt(2 / 27 / 600))


def test_constant_energy_is_not_canonical():
    start = ethanol()
    chosen = dataclasses.replace(SETTINGS, ensemble="nve")
    energies, *_ = trajectory(start, Springs(start, 3.0), chosen, 300, 12)
    assert p_value(energies, 21) < 1e-4


@pytest.mark.parametrize("ensemble", ["nvt-langevin", "nvt-bussi"])
def test_physical_validation_agrees(runs, ensemble):
    pv = pytest.importorskip("physical_validation", reason="pip install physical-validation")
    degrees = {"nvt-langevin": 27, "nvt-bussi": 21}[ensemble]
    kilojoule = units.kJ / units.mol
    data = pv.data.SimulationData(
        units=pv.data.UnitData.units("GROMACS"),
        ensemble=pv.data.EnsembleData("NVT", natoms=9, volume=1.0, temperature=T),
        system=pv.data.SystemData(
            natoms=9,
            nconstraints=0,
            ndof_reduction_tra=3 if degrees == 21 else 0,
            ndof_reduction_rot=3 if degrees == 21 else 0,
        ),
        observables=pv.data.ObservableData(
            kinetic_energy=runs[ensemble].sum(axis=1) / kilojoule,
        ),
    )
    options = {"screen": False, "verbosity": 0}
    assert pv.kinetic_energy.distribution(data, strict=True, **options) > 0.01
    away = pv.kinetic_energy.distribution(data, strict=False, bootstrap_seed=1, **options)
    assert np.abs(away).max() < 3.5  # mean and width, in their standard errors
    data.ensemble = pv.data.EnsembleData("NVT", natoms=9, volume=1.0, temperature=1.1 * T)
    assert pv.kinetic_energy.distribution(data, strict=True, **options) < 1e-4


def test_langevin_positions_are_canonical():
    start = cluster("Ar8", spacing=5.0)
    chosen = dataclasses.replace(SETTINGS, timestep=4.0, friction=0.02)
    *_, positions = trajectory(start, Wells(start), chosen, 300, 40)
    away = (positions - start.positions).ravel() / np.sqrt(KT / 2.0)
    assert kstest(away, "norm").pvalue > 0.01
    assert kstest(1.1 * away, "norm").pvalue < 1e-3


def gas(number, volume):
    side = volume ** (1 / 3)
    places = np.random.default_rng(0).uniform(size=(number, 3)) * side
    return Atoms(f"Ar{number}", positions=places, cell=3 * [side], pbc=True)


@pytest.mark.slow
def test_volume_of_an_ideal_gas_is_that_of_its_npt_ensemble(monkeypatch):
    # P(V) ~ V^N exp(-PV / kT): exact, so units, sign and noise of the barostat are all tested
    monkeypatch.setattr(integrators, "BAROSTAT_TIME", 4.0)
    number, pressure = 12, 1.0
    exact = gamma(number + 1, scale=KT / (pressure * units.GPa))
    chosen = dataclasses.replace(
        SETTINGS, ensemble="npt", pressure=pressure, timestep=2.0, friction=0.05
    )
    start = gas(number, exact.mean())
    energies, volumes, _ = trajectory(start, IdealGas(), chosen, 400, 100)
    assert volumes.mean() == pytest.approx(exact.mean(), rel=0.08)
    assert kstest(volumes, exact.cdf).pvalue > 0.001
    assert p_value(energies, 3 * number) > 0.01
    wrong = gamma(number + 1, scale=KT / (1.3 * pressure * units.GPa))
    assert kstest(volumes, wrong.cdf).pvalue < 1e-4


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_barostat_moves_the_volume_towards_the_pressure(factor, monkeypatch):
    monkeypatch.setattr(integrators, "BAROSTAT_TIME", 4.0)
    chosen = dataclasses.replace(SETTINGS, ensemble="npt", pressure=1.0, timestep=2.0)
    expected = 101 * KT / units.GPa
    start = gas(100, factor * expected)
    _, volumes, _ = trajectory(start, IdealGas(), chosen, 60, 20)
    assert volumes[-20:].mean() == pytest.approx(expected, rel=0.25)


# ---- degrees of freedom


@pytest.mark.parametrize(
    "atoms, ensemble, degrees",
    [
        (cluster("Ar8"), "nvt-langevin", 24),
        (cluster("Ar8"), "nve", 18),
        (Atoms("Ar8", cluster("Ar8").positions, cell=[9, 9, 9], pbc=True), "nve", 21),
        (Atoms("CO2", [[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]]), "nve", 4),
        (Atoms("N2", [[0, 0, 0], [0.3, 1.0, 0.3]]), "nvt-bussi", 1),
        (Atoms("Ar"), "nve", 3),
    ],
)
def test_degrees_of_freedom(atoms, ensemble, degrees):
    chosen = dataclasses.replace(SETTINGS, ensemble=ensemble)
    assert degrees_of_freedom(atoms, chosen) == degrees
    energies = []
    for seed in range(400):
        drawn = atoms.copy()
        draw_momenta(drawn, chosen, np.random.default_rng(seed))
        energies.append(kinetic_energy(drawn))
    # velocities are drawn for just these degrees
    assert 2 * np.mean(energies) / KT == pytest.approx(degrees, rel=4 * np.sqrt(2 / degrees / 400))


def test_drawn_velocities_carry_no_momentum_where_it_would_be_kept():
    atoms = ethanol()
    draw_momenta(atoms, dataclasses.replace(SETTINGS, ensemble="nve"), np.random.default_rng(0))
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-10
    thermalize_momenta(atoms, T, rng=np.random.default_rng(0))
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() > 0.1


def test_few_degrees_of_freedom_may_be_hotter():
    assert temperature_limit(SETTINGS, 300) == 3000.0
    assert temperature_limit(SETTINGS, 3) > 5000.0
    assert temperature_limit(dataclasses.replace(SETTINGS, max_temperature=900.0), 3) == 900.0
