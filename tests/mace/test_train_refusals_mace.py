"""Bad input to `eqplugin mace-train`: one sentence, exit 1, nothing written."""

import subprocess
import sys

import numpy as np
import pytest
from ase.io import read, write
from mace_training import E0S, KHOP, STEERABLE, arguments
from mace_under_test import RESIDUAL
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.mace.train import parse, train

pytestmark = pytest.mark.usefixtures("without_torchscript")


@pytest.fixture
def spoilt(ethanol, tmp_path):
    """Write a training file with something wrong and return its path."""

    def spoil(how):
        frames = read(ethanol / "train.xyz", ":")
        how(frames)
        write(tmp_path / "spoilt.xyz", frames)
        return tmp_path / "spoilt.xyz"

    return spoil


def refused(data, tmp_path, **changes):
    """Return the sentence with which the command refuses."""
    with pytest.raises(EqPluginError) as caught:
        train(arguments(data, tmp_path / "never", **{**STEERABLE, **changes}))
    assert not (tmp_path / "never").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"feature_dim": 8}, "feature_dim=8"),
        ({"feature_dim": None}, "feature_dim is missing"),
        ({"max_L": -1}, "l_max=-1 is not valid (max_L in MACE)"),
        ({"max_L": 3, "feature_dim": 64}, "max_ell=2"),
        ({"num_channels": 0}, "num_channels=0"),
        ({"hops": 0}, "hops=0"),
        ({**KHOP, "hops": 0}, "hops=0"),
        ({**KHOP, "hops": 3}, "hops=3"),
        ({**KHOP, "hops": "many"}, "many"),
        ({"model": "MACE"}, "--feature_dim is not an option"),
        ({"model": "MACE", "feature_dim": None, "num_channels": 0}, "num_channels=0"),
        ({"model": "MICE"}, "MICE"),
        ({"enable_cueq": True}, "enable_cueq"),
        ({"enable_oeq": True}, "enable_oeq"),
        ({"zero_shift": True, "interaction_first": RESIDUAL}, "--zero_shift"),
        ({"model": "MACE", "feature_dim": None, "zero_shift": True}, "--zero_shift is not"),
        ({"r_max": 0}, "r_max"),
        ({"max_num_epochs": 0}, "max_num_epochs=0"),
        ({"name": None}, "--name"),
        ({"nonsense": 3}, "nonsense"),
        ({"train_file": "/no/such/file.xyz"}, "/no/such/file.xyz"),
        ({"train_file": None}, "--train_file"),
        ({"config": "/no/such/config.yaml"}, "config.yaml"),
        ({"E0s": None}, "E0s are missing"),
        ({"E0s": "{1: -13.6, 6: -1029}"}, "No E0 for O"),
        ({"E0s": "{1: -13.6"}, "--E0s"),
        ({"E0s": "/no/e0s.xyz"}, "/no/e0s.xyz"),
        ({"E0s": "foundation"}, "--foundation_model"),
        ({"atomic_numbers": "[1, 6]"}, "O is not among"),
        ({"heads": "{'a': 3}"}, "'a'"),
        ({"heads": "{"}, "--heads"),
        ({"energy_key": "REF_energy"}, "--energy_key energy"),
        ({"forces_key": "dft_forces"}, "--forces_key forces"),
        ({"loss": "stress"}, "stress"),
        ({"loss": "virials"}, "REF_virials"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(ethanol, tmp_path, changes, culprit):
    assert culprit in refused(ethanol, tmp_path, **changes)


def _drop_forces(frames):
    for atoms in frames:
        del atoms.calc.results["forces"]


def _drop_one_energy(frames):
    del frames[3].calc.results["energy"]


def _drop_all(frames):
    for atoms in frames:
        atoms.calc = None


def _not_a_number(frames):
    frames[2].calc.results["forces"][0, 0] = np.nan


@pytest.mark.parametrize(
    "how, culprit",
    [
        (_drop_forces, "--forces_weight 0"),
        (_drop_one_energy, "1 of 12 frames (first: 3)"),
        (_drop_all, "it has no label at all"),
        (_not_a_number, "frame 2"),
    ],
)
def test_bad_frames_are_refused_in_one_sentence(ethanol, tmp_path, spoilt, how, culprit):
    sentence = refused(ethanol, tmp_path, train_file=spoilt(how))
    assert "spoilt.xyz" in sentence
    assert culprit in sentence


def test_unknown_element_in_test_data_is_refused(ethanol, tmp_path):
    frames = read(ethanol / "valid.xyz", ":")
    frames[0].symbols[0] = "N"
    write(tmp_path / "test.xyz", frames)
    refusal = refused(ethanol, tmp_path, test_file=tmp_path / "test.xyz")
    assert "data contain N, which no training frame contains" in refusal


def test_missing_labels_are_accepted_when_asked_for(ethanol, tmp_path, spoilt):
    path = spoilt(_drop_one_energy)
    args = parse(
        [*arguments(ethanol, tmp_path, **STEERABLE, train_file=path), "--allow_missing_labels"]
    )
    assert args.allow_missing_labels


def test_isolated_atom_without_energy_is_refused(ethanol, tmp_path, spoilt):
    def with_bare_atom(frames):
        atom = read(E0S, 0)
        atom.calc = None
        frames.insert(0, atom)

    assert "isolated H atom" in refused(
        ethanol, tmp_path, train_file=spoilt(with_bare_atom), E0s=None
    )


def test_a_resume_file_of_another_model_is_refused(ethanol, tmp_path):
    train(arguments(ethanol, tmp_path, **STEERABLE, max_num_epochs=1))
    with pytest.raises(EqPluginError, match="another model"):
        train(arguments(ethanol, tmp_path, **KHOP, restart_latest=True))
    resume = next((tmp_path / "checkpoints").glob("*_resume.pt"))
    resume.write_bytes(b"not a checkpoint")
    with pytest.raises(EqPluginError, match="cannot be read"):
        train(arguments(ethanol, tmp_path, **STEERABLE, restart_latest=True))


def command(*line, **more):
    return subprocess.run(
        [sys.executable, "-c", "from eqplugin.cli import app; app()", *map(str, line)],
        capture_output=True, text=True, check=False, **more,
    )  # fmt: skip


def test_command_says_one_sentence_and_exits_with_1(ethanol, tmp_path):
    line = arguments(ethanol, tmp_path / "never", **STEERABLE, energy_key="REF_energy")
    done = command("mace-train", *line)
    assert done.returncode == 1
    said = [text for text in done.stderr.splitlines() if "eqplugin: error:" in text]
    assert len(said) == 1
    assert "forces, energy" in said[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "never").exists()


def test_help_lists_both_kinds_of_options():
    done = CliRunner().invoke(app, ["mace-train", "--help"])
    assert done.exit_code == 0
    for option in ("--feature_dim", "--hops", "--swa", "--restart_latest", "--foundation_model"):
        assert option in done.stdout
