"""Time to accuracy, from curves whose answers are known."""

import math

import pytest
from study_lines import line, results_of, write_lines
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.report.efficiency import (
    has_processor_time,
    target_errors,
    time_curves,
    time_table,
    time_to_error,
)


def cost(seconds, cpu=None):
    return {
        "train_s": seconds,
        "train_cpu_s": cpu,
        "step_ms": [90.0, 100.0, 120.0],
        "force_ms": [20.0, 30.0, 40.0],
    }


def trained(l_max, curve, seconds, seed=1, cpu=None):
    points = [[epoch, error] for epoch, error in enumerate(curve, start=1)]
    return line(l_max=l_max, seed=seed, validation=points, cost=cost(seconds, cpu))


def test_time_of_an_epoch_and_the_lowest_error_so_far():
    (model,) = results_of([trained(0, [80.0, 40.0, 60.0, 20.0], 400.0)]).models
    curve = time_curves(model, processor_time=False)[1]
    assert curve == [(100, 80), (200, 40), (300, 40), (400, 20)]
    assert time_to_error(curve, 40.0) == 200
    assert time_to_error(curve, 39.0) == 400
    assert time_to_error(curve, 19.0) is None


def test_an_error_that_is_no_number_is_never_low():
    (model,) = results_of([trained(0, [None, 40.0], 200.0)]).models
    assert time_curves(model, processor_time=False)[1] == [(100, math.inf), (200, 40)]


def test_processor_time_where_every_job_tells_it():
    lines = [trained(0, [8.0, 4.0], 400.0, cpu=100.0), trained(1, [8.0, 4.0], 400.0, cpu=200.0)]
    results = results_of(lines)
    assert has_processor_time(results)
    assert time_curves(results.models[0], processor_time=True)[1][-1] == (100, 4)
    assert not has_processor_time(results_of([*lines, trained(2, [8.0, 4.0], 400.0)]))


def test_targets_and_the_table():
    results = results_of(
        [
            *(trained(0, [90.0, 61.5, 61.0], 300.0, seed) for seed in (1, 2)),
            trained(1, [70.0, 30.0, 15.0], 600.0, seed=1),
            trained(1, [70.0, 50.0, 15.0], 600.0, seed=2),
        ]
    )
    targets = target_errors(results)
    assert targets == [61, 31, 15]
    table = time_table(results.models, targets, clock=False)
    assert table.heads[1:] == ("s to 61 meV/Å", "s to 31 meV/Å", "s to 15 meV/Å")
    assert [row[2:] for row in table.rows] == [
        ["300 ± 0", "-", "-"],
        ["400 ± 0", "500 ± 141", "600 ± 0"],
    ]


def test_seeds_that_never_get_there_are_counted():
    lines = [trained(0, [90.0, 20.0], 200.0, 1), trained(0, [90.0, 70.0], 200.0, 2)]
    table = time_table(results_of(lines).models, [20.0], clock=False)
    assert table.rows[0][2] == "200 (1 of 2 seeds)"


def test_no_curve_no_target():
    assert target_errors(results_of([line(validation=[])])) == []
    diverged = results_of([trained(0, [None, None], 100.0)])
    assert target_errors(diverged) == []


@pytest.mark.parametrize("curve", [[60.0, 50.0], [None, None], []])
def test_a_report_of_any_curve(tmp_path, curve):
    folder = write_lines(tmp_path / "study", [trained(0, curve, 100.0, seed) for seed in (1, 2)])
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    text = (folder / "report/report.md").read_text()
    assert ("### Time to accuracy" in text) == (curve == [60.0, 50.0])
    assert (folder / "report/time.png").is_file() == (curve == [60.0, 50.0])
