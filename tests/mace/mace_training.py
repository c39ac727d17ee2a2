"""Command lines and results of MACE trainings that take seconds."""

import torch
from mace_under_test import REPOSITORY

from eqplugin.mace.train import train

ETHANOL = REPOSITORY / "examples/data/ethanol_xtb"
E0S = str(ETHANOL / "isolated_atoms.xyz")
STEERABLE = {"model": "SteerableMACE", "feature_dim": 20, "max_L": 2}
KHOP = {"model": "KHopInvariantMACE", "feature_dim": 32, "max_L": 1, "hops": 1}


def arguments(data, work_dir, **changes):
    """Command line of a training of seconds; None drops an option, True makes it a flag."""
    options = {
        "name": "run",
        "train_file": data / "train.xyz",
        "valid_file": data / "valid.xyz",
        "energy_key": "energy",
        "forces_key": "forces",
        "E0s": E0S,
        "r_max": 3.0,
        "max_ell": 2,
        "correlation": 2,
        "radial_MLP": "[8]",
        "MLP_irreps": "4x0e",
        "num_radial_basis": 4,
        "batch_size": 4,
        "valid_batch_size": 6,
        "max_num_epochs": 2,
        "interaction_first": "RealAgnosticInteractionBlock",
        "default_dtype": "float64",
        "pin_memory": False,
        "plot": False,
        "work_dir": work_dir,
    } | changes
    line = []
    for key, value in options.items():
        if value is not None:
            line += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return line


def trained(data, work_dir, **changes):
    """Train and return the final model."""
    train(arguments(data, work_dir, **changes))
    stage = "_stagetwo" if changes.get("swa") else ""
    return torch.load(work_dir / f"run{stage}.model", weights_only=False)


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_of(work_dir):
    return next((work_dir / "logs").glob("*[0-9].log")).read_text()
