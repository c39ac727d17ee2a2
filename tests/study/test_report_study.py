"""`eqplugin report` on made-up lines: what it recommends, tests, warns of and writes."""

import json
import re

import pytest
from study_lines import degrees, line, results_of, write_lines
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.report.advice import caveats, findings, recommendation
from eqplugin.report.tables import accuracy_table, pairs_along, pairs_table
from eqplugin.report.write import write_report

NOISE = ((0.0, 0.1, -0.1), (0.2, 0.0, 0.1), (0.1, -0.2, 0.0))


def report(*arguments):
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_report_stands_alone(tmp_path):
    failed = line(l_max=3, seed=1, status="failed", error="out of memory")
    lines = [*degrees([60.0, 50.0, 49.0], NOISE), failed]
    folder = write_lines(tmp_path / "study", lines)
    result = report(folder)
    assert result.exit_code == 0, result.stderr
    assert "Recommendation" in result.stdout
    page = (folder / "report/report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    text = (folder / "report/report.md").read_text()
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert "out of memory" in text
    assert "50.1 ± 0.1" in text  # L = 1: 50.2, 50.0, 50.1


def test_within_five_percent_the_fastest_is_recommended():
    lines = degrees([60.0, 50.0], NOISE) + degrees([0, 0, 49.0], NOISE, force_ms=70.0)[6:]
    first, *reasons = recommendation(results_of(lines))
    assert first.startswith("**NequIP L=1, D=64**")
    assert "NequIP L=2" in reasons[0]
    assert "2.33 times" in reasons[0]
    # the difference is small, but the seeds show it
    assert "the two differ: +1.1 meV/Å" in reasons[1]


def test_beyond_five_percent_the_most_accurate_is():
    lines = degrees([60.0, 50.0], NOISE) + degrees([0, 0, 40.0], NOISE, force_ms=70.0)[6:]
    first, *reasons = recommendation(results_of(lines))
    assert first.startswith("**NequIP L=2, D=64**")
    assert "lowest of all" in reasons[0]
    assert "higher: 2 of 2" in reasons[1]


def test_pairs_are_compared_within_their_rule():
    lines = degrees([60.0, 50.0], NOISE)
    lines += degrees([55.0], NOISE, feature_dim=30, match="parameters")
    lines = [
        {**x, "arms": {"a": ["dimension", "parameters"]}} if x["l_max"] == 1 else x for x in lines
    ]
    results = results_of(lines)
    (pair,) = (p for p in pairs_along(results, "dimension", "l_max") if p.test == "300K")
    assert pair.difference.mean == pytest.approx(-9.9)
    (pair,) = (p for p in pairs_along(results, "parameters", "l_max") if p.test == "300K")
    assert (pair.first.feature_dim, pair.difference.mean) == (30, pytest.approx(-4.9))
    assert pairs_along(results, "time", "l_max") == []


def test_lines_of_before_have_one_rule_an_arm():
    results = results_of(degrees([60.0, 50.0], NOISE, arms={"a": "dimension", "b": "time"}))
    assert [model.matches for model in results.models] == [("dimension", "time")] * 2


def test_p_values_are_adjusted_for_all_pairs_of_a_test():
    """A second stack with one pair more makes every p of the first larger."""
    alone = results_of(degrees([60.0, 50.0], NOISE))
    both = results_of(degrees([60.0, 50.0], NOISE) + degrees([60.0, 50.0], NOISE, family="mace"))
    (p,) = (x.difference.p for x in pairs_along(alone, "dimension", "l_max") if x.test == "300K")
    pooled = [x.difference.p for x in pairs_along(both, "dimension", "l_max") if x.test == "300K"]
    assert pooled == pytest.approx([2 * p, 2 * p])


def test_no_p_value_is_nothing():
    noise = ((0.0, 0.1, -0.1), (1e-4, 0.1, -0.1))
    (row, _) = pairs_table(pairs_along(results_of(degrees([60.0, 50.0], noise)), "dimension",
                                       "l_max")).rows  # fmt: skip
    assert "< 0.001" in row


REFERENCE = {"family": "nequip", "reference_l_max": 1, "feature_dim": 64}


def timed(ratio):
    """L = 0, matched by time to L = 1, whose step takes 100 ms."""
    config = {**REFERENCE, "tolerance": {"time": 0.1}}
    lines = degrees([0, 50.0], NOISE, match="time", config=config)[3:]
    return lines + degrees(
        [60.0], NOISE, match="time", feature_dim=90, step_ms=100.0 * ratio, config=config
    )


def test_what_is_matched_is_shown_beside_the_reference():
    results = results_of(timed(0.8))
    assert results.reference.label == "NequIP L=1, D=64"
    assert results.ratios_to_reference("time") == {"NequIP L=0, D=90": 0.8, "NequIP L=1, D=64": 1.0}
    assert results.ratios_to_reference("dimension") == {}
    table = accuracy_table(results.models, results.tests, results.ratios_to_reference("time"))
    assert "0.80" in table.rows[0]
    assert "1.00" in table.rows[1]


def test_models_that_are_not_as_fast_as_they_should_be_are_named():
    (sentence,) = (s for s in caveats(results_of(timed(0.8))) if "not at equal time" in s)
    assert "NequIP L=0, D=90: 0.80 of it" in sentence
    assert "L=1" not in sentence.replace("the reference", "")
    assert not any("not at equal time" in s for s in caveats(results_of(timed(0.95))))


def test_several_versions_of_the_code_are_a_caveat(tmp_path):
    lines = degrees([60.0, 50.0], NOISE)
    assert not any("versions of this project" in s for s in caveats(results_of(lines)))
    lines[0]["commit"] = "def-dirty"
    (sentence,) = (s for s in caveats(results_of(lines)) if "versions of this project" in s)
    assert "2 versions" in sentence
    assert "1 of them with uncommitted changes" in sentence
    write_report(write_lines(tmp_path, lines), tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    assert "def-dirty (1 jobs)" in text
    assert "abc (5 jobs)" in text


def test_without_force_errors_there_is_no_recommendation(tmp_path):
    lines = [
        {**x, "errors": {"300K": {"frames": 1, "energy_mae": 1.0}}}
        for x in degrees([60.0, 50.0], NOISE)
    ]
    write_report(write_lines(tmp_path, lines), tmp_path / "out")
    assert "no model has a force error on 300K" in (tmp_path / "out/report.md").read_text()


def test_hops_are_compared_at_one_contraction():
    noise = [[-0.1, 0.0, 0.1]]
    lines = degrees([50.0], noise)
    for hops, contraction in ((1, "power"), (1, "bispectrum"), (2, "bispectrum")):
        lines += degrees([60.0], noise, hops=hops, contraction=contraction)
    found = pairs_along(results_of(lines), "dimension", "hops")
    keys = [
        ((p.first.hops, p.first.contraction), (p.second.hops, p.second.contraction))
        for p in found
        if p.test == "300K"
    ]
    never = (None, None)
    wanted = {
        frozenset((never, (1, "power"))),
        frozenset((never, (1, "bispectrum"))),
        frozenset((never, (2, "bispectrum"))),
        frozenset(((1, "bispectrum"), (2, "bispectrum"))),
    }
    assert len(keys) == 4
    assert set(map(frozenset, keys)) == wanted


def test_hops_are_compared_at_one_degree():
    lines = degrees([0, 50.0], NOISE)[3:]
    lines += [
        line(seed=s, mae=60.0 + s, hops=h, contraction="bispectrum")
        for s in (1, 2, 3)
        for h in (1, 2)
    ]
    pairs = pairs_along(results_of(lines), "dimension", "hops")
    assert len([p for p in pairs if p.test == "300K"]) == 3
    assert pairs_along(results_of(lines), "dimension", "l_max") == []


def test_one_seed_is_said_to_be_no_test():
    results = results_of(degrees([60.0, 50.0], ((0.0,),) * 2))
    (row, _) = pairs_table(pairs_along(results, "dimension", "l_max")).rows
    assert "one seed: no test" in row
    assert any("one seed: no test" in sentence for sentence in findings(results))
    assert any("One seed: no test" in sentence for sentence in caveats(results))


def test_findings_name_what_differs_and_what_does_not():
    (sentence,) = findings(results_of(degrees([60.0, 50.0], NOISE)))
    assert "1 of 1 pairs differ" in sentence
    assert "NequIP L=1, D=64 below NequIP L=0, D=64 by 9.9" in sentence
    wide = ((0.0, 9.0, -9.0), (9.0, -9.0, 0.0))
    (sentence,) = findings(results_of(degrees([51.0, 50.0], wide)))
    assert "none of 1 pairs differs" in sentence


def test_convergence_is_judged_from_the_curves():
    flat = degrees([60.0, 50.0], NOISE)
    assert not any("Not converged" in c for c in caveats(results_of(flat)))
    falling = [{**x, "validation": [[n + 1, 100.0 / (n + 1)] for n in range(10)]} for x in flat]
    (sentence,) = (c for c in caveats(results_of(falling)) if "Not converged" in c)
    assert "30%" in sentence  # 100/10 after 100/7
    assert "2 of 2 models" in sentence


def test_leaks_and_impossible_matches_are_caveats():
    lines = degrees([60.0, 50.0], NOISE, warnings=["a and b share 31 frames."])
    lines.append(line(l_max=4, status="unattainable", error="no dimension at l_max=4 fits"))
    found = caveats(results_of(lines))
    assert "a and b share 31 frames." in found
    assert "Not attainable: no dimension at l_max=4 fits." in found


def test_what_is_not_labelled_is_a_dash():
    lines = degrees([60.0], NOISE)
    for content in lines[:3]:
        content["errors"]["600K"]["energy_mae"] = None
    table = accuracy_table(results_of([*lines, *degrees([50.0], feature_dim=32)]).models, ["600K"])
    column = table.heads.index("600K E MAE\nmeV/atom") + 1
    assert sorted(row[column] for row in table.rows)[0] == "-"
    assert not any("S MAE" in head for head in table.heads)


def test_times_taken_in_turn_win_over_those_of_single_jobs(tmp_path):
    speed = {
        "schema": "eqplugin.study/1",
        "kind": "speed",
        "study": "made-up",
        "atoms": 9,
        "batch_size": 5,
        "models": {"nequip-L0-D64": {"force_ms": [1.0, 2.0, 3.0], "step_ms": [4.0, 5.0, 6.0]}},
        "fingerprints": {},
        "versions": {},
        "hardware": {"processor": "a CPU", "cores": 2, "load": 9.0},
        "commit": None,
        "time": "2026-11-23T00:00:00+00:00",
    }
    results = results_of([*degrees([60.0, 50.0], NOISE), speed])
    assert [model.force_ms.median for model in results.models] == [2.0, 30.0]
    assert any("busy" in sentence for sentence in caveats(results))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: {**x, "schema": "eqplugin.study/0"}, "schema eqplugin.study/0"),
        (lambda x: {**x, "status": "failed", "error": "no luck"}, "no luck"),
    ],
)
def test_lines_without_a_report(tmp_path, change, words):
    folder = write_lines(tmp_path, [change(line())])
    result = report(folder)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_nothing_and_nonsense(tmp_path):
    assert "holds no results" in report(tmp_path).stderr
    (tmp_path / "results.jsonl").write_text(json.dumps(line()) + "\n{half a li")
    result = report(tmp_path)
    assert result.exit_code == 1
    assert "line 2" in result.stderr


def test_published_errors_stand_beside_ours(tmp_path):
    lines = degrees([60.0, 50.0], NOISE)
    folder = write_lines(tmp_path / "study", lines)
    assert report(folder, "--published", "acac").exit_code == 0
    text = (folder / "report/report.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if "this study" in line]
    (cells,) = [[cell.strip() for cell in row[1:-1]] for row in rows]
    # 50.1 meV/A: RMSE 1.4 times that; of the energy 1/25 per atom, of 15 atoms
    assert cells == ["NequIP L=1, D=64", "this study", "30.1", "70.1", "30.1", "70.1"]
    assert any("MACE" in line and "5.1" in line for line in text.splitlines())


@pytest.mark.parametrize("content", ["", "rows: 3", "{atoms: 3, rows: [{model: A}]}", "a: [b"])
def test_published_files_of_another_form(tmp_path, content):
    folder = write_lines(tmp_path / "study", degrees([60.0], NOISE))
    own = tmp_path / "own.yaml"
    own.write_text(content)
    result = report(folder, "--published", own)
    assert result.exit_code == 1
    assert str(own) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "neither a file nor one of acac, 3bpa" in report(folder, "--published", "x").stderr
    assert not (folder / "report").exists()


def test_a_training_that_diverged_is_named():
    lines = degrees([60.0, 50.0], NOISE)
    lines[4]["validation"] = [[1, 400.0], [2, 300.0], [3, 800.0]]
    (found,) = [text for text in caveats(results_of(lines)) if text.startswith("Diverged")]
    assert "NequIP L=1, D=64, seed 2." in found
    assert not any("Diverged" in text for text in caveats(results_of(degrees([60.0], NOISE))))
