"""Runs resume to the last bit, refuse what they are not, and stop when they break down."""

import doctest
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.velocitydistribution import thermalize_momenta
from cheap_models import Fault, Springs, Wells, cluster

from eqplugin import quiet
from eqplugin.errors import EqPluginError
from eqplugin.md import run
from eqplugin.md import settings as md_settings
from eqplugin.md.observables import read_log
from eqplugin.md.run import Breakdown, MdFiles, run_md
from eqplugin.md.settings import MdSettings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def copper():
    return bulk("Cu", cubic=True)


def settings(**changes):
    usual = {"timestep": 2.0, "every": 5, "friction": 0.02, "temperature": 200.0, "steps": 40}
    return MdSettings(**(usual | changes))


def same(a: MdFiles, b: MdFiles) -> bool:
    return all(getattr(a, n).read_bytes() == getattr(b, n).read_bytes() for n in ("traj", "log"))


def test_the_examples_of_the_docstrings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (quiet, run, md_settings):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


# ---- resuming


@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin", "nvt-bussi", "npt"])
def test_resumed_is_straight_to_the_last_bit(ensemble, tmp_path):
    chosen = settings(ensemble=ensemble)
    straight = run_md(copper(), EMT(), chosen, MdFiles(tmp_path / "a"))
    assert straight.resumed_from is None
    for steps in (15, 20, 40):
        resumed = run_md(copper(), EMT(), replace(chosen, steps=steps), MdFiles(tmp_path / "b"))
    assert resumed.resumed_from == 20
    for part in ("positions", "momenta"):
        np.testing.assert_array_equal(resumed.atoms.arrays[part], straight.atoms.arrays[part])
    np.testing.assert_array_equal(resumed.atoms.cell, straight.atoms.cell)
    assert same(MdFiles(tmp_path / "a"), MdFiles(tmp_path / "b"))
    # the run goes somewhere, or equal files would say nothing
    assert not np.array_equal(straight.atoms.positions, copper().positions)
    changed = not np.array_equal(straight.atoms.cell.array, copper().cell.array)
    assert changed == (ensemble == "npt")


@pytest.mark.parametrize("ensemble", ["nvt-langevin", "nvt-bussi"])
def test_noise_depends_on_the_seed_and_goes_on_after_a_restart(ensemble, tmp_path):
    ends = []
    for seed in (0, 1):
        chosen = settings(ensemble=ensemble, seed=seed, velocities="file", steps=10)
        start = cluster()
        thermalize_momenta(start, 200, rng=np.random.default_rng(0))
        ends.append(run_md(start, Wells(start), chosen, MdFiles(tmp_path / str(seed))).atoms)
    assert not np.array_equal(ends[0].get_momenta(), ends[1].get_momenta())


def test_a_finished_run_is_reused(tmp_path):
    files = MdFiles(tmp_path)
    run_md(copper(), EMT(), settings(), files)
    before = files.traj.read_bytes()
    fault = Fault(copper(), "nan", at_call=2)  # breaks if it were asked for one step
    again = run_md(copper(), fault, settings(steps=20), files)
    assert (again.resumed_from, again.steps) == (40, 40)
    assert files.traj.read_bytes() == before


def test_half_written_frames_and_frames_beyond_the_restart_are_cut(tmp_path):
    straight, cut = MdFiles(tmp_path / "a"), MdFiles(tmp_path / "b")
    run_md(copper(), EMT(), settings(), straight)
    run_md(copper(), EMT(), settings(steps=20), cut)
    with cut.traj.open("ab") as file:  # a whole frame and a half
        frame = b"".join(cut.traj.read_bytes().splitlines(keepends=True)[:6])
        file.write(frame + frame[: len(frame) // 2])
    with cut.log.open("ab") as file:
        file.write(b"25,0.05,1.")
    leftover = cut.folder / ".restart.xyz.tmp.npz"
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    assert len(read_log(cut.log)) == 5  # readers leave the half line out
    run_md(copper(), EMT(), settings(), cut)
    assert same(straight, cut)
    assert not leftover.exists()
    assert len(read(cut.traj, ":")) == len(read_log(cut.log)) == 9


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_md_run import MdFiles, MdSettings, Path, copper, run_md, settings, EMT
slow = lambda step, sample: time.sleep(0.01)
run_md(copper(), EMT(), settings(ensemble=sys.argv[3], steps=2000), MdFiles(Path(sys.argv[1])),
       watch=slow)
"""


@pytest.mark.parametrize("ensemble", ["nvt-langevin", "npt"])
def test_a_killed_run_loses_at_most_one_frame(ensemble, tmp_path):
    killed, straight = MdFiles(tmp_path / "killed"), MdFiles(tmp_path / "straight")
    command = [sys.executable, "-c", SCRIPT, str(killed.folder), str(HERE), ensemble]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 240
        while not killed.log.is_file() or killed.log.read_text().count("\n") < 6:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    written = len(read_log(killed.log)) - 1  # the first line is step 0
    steps = 5 * (written + 4)
    chosen = settings(ensemble=ensemble, steps=steps)
    resumed = run_md(copper(), EMT(), chosen, killed)
    assert resumed.resumed_from >= 5 * (written - 1) > 0
    run_md(copper(), EMT(), chosen, straight)
    assert same(straight, killed)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    files = MdFiles(tmp_path)

    def intrude(step, _sample):
        if step == 5:
            with pytest.raises(EqPluginError, match="another run is writing"):
                run_md(copper(), EMT(), settings(), files)

    run_md(copper(), EMT(), settings(steps=10), files, watch=intrude)


# ---- options


@pytest.mark.parametrize(
    "option, value, culprit",
    [
        ("ensemble", "nve", "--ensemble nvt-langevin, not nve"),
        ("timestep", 1.0, "--timestep 2.0, not 1.0"),
        ("temperature", 201.0, "--temperature 200.0"),
        ("friction", 0.01, "--friction"),
        ("seed", 1, "--seed 0, not 1"),
        ("every", 10, "--every 5, not 10"),
        ("max_temperature", 5000.0, "--max-temperature None"),
    ],
)
def test_changed_options_are_refused_on_resuming(option, value, culprit, tmp_path):
    files = MdFiles(tmp_path)
    run_md(copper(), EMT(), settings(steps=10), files)
    before = files.traj.read_bytes()
    with pytest.raises(EqPluginError, match=culprit):
        run_md(copper(), EMT(), replace(settings(), **{option: value}), files)
    assert files.traj.read_bytes() == before


def test_another_structure_or_model_is_refused_on_resuming(tmp_path):
    files = MdFiles(tmp_path)
    run_md(copper(), EMT(), settings(steps=10), files, {"model": "a"})
    other = copper()
    other.positions[0, 0] += 1e-9
    with pytest.raises(EqPluginError, match="another structure file"):
        run_md(other, EMT(), settings(), files, {"model": "a"})
    with pytest.raises(EqPluginError, match="another model file"):
        run_md(copper(), EMT(), settings(), files, {"model": "b"})


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"ensemble": "nvt"}, "--ensemble nvt"),
        ({"timestep": 0.0}, "--timestep 0"),
        ({"timestep": float("nan")}, "--timestep nan"),
        ({"temperature": -1.0}, "--temperature -1"),
        ({"friction": 0.0}, "--friction 0"),
        ({"friction": 0.5}, "--friction 0.5"),
        ({"pressure": float("inf")}, "--pressure inf"),
        ({"steps": 0}, "--steps 0"),
        ({"every": 0}, "--every 0"),
        ({"steps": 42}, "--steps 42 is not a multiple of --every 5.*use 40 steps"),
        ({"seed": -1}, "--seed -1"),
        ({"velocities": "zero"}, "--velocities zero"),
        ({"max_temperature": 100.0}, "--max-temperature 100"),
    ],
)
def test_impossible_options_are_refused(changes, culprit):
    with pytest.raises(EqPluginError, match=culprit):
        settings(**changes)


def test_options_that_do_not_suit_the_structure_are_refused(tmp_path):
    files = MdFiles(tmp_path)
    with pytest.raises(EqPluginError, match="periodic in all three"):
        run_md(molecule("H2O"), EMT(), settings(ensemble="npt"), files)
    with pytest.raises(EqPluginError, match="this model has none"):
        run_md(copper(), Wells(copper()), settings(ensemble="npt"), files)
    with pytest.raises(EqPluginError, match="no velocities"):
        run_md(copper(), EMT(), settings(velocities="file"), files)
    with pytest.raises(EqPluginError, match=r"--traj .*run\.traj"):
        MdFiles(tmp_path, traj=tmp_path / "run.traj")
    assert not files.restart.exists()


def test_a_damaged_restart_and_a_missing_trajectory_are_said(tmp_path):
    files = MdFiles(tmp_path)
    run_md(copper(), EMT(), settings(steps=10), files)
    whole = files.restart.read_bytes()
    files.restart.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EqPluginError, match=r"restart\.npz cannot be read"):
        run_md(copper(), EMT(), settings(), files)
    files.restart.write_bytes(whole)
    files.traj.unlink()
    with pytest.raises(EqPluginError, match=r"trajectory\.xyz has been removed"):
        run_md(copper(), EMT(), settings(), files)


def test_someone_elses_file_is_not_overwritten(tmp_path):
    mine = tmp_path / "mine.xyz"
    mine.write_text("precious\n")
    with pytest.raises(EqPluginError, match=r"mine\.xyz already exists"):
        run_md(copper(), EMT(), settings(), MdFiles(tmp_path / "run", traj=mine))
    assert mine.read_text() == "precious\n"


# ---- breakdown


@pytest.mark.parametrize(
    "kind, culprit",
    [
        ("nan", r"the force on atom 1 \(Ar\) is NaN"),
        ("energy", "the energy is inf"),
        ("hot", "above the limit of 3000 K"),
        ("close", r"atoms 0 \(Ar\) and 1 \(Ar\) are [0-9.]+ A apart, closer than 1.06 A"),
    ],
)
def test_breakdown_stops_the_run_and_keeps_the_last_good_frame(kind, culprit, tmp_path):
    start, files = cluster(), MdFiles(tmp_path)
    chosen = settings(steps=2000, temperature=20.0, ensemble="nve")
    with pytest.raises(Breakdown, match=culprit) as caught:
        run_md(start, Fault(start, kind, at_call=18), chosen, files)
    frames, log = read(files.traj, ":"), read_log(files.log)
    assert len(frames) == len(log) >= 3
    assert np.isfinite(frames[-1].positions).all()
    assert f"good frame, at {log['time_ps'].iloc[-1]:.4f} ps" in str(caught.value)
    assert files.failed.is_file()
    if kind != "close":  # with the fault mended the same call goes on; momentum no model mends
        healed = run_md(start, Wells(start), replace(chosen, steps=5 * len(log)), files)
        assert healed.resumed_from == int(log["step"].iloc[-1])


def test_a_healthy_hot_run_is_left_alone(tmp_path):
    start = cluster()
    chosen = settings(temperature=2500.0, steps=100)
    assert run_md(start, Wells(start, 20.0), chosen, MdFiles(tmp_path)).steps == 100


def test_a_model_that_cannot_run_the_start_writes_nothing(tmp_path):
    start, files = cluster(), MdFiles(tmp_path)
    with pytest.raises(EqPluginError, match="at the start, the force on atom 1"):
        run_md(start, Fault(start, "nan", at_call=1), settings(), files)
    assert not files.traj.exists()


# ---- what is logged


def test_log_agrees_with_the_trajectory_and_with_ase(tmp_path):
    files = MdFiles(tmp_path)
    run_md(copper(), EMT(), settings(ensemble="nvt-langevin"), files)
    log = read_log(files.log)
    np.testing.assert_allclose(log["time_ps"], np.arange(9) * 0.01)
    for row, frame in zip(log.itertuples(), read(files.traj, ":"), strict=True):
        assert frame.info["step"] == row.step
        assert frame.get_potential_energy() == pytest.approx(row.potential_eV, abs=1e-9)
        assert frame.get_temperature() == pytest.approx(row.temperature_K, rel=1e-6)
        frame.calc = EMT()
        stress = frame.get_stress(include_ideal_gas=True)
        assert -stress[:3].mean() * 160.21766 == pytest.approx(row.pressure_GPa, abs=1e-5)
    assert log["density_g_cm3"].iloc[0] == pytest.approx(4 * 63.546 / 3.61**3 * 1.66053907, 1e-6)
    assert log["conserved_eV"].isna().all()


def test_start_structure_is_left_alone(tmp_path):
    start = cluster("Ar4")
    before = start.positions.copy()
    run_md(start, Springs(start), settings(ensemble="nve"), MdFiles(tmp_path))
    np.testing.assert_array_equal(start.positions, before)
    assert not start.has("momenta")
    log = read_log(MdFiles(tmp_path).log)
    assert log["pressure_GPa"].isna().all()
    assert np.ptp(log["conserved_eV"]) < 1e-3


def test_a_lock_that_is_a_link_does_not_cost_what_it_points_to(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(EqPluginError, match=r"run/\.lock is a link: delete it"):
        run_md(copper(), EMT(), settings(), tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "precious"


# ---- fixed atoms


def fixed_copper(*indices):
    atoms = copper()
    atoms.set_constraint(FixAtoms(list(indices)))
    return atoms


def test_fixed_atoms_stay_and_are_in_the_trajectory(tmp_path):
    files = MdFiles(tmp_path)
    run_md(fixed_copper(0, 1), EMT(), settings(), files)
    frames = read(files.traj, ":")
    assert [list(frame.constraints[0].index) for frame in frames] == [[0, 1]] * len(frames)
    np.testing.assert_array_equal(frames[-1].positions[:2], copper().positions[:2])
    assert not np.array_equal(frames[-1].positions[2:], copper().positions[2:])
    # what the model says of them is kept
    assert np.abs(frames[-1].get_forces(apply_constraint=False)[:2]).max() > 1e-3


def test_a_run_with_fixed_atoms_goes_on_with_the_same_ones_only(tmp_path):
    run_md(fixed_copper(0, 1), EMT(), settings(steps=10), tmp_path)
    for start in (copper(), fixed_copper(0), fixed_copper(0, 1, 2)):
        with pytest.raises(EqPluginError, match="other constraints, such as fixed atoms"):
            run_md(start, EMT(), settings(steps=20), tmp_path)
    assert run_md(fixed_copper(0, 1), EMT(), settings(steps=20), tmp_path).resumed_from == 10
    run_md(copper(), EMT(), settings(steps=10), tmp_path / "free")
    with pytest.raises(EqPluginError, match="other constraints"):
        run_md(fixed_copper(0), EMT(), settings(steps=20), tmp_path / "free")
