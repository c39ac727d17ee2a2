"""Configurations, descriptors, LAMMPS files and refusals, for our models and for stock ones."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from mace.calculators import MACECalculator
from mace.modules import ScaleShiftMACE
from mace_under_test import (
    evaluate,
    graph,
    khop,
    molecule,
    steerable,
    stock,
    without_eqplugin,
)
from typer.testing import CliRunner

import eqplugin.mace  # installs the guards
from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.mace import load_model
from eqplugin.mace.export import (
    descriptors,
    export_lammps,
    extract_config,
    rebuild,
)
from eqplugin.mace.models import KHopInvariantMACE, SteerableMACE

WIDE = {"r_max": 4.0, "avg_num_neighbors": 6.0}
BUILDERS = {
    "steerable": lambda: steerable("6x0e+3x1o+2x2e", **WIDE),
    "khop": lambda: khop(2, feature_dim=11, max_L=1, num_interactions=3, reset_width=9, **WIDE),
    "stock": lambda: stock("4x0e+4x1o", **WIDE),
}
OURS = ["steerable", "khop"]
every_model = pytest.mark.parametrize("name", BUILDERS)


@functools.cache
def built(name):
    return BUILDERS[name]()


def saved(model, tmp_path):
    torch.save(model, tmp_path / "a.model")
    return tmp_path / "a.model"


@every_model
def test_one_opener_for_files_of_either_stack(name, tmp_path):
    path = saved(built(name), tmp_path)
    assert type(eqplugin.load_model(path)) is type(load_model(path)) is type(built(name))
    with pytest.raises(EqPluginError, match="modifiers are for NequIP"):
        eqplugin.load_model(path, modifiers=["enable_CompiledTP"])


# ---- configuration


@every_model
def test_rebuilt_from_configuration_with_the_same_numbers(name, tmp_path):
    model = built(name)
    copied = rebuild(load_model(saved(model, tmp_path)))
    assert type(copied) is type(model)
    for key in ("energy", "forces"):
        assert torch.equal(evaluate(copied, molecule())[key], evaluate(model, molecule())[key])


def test_configuration_names_our_arguments():
    config = extract_config(built("khop"))
    assert (config["feature_dim"], config["max_L"], config["hops"]) == (11, 1, 2)
    assert type(KHopInvariantMACE(**config)) is KHopInvariantMACE


def test_mace_extract_model_rebuilds_a_loaded_model(tmp_path):
    from mace.tools.scripts_utils import extract_model

    model = built("steerable")
    loaded = torch.load(saved(model, tmp_path), weights_only=False)
    assert type(loaded) is ScaleShiftMACE
    torch.set_default_dtype(torch.float64)
    try:
        copied = extract_model(loaded)
    finally:
        torch.set_default_dtype(torch.float32)
    assert type(copied) is SteerableMACE
    assert torch.equal(
        evaluate(copied, molecule())["forces"], evaluate(model, molecule())["forces"]
    )


# ---- descriptors


@every_model
def test_descriptors_per_layer_have_the_layers_dimensions(name):
    model = built(name)
    full = descriptors(model, molecule(), invariants_only=False)
    expected = [product.linear.irreps_out.dim for product in model.products]
    assert [layer.shape for layer in full] == [(9, dim) for dim in expected]
    joined = evaluate(model, molecule(), forces=False)["node_feats"].numpy()
    assert np.array_equal(np.concatenate(full, axis=1), joined)
    scalars = descriptors(model, molecule())
    turned = molecule()
    turned.rotate(70, (1, 2, 3))
    for before, after in zip(scalars, descriptors(model, turned), strict=True):
        assert np.abs(before - after).max() < 1e-12
        assert np.abs(before).max() > 1e-6
    # the whole features do turn, else the test above says nothing
    assert np.abs(full[0] - descriptors(model, turned, invariants_only=False)[0]).max() > 1e-6
    assert len(descriptors(model, molecule(), num_layers=1)) == 1


def calculator_of(model, tmp_path):
    return MACECalculator(
        model_paths=str(saved(model, tmp_path)), device="cpu", default_dtype="float64"
    )


@pytest.mark.parametrize("invariants_only", [True, False])
def test_calculator_descriptors_of_our_models_are_ours(tmp_path, invariants_only):
    model = built("khop")
    found = calculator_of(model, tmp_path).get_descriptors(molecule(), invariants_only)
    expected = np.concatenate(descriptors(model, molecule(), None, invariants_only), axis=1)
    assert np.allclose(found, expected, atol=1e-12)


def test_calculator_descriptors_of_stock_models_are_unchanged(tmp_path):
    model = built("stock")
    found = calculator_of(model, tmp_path).get_descriptors(molecule())
    assert np.allclose(found, np.concatenate(descriptors(model, molecule()), axis=1), atol=1e-12)


@pytest.mark.parametrize("layers", [0, 5])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(EqPluginError, match=f"num_layers={layers}"):
        descriptors(built("stock"), molecule(), num_layers=layers)


# ---- LAMMPS


@every_model
def test_libtorch_file_gives_the_same_energies_and_forces(name, tmp_path):
    model = built(name)
    path = export_lammps(model, tmp_path / "model-lammps.pt")
    loaded = torch.jit.load(path)
    batch = graph(molecule(), model)
    batch = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    batch["positions"].requires_grad_(True)
    out = loaded(batch, torch.ones(9, dtype=torch.float64), False)
    expected = evaluate(model, molecule())
    assert abs(out["total_energy_local"] - expected["energy"]).item() < 1e-9
    assert (out["forces"] - expected["forces"]).abs().max() < 1e-12
    assert all(parameter.requires_grad for parameter in model.parameters())


def lammps_data(atoms, numbers, cutoff):
    """Return what pair_style mliap unified hands over, without ghosts."""
    i, j, vectors = neighbor_list("ijD", atoms, cutoff)
    data = SimpleNamespace(
        nlocal=len(atoms),
        ntotal=len(atoms),
        npairs=len(i),
        elems=np.array([numbers.index(z) for z in atoms.numbers]),
        rij=vectors,
        pair_i=i,
        pair_j=j,
        eatoms=np.zeros(len(atoms)),
        forces=np.zeros((len(atoms), 3)),
    )

    def update_pair_forces_gpu(pairs):
        np.add.at(data.forces, i, pairs.numpy())
        np.add.at(data.forces, j, -pairs.numpy())

    def forward_exchange(features, out, _width):
        out.copy_(features)

    def reverse_exchange(features, out, _width):
        out.copy_(features)

    data.update_pair_forces_gpu = update_pair_forces_gpu
    data.forward_exchange, data.reverse_exchange = forward_exchange, reverse_exchange
    return data


@every_model
def test_mliap_file_gives_the_same_energies_and_forces(name, tmp_path):
    model = built(name)
    path = export_lammps(model, tmp_path / "model-mliap_lammps.pt", format="mliap")
    interface = torch.load(path, weights_only=False)
    assert type(interface.model.model) is ScaleShiftMACE
    assert list(interface.element_types) == ["H", "C", "O"]
    data = lammps_data(molecule(), [1, 6, 8], 4.0)
    interface.compute_forces(data)
    expected = evaluate(model, molecule())
    assert abs(data.energy - expected["energy"].item()) < 1e-9
    assert np.abs(data.forces - expected["forces"].numpy()).max() < 1e-12
    assert not model.lammps_mliap


def test_mliap_file_loads_without_eqplugin(tmp_path):
    path = export_lammps(built("khop"), tmp_path / "model.pt", format="mliap")
    code = "import torch\nprint(type(torch.load(sys.argv[1], weights_only=False)).__name__)"
    assert without_eqplugin(code, path).split()[-1] == "LAMMPS_MLIAP_MACE"


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"format": "onnx"}, "format='onnx'"),
        ({"head": "third"}, "head='third'"),
        ({"dtype": torch.float16}, "float16"),
    ],
)
def test_impossible_exports_are_refused_and_write_nothing(tmp_path, changes, culprit):
    with pytest.raises(EqPluginError, match=culprit):
        export_lammps(built("stock"), tmp_path / "out.pt", **changes)
    assert list(tmp_path.iterdir()) == []


def test_export_command(tmp_path):
    path = saved(built("steerable"), tmp_path)
    done = CliRunner().invoke(
        app, ["mace-export", str(path), "--format", "mliap", "--dtype", "float32"]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.model-mliap_lammps.pt").is_file()
    refused = CliRunner().invoke(app, ["mace-export", str(path), "--head", "none"])
    assert refused.exit_code == 1
    assert "head='none'" in refused.stderr
    assert not (tmp_path / "a.model-lammps.pt").exists()


# ---- files that are no models


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "corrupt.model").write_bytes(b"PK\x03\x04 not really")
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    for name, culprit in [
        ("missing.model", "does not exist"),
        ("corrupt.model", "cannot be read"),
        ("checkpoint.pt", "does not hold a MACE model but a dict"),
    ]:
        with pytest.raises(EqPluginError, match=culprit) as caught:
            load_model(tmp_path / name)
        assert name in str(caught.value)


# ---- accelerated kernels


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "module, backend",
    [
        ("convert_e3nn_cueq", "cuEquivariance"),
        ("convert_cueq_e3nn", "cuEquivariance"),
        ("convert_e3nn_oeq", "OpenEquivariance"),
        ("convert_oeq_e3nn", "OpenEquivariance"),
    ],
)
def test_conversions_of_our_models_are_refused(name, module, backend, tmp_path):
    import importlib

    path = saved(built(name), tmp_path)
    loaded = torch.load(path, weights_only=False)
    run = importlib.import_module(f"mace.cli.{module}").run
    with pytest.raises(EqPluginError, match=backend):
        run(loaded, device="cpu", return_model=True)


@pytest.mark.parametrize(
    "build, irreps",
    [
        (lambda: steerable(feature_dim=16, max_L=1, **WIDE), "4x0e+4x1o"),
        (lambda: khop(1, feature_dim=16, max_L=1, num_interactions=3, **WIDE), "4x0e"),
    ],
)
def test_models_that_mace_could_have_built_are_passed_on(build, irreps):
    from mace.cli import convert_e3nn_cueq

    model = build()
    config = convert_e3nn_cueq.extract_config_mace_model(model)
    assert str(config["hidden_irreps"]) == irreps
    torch.set_default_dtype(torch.float64)
    try:
        copied = ScaleShiftMACE(**config)
    finally:
        torch.set_default_dtype(torch.float32)
    copied.load_state_dict(model.state_dict())
    assert torch.equal(
        evaluate(copied, molecule())["forces"], evaluate(model, molecule())["forces"]
    )


def test_conversion_of_stock_models_is_left_to_mace():
    from mace.cli import convert_e3nn_cueq

    config = convert_e3nn_cueq.extract_config_mace_model(built("stock"))
    assert str(config["hidden_irreps"]) == "4x0e+4x1o"
