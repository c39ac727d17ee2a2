"""Dynamics with NequIP models: resumed to the last bit, from every kind of file, for 10 ps."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from eqplugin import EqCalculator
from eqplugin.cli import app
from eqplugin.md.nve import NveRun, run_nve
from eqplugin.md.observables import read_log
from eqplugin.md.run import MdFiles, run_md
from eqplugin.md.settings import MdSettings

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
sys.path.append(str(ROOT / "tests" / "nequip"))
WRITTEN = ("trajectory.xyz", "log.csv")


def boxed(atoms):
    atoms.set_cell([6.0, 6.5, 7.0])
    atoms.pbc = True
    return atoms


# ---- a model with random weights


@pytest.fixture(scope="module")
def model():
    from models_under_test import build

    return build("steerable", l_max=1, num_layers=2, model_dtype="float32").eval()


@pytest.mark.parametrize(
    "ensemble, periodic",
    [("nve", True), ("nvt-langevin", True), ("nvt-bussi", True), ("npt", True),
     ("nve", False), ("nvt-langevin", False)],
)  # fmt: skip
def test_nequip_resumed_is_straight_to_the_last_bit(ensemble, periodic, model, tmp_path):
    # the stress of a frame, the skin and what a calculator remembers must leave no trace
    start = boxed(molecule("CH3CH2OH")) if periodic else molecule("CH3CH2OH")
    chosen = MdSettings(ensemble, steps=30, every=5, timestep=0.5, temperature=600.0)
    straight = run_md(start, EqCalculator(model), chosen, MdFiles(tmp_path / "straight"))
    for steps in (10, 15, 30):  # a new calculator each time, as in a new process
        part = replace(chosen, steps=steps)
        resumed = run_md(start, EqCalculator(model), part, MdFiles(tmp_path / "parts"))
    assert resumed.resumed_from == 15
    np.testing.assert_array_equal(resumed.atoms.positions, straight.atoms.positions)
    for name in WRITTEN:
        parts, whole = (tmp_path / folder / name for folder in ("parts", "straight"))
        assert parts.read_bytes() == whole.read_bytes()
    assert np.abs(straight.atoms.positions - start.positions).max() > 0.01
    assert read_log(tmp_path / "parts" / "log.csv")["pressure_GPa"].isna().any() != periodic


# ---- a trained one, through the commands


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a quick-start model of half the width after six epochs, and its compiled file."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["feature_dim=64", "num_layers=3", "max_epochs=6", f"hydra.run.dir={folder}"]
    options += [f"data_root={ROOT / 'examples' / 'data'}"]
    commands = (
        ["nequip-train", "-cp", ROOT / "configs" / "nequip", "-cn", "steerable_minimal", *options],
        ["nequip-compile", "best.ckpt", "model.nequip.pt2", "--mode", "aotinductor",
         "--device", "cpu", "--target", "ase"],
    )  # fmt: skip
    for name, *rest in commands:
        call = [Path(sys.executable).parent / name, *rest]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQPLUGIN_CACHE_DIR", str(folder / "cache"))  # one compilation for all tests
        yield folder


def md(model, start, out, *options, status=0):
    given = ("md", model, start, "--out", out, *options)
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    assert result.exit_code == status, result.output
    return result


@pytest.mark.slow
@pytest.mark.parametrize("periodic", [True, False])
def test_compiled_models_run_and_resume(periodic, trained, tmp_path):
    start, logs = tmp_path / "start.xyz", {}
    frame = read(ETHANOL / "test_300K.xyz", 0)
    write(start, boxed(frame) if periodic else frame)
    ways = {
        "eager": ("best.ckpt",),
        "aoti": ("best.ckpt", "--compile", "aoti"),
        "file": ("model.nequip.pt2",),
    }
    for name, (file, *options) in ways.items():
        common = (*options, "--every", 5)
        md(trained / file, start, tmp_path / name, "--steps", 20, *common)
        md(trained / file, start, tmp_path / "parts" / name, "--steps", 10, *common)
        again = md(trained / file, start, tmp_path / "parts" / name, "--steps", 20, *common)
        assert "Resumed from step 10." in again.output
        for written in WRITTEN:
            whole, parts = tmp_path / name / written, tmp_path / "parts" / name / written
            assert whole.read_bytes() == parts.read_bytes()
        logs[name] = read_log(tmp_path / name / "log.csv")
    assert (trained / "cache").is_dir()  # it was compiled
    # the same noise and, but for float32's rounding, the same forces
    near = {"potential_eV": 5e-3, "kinetic_eV": 5e-3, "temperature_K": 5.0, "pressure_GPa": 1e-2}
    for name in ("aoti", "file"):
        for column, tolerance in near.items():
            expected = logs["eager"][column]
            np.testing.assert_allclose(logs[name][column], expected, rtol=0, atol=tolerance)
    assert logs["file"]["pressure_GPa"].isna().any() != periodic
    refused = md(
        trained / "model.nequip.pt2", start, tmp_path / "no", "--compile", "aoti", status=1
    )
    assert "the file is already compiled" in refused.stderr


@pytest.mark.slow
def test_a_trained_model_conserves_energy_for_10_ps(trained, tmp_path):
    start = read(ETHANOL / "test_300K.xyz", 0)
    write(tmp_path / "start.xyz", start)
    options = ("--ensemble", "nve", "--steps", 20_000, "--timestep", 0.5, "--every", 20)
    md(trained / "best.ckpt", tmp_path / "start.xyz", tmp_path / "nve", *options,
       "--compile", "aoti")  # fmt: skip
    log = read_log(tmp_path / "nve" / "log.csv")
    energy = 1e3 * (log["total_eV"] - log["total_eV"][0]).to_numpy() / len(start)
    run = NveRun(log["time_ps"].to_numpy(), energy, log["temperature_K"].to_numpy())
    assert run.time[-1] == pytest.approx(10.0)
    assert abs(run.drift) < 0.1  # meV/atom/ps; 0.01 is usual for the quick-start models
    assert np.std(energy) < 1.0  # meV/atom: Verlet's own at 0.5 fs is about 0.2
    assert 100 < run.temperature.mean() < 600  # it moves
    assert np.ptp(log["potential_eV"]) > 0.1

    # the same measure on forces that do not belong to the energy
    class Leaky(EqCalculator):
        def calculate(self, *arguments, **named):
            super().calculate(*arguments, **named)
            self.results["forces"] = 1.3 * self.results["forces"]

    leaky = run_nve(start, Leaky(trained / "best.ckpt"), tmp_path / "leaky.csv", steps=400)
    assert np.std(leaky.energy) > 5 * np.std(energy)
