"""Making data: the same bytes twice, whole files only, resumable; and verifying its labels."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.io import read, write
from make_data import app
from quickstart_data import cuau, ethanol, make
from quickstart_data.make import make_dataset
from quickstart_data.recipe import FileRecipe, Trajectory, thermal_momenta
from quickstart_data.verify import verify_labels
from typer.testing import CliRunner

from eqplugin.data import DataError

TINY_FILES = (
    FileRecipe("one", "first", (Trajectory(1, 600.0, 2), Trajectory(2, 600.0, 1))),
    FileRecipe("two", "second", (Trajectory(3, 600.0, 2),)),
)


@pytest.fixture
def tiny(monkeypatch):
    """A dataset of five EMT frames, made in a fraction of a second."""
    monkeypatch.setitem(cuau.SAMPLING, "equilibration_fs", 10)
    monkeypatch.setitem(cuau.SAMPLING, "interval_fs", 10)
    monkeypatch.setitem(make.DATASETS, "tiny", replace(cuau.CUAU, name="tiny", files=TINY_FILES))
    return "tiny"


@pytest.fixture
def short_xtb(monkeypatch):
    pytest.importorskip("tblite", reason="GFN2-xTB labels need tblite")
    monkeypatch.setitem(ethanol.SAMPLING, "equilibration_fs", 20)
    monkeypatch.setitem(ethanol.SAMPLING, "interval_fs", 10)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("command", ["make", "verify"])
def test_help_shows_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"python tools/make_data.py {command}" in result.stdout


def test_same_seeds_same_bytes(tiny, tmp_path):
    for name in ("a", "b"):
        make_dataset(tiny, tmp_path / name)
    first = contents(tmp_path / "a")
    assert sorted(first) == ["dataset.json", "one.xyz", "two.xyz"]
    assert first == contents(tmp_path / "b")


def test_frames_say_where_they_come_from(tiny, tmp_path):
    make_dataset(tiny, tmp_path)
    frames = read(tmp_path / "one.xyz", ":")
    origin = [(a.info["config_type"], a.info["traj_seed"], a.info["frame"]) for a in frames]
    assert origin == [("one", 1, 0), ("one", 1, 1), ("one", 2, 0)]
    assert {a.info["temperature_K"] for a in frames} == {600.0}
    assert all(a.pbc.all() and a.get_stress().shape == (6,) for a in frames)
    # another seed is another trajectory, not a copy
    assert not np.allclose(frames[0].positions, frames[2].positions)


def test_ethanol_is_deterministic_and_centred(short_xtb):
    recipe = FileRecipe("train_300K", "", (Trajectory(5, 300.0, 2),))
    one, two = (make.make_frames(ethanol.ETHANOL, recipe) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert a.get_potential_energy() == b.get_potential_energy()
        assert np.array_equal(a.get_forces(), b.get_forces())
        assert np.abs(a.get_center_of_mass()).max() < 1e-7
        assert not a.pbc.any()
        assert not a.cell.array.any()
    assert not np.allclose(one[0].positions, one[1].positions)


def test_ethanol_forces_are_the_slope_of_the_energy(short_xtb):
    recipe = FileRecipe("train_300K", "", (Trajectory(5, 300.0, 1),))
    (frame,) = make.make_frames(ethanol.ETHANOL, recipe)
    step, energies = 1e-3, []
    for sign in (1, -1):
        moved = frame.copy()
        moved.positions[2, 0] += sign * step
        energies.append(ethanol.label(moved).get_potential_energy())
    slope = (energies[1] - energies[0]) / (2 * step)
    assert frame.get_forces()[2, 0] == pytest.approx(slope, abs=1e-4)


def test_a_molecule_that_falls_apart_is_refused(short_xtb, monkeypatch):
    monkeypatch.setattr(ethanol, "BROKEN", 1.0)
    recipe = FileRecipe("train_300K", "", (Trajectory(5, 300.0, 1),))
    with pytest.raises(
        DataError, match=r"seed 5 at 300 K did not stay bonded: frame 0 has .*broke"
    ):
        make.make_frames(ethanol.ETHANOL, recipe)


def test_changed_bonds():
    whole = molecule("CH3CH2OH")
    assert ethanol.changed_bonds(whole, whole) == []
    cases = {"broken": (3.0, 0, 0), "lost": (np.nan, 0, 0)}
    for shift in cases.values():
        broken = whole.copy()
        broken.positions[3] += shift  # the hydroxyl hydrogen
        assert "O2-H3 broken" in ethanol.changed_bonds(whole, broken)
    formed = whole.copy()
    formed.positions[3] = whole.positions[0] + (0, 0, 1.0)
    assert "C0-H3 formed" in ethanol.changed_bonds(whole, formed)


def test_isolated_atoms_have_their_ground_state_spin():
    atoms = ethanol.isolated_atoms()
    assert {a.get_chemical_formula(): a.info["unpaired_electrons"] for a in atoms} == {
        "H": 1,
        "C": 2,
        "O": 2,
    }
    assert {a.info["config_type"] for a in atoms} == {"IsolatedAtom"}


def test_momenta_have_the_temperature():
    atoms = molecule("CH3CH2OH") * (1, 1, 1)
    rng = np.random.default_rng(0)
    kinetic = []
    for _ in range(2000):
        atoms.set_momenta(thermal_momenta(atoms, 300.0, rng))
        kinetic.append(atoms.get_kinetic_energy() / (1.5 * len(atoms) * units.kB))
    assert np.mean(kinetic) == pytest.approx(300.0, abs=6.0)  # four standard errors


def test_existing_files_are_reused_and_force_makes_them_again(tiny, tmp_path):
    make_dataset(tiny, tmp_path, only=["two"])
    before = (tmp_path / "two.xyz").stat().st_mtime_ns
    made = make_dataset(tiny, tmp_path)
    assert [(file.path.name, file.frames, file.reused) for file in made] == [
        ("one.xyz", 3, False),
        ("two.xyz", 2, True),
    ]
    assert (tmp_path / "two.xyz").stat().st_mtime_ns == before
    assert not any(file.reused for file in make_dataset(tiny, tmp_path, force=True))
    assert list(json.loads((tmp_path / "dataset.json").read_text())["files"]) == [
        "one.xyz",
        "two.xyz",
    ]


def test_an_interrupted_run_leaves_whole_files_and_resumes(tiny, tmp_path, monkeypatch):
    def interrupt(text, frames, **_):
        text.write("half a fi")
        raise KeyboardInterrupt

    make_dataset(tiny, tmp_path / "straight")
    broken = tmp_path / "broken"
    make_dataset(tiny, broken, only=["one"])
    with monkeypatch.context() as patch:
        patch.setattr("quickstart_data.record.write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_dataset(tiny, broken)
    assert sorted(contents(broken)) == ["dataset.json", "one.xyz"]
    assert [file.reused for file in make_dataset(tiny, broken)] == [True, False]
    assert contents(broken) == contents(tmp_path / "straight")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    from eqplugin.files import write_json

    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert contents(tmp_path) == {"x.json": b'{\n  "a": 1\n}\n'}


def test_foreign_and_changed_files_are_not_overwritten(tiny, tmp_path):
    foreign = tmp_path / "one.xyz"
    foreign.write_text("mine")
    result = run("make", tiny, "--out", tmp_path)
    assert result.exit_code == 1
    assert f"eqplugin: error: {foreign} exists but dataset.json" in result.stderr
    assert contents(tmp_path) == {"one.xyz": b"mine"}  # not even the other file was begun

    assert run("make", tiny, "--out", tmp_path, "--force").exit_code == 0
    foreign.write_bytes(foreign.read_bytes()[:-10])
    result = run("make", tiny, "--out", tmp_path)
    assert result.exit_code == 1
    assert "is not the file that dataset.json" in result.stderr


def test_folder_of_another_dataset_or_method(tiny, tmp_path):
    make_dataset(tiny, tmp_path)
    result = run("make", "cuau-emt", "--out", tmp_path)
    assert result.exit_code == 1
    assert "holds the dataset tiny: choose another folder for cuau-emt." in result.stderr
    record = json.loads((tmp_path / "dataset.json").read_text())
    record["method"]["method"] = "other"
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    result = run("make", tiny, "--out", tmp_path)
    assert result.exit_code == 1
    assert "was made with another method" in result.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["methanol", "--out", "x"],
            "There is no dataset 'methanol': choose ethanol-xtb or cuau-emt.",
        ),
        (
            ["cuau-emt", "--out", "x", "--only", "train"],
            "cuau-emt has no file 'train': choose train_600K, val_600K, test_600K.",
        ),
    ],
)
def test_wrong_names(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("make", *arguments)
    assert result.exit_code == 1
    assert f"eqplugin: error: {sentence}\n" in result.stderr
    assert contents(tmp_path) == {}


def test_without_tblite(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    result = run("make", "ethanol-xtb", "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert "pip install tblite threadpoolctl." in result.stderr
    assert list(tmp_path.iterdir()) == []


def tamper(folder, name, index, change):
    """Change a frame's results and repair the recorded hash, so that only the labels tell."""
    path = folder / name
    frames = read(path, ":")
    change(frames[index].calc.results)
    write(path, frames, format="extxyz")
    record = json.loads((folder / "dataset.json").read_text())
    record["files"][name]["sha256"] = make.sha256(path)
    (folder / "dataset.json").write_text(json.dumps(record))


def test_verify_accepts_what_was_made(tiny, tmp_path):
    make_dataset(tiny, tmp_path)
    verdict = verify_labels(tmp_path, every=1)
    assert verdict.ok
    assert [file.checked for file in verdict.files] == [3, 2]
    assert max(file.energy for file in verdict.files) < 1e-9
    assert 0 < max(file.forces for file in verdict.files) < 1e-8  # the eight decimals in the file
    assert run("verify", tmp_path).exit_code == 0


def shift_energy(results):
    results["energy"] += 1e-4


def shift_force(results):
    results["forces"][4, 1] += 1e-3


def lose_stress(results):
    del results["stress"]


def nan_force(results):
    results["forces"][0, 0] = np.nan


@pytest.mark.parametrize(
    "change, label",
    [
        (shift_energy, "energy"),
        (shift_force, "forces"),
        (lose_stress, "stress"),
        (nan_force, "forces"),
    ],
)
def test_verify_finds_a_tampered_label(tiny, tmp_path, change, label):
    make_dataset(tiny, tmp_path)
    tamper(tmp_path, "one.xyz", 1, change)
    result = run("verify", tmp_path, "--every", "1")
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("eqplugin: error:")]
    assert len(errors) == 1
    assert f"one.xyz, frame 1: the stored {label} differs from the recomputed one by" in errors[0]


def test_verify_finds_changed_bytes_and_missing_files(tiny, tmp_path):
    make_dataset(tiny, tmp_path)
    text = (tmp_path / "one.xyz").read_text()
    (tmp_path / "one.xyz").write_text(text.replace("config_type=one", "config_type=two"))
    (tmp_path / "two.xyz").unlink()
    first, second = verify_labels(tmp_path).problems
    assert "one.xyz has other bytes than dataset.json records" in first
    assert "two.xyz is recorded in dataset.json but missing" in second


@pytest.mark.parametrize(
    "record, words",
    [
        (None, "holds no dataset.json"),
        ("[]", "is not a record that eqplugin wrote"),
        ('{"name": "other", "files": {}}', "There is no dataset 'other'"),
    ],
)
def test_verify_needs_a_record(record, words, tmp_path):
    if record is not None:
        (tmp_path / "dataset.json").write_text(record)
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_verify_step_must_be_positive(tmp_path):
    result = run("verify", tmp_path, "--every", "0")
    assert result.exit_code == 1
    assert "eqplugin: error: --every is 0" in result.stderr
