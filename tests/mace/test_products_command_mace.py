"""`eqplugin products`: a MACE model file to faster products, and back."""

import numpy as np
import pytest
import torch
from mace.calculators import MACECalculator
from mace_under_test import molecule, rattled, stock
from typer.testing import CliRunner

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin import EqCalculator
from eqplugin.cli import app
from eqplugin.mace import products
from eqplugin.mace.model_file import read_model_file
from eqplugin.nn.product.compiled import load_operators

needs_operators = pytest.mark.skipif(
    load_operators() is not None, reason=f"no compiled operators here: {load_operators()}"
)


def run(*arguments):
    return CliRunner().invoke(app, ["products", *map(str, arguments)])


def one_sentence(result):
    """The sentence of a failed command."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("eqplugin: error: ")
    return line


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "plain.model"
    torch.save(stock("8x0e + 8x1o"), path)
    return path


@needs_operators
def test_there_and_back(plain, tmp_path):
    fast, again = tmp_path / "fast.model", tmp_path / "again.model"
    there = run(plain, fast)
    assert there.exit_code == 0, there.stderr
    assert there.stdout == (
        f"{fast}: ScaleShiftMACE with 2 compiled convolutions and 2 contractions over monomials\n"
    )
    back = run(fast, again, "--back")
    assert back.exit_code == 0, back.stderr
    assert back.stdout == f"{again}: ScaleShiftMACE with MACE's own products\n"
    before, models = (
        read_model_file(plain).state_dict(),
        [read_model_file(fast), read_model_file(again)],
    )
    assert [products.count_converted(model) for model in models] == [(2, 2), (0, 0)]
    for model in models:
        state = model.state_dict()
        assert list(state) == list(before)
        assert all(torch.equal(state[key], value) for key, value in before.items())


@needs_operators
def test_calculators_run_converted_files(plain, tmp_path):
    fast = tmp_path / "fast.model"
    assert run(plain, fast).exit_code == 0
    atoms = rattled(molecule())
    results = []
    for calculator in (
        MACECalculator(model_paths=str(plain), device="cpu", default_dtype="float64"),
        MACECalculator(model_paths=str(fast), device="cpu", default_dtype="float64"),
        EqCalculator(fast),
    ):
        atoms.calc = calculator
        results.append(np.array([atoms.get_potential_energy(), *atoms.get_forces().ravel()]))
    assert np.abs(results[0][1:]).max() > 1e-3
    for found in results[1:]:
        np.testing.assert_allclose(found, results[0], rtol=1e-12, atol=1e-10)


@needs_operators
def test_mistakes_are_one_sentence_and_leave_files_alone(plain, tmp_path):
    out = tmp_path / "out.model"
    out.write_text("precious")
    assert "missing.model does not exist" in one_sentence(run(tmp_path / "missing.model", out))
    (tmp_path / "text.model").write_text("not a model")
    assert "text.model cannot be read as a MACE model" in one_sentence(
        run(tmp_path / "text.model", out)
    )
    assert "nothing to convert back" in one_sentence(run(plain, out, "--back"))
    assert "is a directory" in one_sentence(run(plain, tmp_path))
    assert out.read_text() == "precious"
    assert run(plain, tmp_path / "fast.model").exit_code == 0
    again = one_sentence(run(tmp_path / "fast.model", out))
    assert "fast.model was not converted: The model already has faster products" in again
    assert out.read_text() == "precious"


def test_without_a_compiler_it_says_so(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(products, "load_operators", lambda: "There is no compiler.")
    assert one_sentence(run(plain, tmp_path / "out.model")).endswith("There is no compiler.")
    assert not (tmp_path / "out.model").exists()


def test_help_says_what_it_is_for():
    result = run("--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for words in ("faster on a CPU", "--back", "mace-export"):
        assert words in text
