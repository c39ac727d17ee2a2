"""Labels under MACE's keys, and labels of another unit or method."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from data_frames import renamed, run_check, water

from eqplugin.data import check_files, read_e0s


def test_labels_under_mace_s_keys_are_checked(store):
    result = run_check(store([renamed(seed) for seed in range(3)]))
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [
        "eqplugin: note: train.xyz: all 3 frames have labels under MACE's keys (REF_energy, "
        "REF_forces, REF_stress); mace-train reads them as they are, nequip-train with the key "
        "mapping {REF_energy: total_energy, REF_forces: forces, REF_stress: stress}."
    ]
    broken = renamed(1)
    broken.arrays["REF_forces"][1, 0] = np.nan
    result = run_check(store([renamed(0), broken]))
    assert result.exit_code == 1
    assert "train.xyz, frame 1: the force on atom 1 (H) is NaN or infinite" in result.stderr


def test_nequip_s_own_check_does_not_take_mace_s_keys(store):
    assert [p.code for p in check_files(store([renamed(0)])).errors] == [
        "missing_energy",
        "missing_forces",
    ]


def test_two_different_labels_of_a_frame_are_named(store):
    atoms = water(0)
    atoms.info["REF_energy"] = atoms.calc.results["energy"] + 3
    result = run_check(store([atoms]))
    assert "have other labels under REF_energy" in result.stderr


def in_gpa(frames):
    for atoms in frames:
        atoms.calc.results["stress"] = np.ones(6) * 30.0


def in_mev(frames):
    for atoms in frames:
        atoms.calc.results["forces"] = atoms.calc.results["forces"] * 1000


def in_kev(frames):
    for atoms in frames:
        atoms.calc.results["forces"] = atoms.calc.results["forces"] / 1e6


def one_torn_apart(frames):
    frames[2].calc.results["forces"][:2] += [[150, 0, 0], [-150, 0, 0]]


def one_of_another_method(frames):
    frames[3].calc.results["energy"] += 300


@pytest.mark.parametrize(
    "change, words",
    [
        (in_gpa, "all 8 frames have a stress above 1 eV/A^3; convert it if it is in GPa"),
        (in_mev, "; convert the forces if they are in meV/A."),
        (in_kev, "; convert the forces if they are in keV/A."),
        (one_torn_apart, "1 of 8 frames (first: 2) have forces above 100 eV/A"),
        (one_of_another_method, "1 of 8 frames (first: 3) have an energy more than 2 eV per atom"),
    ],
)
def test_labels_of_an_unlikely_size_are_named(store, change, words):
    frames = [water(seed, energy=-10.0 + 0.01 * seed) for seed in range(8)]
    change(frames)
    result = run_check(store(frames))
    assert result.exit_code == 0
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_energies_of_another_file_that_are_far_away_are_named(store):
    def frames(shift):
        return [water(k, energy=-10.0 + shift + 0.001 * k) for k in range(6)]

    store(frames(400.0), "valid.xyz")
    result = run_check(store(frames(0.0)), "valid.xyz")
    assert "valid.xyz: the energies are +133.3 eV per atom from those of train.xyz" in result.stderr


def test_energies_that_span_too_much_are_named(store):
    frames = [water(k, energy=-10.0 + 300 * (k % 2)) for k in range(8)]
    assert "energies of the same composition span 100.0 eV" in run_check(store(frames)).stderr


def test_e0s_of_another_method_are_named(store):
    path = store([water(seed) for seed in range(5)])
    result = run_check(path, "--e0s", '{"H": -13.6, "O": -2041.8}')
    assert "eV per atom from the sum of the isolated-atom energies (E0s)" in result.stderr
    assert result.exit_code == 0


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_isolated_atoms_may_have_mace_s_key(tmp_path, suffix):
    atoms = Atoms("H")
    atoms.info["REF_energy"] = -13.5
    write(tmp_path / f"e0s.{suffix}", atoms)
    assert read_e0s(tmp_path / f"e0s.{suffix}") == {"H": -13.5}
