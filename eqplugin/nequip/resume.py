"""Trainings that go on: what may differ from the run so far, and what a checkpoint brings along.

NequIP builds the model of a resumed run from the checkpoint and everything else from the config,
and compares nothing. Lightning remembers the best epoch only in the folder it wrote to.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from omegaconf import DictConfig, ListConfig, OmegaConf

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.files import whole_file

STATISTICS = "training_data_stats"  # NequIP's resolver
_UNKNOWN = "<statistic of the training data>"
# how fast, not what: any may change between two parts of a run
_SPEED = {"compile_mode", "modifiers"}
_SCHEDULE = "lr_scheduler.scheduler.T_max"
# what decides which frames a run sees, and what they are labelled with
_DATA = ("transforms", "key_mapping", "exclude_keys", "include_keys", "ase_args")


def is_first_rank() -> bool:
    """Whether this process is the one of a distributed training that writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_PROCID"))


def listed(value: Any) -> list[Any]:
    """What a config gives once or in a list, as a list."""
    return list(value) if isinstance(value, list | ListConfig) else [value] if value else []


def _checkpoint_callbacks(config: DictConfig) -> list[DictConfig]:
    callbacks = listed(config.trainer.get("callbacks"))
    return [c for c in callbacks if str(c.get("_target_", "")).endswith("ModelCheckpoint")]


def checkpoint_folders(config: DictConfig) -> set[Path]:
    """Where the run's checkpoints go."""
    folders = {callback.get("dirpath") for callback in _checkpoint_callbacks(config)}
    return {Path(folder).resolve() for folder in folders if folder is not None}


def remove_leftovers(folder: Path) -> None:
    """Remove checkpoints that a kill left half-written."""
    for leftover in folder.glob(".*.tmp.ckpt"):
        leftover.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ``nequip-train`` as it was saved.

    Raises:
        EqPluginError: missing, damaged, or of another program.
    """
    if not path.is_file():
        raise EqPluginError(f"the checkpoint {path} is missing: check ckpt_path.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        checkpoint["hyper_parameters"]["info_dict"]["training_module"]["model"]
        return checkpoint
    except EqPluginError:
        raise
    except Exception as error:  # pickle, zip and torch fail in their own ways
        raise EqPluginError(
            f"{path} is damaged or no checkpoint of nequip-train ({reason_of(error, named=True)}): "
            f"give another one."
        ) from error


def prepare_fresh(config: DictConfig, folder: Path) -> None:
    """Make sure that a new training overwrites nothing but what a killed first epoch left.

    Raises:
        EqPluginError: the folder holds a training.
    """
    if "train" not in listed(config.run) or not is_first_rank():
        return
    # whoever keeps a last.ckpt has one after the first epoch
    always_last = any(callback.get("save_last") for callback in _checkpoint_callbacks(config))
    for place in checkpoint_folders(config):
        _refuse_last(place, folder)
        found = sorted(place.glob("*.ckpt"))
        for path in found:
            if not always_last or read_checkpoint(path)["epoch"] > 0:
                raise EqPluginError(
                    f"{path} is there already, without the last.ckpt to go on from: move it away, "
                    f"or name another folder with hydra.run.dir=FOLDER."
                )
        for path in found:
            # Lightning would put best-v1.ckpt beside it, and this one be taken for the best
            path.unlink()


def _refuse_last(place: Path, folder: Path) -> None:
    last = sorted(place.glob("last*.ckpt"))
    if last:
        raise EqPluginError(
            f"{place} holds a training already: go on with hydra.run.dir={folder} "
            f"++ckpt_path={last[0]}, or name another folder with hydra.run.dir=FOLDER."
        )


def prepare_resume(config: DictConfig, folder: Path) -> None:
    """Refuse what a resumed run would ignore, or would train on wrongly.

    Raises:
        EqPluginError: naming the key, what it was and what it is.
    """
    path = Path(config.ckpt_path).absolute()
    saved = read_checkpoint(path)
    config.ckpt_path = str(path)
    info = saved["hyper_parameters"]["info_dict"]
    _compare_runs(path, listed(info["runs"]), listed(config.run))
    for place in checkpoint_folders(config):
        if place != path.resolve().parent and is_first_rank():
            _refuse_last(place, folder)
    now = _resolved(config)
    _compare_data(path, info["data"], now["data"])
    _compare_training(path, info["training_module"], now["training_module"])
    _compare_horizon(path, info, now)


def _compare_runs(path: Path, before: list[Any], now: list[Any]) -> None:
    if now[: len(before)] == before:
        return
    names = ",".join(map(str, before))
    raise EqPluginError(
        f"run=[{','.join(map(str, now))}] cannot go on from {path}, whose run was [{names}]: "
        f"resume with run=[{names}]; a trained model is tested by `eqplugin bench forces {path} "
        f"FILE`."
    )


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers, statistics of the training data marked as unknown."""
    OmegaConf.register_new_resolver(STATISTICS, lambda *_: _UNKNOWN, replace=True)
    try:
        sections = {key: config[key] for key in ("training_module", "trainer", "data")}
        return {key: OmegaConf.to_container(value, resolve=True) for key, value in sections.items()}
    finally:
        OmegaConf.clear_resolver(STATISTICS)


def _compare_training(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, old, new in _differences(_plain(before), _plain(now)):
        if key == _SCHEDULE:
            raise EqPluginError(
                f"the learning rate of {path} ends after {old} epochs and would rise again: resume "
                f"with max_epochs={old}, or start a new training from its best.ckpt with "
                f"nequip.model.ModelFromCheckpoint."
            )
        raise EqPluginError(
            f"training_module.{key} is {_shown(new)} here and {_shown(old)} in {path}, and a "
            f"resumed run keeps what it began with: resume with the options of the first run, or "
            f"start a new training from its best.ckpt with nequip.model.ModelFromCheckpoint."
        )


def _plain(module: Mapping[str, Any]) -> dict[str, Any]:
    """A training module without what only decides how fast it is."""
    model = module["model"]
    if str(model.get("_target_", "")) == "nequip.model.modify":
        model = model["model"]
    return {**module, "model": {k: v for k, v in model.items() if k not in _SPEED}}


def _compare_horizon(path: Path, info: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A cosine that ends at T_max climbs again behind it."""
    schedule = (now["training_module"].get("lr_scheduler") or {}).get("scheduler") or {}
    before, epochs = info["trainer"].get("max_epochs"), now["trainer"].get("max_epochs")
    if not str(schedule.get("_target_", "")).endswith(".CosineAnnealingLR"):
        return
    if None not in (before, epochs) and epochs > schedule["T_max"] >= before:
        raise EqPluginError(
            f"trainer.max_epochs={epochs}, but the learning rate of {path} ends after "
            f"{schedule['T_max']} epochs and would rise again: resume with max_epochs="
            f"{schedule['T_max']}, or start a new training from its best.ckpt with "
            f"nequip.model.ModelFromCheckpoint."
        )


def _compare_data(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = {key: (before.get(key) or None, now.get(key) or None) for key in _DATA}
    splits = [_without_paths(data.get("split_dataset")) for data in (before, now)]
    keys["split_dataset"] = (splits[0], splits[1])
    if splits[0]:
        keys["seed"] = (before.get("seed"), now.get("seed"))
    for key, (old, new) in keys.items():
        if old != new:
            part, old, new = next(_differences({key: old}, {key: new}))
            raise EqPluginError(
                f"data.{part} is {_shown(new)} here and {_shown(old)} in {path}, so the run would "
                f"go on with other atoms, labels or frames: resume with the options of the first "
                f"run."
            )


def _without_paths(splits: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in split.items() if k != "file_path"} for split in listed(splits)]


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, old and new value wherever two configs differ; None is the same as absent."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*map(str, before), *map(str, now)}):
            inner = f"{key}.{name}" if key else name
            yield from _differences(before.get(name), now.get(name), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(old, new, f"{key}[{index}]")
    elif before != now and _UNKNOWN not in str(now):
        yield key, before, now


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, also where /tmp is another disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write to a file beside the place, and rename it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(buffer.getbuffer())


class Continuation(Callback):
    """Keeps a resumed run the run it was, in whatever folder, and lets SIGTERM end tests too."""

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring the best model so far along, and tell Lightning's callbacks where it lies now."""
        source = Path(trainer.ckpt_path or "").absolute().parent
        states = checkpoint.get("callbacks", {})
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state and callback.dirpath:
                _move_state(state, callback, source, trainer.is_global_zero)
        trainer.strategy.barrier()

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stop where asked to."""
        _stop_if_asked(trainer)

    def on_test_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stop where asked to."""
        _stop_if_asked(trainer)


def _stop_if_asked(trainer: Trainer) -> None:
    if trainer.received_sigterm:
        raise SIGTERMException


def _move_state(state: dict[str, Any], callback: ModelCheckpoint, source: Path, copy: bool) -> None:
    """Give a ModelCheckpoint's memory the paths of its new folder, and copy the best model there.

    Args:
        state: as it was saved; changed in place.
        callback: that it is for, which has no memory yet.
        source: where the checkpoint lies now, whatever it was called when it was written.
        copy: whether this process copies.
    """
    target = Path(callback.dirpath or source)

    def moved(path: str) -> str:
        return str(target / Path(path).name) if path else path

    kept = {moved(path): score for path, score in (state.get("best_k_models") or {}).items()}
    lost = [source / Path(path).name for path in kept if not (source / Path(path).name).is_file()]
    if lost:
        rank_zero_warn(
            f"{lost[0]}, the best model of the run so far, is not beside its last.ckpt: the best "
            f"of the epochs to come is kept instead."
        )
        kept = {}
        state |= {"best_model_score": None, "best_model_path": "", "kth_best_model_path": ""}
        state["kth_value"] = callback.kth_value
    state |= {"best_k_models": kept, "dirpath": str(target)}
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state.get(key, ""))
    for path in map(Path, kept):
        if copy and source.resolve() != target.resolve():
            with whole_file(path) as unfinished:
                shutil.copyfile(source / path.name, unfinished)
