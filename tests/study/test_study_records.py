"""Lines of studies: what was recorded is written back as it was; mistakes are named."""

import json
from pathlib import Path

import pytest
from study_lines import line

from eqplugin.errors import EqPluginError
from eqplugin.report.records import FinishedJob, parse_record, read_records, write_records

RECORDED = sorted((Path(__file__).parents[2] / "benchmarks/results/study").glob("*/results.jsonl"))


def without_nulls(content):
    """Metrics that were added later are absent in old lines and null in new ones."""
    if isinstance(content, dict):
        return {key: without_nulls(value) for key, value in content.items() if value is not None}
    return content


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_recorded_lines_are_written_back_as_they_were(path, tmp_path):
    write_records(tmp_path / "again.jsonl", read_records(path))
    before, after = (
        [json.loads(text) for text in file.read_text().splitlines()]
        for file in (path, tmp_path / "again.jsonl")
    )
    for old in before:  # one rule an arm, not a list, in lines of before
        arms = old.get("arms", {})
        arms.update({name: [rule] for name, rule in arms.items() if isinstance(rule, str)})
    assert list(map(without_nulls, after)) == list(map(without_nulls, before))
    # the metrics apart, nothing is added, and the order of the keys stays
    assert [list(content) for content in after] == [list(content) for content in before]


def test_what_newer_versions_add_is_kept():
    content = line() | {"novel": {"x": 1}}
    content["cost"]["joules"] = 3.5
    written = parse_record(json.dumps(content), "here").to_json()
    assert written["novel"] == {"x": 1}
    assert written["cost"]["joules"] == 3.5
    assert parse_record('{"schema": "eqplugin.study/1", "kind": "novel"}', "here") is None


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: x["cost"].update(step_ms=[1, 2, "x"]), "cost.step_ms.2"),
        (lambda x: x["cost"].update(step_ms=[1, 2]), "cost.step_ms.2"),
        (lambda x: x["errors"]["300K"].update(force_mae="low"), "errors.300K.force_mae"),
        (lambda x: x.update(l_max="1"), "l_max"),
        (lambda x: x.update(status="good"), "status"),
        (lambda x: x.update(family="schnet"), "family"),
        (lambda x: x.pop("parameters"), "parameters"),
        (lambda x: x.pop("arms"), "arms"),
    ],
)
def test_a_mistyped_line_is_named_with_its_field(change, words, tmp_path):
    content = line()
    change(content)
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(line()) + "\n" + json.dumps(content) + "\n")
    with pytest.raises(EqPluginError) as caught:
        read_records(path)
    sentence = str(caught.value)
    assert f"{path}, line 2: {words} is wrong" in sentence
    assert "\n" not in sentence


def test_a_finished_job_has_its_results():
    record = parse_record(json.dumps(line(mae=50.0)), "here")
    assert isinstance(record, FinishedJob)
    assert record.errors["300K"].force_mae == 50.0
    assert record.cost.step_ms.median == 100.0
    failed = parse_record(json.dumps(line(status="failed", error="no luck")), "here")
    assert not isinstance(failed, FinishedJob)
    assert failed.error == "no luck"
