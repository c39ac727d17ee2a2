"""Thermostats of torch-sim, whichever version is installed, sample what they should."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from scipy.stats import chi2, kstest

from eqplugin.errors import EqPluginError
from eqplugin.md.observables import read_log
from eqplugin.md.settings import MdSettings

pytest.importorskip("torch_sim", reason="torch-sim-atomistic is not installed")

from eqplugin.md import _torch_sim
from eqplugin.md._torch_sim import check_ensemble
from eqplugin.md.batched import files_of, run_batch
from eqplugin.md.start import degrees_of_freedom

KT = units.kB * 300.0
MOLECULES = [molecule("CH3CH2OH"), molecule("CH4")]
COPIES = 60  # of each, that run side by side
DEGREES = {"nvt-langevin": (27, 15), "nvt-bussi": (21, 9)}


def needs(ensemble):
    try:
        check_ensemble(ensemble)
    except EqPluginError as refusal:
        pytest.skip(str(refusal))


class Springs:
    """A torch-sim model: springs between all atoms of a structure, so nothing holds its centre."""

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, structures, stiffness=3.0):
        index = np.concatenate([[i] * len(atoms) for i, atoms in enumerate(structures)])
        first, second = np.nonzero(np.triu(index[:, None] == index, 1))
        self.first, self.second = torch.tensor(first), torch.tensor(second)
        self.index, self.number = torch.tensor(index)[self.first], len(structures)
        self.stiffness = stiffness
        positions = np.concatenate([atoms.positions for atoms in structures])
        self.rest = torch.tensor(np.linalg.norm(positions[second] - positions[first], axis=1))

    def __call__(self, state):
        vectors = state.positions[self.second] - state.positions[self.first]
        lengths = vectors.norm(dim=1)
        stretch = lengths - self.rest
        pull = (self.stiffness * stretch / lengths)[:, None] * vectors
        forces = torch.zeros_like(state.positions)
        forces = forces.index_add(0, self.first, pull).index_add(0, self.second, -pull)
        energy = torch.zeros(self.number, dtype=self.dtype)
        return {
            "energy": energy.index_add(0, self.index, 0.5 * self.stiffness * stretch**2),
            "forces": forces,
        }


def run(ensemble, starts, folder, seed=0):
    """Return the final structures, and kinetic energies (structures, frames)."""
    settings = MdSettings(ensemble, 1200, timestep=0.5, friction=0.1, every=100, seed=seed)
    ends = [done.atoms for done in run_batch(starts, Springs(MOLECULES * COPIES), settings, folder)]
    logs = [read_log(files_of(folder, index).log)["kinetic_eV"] for index in range(len(starts))]
    assert degrees_of_freedom(starts[0], settings) == DEGREES[ensemble][0]
    return ends, np.array(logs)


@pytest.fixture(scope="module")
def langevin(tmp_path_factory):
    return run("nvt-langevin", MOLECULES * COPIES, tmp_path_factory.mktemp("langevin"))


def check_canonical(energies, ensemble):
    for place, degrees in enumerate(DEGREES[ensemble]):
        own = 2 * energies[place::2].ravel() / KT

        def p_value(count, own=own):
            return kstest(own, chi2(count).cdf).pvalue

        assert p_value(degrees) > 0.01
        # what a wrong count of degrees would sample
        assert p_value(degrees + 3) < 1e-6
        assert p_value(degrees - 3) < 1e-6


def test_langevin_samples_the_canonical_kinetic_energy(langevin):
    check_canonical(langevin[1][:, 3:], "nvt-langevin")  # the springs start without energy


def test_velocity_rescaling_samples_the_canonical_kinetic_energy(langevin, tmp_path):
    needs("nvt-bussi")
    # from canonical positions: rescaling leaves vibrations that start together in step
    ends, energies = run("nvt-bussi", langevin[0], tmp_path, seed=1)
    check_canonical(energies[:, 3:], "nvt-bussi")
    for atoms in ends:  # what carries no temperature stays at rest
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-9
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-6


@pytest.mark.parametrize("ensemble", DEGREES)
def test_resumed_is_straight_to_the_last_bit(ensemble, tmp_path):
    needs(ensemble)
    for name, parts in (("straight", [40]), ("parts", [20, 40])):
        for steps in parts:
            settings = MdSettings(ensemble, steps, timestep=0.5, friction=0.1, every=10)
            run_batch(MOLECULES, Springs(MOLECULES), settings, tmp_path / name)
            torch.randn(7)  # whatever else draws random numbers in between
    for index in range(len(MOLECULES)):
        straight, parts = (files_of(tmp_path / name, index) for name in ("straight", "parts"))
        assert straight.traj.read_bytes() == parts.traj.read_bytes()
        assert straight.log.read_bytes() == parts.log.read_bytes()


@pytest.mark.parametrize("atoms", [Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), Atoms("Ar")])
def test_velocity_rescaling_of_few_degrees(atoms, tmp_path):
    needs("nvt-bussi")
    settings = MdSettings("nvt-bussi", 100, timestep=1.0, friction=0.05, every=10)
    model = Springs([atoms] * 20)
    run_batch([atoms] * 20, model, settings, tmp_path)
    energies = [read_log(files_of(tmp_path, index).log)["kinetic_eV"] for index in range(20)]
    assert (np.array(energies) > 0).all()


def test_versions_without_an_ensemble_say_so(monkeypatch):
    old = SimpleNamespace(nve=None, nvt_langevin=None, npt_langevin=None)
    monkeypatch.setattr(_torch_sim, "integrators", lambda: old)
    check_ensemble("nve")
    check_ensemble("nvt-langevin")
    with pytest.raises(EqPluginError, match=r"run --ensemble nvt-bussi: it needs torch-sim 0\.6"):
        check_ensemble("nvt-bussi")
    with pytest.raises(EqPluginError, match="not validated"):
        check_ensemble("npt")
