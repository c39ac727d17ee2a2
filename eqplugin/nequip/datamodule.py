"""NequIP's ASE data module behind a data check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from nequip.data import AtomicDataDict
from nequip.data.datamodule import ASEDataModule
from nequip.data.transforms import NonPeriodicCellTransform
from nequip.scripts._workflow_utils import get_workflow_state
from nequip.train import SimpleDDPStrategy
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from eqplugin.data import DataError, DataReport, Labels, check_files, raise_on_errors, read_e0s
from eqplugin.data._labels import normalized_mapping
from eqplugin.nequip._workflow import one_sentence_errors
from eqplugin.nequip.checks import (
    Statistics,
    check_labels,
    check_model,
    check_splits,
    partial_keys,
    unused_results,
)
from eqplugin.nequip.optimizers import check_optimizer

_FIT = ("train_file_path", "val_file_path")
_NOT_FIT = ("test_file_path", "predict_file_path")


class CheckedASEDataModule(ASEDataModule):
    """ASEDataModule that refuses bad data with one sentence before anything is trained.

    All files are checked once (about a second per 1000 frames) for what `eqplugin data check`
    finds: missing or non-finite labels, unknown species, zero cells, empty files. Species and
    cutoff are read from the transforms, so nothing has to be said twice. Several training files
    are trained on as one. Results in the files that are no label (a dipole, charges) and labels
    that only some frames have are left out, unless ``include_keys`` or ``key_mapping`` names them.

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
        self._types, self._r_max = _types_and_cutoff(plain.get("transforms", []))
        self._type_names = _type_names(plain.get("transforms", []))
        self._e0s: Mapping[str, float] | None = None
        self._report: DataReport | None = None
        self._fit_files = _all_files(plain, _FIT)
        mapping, wanted = plain.get("key_mapping") or {}, plain.get("include_keys") or []
        excluded = list(plain.get("exclude_keys") or [])
        if get_workflow_state() in ("package", "compile"):
            # these only take an example frame from the training data, which was checked before
            with one_sentence_errors():
                _require_training_files(plain)
            # before any neighbour list is made
            boxed = {"_target_": f"{__name__}.give_a_cell", "_partial_": True}
            kwargs |= {"transforms": [boxed, *kwargs.get("transforms", [])]}
        else:
            with one_sentence_errors():
                self._labels = Labels(normalized_mapping(mapping), excluded)
                self._e0s = None if isolated_atoms is None else read_e0s(isolated_atoms)
                self._report = _checked(plain, required_labels, list(self._types), self._e0s)
        kwargs |= {
            "exclude_keys": [*excluded, *unused_results({*mapping, *wanted})],
            # an @ in a file's name belongs to the name
            "ase_args": {"do_not_split_by_at_sign": True, **(plain.get("ase_args") or {})},
        }
        super().__init__(**kwargs)
        self._leave_out_partial_labels()
        if self.num_datasets["train"] > 1:
            joined = {"_target_": "torch.utils.data.ConcatDataset"}
            self.train_dataset_config = [joined | {"datasets": vars(self)["train_dataset_config"]}]
            self.num_datasets["train"] = 1

    def setup(self, stage: str) -> None:
        """NequIP's, once model, loss and data are known to speak of the same atoms and labels."""
        module = getattr(self.trainer, "lightning_module", None)
        if module is not None and self._report is not None:
            with one_sentence_errors():
                check_model(module, self._type_names, self._r_max)
                if stage == "fit":
                    files = [file for file in self._report.files if file.path in self._fit_files]
                    check_labels(module, files, self._labels)
        if module is not None and stage == "fit":
            with one_sentence_errors():
                check_optimizer(module.optimizer_config or {})
        super().setup(stage)

    def get_statistics(self, dataset: str = "train", dataset_idx: int = 0) -> dict[str, Any]:
        """NequIP's statistics, and ``isolated_atom_energies`` (eV, by type) where given."""
        statistics = Statistics(super().get_statistics(dataset, dataset_idx))
        if self._e0s is not None:
            statistics["isolated_atom_energies"] = {
                name: self._e0s[species] for species, name in self._types.items()
            }
        return statistics

    def teardown(self, stage: str) -> None:
        """At the end of a training, write the best model without code beside its checkpoint."""
        super().teardown(stage)
        if stage == "fit" and self.trainer is not None:
            # here alone: loading rests on modules that data have nothing to do with
            from eqplugin.nequip.writing import write_best

            write_best(self.trainer)

    def _leave_out_partial_labels(self) -> None:
        """A batch cannot be made of frames of which some have a label and some have not."""
        if self._report is None:
            return
        files = {file.path: file for file in self._report.files}
        # the training files share batches; of the others each is a set of its own
        groups = [self.train_dataset_config, *([config] for config in self.val_dataset_config)]
        groups += [[config] for config in (*self.test_dataset_config, *self.predict_dataset_config)]
        for group in groups:
            datasets = [config.get("dataset", config) for config in group]  # inside a random split
            partial = partial_keys([files[str(one["file_path"])] for one in datasets], self._labels)
            for one in datasets:
                one["exclude_keys"] = [*one["exclude_keys"], *partial]

    def _get_dloader(
        self, datasets: Sequence[Dataset], generator: Any, dataloader_dict: Mapping[str, Any]
    ) -> list[DataLoader]:
        """NequIP's; where several processes share an evaluation, every frame is seen once.

        Lightning would give each of them as many frames and repeat some for that.
        """
        options = getattr(self.trainer, "distributed_sampler_kwargs", None)
        evaluation = any(
            dataloader_dict is config
            for config in (self.val_dataloader_config, self.test_dataloader_config)
        )
        # DDP proper exchanges buffers at each call, and would wait for ranks that have no more
        simple = isinstance(getattr(self.trainer, "strategy", None), SimpleDDPStrategy)
        if not (options and evaluation and simple):
            return super()._get_dloader(datasets, generator, dataloader_dict)
        loaders = []
        for dataset in datasets:
            given = {"dataset": dataset, "generator": generator}
            if len(dataset) >= options["num_replicas"]:
                given["sampler"] = UnrepeatedDistributedSampler(dataset, shuffle=False, **options)
            loaders.append(instantiate(dataloader_dict, **given))
        return loaders

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the data order of the interrupted run.

        Lightning restores the state after ``setup`` has already made the generators, so NequIP
        0.19 would shuffle a resumed run's epochs like its first ones.
        """
        super().load_state_dict(state_dict)
        if hasattr(self, "train_generator"):
            self.train_generator.set_state(self.train_generator_state)
        if hasattr(self, "generator"):
            self.generator.set_state(self.generator_state)


def _checked(
    plain: Mapping[str, Any],
    required: Sequence[str],
    species: list[str],
    e0s: Mapping[str, float] | None,
) -> DataReport:
    """Check all files of a data section; errors are raised in one sentence."""
    _, r_max = _types_and_cutoff(plain.get("transforms", []))
    report = check_files(
        _all_files(plain, (*_FIT, *_NOT_FIT)),
        required=tuple(required),
        species=species or None,
        isolated_atoms=e0s,
        r_max=r_max,
        key_mapping=plain.get("key_mapping") or {},
        exclude_keys=plain.get("exclude_keys") or (),
        ase_args=plain.get("ase_args") or {},
    )
    raise_on_errors(report)
    check_splits(plain.get("split_dataset"), report)
    return report


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


def _all_files(kwargs: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Files under some keys, and those to be split."""
    files: list[str] = []
    for key in keys:
        paths = kwargs.get(key) or []
        files += [paths] if isinstance(paths, str) else list(paths)
    splits = kwargs.get("split_dataset") or []
    splits = [splits] if isinstance(splits, Mapping) else splits
    return files + [split["file_path"] for split in splits if "file_path" in split]


def _require_training_files(kwargs: Mapping[str, Any]) -> None:
    """nequip-package and nequip-compile fail deep inside when the training data have moved."""
    for file in _all_files(kwargs, ("train_file_path",)):
        if not Path(file).is_file():
            raise DataError(
                f"{file} is missing: nequip-package and nequip-compile take an example frame from "
                "the training data, so run them where this path exists, or on a package "
                "(.nequip.zip), which contains its example frame."
            )


def _type_names(transforms: Sequence[Any]) -> list[str]:
    """Names of the types in the order of their numbers, as the type mapper has them."""
    for transform in transforms:
        if isinstance(transform, Mapping) and "model_type_names" in transform:
            return list(transform["model_type_names"])
    return []


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
