"""Jobs of a study: lines, reuse, failures, interruptions; the trainers themselves are stood in."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console
from test_study_config import CONFIG, molecules
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.mace.stack import MACE
from eqplugin.nequip.stack import NequIP
from eqplugin.report.advice import caveats
from eqplugin.report.models import study_results
from eqplugin.report.records import SCHEMA, read_records
from eqplugin.study import run, steps, task
from eqplugin.study.config import read_study
from eqplugin.study.job import Job
from eqplugin.study.matching import match_by_time, search_dimension
from eqplugin.study.run import gather, plan_study, prepare, restore_finished
from eqplugin.study.storage import Storage
from eqplugin.study.training import TrainingResult


@pytest.fixture
def study(tmp_path):
    molecules(tmp_path / "train.xyz", 13)
    molecules(tmp_path / "test.xyz", 4, start=100)
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.format(out=tmp_path / "out", data=tmp_path))
    return path


def planned(path, *overrides, sweep=False) -> Storage:
    return plan_study(*prepare(path, overrides, sweep), Console(quiet=True))


@pytest.fixture
def trained(monkeypatch):
    """Stands in for trainer and measurement; notes what was trained."""
    seen = []

    def train(training, report, stop):
        seen.append(training)
        training.folder.mkdir(parents=True, exist_ok=True)
        model = training.stack.model(training.folder)
        model.touch()
        return TrainingResult(model, 12.0, False, 1.5, 10**8)

    def measure(command, log, **_):
        measured = {
            "errors": {"hot": {"frames": 4, "force_mae": 50.0, "energy_mae": None}},
            "parameters": 123,
            "step_ms": [1.0, 2.0, 3.0],
            "force_ms": [0.5, 0.6, 0.7],
            "peak_bytes": 1000,
        }
        (log.parent / "measured.json").write_text(json.dumps(measured))

    monkeypatch.setattr(task, "run_training", train)
    monkeypatch.setattr(task, "run_logged", measure)
    return seen


def run_all(storage):
    return [task.run_job(storage, job) for job in storage.jobs]


def test_every_job_is_one_line(study, trained):
    storage = planned(study)
    run_all(storage)
    lines = gather(storage).read_text().splitlines()
    assert len(lines) == len(storage.jobs) == 4
    record = json.loads(lines[0])
    assert record["schema"] == SCHEMA
    for key in ("config", "seed", "versions", "hardware", "commit", "status", "time"):
        assert key in record
    assert (record["steps"], record["epochs"], record["frames"]["train"]) == (10, 2, 10)
    assert record["versions"]["torch"]
    assert record["cost"]["train_s"] == 12.0
    assert record["arms"] == {"degrees": ["dimension"]}
    assert len(read_records(storage.out)) == 4


def test_every_job_has_the_same_steps_and_its_own_seed(study, trained):
    storage = planned(study, "l_max=1", "family=nequip,mace", "seed=1,2", sweep=True)
    run_all(storage)
    commands = [" ".join(training.command) for training in trained]
    assert sum("max_epochs=2" in c for c in commands) == 2
    assert sum("--max_num_epochs 2" in c for c in commands) == 2
    assert sum("seed=2" in c or "--seed 2" in c for c in commands) == 2


def test_a_finished_job_is_reused(study, trained):
    run_all(planned(study))
    run_all(planned(study))
    assert len(trained) == 4
    run_all(planned(study, "train.steps=20"))  # another budget is another training
    assert len(trained) == 8
    run_all(planned(study))  # and the first is still there
    assert len(trained) == 8


def test_a_study_goes_on_from_its_lines_alone(study, trained, tmp_path):
    storage = planned(study)
    run_all(storage)
    kept = gather(storage).read_text()
    for path in storage.out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (storage.out / "results.jsonl").write_text(kept)
    again = planned(study)
    assert restore_finished(again) == 4
    run_all(again)
    assert len(trained) == 4
    assert gather(again).read_text() == kept
    # what was removed on purpose is trained again
    shutil.rmtree(again.folder(again.jobs[0]))
    assert restore_finished(again) == 0
    run_all(again)
    assert len(trained) == 5


def test_lines_of_another_training_do_not_count(study, trained):
    storage = planned(study)
    run_all(storage)
    gather(storage)
    shutil.rmtree(storage.out / "jobs")
    other = planned(study, "train.lr=0.02")
    assert restore_finished(other) == 0
    run_all(other)
    assert len(trained) == 8


def test_other_data_is_another_training(study, trained):
    run_all(planned(study))
    molecules(study.parent / "train.xyz", 13, start=50)
    run_all(planned(study))
    assert len(trained) == 8


def test_a_failed_job_is_a_line_and_is_tried_again(study, trained, monkeypatch):
    storage, whole = planned(study), task.run_training

    def train(training, report, stop):
        if training.label == "nequip-L1-D16-s2":
            raise EqPluginError("out of memory")
        if training.label == "nequip-L0-D16-s1":
            raise RuntimeError("a fault of ours\nsecond line")
        return whole(training, report, stop)

    monkeypatch.setattr(task, "run_training", train)
    statuses = [record.status for record in run_all(storage)]
    assert statuses == ["failed", "done", "done", "failed"]
    records = read_records(gather(storage).parent)
    assert records[3].error == "out of memory"
    assert records[0].error.startswith("RuntimeError: a fault of ours; see")
    monkeypatch.setattr(task, "run_training", whole)
    assert [record.status for record in run_all(storage)] == ["done"] * 4
    assert len(trained) == 4


def test_an_interrupted_job_leaves_no_line(study, trained, monkeypatch):
    storage = planned(study)

    def interrupted(training, report, stop):
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "run_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        task.run_job(storage, storage.jobs[0])
    assert not (storage.folder(storage.jobs[0]) / "result.jsonl").exists()
    (record, *_) = read_records(gather(storage).parent)
    assert (record.status, record.error[:22]) == ("failed", "the job did not finish")


def test_what_no_dimension_matches_is_a_line(study, trained, monkeypatch):
    storage = planned(study)
    lost = Job(Design(None, 4), 1, {"time": ["time"]}, "too slow", "time")
    storage.jobs.append(lost)
    record = task.run_job(storage, lost)
    assert (record.status, record.error, record.l_max) == ("unattainable", "too slow", 4)
    assert trained == []


def test_results_of_another_schema_are_left_alone(study):
    planned(study)
    plan = study.parent / "out" / "plan.json"
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps({**content, "schema": "eqplugin.study/0"}))
    result = CliRunner().invoke(app, ["study", str(study)])
    assert result.exit_code == 1
    assert "eqplugin.study/0" in result.stderr
    assert "out=" in result.stderr
    assert json.loads(plan.read_text())["schema"] == "eqplugin.study/0"


def test_a_plan_is_read_as_it_was_written(study):
    storage = planned(study, "train.lr=0.02")
    again = Storage(storage.out)
    assert again.jobs == storage.jobs
    assert again.config == read_study(study, ["train.lr=0.02"]).config
    with pytest.raises(EqPluginError, match="no job nonsense"):
        again.job("nonsense")


def test_hydra_hands_out_the_jobs(study, trained):
    """Through Hydra's own multirun and its basic launcher; `out` lies beside the config."""
    storage = planned(study, f"out={study.parent}/out")
    names = [job.name for job in storage.jobs]
    run._multirun(read_study(study), storage, names, [])
    assert [training.label for training in trained] == names
    assert {r.status for r in read_records(storage.out)} == {"done"}
    planned(study, f"out={study.parent}/out")  # a second time, when the folder is there


def test_a_launcher_that_is_missing_is_named(study):
    storage = planned(study)
    with pytest.raises(EqPluginError, match="nowhere is not installed"):
        run._check_launcher(["hydra/launcher=nowhere"])
    run._check_launcher(["hydra/launcher=basic", "hydra.verbose=true"])
    assert storage.jobs


def test_names_tell_designs_apart():
    assert Design(64, 1, hops=2, contraction="power").name == "nequip-L1-h2-power-D64"
    assert Design(16, 0, hops=1, stack="mace").name == "mace-L0-h1-D16"


@pytest.mark.parametrize(
    "l_max, law, expected",
    [
        (0, lambda dim: (dim / 64) ** 2, 64),
        (2, lambda dim: 0.7 * dim / 64, 90),
        (4, lambda dim: 0.2 * (dim / 64) ** 0.6, 925),
        (1, lambda dim: (dim / 30) ** 2, 30),  # between 28 and 32, with left-over scalars
    ],
)
def test_a_dimension_is_found_by_its_ratio(l_max, law, expected):
    asked = []

    def ratio(dim):
        asked.append(dim)
        return law(dim)

    found = search_dimension(ratio, l_max, 64, 0.02, "time")
    assert abs(law(found.feature_dim) - 1) <= 0.02
    assert found.feature_dim == pytest.approx(expected, rel=0.04)
    assert len(asked) <= 24


@pytest.mark.parametrize("law", [lambda dim: 5.0 + dim / 64, lambda dim: dim / 1e6])
def test_where_none_fits_the_reason_says_how_far_it_is(law):
    found = search_dimension(law, 3, 64, 0.1, "time per training step")
    assert found.feature_dim is None
    assert "time per training step" in found.reason


def test_a_training_that_ends_in_nan_is_a_line(study, trained, monkeypatch):
    """JSON has no NaN, and one job must not end the study."""
    storage = planned(study)
    curve = {0: 0.2, 1: float("nan"), 2: float("inf")}
    monkeypatch.setattr(NequIP, "validation_curve", lambda self, folder: curve)
    records = run_all(storage)
    assert [record.status for record in records] == ["done"] * 4
    (record, *_) = read_records(gather(storage).parent)
    assert record.validation == [(1, 200.0), (2, None), (3, None)]
    assert any("Diverged: NequIP L=0" in text for text in caveats(study_results([record])))


def test_a_training_that_was_nan_from_the_start_has_no_errors(study, trained, monkeypatch):
    storage = planned(study)
    monkeypatch.setattr(NequIP, "validation_curve", lambda self, folder: {0: float("nan")})
    record = task.run_job(storage, storage.jobs[0])
    assert record.status == "failed"
    assert "NaN in all 1 epochs" in record.error


def test_lines_of_another_schema_are_left_alone(study):
    """Even where they are all that is left of a study."""
    lines = study.parent / "out" / "results.jsonl"
    lines.parent.mkdir()
    lines.write_text('{"schema": "eqplugin.study/0"}\n')
    result = CliRunner().invoke(app, ["study", str(study)])
    assert result.exit_code == 1
    assert "eqplugin.study/0" in result.stderr
    assert lines.read_text() == '{"schema": "eqplugin.study/0"}\n'


def test_the_lines_are_there_before_the_models_are_timed(study, trained, monkeypatch):
    storage = planned(study)
    run_all(storage)

    def broken(storage, console):
        raise EqPluginError("no GPU on the login node")

    monkeypatch.setattr(run, "_time_all", broken)
    with pytest.raises(EqPluginError, match="login node"):
        run.run_study(storage, read_study(study), None, Console(quiet=True))
    assert len(read_records(storage.out)) == 4


def test_without_the_gpu_of_the_study_models_are_not_timed_in_turn(study, trained, monkeypatch):
    storage = planned(study, "train.device=cuda")
    run_all(storage)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(run, "in_own_process", None)  # would be called
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    run._time_all(storage, console)
    assert "no GPU here" in console.export_text()


def test_times_are_matched_against_the_reference_on_the_device(study, monkeypatch):
    """Made-up step times: a step of degree L at dimension D takes 2^L D."""
    reference = Design(64, 1)
    built = []

    def build(self, design, recipe, species):
        built.append(design)
        return torch.nn.Identity()

    def time_steps(steps, rounds, clock):
        took = {"reference": 2.0 * 64, "candidate": 2.0 ** built[-1].l_max * built[-1].feature_dim}
        return {key: np.full(rounds, took[key]) for key in steps}

    for stack in (NequIP, MACE):
        monkeypatch.setattr(stack, "build", build)
    monkeypatch.setattr(steps, "training_step", lambda *_: None)
    monkeypatch.setattr(steps, "time_steps", time_steps)
    config = read_study(study).config
    wanted = [Design(None, degree) for degree in (0, 1, 2)]
    found = match_by_time(config, reference, wanted, ("H",), [], rounds=3)
    for degree, match in found.items():
        assert 2**degree * match.feature_dim == pytest.approx(128, rel=config.tolerance.time)
    assert found[1].feature_dim == 64
    assert built[0] == reference
    # other stacks and hops are matched to the same model, and searched for at its degree too
    (mace,) = match_by_time(
        config, reference, [Design(None, 1, stack="mace")], ("H",), [], rounds=3
    ).values()
    assert built[-1].stack == "mace"
    assert 2 * mace.feature_dim == pytest.approx(128, rel=config.tolerance.time)
    config.train.device = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EqPluginError, match="plan on a machine that has one"):
        match_by_time(config, reference, wanted[:1], ("H",), [], rounds=3)
