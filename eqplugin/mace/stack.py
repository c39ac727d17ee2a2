"""MACE's answers to what the package asks a training stack."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from ase import Atoms
from ase.data import atomic_numbers

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.exchange import default_dtype
from eqplugin.mace._e0_checks import e0s_for_mace
from eqplugin.mace.batch import batch_of
from eqplugin.mace.build import build_untrained
from eqplugin.mace.loading import read_model
from eqplugin.mace.plan import design_arguments
from eqplugin.mace.train import build_parser
from eqplugin.modelfile.eqm import EqmHeader
from eqplugin.resources import CONFIGS
from eqplugin.stack import Recipe, TrainingFiles, oldest_first

_FOLDER = CONFIGS / "mace"
_FINAL_LR = 0.05  # of MACE's exponential schedule, as in configs/mace/minimal.yaml


class MACE:
    """`eqplugin mace-train`, its ``--name`` that of its folder; see `eqplugin.stack.Stack`."""

    name = "mace"
    packages = ("torch", "e3nn", "mace-torch", "eqplugin")

    def build(self, design: Design, recipe: Recipe, species: Sequence[str]) -> torch.nn.Module:
        """The model of the config, in the precision that it asks for."""
        args = build_parser().parse_args(_argv(self._model_options(design, recipe)))
        with default_dtype(getattr(torch, args.default_dtype)):
            model = build_untrained(args, [atomic_numbers[symbol] for symbol in species])
        return self.modify(model, recipe.modifiers)

    def read(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        modifiers: Sequence[str] = (),
        trust: bool | None = None,
    ) -> torch.nn.Module:
        """A ``.model`` file."""
        return self.modify(read_model(path, device, trust=trust), modifiers)

    def convert(self, path: Path, out: Path, trust: bool | None = None) -> EqmHeader:
        """A ``.model`` file, without running it."""
        from eqplugin.mace.eqm import convert

        return convert(path, out)

    def modify(self, model: torch.nn.Module, modifiers: Sequence[str]) -> torch.nn.Module:
        """No modifiers here: MACE files are converted once, by ``eqplugin products``."""
        if modifiers:
            raise EqPluginError(
                f"modifiers={', '.join(modifiers)}: modifiers are for NequIP; leave them out for "
                f"MACE, whose files `eqplugin products` makes faster."
            )
        return model

    def batch(
        self, model: torch.nn.Module, frames: Sequence[Atoms], r_max: float
    ) -> dict[str, torch.Tensor]:
        """MACE's batch, without labels."""
        return batch_of(frames, model, r_max)

    def predict(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """With the graph of the forces kept, as in training."""
        out = model(batch, training=True, compute_force=True)
        return out["energy"], out["forces"]

    def command(
        self,
        design: Design,
        recipe: Recipe,
        files: TrainingFiles,
        seed: int,
        epochs: int,
        folder: Path,
    ) -> list[str]:
        """`eqplugin mace-train`; options of the recipe win."""
        options = self._model_options(design, recipe) | {
            "name": folder.name,
            "work_dir": folder,
            "train_file": files.train,
            "valid_file": files.val,
            "E0s": "average" if files.e0s is None else e0s_for_mace(files.e0s),
            "seed": seed,
            "max_num_epochs": epochs,
            "lr_scheduler_gamma": f"{_FINAL_LR ** (1 / epochs):.6f}",
        }
        won = {key: value for key, value in recipe.options.items() if key != "max_ell"}
        flags = ["--products"] if recipe.products else []
        return ["eqplugin", "mace-train", *_argv(options | won), *flags]

    def _model_options(self, design: Design, recipe: Recipe) -> dict[str, Any]:
        chosen = {k: v for k, v in design_arguments(design).items() if v is not None}
        stress = {"loss": "stress", "stress_key": "stress", "compute_stress": True}
        config = _FOLDER / f"{recipe.grade}.yaml"
        options = {
            "config": config,
            **chosen,
            "num_interactions": design.num_layers,
            "batch_size": recipe.batch_size,
            "lr": recipe.lr,
            "r_max": recipe.r_max,
            "device": recipe.device,
            "energy_key": "energy",
            "forces_key": "forces",
            **(stress if recipe.stress else {}),
            **recipe.options,
        }
        # the edge harmonics reach at least as high as the features
        options["max_ell"] = max(
            design.irreps.lmax, int(recipe.options.get("max_ell", _max_ell(config)))
        )
        return options

    def configs(self, recipe: Recipe) -> list[Path]:
        """The grade's config."""
        return [_FOLDER / f"{recipe.grade}.yaml"]

    def resume(self, folder: Path) -> list[str]:
        """From the last checkpoint."""
        return ["--restart_latest"] if any(folder.glob("checkpoints/*.pt")) else []

    def model(self, folder: Path) -> Path:
        """The file that training writes at its end."""
        return folder / f"{folder.name}.model"

    def validation_curve(self, folder: Path) -> dict[int, float]:
        """From the JSON lines of the results."""
        values: dict[int, float] = {}
        for log in oldest_first(folder.glob("results/*_train.txt")):
            for line in log.read_text().splitlines():
                row = json.loads(line) if line.endswith("}") else {}
                if row.get("mode") == "eval" and row.get("epoch") is not None:
                    values[row["epoch"]] = row["mae_f"]
        return values

    def simplified(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """The product basis is the contraction, and with one hop nothing above 0 outlives it, so
        every degree would be the same model.
        """
        l_max = 0 if axes["hops"] == 1 else axes["l_max"]
        return {**axes, "contraction": None, "l_max": l_max}

    def cost_options(self, design: Design, recipe: Recipe, num_types: int) -> None:
        """MACE models are built to be counted."""


def _argv(options: Mapping[str, Any]) -> list[str]:
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def _max_ell(config: Path) -> int:
    return int(yaml.safe_load(config.read_text())["max_ell"])


STACK = MACE()
