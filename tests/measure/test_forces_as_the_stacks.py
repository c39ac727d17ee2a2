"""`bench forces` gives the errors that each stack's own evaluation gives for the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write
from e3nn.o3 import Irreps

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.calculator import EqCalculator
from eqplugin.measure.force_errors import error_metrics
from eqplugin.measure.forces import evaluate
from eqplugin.measure.labels import read_labelled
from eqplugin.nequip import SteerableModel

DATA = Path(__file__).resolve().parents[2] / "examples/data"
ETHANOL, CUAU = DATA / "ethanol_xtb/test_300K.xyz", DATA / "cuau_emt/test_600K.xyz"
SPECIES = ["H", "C", "O"]
METALS = ["Cu", "Au"]


@pytest.fixture
def frames(tmp_path):
    path = tmp_path / "test.xyz"
    write(path, read(ETHANOL, ":6"))
    return path


@pytest.fixture
def crystals(tmp_path):
    path = tmp_path / "crystals.xyz"
    write(path, read(CUAU, ":4"))
    return path


def errors(model, frames):
    return error_metrics(evaluate(EqCalculator(model), read_labelled(frames)))


def test_nequip(frames):
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
    from nequip.train import EnergyForceMetrics
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = SteerableModel(
        seed=0, model_dtype="float64", r_max=4.0, type_names=SPECIES, feature_dim=16, l_max=1,
        num_layers=2, avg_num_neighbors=6.0,
        per_type_energy_shifts={"H": -10.0, "C": -50.0, "O": -110.0},
    )  # fmt: skip
    mapper = ChemicalSpeciesToAtomTypeMapper(SPECIES)
    data = [compute_neighborlist_(mapper(from_ase(a)), r_max=4.0) for a in read(frames, ":")]
    batch = AtomicDataDict.batched_from_list(data)
    out = model(dict(batch))
    metrics = EnergyForceMetrics()
    theirs = metrics(out, batch, prefix="", suffix="")
    ours = errors(model, frames)
    for name, value in {
        "forces_rmse": ours.force_rmse, "forces_mae": ours.force_mae,
        "per_atom_energy_rmse": ours.energy_rmse, "per_atom_energy_mae": ours.energy_mae,
    }.items():  # fmt: skip
        found = next(float(v.detach()) for key, v in theirs.items() if name in key)
        assert value == pytest.approx(1e3 * found, rel=1e-6)


def test_stress_as_nequip(crystals):
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
    from nequip.train import EnergyForceStressMetrics
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = SteerableModel(
        seed=0, model_dtype="float64", r_max=4.0, type_names=METALS, feature_dim=16, l_max=1,
        num_layers=2, avg_num_neighbors=12.0,
    )  # fmt: skip
    mapper = ChemicalSpeciesToAtomTypeMapper(METALS)
    data = [compute_neighborlist_(mapper(from_ase(a)), r_max=4.0) for a in read(crystals, ":")]
    batch = AtomicDataDict.batched_from_list(data)
    theirs = EnergyForceStressMetrics()(model(dict(batch)), batch, prefix="", suffix="")
    ours = errors(model, crystals)
    for name, value in {"stress_mae": ours.stress_mae, "stress_rmse": ours.stress_rmse}.items():
        found = next(float(v.detach()) for key, v in theirs.items() if name in key)
        assert value == pytest.approx(1e3 * found, rel=1e-6)
        assert value > 0.1  # an untrained model: there is an error to agree about


def test_mace(frames):
    model, theirs = evaluated_by_mace(frames, [1, 6, 8], [-10.0, -50.0, -110.0])
    ours = errors(model, frames)
    assert ours.force_rmse == pytest.approx(1e3 * theirs["rmse_f"], rel=1e-6)
    assert ours.force_mae == pytest.approx(1e3 * theirs["mae_f"], rel=1e-6)
    assert ours.energy_rmse == pytest.approx(1e3 * theirs["rmse_e_per_atom"], rel=1e-6)
    assert ours.energy_mae == pytest.approx(1e3 * theirs["mae_e_per_atom"], rel=1e-6)


def test_stress_as_mace(crystals):
    model, theirs = evaluated_by_mace(crystals, [29, 79], [0.0, 0.0], stress=True)
    ours = errors(model, crystals)
    assert ours.stress_mae == pytest.approx(1e3 * theirs["mae_stress"], rel=1e-6)
    assert ours.stress_rmse == pytest.approx(1e3 * theirs["rmse_stress"], rel=1e-6)
    assert ours.stress_mae > 0.1


def evaluated_by_mace(frames, numbers, e0s, stress=False):
    """An untrained model, and what MACE's own evaluation says of it."""
    from mace import data, modules
    from mace.tools import evaluate as evaluate_with_mace
    from mace.tools import torch_geometric
    from mace.tools.utils import AtomicNumberTable

    from eqplugin.mace import SteerableMACE

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model = SteerableMACE(
            feature_dim=16, max_L=1, r_max=4.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2, num_elements=len(numbers), MLP_irreps=Irreps("4x0e"),
            atomic_energies=np.array([e0s]), avg_num_neighbors=6.0, atomic_numbers=numbers,
            correlation=2, gate=torch.nn.functional.silu, atomic_inter_scale=1.0,
            atomic_inter_shift=0.0, radial_MLP=[8], heads=["Default"],
        )  # fmt: skip
        table = AtomicNumberTable(numbers)
        keys = data.KeySpecification.from_defaults()
        keys.update(
            info_keys={"energy": "energy", "stress": "stress"}, arrays_keys={"forces": "forces"}
        )
        atoms = read(frames, ":")
        for frame in atoms:  # where MACE looks for them
            frame.info["energy"] = frame.get_potential_energy()
            frame.arrays["forces"] = frame.get_forces()
            if stress:
                frame.info["stress"] = frame.get_stress()
        configs = [data.config_from_atoms(a, key_specification=keys) for a in atoms]
        loader = torch_geometric.dataloader.DataLoader(
            [data.AtomicData.from_config(c, z_table=table, cutoff=4.0) for c in configs],
            batch_size=3,
        )
        loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=1.0)
        output = {"forces": True, "virials": False, "stress": stress, "dipoles": False}
        _, theirs = evaluate_with_mace(model, loss, loader, output, torch.device("cpu"))
    finally:
        torch.set_default_dtype(before)
    return model, theirs
