"""The shipped configs compose, name real things, and run on the sets they are meant for."""

import os
import subprocess
import sys
from pathlib import Path

import nequip  # noqa: F401 - registers the resolvers that the configs use
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_method
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "nequip"
PUBLIC = Path(os.environ.get("EQPLUGIN_DATA", ROOT.parent / "shared" / "data"))
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
DATASETS = sorted(p.stem for p in (CONFIGS / "dataset").glob("*.yaml") if p.stem[0] != "_")


def composed(name, *overrides):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, [*overrides])


def test_there_are_three_grades_under_their_names_and_older_ones():
    grades = ["everything", "minimal", "realistic"]
    older = [f"{family}_{grade}" for family in ("khop", "steerable") for grade in grades]
    assert sorted([*grades, *older]) == NAMES


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_composes_with_every_config(name, dataset):
    config = composed(name, f"dataset={dataset}", "data_root=somewhere")
    assert OmegaConf.select(config, "type_names")
    splits = OmegaConf.to_container(config.split_files, resolve=True)
    assert config.data_root in str([splits, config.train_files])
    assert config.train_files or splits
    if "stress" in config.required_labels:
        assert config.training_module.loss["_target_"].endswith("EnergyForceStressLoss")


@pytest.mark.parametrize("name", NAMES)
def test_models_are_found_by_target(name):
    model = composed(name).training_module.model
    assert get_method(model["_target_"]).__name__ == "SteerableModel"
    assert (model.hops, model.contraction) == (
        (2, "bispectrum") if "khop" in name else (None, None)
    )


def test_top_level_words_reach_the_model():
    model = composed(
        "khop_minimal", "feature_dim=512", "l_max=2", "hops=null"
    ).training_module.model
    assert (model.feature_dim, model.l_max, model.hops) == (512, 2, None)


def run(folder, name, *overrides):
    program = Path(sys.executable).parent / "nequip-train"
    common = (
        "feature_dim=32",
        "l_max=1",
        "num_layers=2",
        "max_epochs=2",
        f"hydra.run.dir={folder}",
    )
    return subprocess.run(
        [str(program), "-cp", str(CONFIGS), "-cn", name, *common, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["realistic", "khop_realistic"])
@pytest.mark.parametrize("dataset", ["acac", "si_mlearn"])
def test_realistic_configs_run_on_public_sets(tmp_path, name, dataset):
    """As they are, but for the path, a small model and two epochs."""
    if not (PUBLIC / dataset).is_dir():
        pytest.skip(f"public data not found: set EQPLUGIN_DATA to a folder that holds {dataset}/")
    result = run(tmp_path, name, f"dataset={dataset}", f"data_root={PUBLIC}")
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "best.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dataset", ["cuau_emt", "ethanol_xtb"])
def test_every_config_runs_on_the_shipped_sets(tmp_path, name, dataset):
    result = run(tmp_path, name, f"dataset={dataset}")
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "best.ckpt").is_file()
