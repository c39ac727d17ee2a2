"""A study's config: what it expands to, and what is refused in one sentence before any training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.study import plan
from eqplugin.study.config import read_study
from eqplugin.study.frames import check_frames, write_frames
from eqplugin.study.matching import Match
from eqplugin.study.plan import expand, find_match, jobs_of, matches_to_find

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(
    p for p in (ROOT / "configs/study").glob("*.yaml") if p.stem[0] != "_" and p.stem != "demo"
)
CONFIG = """
defaults: [study_schema, _self_]
name: tiny
out: {out}
feature_dim: 16
data: {{train: {data}/train.xyz, test: {{hot: {data}/test.xyz}}, val_frames: 3}}
train: {{steps: 10, batch_size: 2}}
nequip: {{num_layers: 2}}
mace: {{num_layers: 2}}
arms:
  degrees: {{l_max: [0, 1], seed: [1, 2]}}
"""


def molecules(path, count, start=0, symbols="OH2", key="energy", forces=True, positions=None):
    """Water with made-up labels."""
    frames = []
    for index in range(start, start + count):
        rng = np.random.default_rng(index)
        places = np.array([[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]])
        atoms = Atoms(symbols, places + rng.normal(0, 0.05, (3, 3)))
        labels = {"energy": float(index)}
        if forces:
            labels["forces"] = rng.normal(size=(3, 3))
        if key == "energy":
            atoms.calc = SinglePointCalculator(atoms, **labels)
        else:
            atoms.info[key] = labels["energy"]
            atoms.arrays["dft_forces"] = labels["forces"]
        frames.append(atoms)
    write(path, frames, format="extxyz")


@pytest.fixture
def study(tmp_path):
    """A config and its data, 13 training and 4 test frames."""
    molecules(tmp_path / "train.xyz", 13)
    molecules(tmp_path / "test.xyz", 4, start=100)
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.format(out=tmp_path / "out", data=tmp_path))
    return path


def requests(path, *overrides, sweep=False):
    return expand(read_study(path, overrides, sweep))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("budget", ["reduced", "full"])
def test_shipped_studies_expand(path, budget):
    study = read_study(path, [f"budget={budget}", "data_root=somewhere"])
    found = expand(study)
    assert study.config.train.steps == study.config.budgets[budget]["steps"]
    assert study.config.feature_dim == study.config.budgets[budget]["feature_dim"]
    seeds = set(study.config.budgets[budget]["seeds"])
    assert {request.seed for request in found} == seeds
    dimension = [w for w in found if w.match == "dimension" and w.design.stack == "nequip"]
    if path.stem != "quickstart":
        assert {w.design.l_max for w in dimension} == {0, 1, 2, 3, 4}
        assert {w.design.hops for w in dimension} == {None, 1, 2}
        assert {w.match for w in found} == {"dimension", "parameters", "time"}
        assert {w.design.stack for w in found} == {"nequip", "mace"}


def test_arms_are_products_of_their_axes(study):
    found = requests(study)
    assert [(w.design.l_max, w.seed) for w in found] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {(w.design.stack, w.design.hops, w.match) for w in found} == {
        ("nequip", None, "dimension")
    }


def test_a_sweep_replaces_the_arms(study):
    found = requests(study, "l_max=1,2", "hops=null,2", "family=nequip", sweep=True)
    assert [(w.design.l_max, w.design.hops, w.design.contraction, w.seed) for w in found] == [
        (1, None, None, 1),
        (1, 2, "bispectrum", 1),
        (2, None, None, 1),
        (2, 2, "bispectrum", 1),
    ]
    assert {w.arm for w in found} == {"sweep"}


def test_mace_with_one_hop_is_one_model(study):
    found = requests(study, "family=mace", "hops=1", "l_max=0,1,2", sweep=True)
    assert [(w.design.l_max, w.design.contraction) for w in found] == [(0, None)]


def test_equal_jobs_of_several_arms_are_trained_once(study):
    config = read_study(study, ["match=parameters,dimension", "l_max=0,1"], sweep=True)
    found = expand(config)
    (group,) = matches_to_find(found)
    jobs = jobs_of(config.config, found, {group: {0: Match(11, 1.0), 1: Match(16, 1.0)}})
    assert [job.name for job in jobs] == [
        "nequip-L0-D11-s1", "nequip-L0-D16-s1", "nequip-L1-D16-s1",
    ]  # fmt: skip
    # the reference is compared under both rules
    assert jobs[-1].arms == {"sweep": ["parameters", "dimension"]}
    assert jobs[0].arms == {"sweep": ["parameters"]}


def test_what_no_dimension_matches_is_a_job_that_says_so(study):
    config = read_study(study, ["match=time", "l_max=4"], sweep=True)
    found = expand(config)
    (group,) = matches_to_find(found)
    (job,) = jobs_of(config.config, found, {group: {4: Match(None, 3.0, "too slow")}})
    assert (job.attainable, job.unattainable, job.design.l_max) == (False, "too slow", 4)
    assert job.name == "none-match_time-family_nequip-l_max_4-hops_None-contraction_None-s1"
    assert type(job).from_json(job.to_json(), config.config) == job


def test_what_cannot_be_matched_is_named(study, monkeypatch):
    found = {2: Match(16, 1.0), 4: Match(None, 3.0, "too slow")}
    monkeypatch.setattr(plan, "match_by_count", lambda *_: found)
    frames = SimpleNamespace(species=("H", "O"))
    group = plan.MatchedGroup("parameters", Design(None, 0, hops=2, num_layers=2))
    named = find_match(read_study(study).config, group, [2, 4], frames)
    assert named == {2: found[2], 4: Match(None, 3.0, "nequip 2-hop bispectrum: too slow")}


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["feature_dim=3", "arms.degrees.l_max=[2]"], "feature_dim=3 is too small for l_max=2"),
        (["+arms.degrees.hops=[3]"], "num_layers=2 is not a multiple of hops=3"),
        (["+arms.degrees.family=[gap]"], "family=gap is not one of nequip, mace"),
        (["+arms.degrees.match=[speed]"], "match=speed is not one of"),
        (
            ["+arms.degrees.contraction=[sum]"],
            "contraction='sum' is not known: use one of bispectrum",
        ),
        (["arms.degrees.l_max=[]"], "l_max has no values"),
        (["+arms.degrees.depth=[1]"], "'depth' not in 'Arm'"),
        (["lmax=2"], "lmax"),
        (["feature_dim=many"], "could not be converted to Integer"),
        (["train.steps=0"], "train.steps=0"),
        (["budget=huge"], "budget=huge is not one of"),
        (["l_max=1,2"], "add -m to sweep"),
        (
            ["+arms.degrees.family=[mace]", "+arms.degrees.hops=[3]"],
            "hops=3 is more than num_layers=2",
        ),
        (["nequip.modifiers=[enable_Magic]"], "modifiers='enable_Magic' is not a model modifier"),
        (["mace.modifiers=[enable_FactorizedTP]"], "modifiers are for NequIP"),
        (["data.train=nowhere.xyz"], "nowhere.xyz"),
        (["data.train_frames=9"], "not a multiple of train.batch_size=2"),
        (["data.train_frames=12"], "leaves 10 for training"),
        (["data.val_frames=13"], "take 13 of them"),
        (["~data.test.hot"], "nothing to test on"),
        (["data.stress=true"], "stress"),
        (["data.test_frames=0"], "data.test_frames=0"),
        (["data.test_frames=-1"], "data.test_frames=-1"),
        (["data.val_frames=-1"], "data.val_frames=-1"),
        (["data.train_frames=0"], "data.train_frames=0"),
        (["train.lr=0"], "train.lr=0"),
        (["train.r_max=-5"], "train.r_max=-5"),
        (["tolerance.time=0"], "tolerance.time=0"),
        (["reference_family=gap"], "reference_family=gap"),
        (["+data.test.val=OTHER"], "'val' cannot be the label of a test set"),
        (["+data.test.train=OTHER"], "'train' cannot be the label of a test set"),
        (["+data.test.e0s=OTHER"], "'e0s' cannot be the label of a test set"),
        (["+data.test={a/b: OTHER}"], "'a/b' cannot be the label of a test set"),
        (["data.test.hot=ENERGIES"], "energies.xyz"),
        (["data.test.hot=OTHER"], "forces"),
        (["+data.key_mapping.dft_energy=energy", "data.train=OTHER"], "forces"),
    ],
)
def test_mistakes_are_one_sentence(study, overrides, words):
    molecules(study.parent / "other.xyz", 13, key="dft_energy")
    molecules(study.parent / "energies.xyz", 4, forces=False)
    for name in ("other", "energies"):
        path = f"{study.parent}/{name}.xyz"
        overrides = [text.replace(name.upper(), path) for text in overrides]
    result = CliRunner().invoke(app, ["study", str(study), *overrides, "--dry-run"])
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (study.parent / "out").exists()


def test_a_sweep_of_anything_else_is_refused(study):
    with pytest.raises(EqPluginError, match=r"train\.steps cannot be swept"):
        read_study(study, ["train.steps=10,20"], sweep=True)
    with pytest.raises(EqPluginError, match="missing"):
        read_study(study.parent / "none.yaml")


def frames(study, *overrides):
    return check_frames(read_study(study, overrides).config)


def test_frames_are_split_once_and_written_with_plain_keys(study, tmp_path):
    config = read_study(study).config
    first, second = check_frames(config), check_frames(config)
    assert first.counts == {"train": 10, "val": 3, "test hot": 4}
    energies = [frame.energy for frame in [*first.train, *first.val]]
    assert len(set(energies)) == 13
    assert energies == [frame.energy for frame in [*second.train, *second.val]]
    files = write_frames(first, config, tmp_path / "data")
    assert set(files) == {"train", "val", "hot"}
    stored = read(files["train"], ":")
    assert [a.get_potential_energy() for a in stored] == energies[:10]
    np.testing.assert_allclose(stored[0].get_forces(), first.train[0].forces, atol=1e-8)


def test_fixed_atoms_keep_their_labels(study, tmp_path):
    config = read_study(study).config
    free = check_frames(config)
    fixed = read(config.data.train, ":")
    for atoms in fixed:
        atoms.set_constraint(FixAtoms([0]))
    write(config.data.train, fixed)
    assert "move_mask" in Path(config.data.train).read_text()
    found = check_frames(config)
    files = write_frames(found, config, tmp_path / "data")
    assert "move_mask" not in files["train"].read_text()
    for before, after in zip(free.train, read(files["train"], ":"), strict=True):
        np.testing.assert_allclose(after.get_forces(), before.forces, atol=1e-8)
        assert np.abs(before.forces[0]).max() > 1e-3


def test_keys_of_the_users_own(study):
    molecules(study.parent / "other.xyz", 13, key="dft_energy")
    molecules(study.parent / "test.xyz", 4, start=100, key="dft_energy")
    keys = ("+data.key_mapping.dft_energy=energy", "+data.key_mapping.dft_forces=forces")
    found = frames(study, f"data.train={study.parent}/other.xyz", *keys)
    assert found.counts["train"] == 10


def test_species_the_model_does_not_know(study):
    molecules(study.parent / "test.xyz", 4, start=100, symbols="SH2")
    with pytest.raises(EqPluginError, match="S is not among the species"):
        frames(study)


def test_frames_in_both_sets_are_reported(study):
    assert frames(study).warnings == ()
    molecules(study.parent / "test.xyz", 4, start=11)  # two of the training frames
    (warning,) = frames(study).warnings
    assert "share 2 frames" in warning


def test_a_test_set_from_the_training_file_is_warned_of(study):
    found = frames(study, "~data.test.hot", "data.test_frames=4")
    assert found.counts == {"train": 6, "val": 3, "test drawn": 4}
    assert "too optimistic" in found.warnings[0]
    drawn = {frame.energy for frame in found.tests["drawn"]}
    assert not drawn & {frame.energy for frame in [*found.train, *found.val]}
    with pytest.raises(EqPluginError, match="both the training file and a test file"):
        frames(study, "data.test.hot=${data.train}")


def test_a_varying_composition_wants_isolated_atoms(study):
    more = read(study.parent / "train.xyz", ":")
    del more[0][2]
    more[0].calc = SinglePointCalculator(more[0], energy=0.0, forces=np.zeros((2, 3)))
    write(study.parent / "train.xyz", more)
    assert any("composition varies" in warning for warning in frames(study).warnings)
