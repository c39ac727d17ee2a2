"""What each stack's trainer is told for a variant: a command line as a user would type it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ase.data import atomic_numbers

from eqplugin.errors import EqPluginError
from eqplugin.resources import CONFIGS
from eqplugin.study.job import Job, Variant
from eqplugin.study.schema import Family, StudyConfig

__all__ = ["CONFIGS", "epochs_of", "mace_arguments", "nequip_overrides", "training_command"]

_FINAL_LR = 0.05  # of MACE's exponential schedule, as in configs/mace/*_minimal.yaml


def epochs_of(config: StudyConfig, train_frames: int) -> int:
    """Whole epochs that make at least ``train.steps`` steps."""
    return math.ceil(config.train.steps / (train_frames // config.train.batch_size))


def training_command(
    config: StudyConfig,
    job: Job,
    files: Mapping[str, Path],
    species: tuple[str, ...],
    e0s: Mapping[str, float] | None,
    epochs: int,
    folder: Path,
) -> list[str]:
    """The trainer's command line.

    Args:
        config: of the study.
        job: what to train.
        files: ``train``, ``val`` and perhaps ``e0s``, from ``write_frames``.
        species: chemical symbols.
        e0s: energies of lone atoms, eV.
        epochs: passes over the training frames.
        folder: of this run.
    """
    variant = job.variant
    if variant.family == "nequip":
        return [
            "nequip-train",
            *nequip_overrides(config, variant, species, stress=config.data.stress),
            f"train_files={files['train']}",
            f"val_files={files['val']}",
            *(_nequip_e0s(files) if "e0s" in files else ()),
            f"seed={job.seed}",
            f"max_epochs={epochs}",
            f"hydra.run.dir={folder}",
        ]
    return [
        "eqplugin",
        "mace-train",
        *mace_arguments(config, variant),
        *("--name", folder.name, "--work_dir", str(folder)),
        *("--train_file", str(files["train"]), "--valid_file", str(files["val"])),
        *("--E0s", "average" if e0s is None else _by_number(e0s)),
        *("--seed", str(job.seed), "--max_num_epochs", str(epochs)),
        *("--lr_scheduler_gamma", f"{_FINAL_LR ** (1 / epochs):.6f}"),
    ]


def nequip_overrides(
    config: StudyConfig, variant: Variant, species: tuple[str, ...], stress: bool
) -> list[str]:
    """Config and overrides of ``nequip-train`` that make the model and the optimizer."""
    family, train = config.nequip, config.train
    overrides = [
        "-cp",
        str(_config_folder("nequip")),
        "-cn",
        f"{'khop' if variant.khop else 'steerable'}_{family.grade}",
        f"dataset={'_files_stress' if stress else '_files'}",
        f"type_names=[{','.join(species)}]",
        f"r_max={train.r_max}",
        f"feature_dim={variant.feature_dim}",
        f"l_max={variant.l_max}",
        f"num_layers={family.num_layers}",
        f"modifiers=[{','.join(family.modifiers)}]",
        f"batch_size={train.batch_size}",
        f"lr={train.lr}",
        f"trainer.accelerator={'gpu' if train.device == 'cuda' else train.device}",
    ]
    if variant.khop:
        overrides += [
            f"hops={'null' if variant.hops is None else variant.hops}",
            f"contraction={variant.contraction}",
            f"reset_width={'null' if config.reset_width is None else config.reset_width}",
        ]
    return overrides + [f"++{key}={value}" for key, value in family.options.items()]


def _nequip_e0s(files: Mapping[str, Path]) -> list[str]:
    return [
        f"++data.isolated_atoms={files['e0s']}",
        "++training_module.model.per_type_energy_shifts="
        "${training_data_stats:isolated_atom_energies}",
    ]


def mace_arguments(config: StudyConfig, variant: Variant) -> list[str]:
    """Config and options of ``eqplugin mace-train`` that make the model and the optimizer."""
    family, train = config.mace, config.train
    options = {
        "config": _config_folder("mace")
        / f"{'khop' if variant.khop else 'steerable'}_{family.grade}.yaml",
        "feature_dim": variant.feature_dim,
        "max_L": variant.l_max,
        "num_interactions": family.num_layers,
        "batch_size": train.batch_size,
        "lr": train.lr,
        "r_max": train.r_max,
        "device": train.device,
        "energy_key": "energy",
        "forces_key": "forces",
    }
    if variant.khop:
        options["hops"] = variant.hops
        if config.reset_width is not None:
            options["reset_width"] = config.reset_width
    if config.data.stress:
        options |= {"loss": "stress", "stress_key": "stress", "compute_stress": True}
    options |= family.options
    # the edge harmonics reach at least as high as the features
    options["max_ell"] = max(variant.l_max, int(family.options.get("max_ell", _max_ell(family))))
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def _max_ell(family: Family) -> int:
    import yaml

    text = (_config_folder("mace") / f"steerable_{family.grade}.yaml").read_text()
    return int(yaml.safe_load(text)["max_ell"])


def _by_number(e0s: Mapping[str, float]) -> str:
    return str({atomic_numbers[symbol]: energy for symbol, energy in e0s.items()})


def _config_folder(stack: str) -> Path:
    folder = CONFIGS / stack
    if not folder.is_dir():
        raise EqPluginError(
            f"{folder} is missing: this installation of eqplugin lacks its configs, so install it "
            f"again."
        )
    return folder
