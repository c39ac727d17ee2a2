"""`eqplugin md` on small models of both stacks: run, kill, resume, refuse."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from eqplugin import EqCalculator
from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.md.observables import read_log
from eqplugin.md.run import MdFiles, run_md
from eqplugin.md.settings import MdSettings

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / stack) for stack in ("mace", "nequip")]
SHORT = ["--every", "5", "--timestep", "0.2"]


@pytest.fixture(scope="module")
def mace_file(tmp_path_factory):
    """Return a MACE file with random weights: gentle forces, fit for a few steps."""
    pytest.importorskip("mace", reason="mace-torch is not installed")
    from mace_under_test import steerable

    path = tmp_path_factory.mktemp("mace") / "small.model"
    torch.save(steerable("4x0e+2x1o", r_max=3.0, avg_num_neighbors=6.0), path)
    return path


@pytest.fixture
def ethanol(tmp_path):
    write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    return tmp_path / "ethanol.xyz"


def invoke(*arguments):
    return CliRunner().invoke(app, ["md", *map(str, arguments)])


@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin"])
def test_command_runs_resumes_and_plots(ensemble, mace_file, ethanol, tmp_path):
    common = (mace_file, ethanol, "--ensemble", ensemble, *SHORT)
    assert invoke(*common, "--steps", 20, "--out", tmp_path / "a").exit_code == 0
    assert invoke(*common, "--steps", 10, "--out", tmp_path / "b").exit_code == 0
    again = invoke(*common, "--steps", 20, "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert "Resumed from step 10." in again.output
    for name in ("trajectory.xyz", "log.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "b" / "plot.png").stat().st_size > 10_000
    done = invoke(*common, "--steps", 20, "--out", tmp_path / "b")
    assert "Nothing to run" in done.output
    refused = invoke(*common, "--steps", 40, "--seed", 3, "--out", tmp_path / "b")
    assert refused.exit_code == 1
    assert "--seed 0, not 3" in refused.stderr


@pytest.mark.slow
def test_killed_command_goes_on_to_the_last_bit(mace_file, ethanol, tmp_path):
    code = "from eqplugin.cli import app; app()"
    common = [sys.executable, "-c", code, "md", mace_file, ethanol, *SHORT, "--steps"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    log = tmp_path / "killed" / "log.csv"
    process = subprocess.Popen(
        [*common, "5000", "--out", log.parent], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not log.is_file() or log.read_text().count("\n") < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = str(5 * (len(read_log(log)) + 3))
    for folder in ("killed", "straight"):
        subprocess.run([*common, steps, "--out", tmp_path / folder], env=environment, check=True)
    for name in ("trajectory.xyz", "log.csv"):
        straight, killed = (tmp_path / folder / name for folder in ("straight", "killed"))
        assert straight.read_bytes() == killed.read_bytes()


def test_mistakes_are_sentences(mace_file, ethanol, tmp_path):
    out = ("--out", tmp_path / "run")
    several = tmp_path / "several.xyz"
    write(several, [molecule("H2O"), molecule("CH3OH")])
    close = molecule("H2O")
    close.positions[1] = close.positions[0] + [0, 0, 0.2]
    write(tmp_path / "close.xyz", close)
    (tmp_path / "not.xyz").write_text("this is no structure")
    batch = ("--engine", "torch-sim")
    for arguments, culprit in (
        ((tmp_path / "no.model", ethanol), "no.model is missing"),
        ((mace_file, tmp_path / "no.xyz"), "no.xyz is missing"),
        ((mace_file, tmp_path / "not.xyz"), "not.xyz cannot be read"),
        ((mace_file, several), "2 frames, but only one structure runs at a time"),
        ((mace_file, tmp_path / "close.xyz"), "close.xyz, frame 0: atoms 0 (O) and 1 (H) are 0.2"),
        ((mace_file, ethanol, "--ensemble", "nvt"), "--ensemble nvt is not known"),
        ((mace_file, ethanol, "--traj", "run.traj"), "--traj run.traj is not valid"),
        ((mace_file, several, *batch, "--ensemble", "npt"), "not validated"),
        ((mace_file, several, *batch, "--skin", "1"), "--skin 1.0 cannot be used with"),
    ):
        result = invoke(*arguments, *out)
        assert result.exit_code == 1, result.output
        assert culprit in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_breakdown_ends_the_command_with_status_one(mace_file, ethanol, tmp_path):
    options = ("--steps", 500, "--friction", 0.1, "--max-temperature", 301, *SHORT)
    result = invoke(mace_file, ethanol, *options, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "broke down at" in result.stderr
    assert "above the limit of 301 K" in result.stderr
    assert len(read(tmp_path / "run" / "trajectory.xyz", ":")) >= 1


# ---- NequIP, and many structures


@pytest.fixture(scope="module")
def nequip_models():
    """Return a small NequIP model with random weights for ASE and for torch-sim."""
    pytest.importorskip("torch_sim", reason="torch-sim-atomistic is not installed")
    from models_under_test import TYPE_NAMES, build
    from nequip.integrations.ase import NequIPCalculator
    from nequip.integrations.torchsim import NequIPTorchSimCalc
    from nequip.integrations.utils import basic_transforms

    model = build("steerable", l_max=1, num_layers=2).eval()
    same = {name: name for name in TYPE_NAMES}
    options = {"device": "cpu"}
    options["transforms"] = basic_transforms(model.metadata, 2.0, TYPE_NAMES, same)
    return NequIPCalculator(model, **options), NequIPTorchSimCalc(model, **options)


@pytest.fixture(scope="module")
def mace_models(mace_file):
    pytest.importorskip("torch_sim", reason="torch-sim-atomistic is not installed")
    from eqplugin.md.batched import open_batch_model

    return EqCalculator(mace_file), open_batch_model(mace_file)


def structures(periodic):
    frames = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH3OH")]
    for atoms in frames if periodic else []:
        atoms.set_cell([6.0, 6.5, 7.0])
        atoms.pbc = True
    return frames


@pytest.mark.parametrize("stack", ["nequip", "mace"])
@pytest.mark.parametrize("periodic", [False, True])
def test_batch_at_constant_energy_is_the_single_run(stack, periodic, request, tmp_path):
    from eqplugin.md.batched import files_of, run_batch

    single, batch = request.getfixturevalue(f"{stack}_models")
    settings = MdSettings("nve", steps=10, every=5, timestep=0.2)
    frames = structures(periodic)
    run_batch(frames, batch, settings, tmp_path / "batch")
    run_md(frames[0], single, settings, MdFiles(tmp_path / "single"))
    logs = [read_log(files_of(tmp_path / "batch", index).log) for index in range(3)]
    expected = read_log(tmp_path / "single" / "log.csv")
    for column in expected:
        np.testing.assert_allclose(logs[0][column], expected[column], rtol=1e-7, atol=1e-7)
    assert logs[0]["pressure_GPa"].isna().all() != periodic
    assert np.ptp(logs[0]["temperature_K"]) > 1e-3
    assert not np.isclose(logs[1]["kinetic_eV"][0], logs[2]["kinetic_eV"][0])


def test_batch_resumes_to_the_last_bit(mace_models, tmp_path):
    from eqplugin.md.batched import files_of, run_batch

    def run(folder, steps, **changes):
        settings = MdSettings("nvt-langevin", steps=steps, every=5, timestep=0.2, **changes)
        return run_batch(structures(False), mace_models[1], settings, tmp_path / folder)

    run("straight", 20)
    run("parts", 10)
    torch.randn(7)  # whatever else draws random numbers in between
    assert run("parts", 20)[0].resumed_from == 10
    for index in range(3):
        straight, parts = (files_of(tmp_path / name, index) for name in ("straight", "parts"))
        assert straight.traj.read_bytes() == parts.traj.read_bytes()
        assert straight.log.read_bytes() == parts.log.read_bytes()
    with pytest.raises(EqPluginError, match="--friction"):
        run("parts", 40, friction=0.02)


def test_batch_says_which_structure_broke_down(mace_models, tmp_path):
    from eqplugin.md.batched import files_of, run_batch

    frames = structures(False)
    frames[1].set_momenta(np.outer([0, 1, -1], [0, 300.0, 0]))
    for index in (0, 2):
        frames[index].set_momenta(np.full((len(frames[index]), 3), 1e-3))
    settings = MdSettings("nve", steps=10, every=5, timestep=0.2, velocities="file")
    with pytest.raises(EqPluginError, match=r"structure 1 broke down .* above the limit"):
        run_batch(frames, mace_models[1], settings, tmp_path)
    assert files_of(tmp_path, 1).log.read_text().count("\n") <= 1


def test_batch_refuses_mixed_periodicity(mace_models, tmp_path):
    from eqplugin.md.batched import run_batch

    frames = [structures(False)[0], structures(True)[1]]
    with pytest.raises(EqPluginError, match="structure 1 has pbc"):
        run_batch(frames, mace_models[1], MdSettings("nve", steps=100), tmp_path)
