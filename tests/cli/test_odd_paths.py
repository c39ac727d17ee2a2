"""Paths with characters that mean something to a terminal, to ASE or to a pattern."""

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

from eqplugin.cli import app

EMT_NAME = "ase.calculators.emt:EMT"


@pytest.fixture(params=["a[bold].xyz", "[red]a.xyz", "a@1.xyz", "a b.xyz", "a{b}.xyz", "a*.xyz"])
def file(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = []
    for seed in range(2):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    path = tmp_path / "data [/c]" / request.param
    path.parent.mkdir(parents=True)
    with path.open("w") as stream:
        write(stream, frames, format="extxyz")
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "check"],
        ["bench", "forces", EMT_NAME],
        ["bench", "physics", EMT_NAME, "--md-steps", "0", "--structure"],
        ["bench", "speed", EMT_NAME, "--no-memory", "--calls", "3", "--structure"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_any_path_will_do(arguments, file):
    result = CliRunner().invoke(app, [*arguments, str(file)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "error:" not in result.output
    assert result.exit_code == ("physics" in arguments)  # EMT's cutoff is not smooth
    if arguments[0] == "data":
        assert file.name in result.stdout
        assert "nothing wrong was found" in result.stdout
