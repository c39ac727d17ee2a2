"""One mistake, one sentence: in Python, on the command line, in a study, in both stacks."""

from pathlib import Path

import pytest
from nequip.utils.global_state import set_global_state
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.design import Design, DesignError
from eqplugin.mace import SteerableMACE
from eqplugin.mace.train import parse
from eqplugin.measure.expressivity.loading import load_subject
from eqplugin.nequip import SteerableModel

ROOT = Path(__file__).resolve().parents[1]
TOO_SMALL = "feature_dim=3 is too small for l_max=2"


@pytest.fixture(scope="module")
def sentence():
    with pytest.raises(DesignError, match=TOO_SMALL) as error:
        Design(3, 2)
    return str(error.value)


def nequip():
    set_global_state()
    common = {"seed": 0, "model_dtype": "float32", "type_names": ["H"], "r_max": 4.0}
    SteerableModel(feature_dim=3, l_max=2, **common)


def mace():
    SteerableMACE(feature_dim=3, max_L=2, num_interactions=2, max_ell=2)


def mace_train():
    config = ROOT / "configs/mace/minimal.yaml"
    parse(["--config", str(config), "--feature_dim", "3", "--max_L", "2"])


@pytest.mark.parametrize(
    "mistake",
    [
        nequip,
        mace,
        mace_train,
        lambda: load_subject("steerable:D=3,L=2"),
        lambda: load_subject("mace-steerable:D=3,L=2"),
    ],
    ids=["nequip", "mace", "mace-train", "expressivity", "expressivity-mace"],
)
def test_in_python(mistake, sentence):
    with pytest.raises(DesignError) as error:
        mistake()
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "command",
    [
        ("budget", "-D", "3", "-L", "2"),
        ("theory", "info", "ETHANOL", "-D", "3", "-L", "2"),
        ("bench", "expressivity", "--model", "steerable:D=3,L=2"),
        ("study", "quickstart", "feature_dim=3", "arms.degrees.l_max=[2]", "--dry-run"),
    ],
    ids=lambda command: command[0],
)
def test_on_the_command_line(command, sentence):
    ethanol = str(ROOT / "examples/data/ethanol_xtb/test_300K.xyz")
    command = [ethanol if part == "ETHANOL" else part for part in command]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.strip().endswith(sentence)
