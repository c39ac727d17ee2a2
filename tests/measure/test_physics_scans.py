"""Scans: curves and errors equal what is put in; files that are no scan are one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.measure.physics.scans import read_scan, scan_checks, scan_curve

ANGLES = np.arange(0, 360, 30)


class Cosine(Calculator):
    """A barrier of 0.4 eV in the angle between the bonds' projections on the xy plane."""

    implemented_properties = ("energy", "forces")
    height, offset = 0.4, 3.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        angle = np.arctan2(*atoms.positions[-1, 1::-1])
        energy = self.offset + 0.5 * self.height * (1 - np.cos(angle))
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3))}


class Higher(Cosine):
    height, offset = 0.5, -7.0


class Broken(Cosine):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if len(atoms) < 3 or atoms.info.get("scan", 0) > 90:
            raise RuntimeError("out of range")
        super().calculate(atoms, properties, system_changes)


def frames(labelled):
    found = []
    for angle in np.radians(ANGLES):
        atoms = Atoms(
            "OOHH", [[0, 0, 0], [0, 0, 1.4], [1, 0, -0.2], [np.cos(angle), np.sin(angle), 1.6]]
        )
        atoms.info["scan"] = np.degrees(angle)
        if labelled:
            atoms.calc = Cosine()
            energy = atoms.get_potential_energy()
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
        found.append(atoms)
    return found


def test_the_reference_and_its_error(tmp_path):
    write(tmp_path / "dihedral.xyz", frames(labelled=True))
    scan = read_scan(tmp_path / "dihedral.xyz")
    np.testing.assert_allclose(scan.coordinate, ANGLES)
    exact = {check.name: check.value for check in scan_checks(scan_curve(Cosine(), scan))}
    assert exact["dihedral: highest"] == pytest.approx(400)
    assert exact["dihedral: error there"] == pytest.approx(0, abs=1e-6)
    assert exact["dihedral: RMSE"] == pytest.approx(0, abs=1e-6)
    higher = {check.name: check.value for check in scan_checks(scan_curve(Higher(), scan))}
    assert higher["dihedral: error there"] == pytest.approx(100)
    # 50 meV (1 - cos), whose spread is 50 / sqrt(2); constants do not count
    assert higher["dihedral: RMSE"] == pytest.approx(50 / np.sqrt(2))


def test_without_energies_the_heights_are_compared(tmp_path):
    write(tmp_path / "mode.xyz", frames(labelled=False))
    scan = read_scan(tmp_path / "mode.xyz")
    assert scan.reference is None
    (check,) = scan_checks(scan_curve(Higher(), scan))
    assert check.value == pytest.approx(500)
    assert check.passed is None


def run(*arguments):
    return CliRunner().invoke(app, ["bench", "physics", *map(str, arguments)])


def test_command(tmp_path):
    write(tmp_path / "dihedral.xyz", frames(labelled=True))
    write(tmp_path / "mode.xyz", frames(labelled=False))
    write(tmp_path / "start.xyz", frames(labelled=False)[0])
    names = [f"{__name__}:{name}" for name in ("Cosine", "Higher", "Broken")]
    result = run(
        *names, "--structure", tmp_path / "start.xyz", "--md-steps", 0, "--out", tmp_path / "out",
        "--scan", tmp_path / "dihedral.xyz", "--scan", tmp_path / "mode.xyz",
    )  # fmt: skip
    assert isinstance(result.exception, SystemExit), result.exception
    assert "dihedral: RMSE" in result.stdout
    stored = json.loads((tmp_path / "out/physics.json").read_text())
    assert [curve["name"] for curve in stored["scans"]["Higher"]] == ["dihedral", "mode"]
    assert "Broken" not in stored["scans"]
    failures = {c["name"]: c for c in stored["models"]["Broken"]}
    assert "pairs" in failures
    check = failures["mode: highest"]
    assert (check["passed"], check["value"]) == (False, None)
    assert "out of range" in check["remark"]
    assert (tmp_path / "out/scans.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_sentence(tmp_path):
    structure = tmp_path / "structure.xyz"
    found = frames(labelled=False)
    write(structure, found[0])
    write(tmp_path / "short.xyz", found[:2])
    write(tmp_path / "mixed.xyz", [*found[:3], Atoms("H")])
    (tmp_path / "broken.xyz").write_text("not a structure\n")
    for name, words in (
        ("missing.xyz", "is missing"),
        ("short.xyz", "holds 2 frames"),
        ("mixed.xyz", "frame 3: its atoms differ"),
        ("broken.xyz", "cannot be read"),
    ):
        scan = tmp_path / name
        result = run(f"{__name__}:Cosine", "--structure", structure, "--scan", scan)
        assert result.exit_code == 1
        assert name in result.stderr
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    write(structure, found[-1])
    result = run(f"{__name__}:Broken", "--structure", structure)
    assert result.exit_code == 1
    assert "cannot be evaluated (out of range)" in result.stderr
    twice = run(f"{__name__}:Cosine", "--structure", structure, "--scan", tmp_path / "short.xyz",
                "--scan", tmp_path / "short.xyz")  # fmt: skip
    assert twice.exit_code == 1
