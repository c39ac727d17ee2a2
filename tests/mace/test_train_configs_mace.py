"""The shipped MACE configs parse, name real options, and train."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from mace_under_test import REPOSITORY

from eqplugin.errors import EqPluginError
from eqplugin.mace.build import design_of_arguments
from eqplugin.mace.plan import design_of
from eqplugin.mace.train import build_parser, parse, train

CONFIGS = REPOSITORY / "configs/mace"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
PUBLIC = Path(os.environ.get("EQPLUGIN_DATA", REPOSITORY.parent / "shared/data"))


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def line(name, *more):
    return ["--config", str(CONFIGS / f"{name}.yaml"), *map(str, more)]


def acac():
    folder = PUBLIC / "acac"
    if not (folder / "train_300K.xyz").is_file():
        pytest.skip("public data not here: set EQPLUGIN_DATA to the folder that holds acac/")
    return [
        *("--train_file", folder / "train_300K.xyz", "--test_file", folder / "test_MD_300K.xyz"),
        *("--E0s", folder / "isolated_atoms.xyz"),
    ]


def test_there_are_three_grades():
    assert NAMES == ["everything", "minimal", "realistic"]


@pytest.mark.parametrize("name", NAMES)
def test_config_is_accepted_and_builds_its_family(name):
    args = parse(line(name, *(acac() if "realistic" in name else [])))
    assert args.name == name
    assert args.model == "SteerableMACE"
    assert design_of_arguments(args).feature_dim >= 64


@pytest.mark.parametrize(
    "old, new, hops",
    [
        ("steerable_minimal", "minimal", None),
        ("khop_minimal", "minimal", 1),
        ("khop_realistic", "realistic", 2),
    ],
)
@pytest.mark.parametrize("form", ["two words", "one word"])
def test_configs_of_older_names_are_found_with_a_notice(old, new, hops, form, caplog):
    command = line(old, *(acac() if new == "realistic" else []))
    if form == "one word":
        command = ["=".join(command[:2]), *command[2:]]
    args = parse(command)
    assert (args.name, args.hops) == (old, hops)
    assert f"{new}.yaml" in caplog.text
    assert parse([*command, "--name", "mine", "--max_L", "1"]).name == "mine"


@pytest.mark.parametrize("name", [n for n in NAMES if "realistic" in n])
def test_realistic_configs_ask_for_data(name):
    with pytest.raises(EqPluginError, match="--train_file"):
        parse(line(name))


@pytest.mark.parametrize("name", [n for n in NAMES if "everything" in n])
def test_values_are_the_defaults_unless_said_otherwise(name):
    given = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    text = (CONFIGS / f"{name}.yaml").read_text()
    defaults = {a.dest: a.default for a in build_parser()._actions}
    chosen = {"name", "work_dir", "model", "feature_dim", "max_L", "hops", "train_file",
              "valid_file", "test_file", "E0s", "pin_memory"}  # fmt: skip
    for key, value in given.items():
        comment = next(row for row in text.splitlines() if row.startswith(f"{key}:"))
        if key in chosen or "default" in comment:
            continue
        assert str(value) == str(defaults[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if "minimal" in n])
def test_minimal_configs_learn(name, tmp_path):
    train(line(name, "--work_dir", tmp_path, "--max_num_epochs", 3, "--ema_decay", 0.9))
    model = torch.load(tmp_path / f"{name}.model", weights_only=False)
    assert design_of(model).feature_dim == 64
    log = next((tmp_path / "logs").glob("*[0-9].log")).read_text()
    table = next(row for row in log.splitlines() if "valid_Default" in row and "|" in row)
    assert float(table.split("|")[4]) < 60.0  # % of the force's own size; zero forces give 100
