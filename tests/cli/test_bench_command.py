"""`eqplugin bench expressivity`."""

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from eqplugin.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["bench", "expressivity", *map(str, arguments)])


def test_table_json_and_picture(tmp_path):
    models = ("steerable:L=1,layers=3", "khop:L=1,hops=1,layers=2")
    result = run("-m", models[0], "-m", models[1], "-s", "chains", "--draws", 2, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert "2-chain, cis/trans" in result.stdout
    assert "8 of 8 measurements agree with theory." in result.stdout
    assert "yes above 5e-11, no below 5e-12" in " ".join(result.stdout.split())
    content = json.loads((tmp_path / "expressivity.json").read_text())
    assert [model["model"] for model in content["models"]] == list(models)
    first, second = (model["results"] for model in content["models"])
    assert [r["verdict"] for r in first] == ["separates"] + ["cannot separate"] * 3
    assert {r["verdict"] for r in second} == {"cannot separate"}
    assert all(r["agrees"] for r in first + second)
    assert content["versions"]["nequip"]
    with Image.open(tmp_path / "expressivity.png") as picture:
        assert min(picture.size) > 300


def test_suites_with_other_thresholds_say_so():
    result = run("-m", "steerable:L=2,layers=1", "-s", "stars", "-s", "controls", "--draws", 1)
    words = " ".join(result.stdout.split())
    assert "stars: yes above 1e-06, no below 1e-11; controls: yes above 5e-11, no below" in words


def test_what_theory_is_silent_about_is_counted():
    result = run("-m", "nequip:L=1,layers=2", "-s", "many-body", "--draws", 1, "--quiet")
    assert result.exit_code == 0
    assert "2 of 5 measurements agree with theory; 3 have no rule" in result.stdout


def test_disagreement_is_a_failure(monkeypatch):
    from eqplugin.measure.expressivity import rules

    wrong = rules.Expectation(True, "not true")
    monkeypatch.setattr(rules.Architecture, "chain", lambda *_: wrong)
    result = run("-m", "khop:L=1,hops=1,layers=1", "-s", "chains", "--draws", 1, "--quiet")
    assert result.exit_code == 1
    assert "4 measurements disagree with theory" in result.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-m", "missing.ckpt"], "neither a file nor one of the families"),
        (["-m", "steerable:L=1", "-s", "knots"], "--suite knots is not known"),
        (["-m", "steerable:L=1", "-m", "steerable:L=1"], "given twice"),
        (["-m", "steerable:L=1,layers=1", "--set", "a=1"], "--set changes configs"),
        (["-m", "steerable:L=1,layers=1", "-s", "controls", "--draws", "0"], "draws=0"),
        (["-m", "steerable:L=1,layers=1", "-o", "{file}"], "it is a file"),
        (["-m", "{file}"], "an unknown ending"),
        (["-m", "{folder}"], "neither a file nor one of the families"),
        (["-m", "{checkpoint}"], "cannot be loaded as a NequIP checkpoint"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, arguments, words):
    (tmp_path / "file.txt").write_text("nothing")
    torch.save({"weights": 1}, tmp_path / "dictionary.ckpt")
    names = {
        "folder": tmp_path,
        "file": tmp_path / "file.txt",
        "checkpoint": tmp_path / "dictionary.ckpt",
    }
    result = run(*(argument.format(**names) for argument in arguments))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert not result.stdout
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
