"""`eqplugin doctor` is content with this environment and finds faults that are put into it."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
from typer.testing import CliRunner

from eqplugin import doctor
from eqplugin.cli import app
from eqplugin.doctor import Finding, Verdict, diagnose
from eqplugin.mace import reference


def by_check(findings) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def pretend_versions(monkeypatch, **versions: str | None) -> None:
    """Let distributions have another version, or None: not be installed."""
    original = metadata.version

    def version(name: str) -> str:
        key = name.replace("-", "_")
        if key not in versions:
            return original(name)
        if versions[key] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[key]

    monkeypatch.setattr(metadata, "version", version)


def test_this_environment_has_no_fault():
    result = CliRunner().invoke(app, ["doctor", "--json"])
    findings = {line["check"]: line for line in json.loads(result.stdout)}
    assert result.exit_code == 0
    for check in ("python", "torch", "nequip", "e3nn", "mace", "ase", "nequip sees eqplugin"):
        assert findings[check]["verdict"] == "ok", findings[check]
    assert findings["mace as on e3nn 0.4.4"]["verdict"] == "ok"
    assert {"CUDA", "openequivariance", "cuequivariance-torch", "C++ compiler"} <= set(findings)


def test_wrong_numbers_are_a_fault_and_the_exit_status(monkeypatch):
    stored = reference.stored_results()
    for results in stored.values():
        results["forces"] = results["forces"] + 1e-9
    monkeypatch.setattr(reference, "stored_results", lambda: stored)
    finding = by_check(diagnose())["mace as on e3nn 0.4.4"]
    assert finding.verdict is Verdict.fault
    assert "1.0e-09" in finding.found
    assert "pip install" in finding.advice
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "1 fault." in result.stdout


def test_an_old_nequip_beside_mace_is_explained(monkeypatch):
    pretend_versions(monkeypatch, nequip="0.6.2")
    finding = by_check(doctor._requirements())["nequip"]
    assert finding.verdict is Verdict.fault
    assert "0.6.2" in finding.found
    assert "MACE's pin" in finding.advice
    assert "pip install --no-deps mace-torch" in finding.advice


@pytest.mark.parametrize("name", ["torch", "ase"])
def test_what_is_absent_is_a_fault_with_its_command(monkeypatch, name):
    pretend_versions(monkeypatch, **{name: None})
    finding = by_check(doctor._requirements())[name]
    assert finding.verdict is Verdict.fault
    assert finding.found == "not installed"
    assert finding.advice.startswith(f'pip install "{name}>=')


def test_mace_is_optional_but_not_half_of_it(monkeypatch):
    pretend_versions(monkeypatch, mace_torch=None)
    (finding,) = doctor._mace()
    assert finding.verdict is Verdict.note
    assert not list(doctor._parity())
    monkeypatch.undo()
    pretend_versions(monkeypatch, torch_ema=None, orjson=None)
    finding = by_check(doctor._mace())["what mace needs"]
    assert finding.verdict is Verdict.fault
    assert "torch-ema" in finding.advice
    assert "orjson" in finding.advice
    assert "e3nn" not in finding.advice


def test_a_gpu_that_torch_cannot_use_is_a_fault(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_succeeds", lambda command: True)
    (finding,) = doctor._cuda()
    assert finding.verdict is Verdict.fault
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    (finding,) = doctor._cuda()
    assert finding.verdict is Verdict.note


def test_no_compiler_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    (finding,) = doctor._compiler()
    assert finding.verdict is Verdict.note
    assert "nequip-compile" in finding.advice


def test_a_product_that_cannot_be_compiled_is_a_note(monkeypatch):
    monkeypatch.setenv("EQPLUGIN_NO_COMPILED", "1")
    (finding,) = doctor._compiled_product()
    assert finding.verdict is Verdict.note
    assert "EQPLUGIN_NO_COMPILED" in finding.found
    assert "slower" in finding.advice


def test_a_check_that_fails_is_reported_and_the_rest_goes_on(monkeypatch):
    def broken():
        raise RuntimeError("boom")
        yield

    broken.__name__ = "_cuda"
    monkeypatch.setattr(doctor, "_cuda", broken)
    findings = by_check(diagnose())
    assert findings["cuda"].verdict is Verdict.fault
    assert "boom" in findings["cuda"].found
    assert "C++ compiler" in findings


def test_eqplugin_mace_lists_runs_and_refuses_commands():
    runner = CliRunner()
    listed = runner.invoke(app, ["mace"])
    assert listed.exit_code == 0
    assert "mace_run_train" in listed.stdout
    assert "mace_select_head" in listed.stdout
    refused = runner.invoke(app, ["mace", "--", "mace_fly"])
    assert refused.exit_code == 1
    assert "MACE has no command mace_fly" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    helped = runner.invoke(app, ["mace", "--", "eval_configs", "--help"])
    assert helped.exit_code == 0
    assert "--configs" in helped.stdout  # the help of MACE's command, not of ours
