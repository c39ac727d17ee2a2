"""Nothing in a model file runs that honest files of NequIP and MACE do not hold."""

import warnings

import pytest
import torch
from hostile import mark, pickles, retargeted, with_passenger
from old_models import MACE, NEQUIP, needs
from typer.testing import CliRunner

from eqplugin import EqCalculator, EqPluginError, load_model
from eqplugin.modelfile.pickles import HostileFileError, check_pickles


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "RAN"


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    place = tmp_path_factory.mktemp("planted") / "RAN"
    return pickles(place), place


def test_every_planted_pickle_is_refused(contents, tmp_path):
    found, marker = contents
    marker.unlink(missing_ok=True)
    passed = []
    for name, content in found.items():
        path = tmp_path / "evil.model"
        path.write_bytes(content)
        try:
            check_pickles(path)
            passed.append(name)
        except EqPluginError as error:
            assert str(path) in str(error)  # noqa: PT017
    # of two pickles of one name torch reads the first, which is harmless
    assert set(passed) <= {"twice"}
    assert not marker.exists()


def test_the_reader_is_torchs(contents, tmp_path):
    found, marker = contents
    path = tmp_path / "twice.model"
    path.write_bytes(found["twice"])
    try:
        check_pickles(path)
    except EqPluginError:
        return
    torch.load(path, weights_only=False)
    assert not marker.exists()


@pytest.mark.parametrize("ending", [".model", ".ckpt"])
def test_planted_files_open_no_calculator(contents, tmp_path, ending):
    needs(*([MACE[0]] if ending == ".model" else []))
    found, marker = contents
    marker.unlink(missing_ok=True)
    for name in ("bare", "legacy", "fx bytes", "graph: imports", "torchscript", "twice", "tar"):
        path = tmp_path / f"evil{ending}"
        path.write_bytes(found[name])
        for trust in (None, False):
            with pytest.raises(EqPluginError, match="evil"):
                EqCalculator(path, trust=trust)
    assert not marker.exists()


@pytest.mark.parametrize("name", [MACE[0], NEQUIP[0]])
def test_a_passenger_is_named_and_opened_only_when_trusted(
    folder, tmp_path, marker, name, monkeypatch
):
    needs(name)
    path = tmp_path / name
    path.write_bytes(with_passenger(folder / name, marker))
    for open_it in (EqCalculator, load_model):
        with pytest.raises(HostileFileError, match=r"names builtins.exec, .* trust=True or set"):
            open_it(path)
    assert not marker.exists()
    EqCalculator(path, trust=True)
    assert marker.read_text() == "ran\n" * marker.read_text().count("\n")
    marker.unlink()
    monkeypatch.setenv("EQPLUGIN_TRUST_MODELS", "1")
    load_model(path)
    assert marker.exists()
    marker.unlink()
    with pytest.raises(HostileFileError):
        load_model(path, trust=False)
    assert not marker.exists()


TARGETS = [
    ("builtins.exec", {}),
    ("os.system", {}),
    ("nequip.model.saved_models.load_utils.requests.get", {}),
    ("torch.load", {}),
    ("hydra.utils.get_method", {"path": "os.system"}),
    ("eqplugin.nequip.models.torch.hub.load", {}),
    (["os", "system"], {}),
]


@pytest.mark.parametrize("target, options", TARGETS)
def test_a_config_that_names_a_function_is_refused(folder, tmp_path, target, options):
    path = tmp_path / "target.ckpt"
    path.write_bytes(retargeted(folder / NEQUIP[0], target, **options))
    torch.load(path, weights_only=True)  # its pickle is harmless
    with pytest.raises(HostileFileError, match="in its config"):
        EqCalculator(path)


def test_the_file_that_a_checkpoint_starts_from_is_looked_at_too(folder, tmp_path, marker):
    start = tmp_path / "start.ckpt"
    start.write_bytes(with_passenger(folder / NEQUIP[0], marker))
    path = tmp_path / "tuned.ckpt"
    source = "nequip.model.ModelFromCheckpoint"
    path.write_bytes(retargeted(folder / NEQUIP[0], source, checkpoint_path=str(start)))
    with pytest.raises(HostileFileError, match=r"start\.ckpt names builtins\.exec"):
        EqCalculator(path)
    assert not marker.exists()


COMMANDS = [
    "bench forces {model} {data}",
    "bench physics {model} --structure {data}",
    "bench speed {model} --structure {data}",
    "bench expressivity -m {model}",
    "md {model} {data} --steps 10 --out {out}/md",
    "md {model} {data} --steps 10 --out {out}/ts --engine torch-sim",
    "mace-convert {model} {out}/x.model --e3nn 0.4",
    "mace-export {model} --out {out}/x.pt",
    "products {model} {out}/y.model",
    "mace eval_configs --configs {data} --model {model} --output {out}/e.xyz",
    "mace-train --name t --foundation_model {model} --train_file {data} --E0s average "
    "--valid_fraction 0.5 --work_dir {out} --max_num_epochs 1 --hidden_irreps 4x0e",
]
# these look at the file without opening it
LOOKS = ["model info {model}", "model convert {model} {out}/x.eqm"]


@pytest.mark.parametrize("command", COMMANDS + LOOKS)
def test_no_command_runs_what_is_planted(folder, tmp_path, marker, command):
    needs(*MACE)
    from eqplugin.cli import app

    data = folder.parent / "frame.xyz"
    data.write_text('1\nLattice="9 0 0 0 9 0 0 0 9" energy=1 pbc="T T T"\nH 0 0 0\n')
    for name in (MACE[0], NEQUIP[0]):
        path = tmp_path / name
        path.write_bytes(with_passenger(folder / name, marker))
        words = command.format(model=path, data=data, out=tmp_path).split()
        done = CliRunner().invoke(app, words)
        assert done.exit_code != 0 or command in LOOKS
        assert not marker.exists(), words


def test_code_files_are_opened_by_who_could_have_written_them(folder, tmp_path):
    path = tmp_path / "khop.nequip.zip"
    path.write_bytes((folder / "khop.nequip.zip").read_bytes())
    path.chmod(0o644)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*sha256")
        EqCalculator(path)
    with pytest.raises(EqPluginError, match=r"is code, .* trust=False: give the checkpoint"):
        EqCalculator(path, trust=False)
    path.chmod(0o666)
    with pytest.warns(UserWarning, match=r"others can write it; its sha256 is [0-9a-f]{64}.*\.eqm"):
        EqCalculator(path)
    with warnings.catch_warnings():  # once a file
        warnings.filterwarnings("error", message=".*sha256")
        EqCalculator(path)
        EqCalculator(path, trust=True)


def test_the_variable_is_1_or_0(folder, monkeypatch):
    monkeypatch.setenv("EQPLUGIN_TRUST_MODELS", "maybe")
    with pytest.raises(EqPluginError, match="EQPLUGIN_TRUST_MODELS=maybe is not possible"):
        EqCalculator(folder / NEQUIP[0])
    monkeypatch.setenv("EQPLUGIN_TRUST_MODELS", "0")
    with pytest.raises(EqPluginError, match="trust=False"):
        EqCalculator(folder / "khop.nequip.zip")
    EqCalculator(folder / NEQUIP[0])


def test_planted_files_are_live(contents, tmp_path):
    """The files do what they are made for: else the tests above would say nothing."""
    found, marker = contents
    for name in ("bare", "legacy", "eval", "inner pickle", "storage", "python 2", "graph: imports"):
        marker.unlink(missing_ok=True)
        path = tmp_path / "evil.model"
        path.write_bytes(found[name])
        try:
            torch.load(path, weights_only=False)
        except Exception as error:
            print(name, error)
        assert marker.exists(), name
    marker.unlink()
    assert mark(marker)
