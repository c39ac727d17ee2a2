"""What NequIP's trainer needs for the optimisers of configs/nequip/optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from nequip.train.schedulefree import ScheduleFreeLightningModule

from eqplugin.errors import EqPluginError
from eqplugin.nequip._workflow import one_sentence_errors
from eqplugin.optim.soap import SOAP


class ScheduleFreeModule(ScheduleFreeLightningModule):
    """NequIP's schedule-free module in configs that are written for averaged weights.

    The optimiser averages weights itself, and validation and files hold its average: `ema_decay`
    is accepted, and has no effect. A checkpoint can be read where the optimiser's package is not
    installed.

    Args:
        ema_decay: not used.
        **kwargs: of :class:`nequip.train.ScheduleFreeLightningModule`.
    """

    def __init__(self, ema_decay: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def configure_optimizers(self) -> Any:
        """NequIP's, after a look whether the package is there.

        Raises:
            EqPluginError: it is not, or there is a learning-rate schedule.
        """
        with one_sentence_errors():
            if find_spec("schedulefree") is None:
                raise EqPluginError(
                    "optimizer=schedulefree needs a package that is not installed: "
                    "run `pip install schedulefree`, or choose another optimizer."
                )
            if self.lr_scheduler_config is not None:
                raise EqPluginError(
                    "optimizer=schedulefree takes no learning-rate schedule: "
                    "set training_module.lr_scheduler to null."
                )
        return super().configure_optimizers()

    @property
    def evaluation_model(self) -> torch.nn.Module:
        """The model with averaged weights, which a checkpoint after a validation holds already."""
        groups = self._schedulefree_state_dict.get("param_groups", [])
        if groups and not any(group["train_mode"] for group in groups):
            return self.model
        return super().evaluation_model


def check_optimizer(optimizer: Mapping[str, Any]) -> None:
    """Refuse numbers that cannot be meant, before the trainer meets them deep inside.

    Args:
        optimizer: ``training_module.optimizer`` of a config, resolved.

    Raises:
        EqPluginError: for learning rates that are not positive, and what SOAP refuses.
    """
    for name, value in _learning_rates(optimizer, "training_module.optimizer"):
        if not (isinstance(value, int | float) and value > 0):
            raise EqPluginError(f"{name}={value} is not valid: give a learning rate > 0.")
    if optimizer.get("_target_") == "eqplugin.optim.SOAP":
        options = {k: v for k, v in optimizer.items() if k not in ("_target_", "param_groups")}
        SOAP([torch.nn.Parameter(torch.zeros(1))], **options)


def _learning_rates(section: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        name = f"{path}.{key}"
        if isinstance(value, Mapping):
            yield from _learning_rates(value, name)
        elif key == "lr":
            yield name, value
