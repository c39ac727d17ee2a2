"""The wheel holds what it must, and installed elsewhere it runs in an empty folder."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build")
ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "-m", "family=nequip,mace", "l_max=0", "seed=1", "feature_dim=16", "train.steps=10",
    "data.train_frames=20", "data.test_frames=5", "speed_repeats=2",
)  # fmt: skip


def run(*command, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder of sdist and wheel; the wheel is made from the sdist, so that one is whole, too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Programs of an environment with the wheel, and the other packages of the present one."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    programs = venv / "bin"
    wheel = next(built.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=venv)
    own = sysconfig.get_path("purelib", "venv", {"base": venv})
    # a line of a .pth file adds the folder alone, without the editable install that is in it
    (Path(own) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    train = programs / "nequip-train"
    train.write_text(f"#!{programs / 'python'}\nfrom nequip.scripts.train import main\nmain()\n")
    train.chmod(0o755)
    return programs


@pytest.fixture
def command(installed, tmp_path):
    """Runs a program of the wheel's environment in an empty folder."""
    return lambda program, *arguments: run(installed / program, *arguments, cwd=tmp_path)


def names_in(folder, *suffixes):
    files = [file for file in (ROOT / folder).rglob("*") if file.is_file()]
    return {str(f.relative_to(ROOT)) for f in files if not suffixes or f.suffix in suffixes}


def test_wheel_holds_the_package_configs_and_data(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = names_in("eqplugin", ".py", ".pyi", ".typed", ".json", ".yaml", ".cpp", ".h")
    beside = names_in("configs", ".yaml") | names_in("examples/data")
    assert held == package | {f"eqplugin/{name}" for name in beside}
    assert {"eqplugin/py.typed", "eqplugin/nn/product/csrc/simd.h"} <= held


def test_sdist_holds_what_the_wheel_is_made_of(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    assert names_in("configs", ".yaml") | names_in("examples/data") <= held
    assert {"pyproject.toml", "setup.py", "LICENSE", "README.md"} <= held
    assert not any(name.startswith("tests") for name in held)


def test_installed_commands_find_configs_and_data(command, installed, tmp_path):
    configs = Path(command("eqplugin", "configs").strip())
    assert configs.is_relative_to(installed.parent)
    assert (configs / "study" / "quickstart.yaml").is_file()
    data = Path(command("eqplugin", "configs", "--data").strip())
    assert (data / "ethanol_xtb" / "train_300K.xyz").is_file()
    name = next(n for n in command("eqplugin", "template").split() if n.startswith("nequip/"))
    assert str(data) in command("eqplugin", "template", name)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_installed_configs_train_on_the_shipped_data(command, tmp_path):
    configs = Path(command("eqplugin", "configs").strip())
    name = next(file.stem for file in sorted((configs / "nequip").glob("*minimal.yaml")))
    small = ("feature_dim=8", "num_layers=2", "max_epochs=1", "hydra.run.dir=out")
    command("nequip-train", "-cp", configs / "nequip", "-cn", name, *small)
    assert (tmp_path / "out" / "best.ckpt").is_file()


@pytest.mark.slow
def test_installed_study(command, tmp_path):
    assert "nequip-L1" in command("eqplugin", "study", "quickstart", "--dry-run")
    assert not any(tmp_path.iterdir())
    command("eqplugin", "study", "quickstart", *SMALL, "out=out")
    assert (tmp_path / "out" / "results.jsonl").read_text().count('"done"') == 2


@pytest.mark.slow
def test_installed_demo(command, tmp_path):
    command("eqplugin", "demo", "--epochs", "1")
    assert (tmp_path / "demo" / "report.md").is_file()
