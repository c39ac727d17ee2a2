"""`eqplugin budget`."""

import json

import pytest
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.costs import count_costs
from eqplugin.design import Design


def run(*arguments):
    return CliRunner().invoke(app, ["budget", *arguments])


def test_json_holds_the_counts():
    result = run("--feature-dim", "512", "--l-max", "0..2", "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["l_max"] for row in rows] == [0, 1, 2]
    assert rows[1]["irreps"] == "128x0e+128x1o"
    assert rows[1]["parameters"]["total"] == count_costs(Design(512, 1)).total == 4_187_360


def test_table_names_irreps_and_totals_within_80_columns():
    result = run("--feature-dim", "512", "--l-max", "0..6")
    assert result.exit_code == 0
    assert "32x0e 10x1o 10x2e 10x3o 10x4e 10x5o 10x6e" in result.stdout
    assert "26,961,504" in result.stdout
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80


def test_matching_parameters_changes_the_dimension():
    rows = json.loads(run("-D", "128", "-L", "0,1,3", "--match", "parameters", "--json").stdout)
    totals = [row["parameters"]["total"] for row in rows]
    assert max(totals) <= 1.02 * min(totals)
    assert len({row["feature_dim"] for row in rows}) == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-D", "10", "-L", "3"], "feature_dim=10 is too small for l_max=3"),
        (["-D", "64", "-L", "x"], "--l-max=x is not a range"),
        (["-D", "64", "-L", "3..1"], "--l-max=3..1 is not a range"),
        (["-D", "64", "-L", "-1"], "l_max=-1"),
        (["-D", "64", "-L", "1", "--hops", "3"], "not a multiple of hops=3"),
        (["-D", "64", "-L", "1", "--hops", "0"], "hops=0"),
        (["-D", "64", "-L", "1", "--num-layers", "0"], "--num-layers=0"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_1(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.startswith("eqplugin: error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
