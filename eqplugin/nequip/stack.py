"""NequIP's answers to what the package asks a training stack."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqplugin.design import Design
from eqplugin.resources import CONFIGS
from eqplugin.stack import Recipe, TrainingFiles, hydra_value, oldest_first

if TYPE_CHECKING:
    import torch
    from ase import Atoms

    from eqplugin.costs import NequIPOptions
    from eqplugin.modelfile.eqm import EqmHeader

_FOLDER = CONFIGS / "nequip"
_CURVE = "val0_epoch/forces_mae"
_DEFAULT_OPTIMIZERS = ("adam", "amsgrad")  # of the three grades


class NequIP:
    """`nequip-train` with callbacks and logger as in configs/nequip; see `eqplugin.stack.Stack`."""

    name = "nequip"
    packages = ("torch", "e3nn", "nequip", "eqplugin")

    def build(self, design: Design, recipe: Recipe, species: Sequence[str]) -> torch.nn.Module:
        """The model of the config, its statistics of training data replaced by plain numbers."""
        from eqplugin.nequip.config import build_model

        return build_model(self._model_section(design, recipe, species))

    def read(
        self,
        path: Path,
        device: str | torch.device = "cpu",
        modifiers: Sequence[str] = (),
        trust: bool | None = None,
    ) -> torch.nn.Module:
        """A checkpoint or package."""
        from eqplugin.nequip.loading import read_model

        return read_model(path, device, modifiers, trust)

    def convert(self, path: Path, out: Path, trust: bool | None = None) -> EqmHeader:
        """A checkpoint or package."""
        from eqplugin.nequip.eqm import convert

        return convert(path, out, trust)

    def modify(self, model: torch.nn.Module, modifiers: Sequence[str]) -> torch.nn.Module:
        """NequIP's own and eqplugin's modifiers."""
        from eqplugin.nequip.modify import modify_model

        return modify_model(model, modifiers)

    def batch(
        self, model: torch.nn.Module, frames: Sequence[Atoms], r_max: float
    ) -> dict[str, torch.Tensor]:
        """An AtomicDataDict with types and neighbours."""
        from nequip.data import AtomicDataDict, from_ase
        from nequip.data.transforms import (
            ChemicalSpeciesToAtomTypeMapper,
            NeighborListTransform,
        )

        from eqplugin.nequip.loading import nequip_session

        types = list(model.type_names)
        mapper = ChemicalSpeciesToAtomTypeMapper(types, {t: t for t in types})
        neighbours = NeighborListTransform(r_max=r_max)
        with nequip_session():  # positions in float64
            items = [neighbours(mapper(from_ase(atoms))) for atoms in frames]
        batch = AtomicDataDict.batched_from_list(items)
        return AtomicDataDict.to_(batch, next(model.parameters()).device)

    def predict(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a copy: the model writes into its input."""
        out = model({key: value.clone() for key, value in batch.items()})
        return out["total_energy"], out["forces"]

    def command(
        self,
        design: Design,
        recipe: Recipe,
        files: TrainingFiles,
        seed: int,
        epochs: int,
        folder: Path,
    ) -> list[str]:
        """`nequip-train`; options of the recipe come last, so they win."""
        arguments = [
            *("-cp", str(_FOLDER), "-cn", recipe.grade),
            *self._model_overrides(design, recipe, files.species),
            f"batch_size={recipe.batch_size}",
            f"lr={recipe.lr}",
            f"trainer.accelerator={'gpu' if recipe.device == 'cuda' else recipe.device}",
            f"train_files={hydra_value(files.train)}",
            f"val_files={hydra_value(files.val)}",
            f"seed={seed}",
            f"max_epochs={epochs}",
            f"hydra.run.dir={hydra_value(folder)}",
        ]
        if files.e0s_file is not None:
            arguments += [
                f"++data.isolated_atoms={hydra_value(files.e0s_file)}",
                "++training_module.model.per_type_energy_shifts="
                "${training_data_stats:isolated_atom_energies}",
            ]
        return ["nequip-train", *arguments, *_added(recipe)]

    def _model_overrides(self, design: Design, recipe: Recipe, species: Sequence[str]) -> list[str]:
        chosen = {
            "feature_dim": design.feature_dim,
            "l_max": design.l_max,
            "num_layers": design.num_layers,
            "hops": design.hops,
            "contraction": design.contraction,
            "reset_width": design.reset_width,
        }
        return [
            f"dataset={'_files_stress' if recipe.stress else '_files'}",
            f"type_names=[{','.join(species)}]",
            f"r_max={recipe.r_max}",
            *(f"{key}={hydra_value(value)}" for key, value in chosen.items()),
            f"modifiers=[{','.join(recipe.modifiers)}]",
        ]

    def _model_section(
        self, design: Design, recipe: Recipe, species: Sequence[str]
    ) -> dict[str, Any]:
        from eqplugin.nequip.config import read_model_section

        overrides = [*self._model_overrides(design, recipe, species), *_added(recipe)]
        return read_model_section(_FOLDER, recipe.grade, overrides)

    def configs(self, recipe: Recipe) -> list[Path]:
        """The grade's config, what it starts from, and the data set's."""
        grades = {"minimal", "realistic", recipe.grade}
        names = [*sorted(grades), "dataset/_files", "dataset/_files_stress"]
        chosen = recipe.options.get("optimizer")
        names += [f"optimizer/{name}" for name in ([chosen] if chosen else _DEFAULT_OPTIMIZERS)]
        files = [_FOLDER / f"{name}.yaml" for name in names]
        return [file for file in files if file.is_file()]

    def resume(self, folder: Path) -> list[str]:
        """From the last epoch's checkpoint."""
        last = folder / "last.ckpt"
        return [f"++ckpt_path={hydra_value(last)}"] if last.is_file() else []

    def model(self, folder: Path) -> Path:
        """The checkpoint of the best epoch."""
        return folder / "best.ckpt"

    def validation_curve(self, folder: Path) -> dict[int, float]:
        """From the CSV logs: every resumed run writes one of its own."""
        values: dict[int, float] = {}
        for log in oldest_first(folder.glob("metrics/version_*/metrics.csv")):
            with log.open(newline="") as file:
                for row in csv.DictReader(file):
                    if row.get(_CURVE):
                        values[int(row["epoch"])] = float(row[_CURVE])
        return values

    def simplified(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument of a design means something here."""
        return dict(axes)

    def cost_options(self, design: Design, recipe: Recipe, num_types: int) -> NequIPOptions:
        """As the config has them."""
        from eqplugin.costs import NequIPOptions

        section = self._model_section(design, recipe, ())
        names = ("type_embed_num_features", "num_bessels", "radial_mlp_depth", "radial_mlp_width")
        given = {name: section[name] for name in names if name in section}
        return NequIPOptions(num_types=num_types, **given)


def _added(recipe: Recipe) -> list[str]:
    """Options in NequIP's own names, as overrides that may add to the config."""
    return [
        # the optimizer is a group of configs, not a value
        f"{'' if key == 'optimizer' else '++'}{key}={'null' if value is None else value}"
        for key, value in recipe.options.items()
    ]


STACK = NequIP()
