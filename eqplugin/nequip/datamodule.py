"""NequIP's ASE data module behind a data check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nequip.data import AtomicDataDict
from nequip.data.datamodule import ASEDataModule
from nequip.data.transforms import NonPeriodicCellTransform
from nequip.scripts._workflow_utils import get_workflow_state
from omegaconf import OmegaConf

from eqplugin.data import DataError, check_files, raise_on_errors, read_e0s
from eqplugin.nequip._workflow import one_sentence_errors
from eqplugin.nequip.optimizers import check_optimizer, check_resumed, chosen_optimizer


class CheckedASEDataModule(ASEDataModule):
    """ASEDataModule that refuses bad data with one sentence before anything is trained.

    All files are checked once (about a second per 1000 frames) for what `eqplugin data check`
    finds: missing or non-finite labels, unknown species, zero cells, empty files. Species and
    cutoff are read from the transforms, so nothing has to be said twice.

    Args:
        isolated_atoms: extxyz or JSON file of isolated-atom energies, or a mapping of species to
            energy in eV. It becomes the training-data statistic ``isolated_atom_energies``, a value
            per type, for ``per_type_energy_shifts: ${training_data_stats:isolated_atom_energies}``.
        required_labels: labels every frame must carry; add ``stress`` when training on it.
        **kwargs: all arguments of :class:`nequip.data.datamodule.ASEDataModule`.

    Raises:
        DataError: naming file, frame and key (inside ``nequip-train``: one line and exit 1).
    """

    def __init__(
        self,
        isolated_atoms: str | Mapping[str, float] | None = None,
        required_labels: Sequence[str] = ("energy", "forces"),
        **kwargs: Any,
    ) -> None:
        plain = _plain(kwargs)
        if get_workflow_state() in ("package", "compile"):
            # these only take an example frame from the training data, which was checked before
            with one_sentence_errors():
                _require_training_files(plain)
            self._types: dict[str, str] = {}
            self._e0s: Mapping[str, float] | None = None
            # before any neighbour list is made
            boxed = {"_target_": f"{__name__}.give_a_cell", "_partial_": True}
            super().__init__(**kwargs | {"transforms": [boxed, *kwargs.get("transforms", [])]})
            return
        self._types, r_max = _types_and_cutoff(plain.get("transforms", []))
        with one_sentence_errors():
            self._e0s = None if isolated_atoms is None else read_e0s(isolated_atoms)
            raise_on_errors(
                check_files(
                    _all_files(plain),
                    required=tuple(required_labels),
                    species=list(self._types) or None,
                    isolated_atoms=self._e0s,
                    r_max=r_max,
                    key_mapping=plain.get("key_mapping") or {},
                    exclude_keys=plain.get("exclude_keys") or (),
                    ase_args=plain.get("ase_args") or {},
                )
            )
        super().__init__(**kwargs)

    def get_statistics(self, dataset: str = "train", dataset_idx: int = 0) -> dict[str, Any]:
        """NequIP's statistics, and ``isolated_atom_energies`` (eV, by type) where given."""
        statistics = dict(super().get_statistics(dataset, dataset_idx))
        if self._e0s is not None:
            statistics["isolated_atom_energies"] = {
                name: self._e0s[species] for species, name in self._types.items()
            }
        return statistics

    def setup(self, stage: str) -> None:
        """NequIP's; in a training it checks the optimiser's numbers as well."""
        super().setup(stage)
        if self.trainer is not None and stage == "fit":
            with one_sentence_errors():
                check_optimizer(self.trainer.lightning_module.optimizer_config or {})

    def state_dict(self) -> dict[str, Any]:
        """NequIP's, and the name of the optimiser."""
        return super().state_dict() | {"eqplugin_optimizer": chosen_optimizer()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the data order of the interrupted run, and with its optimiser.

        Lightning restores the state after ``setup`` has already made the generators, so NequIP
        0.19 would shuffle a resumed run's epochs like its first ones.
        """
        with one_sentence_errors():
            check_resumed(state_dict.get("eqplugin_optimizer"))
        super().load_state_dict(state_dict)
        if hasattr(self, "train_generator"):
            self.train_generator.set_state(self.train_generator_state)
        if hasattr(self, "generator"):
            self.generator.set_state(self.generator_state)


def give_a_cell(data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    """Put a molecule without a cell into a box; nothing else is changed.

    nequip-compile compares stresses on its example frame, and NequIP supplies a cell only where the
    key is missing: ASE has zeros there, so that the volume is zero, the stress NaN and the model
    refused.
    """
    cell = data.get(AtomicDataDict.CELL_KEY)
    if cell is None or cell.abs().max() > 0:
        return data
    return NonPeriodicCellTransform(padding=10.0, override_cell=True)(data)


def _plain(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of the arguments with OmegaConf containers turned into plain ones."""
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in kwargs.items()
    }


def _all_files(kwargs: Mapping[str, Any]) -> list[str]:
    files: list[str] = []
    for key in ("train_file_path", "val_file_path", "test_file_path", "predict_file_path"):
        paths = kwargs.get(key) or []
        files += [paths] if isinstance(paths, str) else list(paths)
    splits = kwargs.get("split_dataset") or []
    splits = [splits] if isinstance(splits, Mapping) else splits
    return files + [split["file_path"] for split in splits if "file_path" in split]


def _require_training_files(kwargs: Mapping[str, Any]) -> None:
    """nequip-package and nequip-compile fail deep inside when the training data have moved."""
    for file in _all_files({**kwargs, "val_file_path": [], "test_file_path": []}):
        if not Path(file).is_file():
            raise DataError(
                f"{file} is missing: nequip-package and nequip-compile take an example frame from "
                "the training data, so run them where this path exists, or on a package "
                "(.nequip.zip), which contains its example frame."
            )


def _types_and_cutoff(transforms: Sequence[Any]) -> tuple[dict[str, str], float | None]:
    """Type name by species of the type mapper, and r_max (A) of the neighbour list."""
    types: dict[str, str] = {}
    r_max: float | None = None
    for transform in transforms:
        if not isinstance(transform, Mapping):
            continue
        target = str(transform.get("_target_", ""))
        if target.endswith("ChemicalSpeciesToAtomTypeMapper"):
            mapping = transform.get("chemical_species_to_atom_type_map")
            types = dict(mapping or {name: name for name in transform["model_type_names"]})
        elif target.endswith("NeighborListTransform"):
            r_max = transform.get("r_max")
    return types, r_max
