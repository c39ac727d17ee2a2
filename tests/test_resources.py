"""Configs and quick-start data are found, by one module, whichever way eqplugin is installed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import eqplugin
from eqplugin import resources
from eqplugin.cli import app
from eqplugin.mace.train import parse
from eqplugin.study.config import read_study

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(eqplugin.__file__).parent
TRAIN = "examples/data/ethanol_xtb/train_300K.xyz"


def test_a_clone_has_them_beside_the_package():
    assert resources.CONFIGS == ROOT / "configs"
    assert resources.DATA == ROOT / "examples" / "data"


@pytest.mark.parametrize(("options", "folder"), [([], "configs"), (["--data"], "examples/data")])
def test_command_prints_the_folder(options, folder):
    assert CliRunner().invoke(app, ["configs", *options]).stdout.strip() == str(ROOT / folder)


def test_only_one_module_looks_outside_the_package():
    climbing = [
        path for path in PACKAGE.rglob("*.py") if any(
            word in path.read_text() for word in ("parents[", "parent.parent", "_PACKAGE.parent")
        )
    ]  # fmt: skip
    assert [path.name for path in climbing] == ["resources.py"]


def test_shipped_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resources.shipped_file(TRAIN) == str(ROOT / TRAIN)
    for other in ("train.xyz", "examples/data/none.xyz", str(ROOT / TRAIN), "pyproject.toml"):
        assert resources.shipped_file(other) == other


def test_a_file_in_the_working_directory_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / TRAIN).parent.mkdir(parents=True)
    (tmp_path / TRAIN).touch()
    assert resources.shipped_file(TRAIN) == TRAIN


def test_study_is_found_by_name_and_finds_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = read_study(Path("quickstart"))
    assert study.path == ROOT / "configs" / "study" / "quickstart.yaml"
    assert study.out == tmp_path / "outputs" / "study" / "quickstart-reduced"
    data = study.config.data
    for path in (data.train, data.val, data.isolated_atoms, *data.test.values()):
        assert Path(path).is_file()


def test_file_of_the_user_goes_before_a_shipped_study_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs" / "study" / "quickstart.yaml").read_text()
    (tmp_path / "quickstart.yaml").write_text(text.replace("name: quickstart", "name: mine"))
    assert read_study(Path("quickstart.yaml")).config.name == "mine"
    assert read_study(Path("quickstart")).config.name == "quickstart"


def test_unknown_study_names_the_shipped_ones():
    result = CliRunner().invoke(app, ["study", "quickstrat"])
    assert result.exit_code == 1
    assert "or name a shipped one: 3bpa, acac, demo, ethanol, quickstart, si." in result.stderr


def test_mace_configs_find_their_data_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = parse(["--config", str(ROOT / "configs" / "mace" / "steerable_minimal.yaml")])
    assert args.train_file == str(ROOT / TRAIN)
