"""What surrounds a run of MACE's trainer: its folder, its log, its files, and how it fails."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from mace import tools

from eqplugin.errors import EqPluginError, is_out_of_memory, reason_of
from eqplugin.exchange import default_dtype, exchanged
from eqplugin.files import literal_pattern, whole_file
from eqplugin.quiet import logging_kept


@contextmanager
def surroundings_kept() -> Iterator[None]:
    """MACE sets torch's default dtype and adds log handlers; a Python caller gets its own back."""
    # a full disk must not print a traceback for every line of the log
    silent = exchanged((logging, "raiseExceptions", False))
    with logging_kept(), default_dtype(torch.get_default_dtype()), silent:
        yield


def folders_of(args: argparse.Namespace) -> tuple[Path, Path]:
    """Folders of the models and of the checkpoints, as MACE chooses them."""
    work = Path(args.work_dir)
    checkpoints = work / "checkpoints" if args.checkpoints_dir is None else args.checkpoints_dir
    return Path(args.model_dir or work), Path(checkpoints)


@contextmanager
def folders_held(args: argparse.Namespace) -> Iterator[None]:
    """Hold the run's model and checkpoints against other processes; the lock goes with this one.

    Leftovers of a writer that was killed are removed.

    Raises:
        EqPluginError: when another training writes under the same name.
    """
    if args.distributed and _rank() != 0:
        yield
        return
    models, checkpoints = folders_of(args)
    tag = tools.get_tag(name=args.name, seed=args.seed)
    with ExitStack() as held:
        for folder, name in ((models, args.name), (checkpoints, tag)):
            held.enter_context(_lock(folder, name))
            for kind in (".", "_stagetwo.", "_resume.", "_epoch-"):
                for leftover in folder.glob(f".{literal_pattern(name)}{kind}*.tmp*"):
                    leftover.unlink(missing_ok=True)
        yield


def _lock(folder: Path, name: str) -> Any:
    path = folder / f".{name}.lock"
    if path.is_symlink():  # a lock file is emptied when it is opened
        raise EqPluginError(f"{path} is a link, which no lock file is: remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(path).acquire(timeout=0)
    except Timeout:
        raise EqPluginError(
            f"another training writes {name} to {folder}: wait for it, or give this one another "
            f"--name or --work_dir."
        ) from None


def _rank() -> int:
    """Of this process, as torchrun and Slurm tell before torch does."""
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


@contextmanager
def failures_in_a_sentence(args: argparse.Namespace) -> Iterator[None]:
    """Say in a sentence why MACE stopped; the traceback is in the debug log, where there is one.

    Raises:
        EqPluginError: for everything that is an error.
    """
    try:
        yield
    except EqPluginError:
        raise
    except Exception as error:
        logging.debug("The traceback:", exc_info=True)
        raise EqPluginError(_sentence(error, args)) from error


def _sentence(error: Exception, args: argparse.Namespace) -> str:
    reason = reason_of(error, named=True)
    text = str(error).lower()
    if is_out_of_memory(error):
        return (
            f"There is not enough memory for this training: lower --batch_size "
            f"({args.batch_size}) or --valid_batch_size ({args.valid_batch_size}), or choose a "
            f"smaller model."
        )
    if isinstance(error, OSError):
        where = error.filename or args.work_dir
        return f"{where} cannot be read or written: {error.strerror or reason}."
    if "pytorchstreamwriter" in text or "inline_container" in text or "file write failed" in text:
        return (
            f"A checkpoint or model cannot be written to {args.work_dir} ({reason[:80]}): make "
            f"room, and go on with --restart_latest."
        )
    log = Path(args.log_dir or Path(args.work_dir) / "logs")
    tag = tools.get_tag(name=args.name, seed=args.seed)
    return f"MACE stopped with {reason[:200]}: see the traceback in {log / f'{tag}_debug.log'}."


class WholeTorch:
    """The module torch, but ``save`` leaves a file either whole or as it was."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def save(obj: object, f: str | Path, **options: Any) -> None:
        """``torch.save``."""
        with whole_file(f) as unfinished:
            torch.save(obj, unfinished, **options)
