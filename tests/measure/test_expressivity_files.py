"""Configs and model files become subjects with the same weights, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.loading import load_subject
from eqplugin.measure.expressivity.mace_subject import in_float64
from eqplugin.measure.expressivity.run import run_suites
from eqplugin.theory.capture import capture_features

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    "name, overrides, words",
    [
        ("nequip/khop_minimal", ["num_layers=2", "feature_dim=32"], "NequIP, layers 2, "),
        ("nequip/steerable_minimal", ["l_max=2", "feature_dim=32", "num_layers=2"], "l <= 2"),
        ("mace/minimal", ["feature_dim=8", "max_L=0", "hops=1"], "MACE, layers 1+1"),
        ("mace/minimal", ["num_interactions=3"], "MACE, layers 3"),
    ],
)
def test_configs_of_both_stacks(name, overrides, words):
    subject = load_subject(str(CONFIGS / f"{name}.yaml"), overrides)
    assert words in str(subject.architecture)
    assert not subject.trained
    assert {"H", "C", "O"} <= set(subject.symbols)
    assert all(result.agrees for result in run_suites(subject, ["controls"], draws=2))


def test_a_stock_mace_config(tmp_path):
    config = tmp_path / "stock.yaml"
    config.write_text(
        "name: stock\nmodel: MACE\nhidden_irreps: 4x0e+4x1o\nnum_interactions: 2\nr_max: 4.5\n"
        "atomic_numbers: '[14, 6]'\ncorrelation: 2\n"
    )
    subject = load_subject(str(config))
    assert subject.r_max == 4.5
    assert subject.symbols == ("Si", "C") or subject.symbols == ("C", "Si")
    assert str(subject.architecture) == "MACE, layers 2, products of 2, l <= 1"


def test_a_float32_mace_file_keeps_its_weights_and_gains_digits(tmp_path):
    from mace.calculators import MACECalculator

    subject = load_subject("mace-khop:L=1,hops=2,layers=2,D=16,r_max=4.0,atomic_numbers=[1,6,8]")
    model = subject.model
    torch.manual_seed(1)
    with torch.no_grad():
        model.atomic_energies_fn.atomic_energies.copy_(torch.tensor([[-13.0, -1029.0, -2042.0]]))
    torch.save(model.float(), tmp_path / "small.model")
    loaded = load_subject(str(tmp_path / "small.model"))
    assert loaded.trained
    assert loaded.model.products[0].linear.weight.dtype == torch.float64
    atoms = read(ROOT / "examples/data/ethanol_xtb/test_300K.xyz")
    calculator = MACECalculator(
        model_paths=str(tmp_path / "small.model"), device="cpu", default_dtype="float32"
    )
    atoms.calc = calculator
    expected = atoms.get_potential_energy() - np.dot(
        [-13.0, -1029.0, -2042.0], [(atoms.numbers == z).sum() for z in (1, 6, 8)]
    )
    assert loaded.energy(atoms) == pytest.approx(expected, abs=2e-3)
    results = run_suites(loaded, ["chains"], draws=1)
    assert [r.own is not None for r in results] == [True] * 4
    # with float32 coefficients these zeros would be 1e-7
    assert [r.verdict for r in results] == ["separates"] * 2 + ["cannot separate"] * 2
    in_float64(lambda: None)


@pytest.mark.slow
def test_a_nequip_checkpoint_and_package(tmp_path):
    import subprocess
    import sys

    from nequip.data import compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
    from nequip.model.saved_models.load_utils import load_saved_model

    from eqplugin.nequip import load_calculator

    bin_folder = Path(sys.executable).parent
    subprocess.run(
        [bin_folder / "nequip-train", "-cp", str(CONFIGS / "nequip"), "-cn", "khop_minimal",
         "feature_dim=32", "num_layers=2", "max_epochs=1", "batch_size=50",
         f"data_root={ROOT / 'examples' / 'data'}", f"hydra.run.dir={tmp_path}"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    checkpoint = tmp_path / "best.ckpt"
    package = tmp_path / "model.nequip.zip"
    subprocess.run(
        [bin_folder / "nequip-package", "build", checkpoint, package],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    atoms = read(ROOT / "examples/data/ethanol_xtb/test_300K.xyz")
    other = read(ROOT / "examples/data/ethanol_xtb/test_300K.xyz", 1)
    differences = []
    for a in (atoms, other):
        a.calc = load_calculator(checkpoint)
        differences.append(a.get_potential_energy())
    for path in (checkpoint, package):
        subject = load_subject(str(path))
        assert subject.trained
        assert subject.energy(other) - subject.energy(atoms) == pytest.approx(
            differences[1] - differences[0], abs=1e-3
        )
        results = run_suites(subject, ["chains", "controls"], draws=2)
        assert all(result.agrees for result in results)
        # hidden features of the file as it is; the classes of a package are its own copies
        data = ChemicalSpeciesToAtomTypeMapper(list(subject.symbols))(from_ase(atoms))
        model = load_saved_model(path)
        with capture_features(model) as layers:
            model(compute_neighborlist_(data, subject.r_max))
        expected = subject.layers(atoms)
        assert [layer.name.rpartition(".")[2] for layer in layers] == [
            layer.name.rpartition(".")[2] for layer in expected
        ]
        for layer, rebuilt in zip(layers, expected, strict=True):
            assert layer.irreps == rebuilt.irreps
            change = (layer.values.double() - rebuilt.values).norm()
            assert change < 1e-4 * rebuilt.values.norm()


@pytest.mark.parametrize(
    "content, words",
    [
        ("- a\n- b\n", "holds no settings"),
        ("a: [", "is not YAML"),
        ("defaults:\n  - missing\n", "cannot be read as a NequIP config"),
        ("training_module:\n  model:\n    a: 1\n", "no _target_"),
        ("training_module:\n  model:\n    _target_: no.such.Model\n", "No module named 'no'"),
        ("training_module:\n  model:\n    _target_: eqplugin.nequip.SteerableModel\n", "mandatory"),
        ("", "holds no settings"),
        ("name: x\nmodel: SteerableMACE\nfeature_dim: 3\nmax_L: 2\n", "feature_dim=3"),
    ],
)
def test_configs_that_are_none(tmp_path, content, words):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(EqPluginError, match=words):
        load_subject(str(path))


@pytest.mark.parametrize("name", ["a.ckpt", "a.nequip.zip", "a.model", "a.txt"])
def test_files_that_are_none(tmp_path, name):
    (tmp_path / name).write_text("nothing")
    with pytest.raises(EqPluginError, match=name):
        load_subject(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.ckpt", "a.model"])
def test_other_pickles(tmp_path, name):
    for content in ({"weights": 1}, torch.nn.Linear(1, 1)):
        torch.save(content, tmp_path / name)
        with pytest.raises(EqPluginError, match=name):
            load_subject(str(tmp_path / name))


def test_overrides_are_for_configs(tmp_path):
    (tmp_path / "a.model").write_text("nothing")
    with pytest.raises(EqPluginError, match="--set changes configs"):
        load_subject(str(tmp_path / "a.model"), ["hops=1"])


def test_a_mace_model_can_be_saved_after_a_nequip_model_was_built(tmp_path):
    # NequIP leaves e3nn in its scripting mode, in which MACE models hold what pickle refuses
    load_subject("steerable:L=1,layers=1")
    torch.save(load_subject("mace-khop:L=1,hops=1,layers=1,D=8").model, tmp_path / "a.model")
    assert load_subject(str(tmp_path / "a.model")).trained
