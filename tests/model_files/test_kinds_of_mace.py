"""Honest models of every kind open, and are written without code or refused by name."""

import numpy as np
import pytest
import torch
from mace_zoo import SCALED, build
from typer.testing import CliRunner

pytest.importorskip("mace", reason="mace-torch is not installed")

from eqplugin import EqCalculator, EqPluginError, convert_model
from eqplugin.modelfile.pickles import check_pickles

OURS = {
    "constant dimension": {"feature_dim": 20, "max_L": 1},
    "hops": {"feature_dim": 20, "max_L": 1, "hops": 1},
    "irreps": {"hidden_irreps": "8x0e+4x1o"},
}


def check(model, tmp_path, structures):
    """A model's file is opened as it was, and gives the same numbers without code."""
    path, out = tmp_path / "m.model", tmp_path / "m.eqm"
    torch.save(model, path)
    check_pickles(path)
    head = (getattr(model, "heads", None) or [None])[-1]
    head = head if len(getattr(model, "heads", [])) > 1 else None
    before = EqCalculator(path, head=head)
    convert_model(path, out)
    after = EqCalculator(out, head=head)
    for atoms in structures:
        if set(atoms.numbers) <= {1, 6, 8}:
            energy = before.get_potential_energy(atoms)
            assert after.get_potential_energy(atoms) == pytest.approx(energy, rel=1e-12)
            np.testing.assert_allclose(
                after.get_forces(atoms), before.get_forces(atoms), rtol=0, atol=1e-9
            )


@pytest.mark.parametrize("kind", SCALED)
def test_stock_models(kind, structures, tmp_path):
    check(build(**SCALED[kind]), tmp_path, structures)


@pytest.mark.parametrize("kind", OURS)
def test_our_models(kind, structures, tmp_path):
    check(build("SteerableMACE", **OURS[kind]), tmp_path, structures)


def test_a_model_without_scale(structures, tmp_path):
    check(build("MACE"), tmp_path, structures)


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        ("AtomicDipolesMACE", "predicts dipoles and no energies.*model_type='DipoleMACE'"),
        ("EnergyDipolesMACE", "predicts dipoles beside energies.*model_type='EnergyDipoleMACE'"),
    ],
)
def test_models_of_dipoles_say_what_they_are(cls, sentence, tmp_path):
    readouts = {"AtomicDipolesMACE": "8x1o", "EnergyDipolesMACE": "8x0e+8x1o"}
    model = build(cls, MLP_irreps=readouts[cls], num_interactions=2)
    path = tmp_path / "dipoles.model"
    torch.save(model, path)
    check_pickles(path)
    with pytest.raises(EqPluginError, match=sentence):
        EqCalculator(path)
    with pytest.raises(EqPluginError, match=sentence):
        EqCalculator(model)
    with pytest.raises(EqPluginError, match=f"its class {cls} is none of"):
        convert_model(path, tmp_path / "x.eqm")
    assert not (tmp_path / "x.eqm").exists()


def test_what_a_file_does_not_say_is_refused(tmp_path):
    """Numbers of neighbours that differ from layer to layer: MACE keeps the first alone."""
    model = build()
    model.interactions[1].avg_num_neighbors = 3.0
    torch.save(model, tmp_path / "m.model")
    with pytest.raises(EqPluginError, match=r"m\.model cannot be written as \.eqm: built again"):
        convert_model(tmp_path / "m.model", tmp_path / "m.eqm")
    assert not (tmp_path / "m.eqm").exists()


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    torch.save(build(heads=["dft", "cc"]), folder / "two.model")
    torch.save(build(), folder / "one.model")
    convert_model(folder / "two.model", folder / "two.eqm")
    (folder / "water.xyz").write_text(
        '3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1 pbc="F F F"\n'
        "O 0 0 0 0 0 0\nH 0.96 0 0 0 0 0\nH -0.24 0.93 0 0 0 0\n"
    )
    return folder


def command(*words):
    from eqplugin.cli import app

    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", ["two.model", "two.eqm"])
def test_heads_are_chosen_in_commands(heads, name, tmp_path):
    data = heads / "water.xyz"
    status, text = command("bench", "forces", heads / name, data)
    assert status == 1
    assert "has several heads" in text
    assert "dft, cc" in text
    outputs = set()
    for head in ("dft", "cc"):
        status, text = command(
            "bench", "forces", heads / name, heads / "one.model", data, "--head", head
        )
        assert status == 0, text
        outputs.add(text)
    assert len(outputs) == 2
    status, text = command("bench", "forces", heads / name, data, "--head", "mp2")
    assert status == 1
    assert "has no head 'mp2'" in text
    status, text = command("bench", "forces", heads / "one.model", data, "--head", "dft")
    assert status == 1
    assert "none of the models has several heads" in text


def potential(folder):
    import csv

    with next(folder.rglob("log.csv")).open() as file:
        return float(next(csv.DictReader(file))["potential_eV"])


@pytest.mark.parametrize("engine", ["ase", "torch-sim"])
def test_heads_are_chosen_in_md(heads, tmp_path, engine):
    if engine == "torch-sim":
        pytest.importorskip("torch_sim")
    run = ["md", heads / "two.model", heads / "water.xyz", "--steps", 10, "--every", 10]
    run += ["--ensemble", "nve", "--engine", engine]
    status, text = command(*run, "--out", tmp_path / "none")
    assert status == 1
    assert "has several heads" in text
    found = {}
    for head in ("dft", "cc"):
        status, text = command(*run, "--out", tmp_path / head, "--head", head)
        assert status == 0, text
        found[head] = potential(tmp_path / head)
    # the heads' lone atoms differ by 1 eV each
    assert abs(found["cc"] - found["dft"]) > 1
    status, text = command(*run, "--out", tmp_path / "cc", "--head", "dft")
    assert status == 1
    assert "--head cc, not dft" in text
