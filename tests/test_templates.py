"""`eqplugin template`: one file that composes or parses by itself, with the user's data in it."""

import subprocess
import sys
from pathlib import Path

import nequip  # noqa: F401 - registers the resolvers that the configs use
import pytest
from ase.io import read, write
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.mace.train import parse
from eqplugin.resources import CONFIGS, DATA
from eqplugin.study.config import read_study
from eqplugin.study.frames import check_frames
from eqplugin.templates import template, template_names

ETHANOL = DATA / "ethanol_xtb"
NAMES = template_names()
NEQUIP, MACE, STUDY = (
    [name for name in NAMES if name.startswith(stack)] for stack in ("nequip/", "mace/", "study/")
)
MINIMAL = {stack[0].split("/")[0]: next(n for n in stack if "minimal" in n or "quick" in n)
           for stack in (NEQUIP, MACE, STUDY)}  # fmt: skip


def invoke(*arguments):
    return CliRunner().invoke(app, ["template", *map(str, arguments)])


def composed(folder):
    with initialize_config_dir(str(folder), version_base=None):
        return compose("my")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with files of the user, of C-H-O frames; returns it and makes it the current one."""
    write(tmp_path / "my.xyz", read(ETHANOL / "train_300K.xyz", ":40"))
    write(tmp_path / "val.xyz", read(ETHANOL / "val_300K.xyz", ":5"))
    write(tmp_path / "test.xyz", read(ETHANOL / "test_300K.xyz", ":5"))
    write(tmp_path / "e0.xyz", read(ETHANOL / "isolated_atoms.xyz", ":"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_name_they_are_listed():
    listed = invoke().stdout.split()
    assert listed == NAMES
    assert "study/quickstart" in listed
    assert not any("_arms" in name or "dataset" in name for name in listed)


def test_old_names_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("eqplugin.templates.CONFIGS", tmp_path)
    (tmp_path / "nequip").mkdir()
    (tmp_path / "nequip" / "old.yaml").write_text("# Old name of new.\ndefaults: [new, _self_]\n")
    (tmp_path / "nequip" / "new.yaml").write_text("# New.\n\na: 1\n")
    assert template_names() == ["nequip/new"]


@pytest.mark.parametrize("name", NEQUIP)
def test_nequip_template_is_the_shipped_config(name, tmp_path):
    (tmp_path / "my.yaml").write_text(template(name))
    ours = OmegaConf.to_container(composed(tmp_path))
    with initialize_config_dir(str(CONFIGS / "nequip"), version_base=None):
        shipped = OmegaConf.to_container(compose(name.split("/")[1]))
    shipped["data_root"] = str(DATA)
    assert ours == shipped


@pytest.mark.parametrize("name", STUDY)
def test_study_template_is_the_shipped_study(name, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(template(name))
    shipped = CONFIGS / f"{name}.yaml"
    ours, theirs = (read_study(file, ["data_root=there"]) for file in (path, shipped))
    assert (ours.config, ours.arms) == (theirs.config, theirs.arms)


@pytest.mark.parametrize("name", MACE)
def test_mace_template_is_the_shipped_config(name):
    settings = [row for row in template(name).splitlines() if row and not row.startswith("#")]
    shipped = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    assert settings == [row for row in shipped if row and not row.startswith("#")]


@pytest.mark.parametrize("name", NAMES)
def test_comments_stay(name):
    text, shipped = template(name), (CONFIGS / f"{name}.yaml").read_text()
    notes = {row.split("#", 1)[1] for row in shipped.split("\n\n", 1)[1].splitlines() if "#" in row}
    lost = [note for note in notes if note not in text]
    of_defaults = ("dataset", "optimizers.md", "files", "set can", "r_max (A)")
    assert all(any(words in note for words in of_defaults) for note in lost)


@pytest.mark.parametrize("name", NEQUIP)
def test_nequip_template_takes_the_users_files(name, mine):
    assert invoke(name, "--train", "my.xyz", "-o", "my.yaml").exit_code == 0
    config = composed(mine)
    assert config.train_files == config.val_files == config.test_files == []
    assert config.split_files == [{"file_path": str(mine / "my.xyz"), "train": 36, "val": 4}]
    assert config.type_names == ["H", "C", "O"]
    assert config.isolated_atoms is None
    assert config.run == ["train"]
    assert "isolated_atom_energies}" not in str(OmegaConf.to_container(config))
    assert "examples" not in str(OmegaConf.to_container(config))


def test_nequip_template_takes_every_file(mine):
    name = next(name for name in NEQUIP if "realistic" in name)
    options = "--train my.xyz --val val.xyz --test test.xyz --isolated-atoms e0.xyz -o my.yaml"
    assert invoke(name, *options.split()).exit_code == 0
    config = composed(mine)
    assert config.train_files == str(mine / "my.xyz")
    assert config.val_files == str(mine / "val.xyz")
    assert config.test_files == [str(mine / "test.xyz")]
    assert config.isolated_atoms == str(mine / "e0.xyz")
    assert config.split_files == []
    assert config.run == ["train", "test"]
    assert "${training_data_stats:isolated_atom_energies}" in (mine / "my.yaml").read_text()


def test_species_are_quoted_in_order_of_atomic_number(mine):
    atoms = read(mine / "my.xyz")
    atoms.symbols[:3] = ["No", "Y", "N"]  # Yaml would read No as false
    write("odd.xyz", atoms)
    invoke(MINIMAL["nequip"], "--train", "odd.xyz", "--val", "val.xyz", "-o", "my.yaml")
    assert composed(mine).type_names == ["H", "N", "Y", "No"]


@pytest.mark.parametrize("name", MACE)
def test_mace_template_takes_the_users_files(name, mine):
    assert invoke(name, "--train", "my.xyz", "-o", "my.yaml").exit_code == 0
    args = parse(["--config", "my.yaml"])
    assert (args.name, args.work_dir) == ("my", "outputs/mace/my")
    assert (args.train_file, args.valid_file, args.test_file) == (str(mine / "my.xyz"), None, None)
    assert (args.valid_fraction, args.E0s) == (0.1, "average")


def test_mace_template_takes_every_file(mine):
    options = "--train my.xyz --val val.xyz --test test.xyz --isolated-atoms e0.xyz -o my.yaml"
    assert invoke(MINIMAL["mace"], *options.split()).exit_code == 0
    args = parse(["--config", "my.yaml"])
    assert (args.valid_file, args.test_file) == (str(mine / "val.xyz"), str(mine / "test.xyz"))
    assert eval(args.E0s).keys() == {1, 6, 8}


@pytest.mark.parametrize("name", STUDY)
def test_study_template_takes_the_users_files(name, mine):
    assert invoke(name, "--train", "my.xyz", "-o", "my.yaml").exit_code == 0
    study = read_study(Path("my.yaml"), ["train.batch_size=2"])
    assert study.config.name == "my"
    assert study.out.name in ("my", "my-reduced")
    assert check_frames(study.config).counts == {"train": 32, "val": 4, "test drawn": 4}


def test_study_template_takes_every_file(mine):
    options = "--train my.xyz --val val.xyz --test test.xyz --isolated-atoms e0.xyz -o my.yaml"
    assert invoke("study/quickstart", *options.split()).exit_code == 0
    frames = check_frames(read_study(Path("my.yaml")).config)
    assert frames.counts == {"train": 40, "val": 5, "test test": 5}
    assert set(frames.e0s) == {"H", "C", "O"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nequip/none"], "nequip/none is not a template: use mace/"),
        (["study/si", "--val", "val.xyz"], "need --train"),
        (["study/si", "--train", "none.xyz"], "The file none.xyz is missing"),
        ([MINIMAL["nequip"], "--train", "my.xyz", "--val", "no.xyz"], "The file no.xyz is missing"),
        ([MINIMAL["mace"], "--train", "noise.xyz"], "noise.xyz cannot be read at frame 0"),
        ([MINIMAL["nequip"], "--train", "one.xyz"], "one.xyz has one frame"),
        (["study/si", "-o", "my.xyz"], "my.xyz already exists: name another file"),
    ],
)
def test_bad_input_is_a_sentence(arguments, sentence, mine):
    (mine / "noise.xyz").write_text("noise\n")
    write(mine / "one.xyz", read(mine / "my.xyz"))
    before = (mine / "my.xyz").read_text()
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert (mine / "my.xyz").read_text() == before


def test_force_replaces(mine):
    assert invoke("study/si", "-o", "my.yaml").exit_code == 0
    assert invoke("study/quickstart", "-o", "my.yaml", "--force").exit_code == 0
    assert "template study/quickstart" in (mine / "my.yaml").read_text()


@pytest.mark.slow
def test_written_configs_train(mine):
    """A few steps with either stack, by the command that stands in the file."""
    program = Path(sys.executable).parent
    for stack, more in (
        ("nequip", ["max_epochs=1", "feature_dim=8", "num_layers=2", "hydra.run.dir=out"]),
        ("mace", ["--max_num_epochs", "1", "--feature_dim", "16", "--work_dir", "out"]),
    ):
        invoke(MINIMAL[stack], "--train", "my.xyz", "-o", "my.yaml", "--force")
        row = next(r for r in Path("my.yaml").read_text().splitlines() if r.startswith("#   "))
        name, *arguments = row[1:].partition(" #")[0].split()
        done = subprocess.run([program / name, *arguments, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (mine / "out" / "best.ckpt").is_file()
    assert (mine / "out" / "my.model").is_file()
