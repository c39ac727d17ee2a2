"""The plan of a study comes back as it was written, and others' plans are left alone."""

import json
from dataclasses import replace

import pytest

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.study.job import Job
from eqplugin.study.plan_file import PLAN, Plan, refuse_other_schema
from eqplugin.study.schema import StudyConfig

KEYS = ["schema", "config", "files", "frames", "species", "e0s", "warnings", "jobs"]


@pytest.fixture
def plan():
    config = StudyConfig(name="tiny", out="out", feature_dim=16)
    config.data.train, config.train.steps = "train.xyz", 10
    jobs = [
        Job(Design(16, 1, num_layers=2), 1, {"degrees": ["dimension"]}),
        Job(Design(None, 2, num_layers=2), 1, {"degrees": ["time"]}, "too slow", "time"),
    ]
    files = {"train": "data/train.xyz", "val": "data/val.xyz", "hot": "data/test_hot.xyz"}
    frames = {"train": 10, "val": 3, "test hot": 4}
    return Plan(config, files, frames, ["H", "O"], {"H": -13.6, "O": -430.0}, ["beware"], jobs)


def test_a_plan_comes_back_as_it_was_written(plan, tmp_path):
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    content = json.loads((tmp_path / PLAN).read_text())
    assert list(content) == KEYS
    replace(plan, e0s=None).write(tmp_path)
    assert Plan.read(tmp_path).e0s is None


def test_what_newer_versions_add_is_passed_over(plan, tmp_path):
    plan.write(tmp_path)
    content = json.loads((tmp_path / PLAN).read_text())
    (tmp_path / PLAN).write_text(json.dumps(content | {"novel": 1}))
    assert Plan.read(tmp_path) == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: "{", "is damaged"),
        (lambda plan: json.dumps({**plan, "schema": "eqplugin.study/0"}), "eqplugin.study/0"),
    ],
)
def test_other_plans_are_refused(plan, change, words, tmp_path):
    plan.write(tmp_path)
    text = change(json.loads((tmp_path / PLAN).read_text()))
    (tmp_path / PLAN).write_text(text)
    for read in (Plan.read, refuse_other_schema):
        with pytest.raises(EqPluginError, match=words):
            read(tmp_path)
    assert (tmp_path / PLAN).read_text() == text


def test_no_plan_and_half_a_plan(plan, tmp_path):
    refuse_other_schema(tmp_path)
    with pytest.raises(EqPluginError, match="holds no study"):
        Plan.read(tmp_path)
    plan.write(tmp_path)
    content = json.loads((tmp_path / PLAN).read_text())
    del content["frames"]
    (tmp_path / PLAN).write_text(json.dumps(content))
    with pytest.raises(EqPluginError, match="frames is missing"):
        Plan.read(tmp_path)
