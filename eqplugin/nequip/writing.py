"""The best model of a finished training beside its checkpoint, in a file without code."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from eqplugin.errors import EqPluginError
from eqplugin.modelfile.eqm import SUFFIX
from eqplugin.nequip.eqm import convert

log = logging.getLogger(__name__)


def write_best(trainer: Any) -> None:
    """Write ``best.eqm`` beside ``best.ckpt``; where that cannot be, say why and go on.

    Args:
        trainer: Lightning's, at the end of a fit.
    """
    if not trainer.is_global_zero:
        return
    for callback in trainer.callbacks:
        # the others keep the last epoch, to be continued from
        if not isinstance(callback, ModelCheckpoint) or callback.monitor is None:
            continue
        best = Path(callback.best_model_path)
        if not best.is_file():
            continue
        out = best.with_suffix(SUFFIX)
        try:
            convert(best, out)
        except (EqPluginError, SystemExit) as error:  # inside nequip-train the one is the other
            log.warning(f"No {out} is written: {error}")
