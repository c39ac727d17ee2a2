"""Model files between e3nn 0.4 and 0.6: every number is kept, and a mistake is one sentence.

EQPLUGIN_E3NN04_PYTHON names a Python with e3nn 0.4.4 and MACE (tools/make_mace_reference.py says
how to make one); without it the tests that need one are skipped.
"""

from __future__ import annotations

import json
import lzma
import os
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import e3nn.o3
import pytest
import torch
from typer.testing import CliRunner

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.mace import reference
from eqplugin.mace.compat import signs
from eqplugin.mace.compat.convention import ATTRIBUTE, ConventionError
from eqplugin.mace.convert import convert_model
from eqplugin.mace.model_file import ModelFileError, read_model_file

ROOT = Path(__file__).resolve().parent.parent.parent
SAVED = Path(__file__).parent / "reference"
TOOL = ROOT / "tools" / "make_mace_reference.py"
STORED = reference.stored_results()
OLD_PYTHON = os.environ.get("EQPLUGIN_E3NN04_PYTHON")
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A model of ours, saved on e3nn 0.6."""
    path = tmp_path_factory.mktemp("ours") / "ours.model"
    torch.save(reference.build("so3-1e-corr2"), path)
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A model saved on e3nn 0.4.4."""
    path = tmp_path_factory.mktemp("old") / "old.model"
    path.write_bytes(lzma.decompress((SAVED / "so3-1e-corr2.model.xz").read_bytes()))
    return path


def globals_of(path: Path) -> set[str]:
    """Every module.name that reading the file looks up."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        stream = archive.read(name)
    found, strings = set(), []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            found.add(argument)
        elif "UNICODE" in opcode.name:
            strings.append(argument)
        elif opcode.name == "STACK_GLOBAL":
            found.add(" ".join(strings[-2:]))
    return found


def test_the_file_for_0_4_needs_nothing_that_0_4_lacks(ours, old, tmp_path):
    convert_model(ours, tmp_path / "out.model", "0.4")
    extra = globals_of(tmp_path / "out.model") - globals_of(old)
    assert extra == set()
    assert globals_of(ours) - globals_of(old)  # without the conversion it would


def test_there_and_back_keeps_every_bit(ours, tmp_path):
    convert_model(ours, tmp_path / "there.model", "0.4")
    convert_model(tmp_path / "there.model", tmp_path / "back.model", "0.6")
    expected = read_model_file(ours).state_dict()
    found = read_model_file(tmp_path / "back.model").state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_converted_model_agrees_and_keeps_its_record(ours, tmp_path):
    convert_model(ours, tmp_path / "out.model", "0.4")
    model = read_model_file(tmp_path / "out.model")
    assert getattr(model, ATTRIBUTE) == "0.4"
    found = reference.evaluate(model)
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= TOLERANCE


def test_converting_leaves_the_model_in_memory_as_it_was(ours, tmp_path):
    model = convert_model(ours, tmp_path / "out.model", "0.4")
    assert isinstance(model.interactions[0].conv_tp._compiled_main_left_right, torch.fx.GraphModule)
    found = reference.evaluate(model)
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= TOLERANCE


def test_in_and_out_may_be_one_file(ours, tmp_path):
    path = tmp_path / "one.model"
    path.write_bytes(ours.read_bytes())
    convert_model(path, path, "0.4")
    assert list(tmp_path.iterdir()) == [path]
    assert not any("LinearSlices" in name for name in globals_of(path))


def test_an_old_model_converted_to_0_6_loads_without_eqplugin(old, tmp_path):
    out = tmp_path / "new.model"
    convert_model(old, out, "0.6")
    code = f"""
import sys
sys.modules["eqplugin"] = None  # importing it raises
import importlib.util, json, torch
spec = importlib.util.spec_from_file_location("tool", {str(TOOL)!r})
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
reference = tool.load_reference()
model = torch.load({str(out)!r}, map_location="cpu", weights_only=False)
print(json.dumps({{k: v.tolist() for k, v in reference.evaluate(model).items()}}))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert max(reference.deviations(found, STORED["so3-1e-corr2"]).values()) <= TOLERANCE


@pytest.mark.skipif(OLD_PYTHON is None, reason="EQPLUGIN_E3NN04_PYTHON is not set")
def test_a_real_e3nn_0_4_reads_our_models_and_agrees(tmp_path):
    paths = {}
    for name in reference.CONFIGURATIONS:
        torch.save(reference.build(name), tmp_path / "ours.model")
        paths[name] = tmp_path / f"{name}.model"
        convert_model(tmp_path / "ours.model", paths[name], "0.4")
    command = [OLD_PYTHON, "-W", "ignore", str(TOOL), "--evaluate", *map(str, paths.values())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    for name, path in paths.items():
        worst = max(reference.deviations(found[str(path)], STORED[name]).values())
        assert worst <= TOLERANCE, name


def test_signs_of_e3nn_0_6_are_refused_and_out_is_left_alone(tmp_path):
    with signs.building_with(e3nn.o3):
        model = reference.build("so3-1e-corr2")
    delattr(model, ATTRIBUTE)
    torch.save(model, tmp_path / "modern.model")
    out = tmp_path / "out.model"
    out.write_text("precious")
    with pytest.raises(ConventionError, match=r"e3nn 0\.6"):
        convert_model(tmp_path / "modern.model", out, "0.4")
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["modern.model", "out.model"]


def test_a_failing_write_leaves_out_alone(ours, tmp_path, monkeypatch):
    from eqplugin.mace import convert

    def fails(_model, path, _target):
        Path(path).write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(convert, "save_model", fails)
    out = tmp_path / "out.model"
    out.write_text("precious")
    with pytest.raises(OSError, match="No space"):
        convert_model(ours, out, "0.4")
    assert out.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_does_not_read_back_is_refused(ours, tmp_path, monkeypatch):
    from eqplugin.mace import convert

    original = convert.save_model

    def damages(model, path, target):
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
        original(model, path, target)
        with torch.no_grad():
            next(model.parameters()).sub_(2.0)

    monkeypatch.setattr(convert, "save_model", damages)
    with pytest.raises(ModelFileError, match="does not read back"):
        convert_model(ours, tmp_path / "out.model", "0.4")
    assert not (tmp_path / "out.model").exists()


def make_bad(kind: str, directory: Path) -> Path:
    path = directory / f"{kind}.model"
    if kind == "corrupt":
        path.write_bytes(b"this is not a pickle")
    elif kind == "truncated":
        torch.save(reference.build("0e-corr1"), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "empty":
        path.touch()
    elif kind == "checkpoint":
        torch.save({"model": {}, "optimizer": {}}, path)
    elif kind == "other":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "compiled":
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    elif kind == "directory":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind, says",
    [
        ("missing", "does not exist"),
        ("directory", "is a directory"),
        ("corrupt", "corrupt"),
        ("truncated", "corrupt"),
        ("empty", "corrupt"),
        ("checkpoint", "checkpoint of a training run"),
        ("other", "not hold a MACE model but a Linear"),
        ("compiled", "TorchScript"),
    ],
)
def test_a_bad_file_is_one_sentence(kind, says, tmp_path):
    path = make_bad(kind, tmp_path)
    result = CliRunner().invoke(
        app, ["mace-convert", str(path), str(tmp_path / "out"), "--e3nn", "0.4"]
    )
    assert result.exit_code == 1
    assert says in result.stderr
    assert str(path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_out_has_to_be_a_file_that_can_be_written(ours, tmp_path):
    with pytest.raises(ModelFileError, match="cannot be written"):
        convert_model(ours, ours / "out.model", "0.4")
    with pytest.raises(ModelFileError, match="is a directory"):
        convert_model(ours, tmp_path, "0.4")
    with pytest.raises(EqPluginError, match=r"choose 0\.4 or 0\.6"):
        convert_model(ours, tmp_path / "out.model", "0.5")


def test_the_command_converts_and_says_so(ours, tmp_path):
    out = tmp_path / "out.model"
    result = CliRunner().invoke(app, ["mace-convert", str(ours), str(out), "--e3nn", "0.4"])
    assert result.exit_code == 0, result.output
    assert "ScaleShiftMACE for e3nn 0.4, signs: 0.4" in result.stdout
    assert out.is_file()
