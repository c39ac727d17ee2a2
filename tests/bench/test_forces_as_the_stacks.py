"""`bench forces` gives the errors that each stack's own evaluation gives for the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write
from e3nn.o3 import Irreps

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.bench.errors import errors_of
from eqplugin.bench.forces import evaluate
from eqplugin.bench.labels import read_labelled
from eqplugin.calculator import EqCalculator
from eqplugin.nequip import SteerableModel

ETHANOL = Path(__file__).resolve().parents[2] / "examples/data/ethanol_xtb/test_300K.xyz"
SPECIES = ["H", "C", "O"]


@pytest.fixture
def frames(tmp_path):
    path = tmp_path / "test.xyz"
    write(path, read(ETHANOL, ":6"))
    return path


def errors(model, frames):
    return errors_of(evaluate(EqCalculator(model), read_labelled(frames)))


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


def test_mace(frames):
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
            num_interactions=2, num_elements=3, MLP_irreps=Irreps("4x0e"),
            atomic_energies=np.array([[-10.0, -50.0, -110.0]]), avg_num_neighbors=6.0,
            atomic_numbers=[1, 6, 8], correlation=2, gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0, atomic_inter_shift=0.0, radial_MLP=[8], heads=["Default"],
        )  # fmt: skip
        table = AtomicNumberTable([1, 6, 8])
        keys = data.KeySpecification.from_defaults()
        keys.update(info_keys={"energy": "energy"}, arrays_keys={"forces": "forces"})
        atoms = read(frames, ":")
        for frame in atoms:  # where MACE looks for them
            frame.info["energy"] = frame.get_potential_energy()
            frame.arrays["forces"] = frame.get_forces()
        configs = [data.config_from_atoms(a, key_specification=keys) for a in atoms]
        loader = torch_geometric.dataloader.DataLoader(
            [data.AtomicData.from_config(c, z_table=table, cutoff=4.0) for c in configs],
            batch_size=3,
        )
        loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=1.0)
        output = {"forces": True, "virials": False, "stress": False, "dipoles": False}
        _, theirs = evaluate_with_mace(model, loss, loader, output, torch.device("cpu"))
    finally:
        torch.set_default_dtype(before)
    ours = errors(model, frames)
    assert ours.force_rmse == pytest.approx(1e3 * theirs["rmse_f"], rel=1e-6)
    assert ours.force_mae == pytest.approx(1e3 * theirs["mae_f"], rel=1e-6)
    assert ours.energy_rmse == pytest.approx(1e3 * theirs["rmse_e_per_atom"], rel=1e-6)
    assert ours.energy_mae == pytest.approx(1e3 * theirs["mae_e_per_atom"], rel=1e-6)
