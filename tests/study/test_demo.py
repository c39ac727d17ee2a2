"""The demo: its study, and its report from what was measured."""

import json

import numpy as np
from study_lines import line

from eqplugin.md.nve import NveRun
from eqplugin.report.records import parse_record
from eqplugin.study import demo, demo_report
from eqplugin.study.config import read_study
from eqplugin.study.demo import DemoModel
from eqplugin.study.plan import expand

TESTS = {"300K": 30.0, "600K": 60.0, "1200K": 120.0}
VERSIONS = ("python", "eqplugin", "nequip", "mace-torch", "e3nn", "torch", "ase")


def test_an_arm_is_a_model_and_all_share_the_dimension():
    study = read_study(demo.CONFIG, ["out=somewhere"])
    requests = expand(study)
    assert [request.arm for request in requests] == list(study.arms)
    assert {request.match for request in requests} == {"dimension"}
    assert study.config.feature_dim == 128
    assert study.config.train.steps == 10 * demo._STEPS_AN_EPOCH  # whole epochs


def made_up_record():
    errors = {
        test: {"frames": 9, "force_mae": f, "force_rmse": 1.25 * f, "energy_mae": f / 10}
        for test, f in TESTS.items()
    }
    versions = dict.fromkeys(VERSIONS, "1.0")
    return line(errors=errors, parameters=12345, feature_dim=128, versions=versions)


def test_report_holds_what_was_measured(tmp_path):
    record = made_up_record()
    name = record["job"].removesuffix("-s1")
    same = ("schema", "study", "versions", "hardware", "commit", "time")
    timing = {"force_ms": [7.0, 7.25, 9.0], "step_ms": [1.0, 2.0, 3.0]}
    speed = {key: record[key] for key in same} | {
        "kind": "speed", "atoms": 9, "batch_size": 5, "fingerprints": {}, "models": {name: timing},
    }  # fmt: skip
    record, speed = (parse_record(json.dumps(content), "made up") for content in (record, speed))
    time = np.arange(20) / 10
    forces = {test: np.random.default_rng(0).normal(size=(9, 2)) for test in TESTS}
    dynamics = NveRun(time, time, np.full(20, 300.0))
    model = DemoModel("steerable-L1", record, tmp_path / "best.ckpt", forces, dynamics, False)
    text = demo_report.write_report(tmp_path, [model], speed, 123.0, 10).read_text()
    for expected in ("12,345", "30.0 / 37.5", "120.0 / 150.0", "3.00", "7.2 (7.0-9.0)", "+1.000"):
        assert expected in text
    for plot in ("errors.png", "parity.png", "drift.png"):
        assert (tmp_path / plot).stat().st_size > 5000
        assert plot in text
    assert (tmp_path / "table.csv").is_file()
