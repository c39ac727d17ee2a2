"""`eqplugin theory info`."""

import json
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.theory.structures import rotor


def run(*arguments):
    return CliRunner().invoke(app, ["theory", "info", *map(str, arguments)])


@pytest.fixture
def butyne(tmp_path):
    path = tmp_path / "butyne.xyz"
    rotor(3, 0.0, k=4).write(path)
    return path


def test_butyne_needs_degree_3(butyne):
    result = run(butyne, "--feature-dim", 100, "--l-max", "1..4")
    assert result.exit_code == 0
    assert "C3v" in result.stdout
    assert "1 1 1 2 2" in result.stdout
    assert "L = 3 keeps every direction" in result.stdout


@pytest.mark.parametrize("levels", ["0..9", "1..4", "0..12", "2,2"])
def test_no_number_is_cut_off_however_many_levels(butyne, levels):
    sites = json.loads(run(butyne, "--l-max", levels, "--json").stdout)["sites"]
    result = run(butyne, "--l-max", levels)
    assert result.exit_code == 0, result.exception
    assert "…" not in result.stdout
    words = result.stdout.split()
    for site in sites:
        for level, count in site["surviving_dimensions"].items():
            assert words.count(f"L={level}") == 1
            assert str(count) in words


def test_json_holds_all_three_stabilisers(butyne):
    result = run(butyne, "--feature-dim", 100, "--l-max", "1,2", "--json")
    sites = json.loads(result.stdout)["sites"]
    assert [site["indices"] for site in sites] == [[0, 3], [1, 2], [4, 5, 6, 7, 8, 9]]
    assert sites[0]["so3"] == [1, 1, 1, 3, 3, 3, 5]
    assert sites[0]["natural"] == [1, 1, 1, 2, 2, 2, 3]
    assert sites[0]["opposite"] == [0, 0, 0, 1, 1, 1, 2]
    assert sites[0]["surviving_dimensions"] == {"1": 50, "2": 34}
    assert [site["l_max_needed"] for site in sites] == [3, 3, 1]


def test_what_a_cutoff_sees(butyne):
    # within 2 A the inner carbons have two carbons in a row and nothing else
    sites = json.loads(run(butyne, "--cutoff", 2.0, "--json").stdout)["sites"]
    assert [site["group"] for site in sites] == ["C3v", "D_inf_h", "C_inf_v"]
    assert [site["l_max_needed"] for site in sites] == [3, 2, 1]


@pytest.mark.parametrize(
    "crystal, groups, needed",
    [
        (bulk("Si"), {"Td"}, 3),
        (bulk("Cu"), {"Oh"}, 4),
        (bulk("NaCl", "rocksalt", a=5.64), {"Oh"}, 4),
        (bulk("Ti", "hcp", a=2.95, c=4.68), {"D3h"}, 3),
    ],
)
def test_crystals(tmp_path, crystal, groups, needed):
    crystal.write(tmp_path / "crystal.cif")
    sites = json.loads(run(tmp_path / "crystal.cif", "--json", "-L", "1").stdout)["sites"]
    assert {site["group"] for site in sites} == groups
    assert {site["l_max_needed"] for site in sites} == {needed}


def test_a_generic_molecule_needs_no_more_than_vectors(tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    atoms.write(tmp_path / "ethanol.xyz")
    result = run(tmp_path / "ethanol.xyz")
    assert "L = 1 is enough for every site" in result.stdout
    assert "512" in result.stdout


def test_an_atom_alone_keeps_its_scalars(tmp_path):
    Atoms("O").write(tmp_path / "atom.xyz")
    (site,) = json.loads(run(tmp_path / "atom.xyz", "-D", 100, "-L", 1, "--json").stdout)["sites"]
    assert (site["group"], site["num_neighbors"], site["l_max_needed"]) == ("K_h", 0, 0)
    assert site["surviving_dimensions"] == {"1": 25}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["missing.xyz"], "missing.xyz is missing"),
        (["{here}", "--frame", "7"], "has no frame 7"),
        (["{here}", "--l-max", "x"], "--l-max=x is not a range"),
        (["{here}", "--cutoff", "-1"], "cutoff=-1.0"),
        (["{here}", "--tolerance", "0"], "tolerance=0.0"),
        (["{here}", "--feature-dim", "3"], "feature_dim=3"),
        (["{here}", "--tolerance", "-0.1"], "tolerance=-0.1"),
        (["{here}", "--tolerance", "nan"], "tolerance=nan"),
        (["{here}", "--l-max", "-1"], "l_max=-1"),
        (["{here}", "--l-max", "4..1"], "--l-max=4..1 is not a range"),
        (["{crystal}", "--cutoff", "0.005"], "cutoff=0.005"),
        (["{crystal}", "--cutoff", "inf"], "cutoff=inf"),
        (["{broken}"], "broken.cif cannot be read at frame 0"),
        (["{blank}"], "blank.xyz holds no frames"),
        (["{bare}"], "the structure has no atoms"),
        (["{lost}"], "atom 1 (H) has the position [nan, 0.0, 1.0]"),
        (["{double}"], "atoms 0 (H) and 1 (H) are 0.000 A apart: correct the structure"),
        (["{folder}"], "is a folder, not a file"),
    ],
)
def test_mistakes_are_one_sentence(butyne, tmp_path, arguments, words):
    texts = {
        "broken.cif": "nothing",
        "blank.xyz": "",
        "bare.xyz": "0\n\n",
        "lost.xyz": "2\n\nH 0 0 0\nH nan 0 1\n",
        "double.xyz": "2\n\nH 0 0 0\nH 0 0 0\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    bulk("Si").write(tmp_path / "crystal.cif")
    files = {Path(name).stem: tmp_path / name for name in [*texts, "crystal.cif"]}
    result = run(*(a.format(here=butyne, folder=tmp_path, **files) for a in arguments))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
