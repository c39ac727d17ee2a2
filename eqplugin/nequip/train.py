"""`nequip-train`, guarded: mistakes are sentences, a folder has one training, a stop is no success.

`eqplugin/_extension.py` calls :func:`attach` when NequIP's training script is loaded. Every config
gets the sentences and the exit status; what concerns folders and checkpoints is for configs that
train through :class:`~eqplugin.nequip.CheckedASEDataModule`, as ours do.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from nequip.scripts._workflow_utils import set_workflow_state
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.files import is_refusal
from eqplugin.nequip.resume import (
    STATISTICS,
    checkpoint_folders,
    is_first_rank,
    listed,
    prepare_fresh,
    prepare_resume,
    remove_leftovers,
)

_TERMINATED = 143  # what a shell reports of a process that SIGTERM ended


def attach(script: Any) -> None:
    """Replace ``main`` of ``nequip.scripts.train`` by one that guards the same task."""
    task = script.main.__wrapped__
    composed = hydra.main(version_base=None, config_path=os.getcwd(), config_name="config")

    @functools.wraps(task)
    def guarded(config: DictConfig) -> None:
        with _sentences(), _own_folder(config):
            _train(task, config)

    run = composed(guarded)

    @functools.wraps(task)
    def main(*given: Any) -> Any:
        with _sentences():
            return run(*given)

    script.main = main


def _train(task: Callable[[DictConfig], None], config: DictConfig) -> None:
    """One training; in a sweep the process has had others before."""
    OmegaConf.clear_resolver(STATISTICS)  # NequIP registers it, and may do so once
    folder = Path(HydraConfig.get().runtime.output_dir)
    if _is_checked(config):
        with open_dict(config):
            if config.get("ckpt_path") is None:
                prepare_fresh(config, folder)
            else:
                prepare_resume(config, folder)
            _add(config, "callbacks", "eqplugin.nequip.resume.Continuation")
            if not config.trainer.get("plugins"):  # one of the user's may write checkpoints
                _add(config, "plugins", "eqplugin.nequip.resume.WholeCheckpoints")
    try:
        task(config)
    except SIGTERMException:
        again = f"hydra.run.dir={folder} ++ckpt_path={folder / 'last.ckpt'}"
        go_on = f" Go on with the same command and {again}" if _has_last(folder) else ""
        print(f"eqplugin: nequip-train was stopped by SIGTERM.{go_on}", file=sys.stderr)
        raise SystemExit(_TERMINATED) from None


def _is_checked(config: DictConfig) -> bool:
    return str(OmegaConf.select(config, "data._target_", default="")).startswith("eqplugin.")


def _has_last(folder: Path) -> bool:
    return (folder / "last.ckpt").is_file()


def _add(config: DictConfig, key: str, target: str) -> None:
    """Give Lightning's trainer one more callback or plugin, last in its list."""
    config.trainer[key] = [*listed(config.trainer.get(key)), {"_target_": target}]


@contextmanager
def _own_folder(config: DictConfig) -> Iterator[None]:
    """Hold the output folder against other trainings; the lock goes with the process."""
    if not _is_checked(config) or not is_first_rank():
        yield
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        lock: Any = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise EqPluginError(
            f"another training is writing to {folder}: wait for it, or give this one a folder of "
            f"its own with hydra.run.dir=FOLDER."
        ) from None
    except NotImplementedError:  # a file system without locks
        lock = nullcontext()
    with lock:
        for place in {folder, *checkpoint_folders(config)}:
            remove_leftovers(place)
        yield


@contextmanager
def _sentences() -> Iterator[None]:
    """Say in one sentence what a user can mend; a fault of a program keeps its traceback."""
    try:
        yield
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise SystemExit(f"eqplugin: error: {sentence}") from None
    finally:
        set_workflow_state(None)


def _sentence(error: BaseException) -> str | None:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for one in chain:
        if isinstance(one, EqPluginError):
            return str(one)
        if isinstance(one, yaml.YAMLError | UnicodeDecodeError):
            return config_sentence(one)
        if isinstance(one, torch.OutOfMemoryError):
            return "the device's memory is full: lower batch_size, feature_dim or l_max."
        if isinstance(one, OSError) and is_refusal(one):
            place = one.filename or "a file"
            return (
                f"{place} cannot be written ({one.strerror}): make room, or choose another folder."
            )
    if isinstance(error, InstantiationException):
        return None  # somebody's class: its author wants to see where
    if isinstance(error, HydraException | OmegaConfBaseException):
        return config_sentence(error)
    return None


def config_sentence(error: Exception) -> str:
    """What is wrong with a config: its YAML, its encoding, a name or a value in it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return (
            f"the config {mark.name}, line {mark.line + 1}, is not YAML ({error.problem}): correct "
            f"the line."
        )
    if isinstance(error, yaml.YAMLError):
        return f"the config is not YAML ({reason_of(error)}): correct it."
    if isinstance(error, UnicodeDecodeError):
        return f"the config is not UTF-8 ({reason_of(error)}): save it as UTF-8."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    options = getattr(error, "options", None)  # of a name that is none of a group, as dataset=none
    if options:
        return f"the config cannot be used: {lines[0]}: choose {', '.join(options)}."
    return f"the config cannot be used: {' '.join(lines[:2]) or type(error).__name__}"
