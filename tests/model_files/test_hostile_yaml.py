"""Configs of strangers: YAML that would run code does not, in any command that reads one."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from eqplugin.cli import app

STUDY = str(Path(__file__).resolve().parents[2] / "tests/old_files/study")
CONFIGS = {
    "target": """
training_module:
  model: {{_target_: builtins.exec, _args_: ["open('{mark}', 'a').write('x')"]}}
""",
    "nested target": """
training_module:
  model:
    _target_: eqplugin.nequip.SteerableModel
    feature_dim: 8
    l_max: {{_target_: builtins.exec, _args_: ["open('{mark}', 'a').write('x')"]}}
""",
    "python tag": "training_module: !!python/object/apply:os.system ['touch {mark}']\n",
    "python tag of mace": "model: !!python/object/apply:os.system ['touch {mark}']\n",
    "python name": "name: !!python/name:os.system\n"
    "model: !!python/object/new:os.system [touch {mark}]\n",
}
COMMANDS = {
    "mace-train": ["mace-train", "--config", "FILE"],
    "study": ["study", "FILE", "--dry-run"],
    "expressivity": ["bench", "expressivity", "--model", "FILE", "--suite", "chains"],
    "published": [
        "report",
        STUDY,
        "--out",
        "OUT",
        "--published",
        "FILE",
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("config", CONFIGS)
def test_no_yaml_runs_code(config, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark, file = tmp_path / "mark", tmp_path / "config.yaml"
    file.write_text(CONFIGS[config].format(mark=mark))
    line = [{"FILE": str(file), "OUT": str(tmp_path / "out")}.get(p, p) for p in COMMANDS[command]]
    result = CliRunner().invoke(app, line)
    assert not mark.exists()
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
