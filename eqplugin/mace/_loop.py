"""MACE's training loop with a full state after every epoch, so that resumed equals straight.

MACE 0.3.16 keeps the best model only: under EMA the averaged weights instead of the raw ones,
without the EMA itself, the data order, the lowest loss or the patience, and it repeats the epoch
of the checkpoint. Here the same steps run in the same order (``mace/tools/train.py``, MIT), and
``TAG_resume.pt`` beside MACE's own checkpoints holds what those lack. It is written before the
first epoch and after each, and a checkpoint that MACE would remove stays until that is done: a run
that is killed at any moment goes on as if it had not been.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mace.tools.checkpoint import CheckpointState
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.files import whole_file
from eqplugin.mace._finite import FiniteLoss, NotFinite, require_finite
from eqplugin.mace.optimizers import kind_of
from eqplugin.modelfile.pickles import HostileFileError
from eqplugin.modelfile.trust import check_pickle_file

# `mace.tools.train` as an attribute is the function of the same name
_TRAIN = importlib.import_module("mace.tools.train")


def resume_path(checkpoint_handler: Any) -> Path:
    """Where the full state of a run lies: beside MACE's checkpoints, under the same tag."""
    return Path(checkpoint_handler.io.directory) / f"{checkpoint_handler.io.tag}_resume.pt"


def checkpoints_of(io: Any) -> list[Path]:
    """Checkpoints of a run that MACE's own files hold, those of stage two among them."""
    paths = sorted(map(Path, io._list_file_paths()))
    found = [(path, io._parse_checkpoint_path(str(path))) for path in paths]
    return [path for path, info in found if info is not None and info.tag == io.tag]


def _set_aside(files: list[Path]) -> None:
    """Keep what an earlier run under the same name left: MACE takes its latest for this run's."""
    if not files:
        return
    folder = files[0].parent
    number = 1
    while (aside := folder / f"before-{number}").exists():
        number += 1
    aside.mkdir()
    for file in files:
        file.rename(aside / file.name)
    logging.warning(
        f"Checkpoints of an earlier run under this name are now in {aside}; --restart_latest goes "
        f"on with what is in {folder}."
    )


@dataclass
class Progress:
    """What the loop itself remembers from epoch to epoch."""

    epoch: int
    lowest_loss: float = np.inf
    valid_loss: float = np.inf
    patience_counter: int = 0
    stage_two: bool = False
    keep_last: bool = False
    stepped: bool = False
    old_checkpoint: str | None = None


@dataclass
class TrainingLoop:
    """One call of MACE's ``tools.train``, with the same arguments."""

    resume: bool  # continue from the full state if there is one
    arguments: dict[str, Any]  # keyword arguments of ``mace.tools.train``
    name_frame: Callable[[NDArray], str]  # of a frame, by its positions
    progress: Progress = field(init=False)
    _replaced: list[Path] = field(init=False, default_factory=list)  # checkpoints to be removed

    def __post_init__(self) -> None:
        self.progress = Progress(self.arguments["start_epoch"])
        self.arguments["loss_fn"] = self._finite(self.arguments["loss_fn"])
        if self.arguments.get("swa") is not None:
            self.swa.loss_fn = self._finite(self.swa.loss_fn)

    def _finite(self, loss: torch.nn.Module) -> FiniteLoss:
        return FiniteLoss(loss, lambda: f"epoch {self.progress.epoch}", self.name_frame)

    def __getattr__(self, name: str) -> Any:
        # only reached for names that are not fields: the arguments of mace.tools.train
        try:
            return self.__dict__["arguments"][name]
        except KeyError:
            raise AttributeError(name) from None

    # ---- the loop

    def run(self) -> None:
        """Train until ``max_num_epochs`` or until the patience is over."""
        path = resume_path(self.checkpoint_handler)
        if self.resume and path.is_file():
            self._load(path)
        else:
            self._begin(path)
        progress = self.progress
        while progress.epoch < self.max_num_epochs:
            self._before_epoch()
            self._train()
            stop = progress.epoch % self.eval_interval == 0 and self._validate()
            if self.distributed:
                torch.distributed.barrier()
                stop = self._agree(stop)
            progress.epoch += 1
            progress.stepped = True
            if self.rank == 0:
                self._save(path)
                self._remove_replaced()
            if stop:
                break
        logging.info("Training complete")

    def _begin(self, path: Path) -> None:
        """Start at the first epoch, or at the one of MACE's checkpoint where there is no more."""
        checkpoints = checkpoints_of(self.checkpoint_handler.io)
        if not self.resume and self.rank == 0:
            _set_aside([*checkpoints, *([path] if path.is_file() else [])])
        elif self.resume and checkpoints:
            logging.warning(
                f"{path} is missing: going on from MACE's checkpoint alone, without the data "
                f"order and averages, so the weights will not be those of an uninterrupted run."
            )
        self._first_validation()
        if self.rank == 0:
            self._save(path)

    def _first_validation(self) -> None:
        logging.info("===========TRAINING===========")
        logging.info("Started training, reporting errors on validation set")
        for name, loss, metrics in self._evaluations(self.model):
            _TRAIN.valid_err_log(loss, metrics, self.logger, self.log_errors, None, name)

    def _evaluations(self, model: torch.nn.Module) -> Iterator[tuple[str, float, dict]]:
        """Loss and metrics of each head; as in MACE, the last one decides."""
        for name, loader in self.valid_loaders.items():
            loss, metrics = _TRAIN.evaluate(
                model=model,
                loss_fn=self.loss_fn,
                data_loader=loader,
                output_args=self.output_args,
                device=self.device,
            )
            self.progress.valid_loss = loss
            yield name, loss, metrics

    def _in_stage_two(self) -> bool:
        return self.swa is not None and self.progress.epoch >= self.swa.start

    def _before_epoch(self) -> None:
        """Learning-rate schedule; change of loss and averaging in stage two."""
        progress = self.progress
        if not self._in_stage_two():
            if progress.stepped:
                self.lr_scheduler.step(metrics=progress.valid_loss)
            return
        if not progress.stage_two:
            logging.info("Changing loss based on Stage Two Weights")
            progress.lowest_loss = np.inf
            progress.stage_two = True
            progress.keep_last = True
        self.arguments["loss_fn"] = self.swa.loss_fn
        self.swa.model.update_parameters(self.model)
        if progress.stepped:
            self.swa.scheduler.step()

    def _train(self) -> None:
        if self.distributed:
            self.train_sampler.set_epoch(self.progress.epoch)
        if self._schedule_free():
            self.optimizer.train()
        _TRAIN.train_one_epoch(
            model=self.model,
            loss_fn=self.loss_fn,
            data_loader=self.train_loader,
            optimizer=self.optimizer,
            epoch=self.progress.epoch,
            output_args=self.output_args,
            max_grad_norm=self.max_grad_norm,
            ema=self.ema,
            logger=self.logger,
            device=self.device,
            distributed=self.distributed,
            distributed_model=self.distributed_model,
            rank=self.rank,
        )
        if self.distributed:
            torch.distributed.barrier()

    def _schedule_free(self) -> bool:
        return "ScheduleFree" in type(self.optimizer).__name__

    def _averaged(self) -> Any:
        return self.ema.average_parameters() if self.ema is not None else nullcontext()

    def _validate(self) -> bool:
        """Validate and keep the best model; return whether the patience is over."""
        progress = self.progress
        model = self.model if self.distributed_model is None else self.distributed_model
        if self._schedule_free():
            self.optimizer.eval()
        wandb_log: dict[str, Any] = {}
        with self._averaged():
            for name, loss, metrics in self._evaluations(model):
                if self.rank == 0:
                    _TRAIN.valid_err_log(
                        loss, metrics, self.logger, self.log_errors, progress.epoch, name
                    )
                    wandb_log[name] = {
                        "epoch": progress.epoch,
                        "valid_loss": loss,
                        "valid_rmse_e_per_atom": metrics["rmse_e_per_atom"],
                        "valid_rmse_f": metrics["rmse_f"],
                    }
            self._plot(model)
        if self.log_wandb and self.rank == 0:
            import wandb

            wandb.log(wandb_log)
        return self.rank == 0 and self._keep_best()

    def _plot(self, model: torch.nn.Module) -> None:
        if self.plotter and self.progress.epoch % self.plotter.plot_frequency == 0:
            try:
                self.plotter.plot(self.progress.epoch, model, self.rank)
            except Exception as error:  # a plot must not end a training
                logging.warning(f"Plotting failed: {error}")

    def _keep_best(self) -> bool:
        progress = self.progress
        if progress.valid_loss < progress.lowest_loss:
            progress.lowest_loss = progress.valid_loss
            progress.patience_counter = 0
            self._checkpoint(progress.keep_last)
            progress.keep_last = self.save_all_checkpoints
            return False
        progress.patience_counter += 1
        over = progress.patience_counter >= self.patience
        skips = over and self.swa is not None and progress.epoch < self.swa.start
        if over:
            logging.info(
                f"Stopping optimization after {progress.patience_counter} epochs without "
                f"improvement{' and starting Stage Two' if skips else ''}"
            )
        if self.save_all_checkpoints:
            self._checkpoint(True)
        if skips:
            progress.epoch = self.swa.start
        return over and not skips

    def _checkpoint(self, keep_last: bool) -> None:
        """What MACE's handler saves, but the last checkpoint stays until the full state is saved.

        A kill in between would leave neither, or one that the full state does not know.
        """
        handler = self.checkpoint_handler
        io = handler.io
        if io.old_path and not (io.keep or keep_last):
            self._replaced.append(Path(io.old_path))
        name = io._get_checkpoint_filename(self.progress.epoch, io.swa_start)
        with self._averaged(), whole_file(Path(io.directory) / name) as unfinished:
            parts = CheckpointState(self.model, self.optimizer, self.lr_scheduler)
            torch.save(handler.builder.create_checkpoint(parts), unfinished)
        io.old_path = str(Path(io.directory) / name)

    def _remove_replaced(self) -> None:
        for path in self._replaced:
            if str(path) != self.checkpoint_handler.io.old_path:
                path.unlink(missing_ok=True)
        self._replaced.clear()

    def _agree(self, stop: bool) -> bool:
        """Let the first process decide for all; skipping to stage two has to be told as well."""
        told = torch.tensor([float(stop), float(self.progress.epoch)], device=self.device)
        torch.distributed.broadcast(told, src=0)
        self.progress.epoch = int(told[1].item())
        return bool(told[0].item())

    # ---- the full state

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
        }
        if self.ema is not None:
            parts["ema"] = self.ema
        if self.swa is not None:
            parts["swa_model"] = self.swa.model
            parts["swa_scheduler"] = self.swa.scheduler
        return parts

    def _save(self, path: Path) -> None:
        require_finite(
            self.model.parameters(), f"The weights after epoch {self.progress.epoch - 1}"
        )
        self.progress.old_checkpoint = self.checkpoint_handler.io.old_path
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state["optimizer_kind"] = kind_of(self.optimizer)
        state["progress"] = dict(vars(self.progress))
        state["torch_rng"] = torch.get_rng_state()
        state["data_order"] = self.train_loader.generator.get_state()
        with whole_file(path) as unfinished:  # an interruption leaves the previous state whole
            torch.save(state, unfinished)

    def _load(self, path: Path) -> None:
        state = self._read(path)
        self._check_optimizer(path, state.get("optimizer_kind"))
        for name, part in self._parts().items():
            if name not in state:
                raise EqPluginError(
                    f"{path} was written without {name.split('_')[0]}: resume with the options of "
                    f"the interrupted run, or start again under another --name."
                )
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise EqPluginError(
                    f"{path} belongs to another model or optimizer ({name} does not fit): resume "
                    f"with the options of the interrupted run, or start again under another --name."
                ) from error
        try:
            require_finite(self.model.state_dict().values(), f"{path}: its weights")
        except NotFinite as error:
            raise EqPluginError(
                f"{path} holds weights that are not finite: remove it, and start again."
            ) from error
        self.progress = Progress(**state["progress"])
        io = self.checkpoint_handler.io
        if self.progress.old_checkpoint:  # MACE removes it, wherever the folder lies by now
            best = Path(io.directory) / Path(self.progress.old_checkpoint).name
            io.old_path = str(best) if best.is_file() else None
        if self.rank == 0:
            self._forget_later_epochs()
        torch.set_rng_state(state["torch_rng"].cpu())
        self.train_loader.generator.set_state(state["data_order"].cpu())
        logging.info(f"Resuming from {path} at epoch {self.progress.epoch}")

    def _check_optimizer(self, path: Path, then: str | None) -> None:
        """PyTorch would take another optimizer's state; older files do not name theirs."""
        now = kind_of(self.optimizer)
        if then not in (None, now):
            raise EqPluginError(
                f"{path} belongs to a training with the optimizer {then}, which {now} cannot "
                f"continue: resume with the same --optimizer, or start again under another --name."
            )

    def _forget_later_epochs(self) -> None:
        """Checkpoints that a killed process wrote after the full state; they are written again."""
        io = self.checkpoint_handler.io
        for path in checkpoints_of(io):
            if io._parse_checkpoint_path(str(path)).epochs >= self.progress.epoch:
                path.unlink()

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            check_pickle_file(path)
            return torch.load(path, map_location=self.device, weights_only=False)
        except HostileFileError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            raise EqPluginError(
                f"{path} cannot be read ({type(error).__name__}): remove it to resume from MACE's "
                f"last checkpoint, or leave --restart_latest out."
            ) from error
