"""Names, files and lines that a study did not expect: it runs, or says what is wrong."""

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from study_lines import line
from test_study_config import molecules, study  # noqa: F401 - a fixture

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.report.records import read_records, read_speed
from eqplugin.stack import Recipe, TrainingFiles, hydra_value
from eqplugin.stacks import stack_named
from eqplugin.study.config import read_study
from eqplugin.study.frames import check_frames
from eqplugin.study.matching import Match
from eqplugin.study.plan_file import PLAN, Plan
from eqplugin.study.run import _stored_matches

FOLDERS = [
    "T=300K", "Si (new)", "a, b", "it's", "[x]{y}", "$HOME", "${HOME}", "ü %#?:*~", 'a "b"',
    "back\\slash\\", "null",
]  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_hydra_takes_every_path_as_it_is(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "last.ckpt").touch()
    nequip, files = stack_named("nequip"), TrainingFiles(folder / "t.xyz", folder / "v.xyz", ("H",))
    command = nequip.command(Design(8, 1, num_layers=1), Recipe(), files, 1, 1, folder)
    texts = [*command[5:], *nequip.resume(folder)]
    parsed = OverridesParser.create().parse_overrides(texts)
    found = {override.key_or_group: override.value() for override in parsed}
    wanted = {"train_files": folder / "t.xyz", "val_files": folder / "v.xyz",
              "hydra.run.dir": folder, "ckpt_path": folder / "last.ckpt"}  # fmt: skip
    for key, path in wanted.items():
        # OmegaConf, which reads these values, takes \${ for ${
        assert str(found[key]).replace(r"\${", "${") == str(path)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_study_may_lie_anywhere_and_write_anywhere(study, name, tmp_path):  # noqa: F811
    folder = tmp_path / name
    folder.mkdir()
    moved = study.rename(folder / "tiny.yaml")
    assert read_study(moved).arms
    if "${" not in name:  # an interpolation, in an override
        assert read_study(moved, [f"out={hydra_value(folder)}"]).out == folder


def test_out_need_not_be_quoted(study, tmp_path):  # noqa: F811
    for name in ("T=300K", "Si (new)", "[x]", "a=b=c"):
        assert read_study(study, [f"out={tmp_path}/{name}"]).out == tmp_path / name


@pytest.mark.parametrize(
    "content, words",
    [
        (b"defaults: [study_schema, _self_]\narms: [1, 2\nname: x\n", ["tiny.yaml", "line 3"]),
        (b"defaults: [study_schema, _self_]\n# caf\xe9\n", ["tiny.yaml", "UTF-8"]),
        (b"\tname: x\n", ["tiny.yaml", "line 1", "YAML"]),
    ],
)
def test_a_config_that_is_no_yaml_is_one_sentence(study, content, words):  # noqa: F811
    study.write_bytes(content)
    with pytest.raises(EqPluginError) as error:
        read_study(study)
    for word in words:
        assert word in str(error.value)


def test_mappings_on_the_command_line_need_no_plus(study, tmp_path):  # noqa: F811
    for name in ("train", "test"):
        molecules(tmp_path / f"{name}.xyz", 13, start=ord(name[-1]), key="dft_energy")
    overrides = [
        "data.key_mapping={dft_energy: energy, dft_forces: forces}",
        f"data.test.cold={tmp_path}/test.xyz",
        "nequip.options.ema_decay=0.9",
    ]
    config = read_study(study, overrides).config
    assert set(config.data.test) == {"hot", "cold"}
    assert config.nequip.options == {"ema_decay": 0.9}
    assert check_frames(config).counts["test cold"] == 13


def test_a_batch_larger_than_the_data_is_one_sentence(study):  # noqa: F811
    config = read_study(study, ["train.batch_size=100"]).config
    with pytest.raises(EqPluginError, match=r"batch_size=100.* 10 frames.*lower"):
        check_frames(config)


@pytest.mark.parametrize("text", ["[]", '"x"', "\xff", '{"a": {"b": 1}}', '{"a": 3}', "{"])
def test_damaged_matches_are_named(text, tmp_path):
    file = tmp_path / "matches.json"
    assert _stored_matches(file) == {}
    file.write_text(json.dumps({"a": {"feature_dim": 8, "ratio": 1.0}}))
    assert Match(**_stored_matches(file)["a"]).feature_dim == 8
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(EqPluginError, match=r"matches\.json"):
        _stored_matches(file)


@pytest.mark.parametrize(
    "change",
    [
        {"config": 3}, {"config": {"nonsense": 1}}, {"jobs": [{}]}, {"jobs": [3]}, {"jobs": None},
        {"config": {"feature_dim": "many"}},
    ],
)  # fmt: skip
def test_a_damaged_plan_is_named(change, tmp_path):
    old = Path(__file__).parents[1] / "old_files/study/plan.json"
    (tmp_path / PLAN).write_text(json.dumps(json.loads(old.read_text()) | change))
    with pytest.raises(EqPluginError, match=r"plan\.json is damaged"):
        Plan.read(tmp_path)


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda x: x.update(arms={}), "arms"),
        (lambda x: x.update(arms={"a": []}), "arms"),
        (lambda x: x.update(arms={"a": ["colour"]}), "arms"),
        (lambda x: x["cost"].update(step_ms=[3, 2, 4]), "step_ms"),
        (lambda x: x["cost"].update(force_ms=[-1, 2, 4]), "force_ms"),
    ],
)
def test_lines_that_no_plot_could_show_are_named(change, word, tmp_path):
    content = line()
    change(content)
    (tmp_path / "results.jsonl").write_text(json.dumps(content))
    with pytest.raises(EqPluginError, match=rf"line 1.*{word}"):
        read_records(tmp_path)


def test_files_that_are_no_text_are_named(tmp_path):
    for name, read in (("results.jsonl", read_records), ("speed.json", read_speed)):
        (tmp_path / name).write_bytes(b"\xff\xfe{}")
        with pytest.raises(EqPluginError, match=name):
            read(tmp_path / name)
