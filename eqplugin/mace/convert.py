"""Rewriting a MACE ``.model`` file for the other e3nn: `eqplugin mace-convert IN OUT --e3nn 0.4`.

e3nn 0.4 and 0.6 store other attributes (:mod:`eqplugin.mace.model_file`). Weights and coefficients
are copied bit for bit; only the form changes. Like every pickle, a ``.model`` file can run code
when it is read: convert files from people you trust.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from eqplugin.files import whole_file
from eqplugin.mace.compat.convention import convention_of, require_legacy
from eqplugin.mace.model_file import ModelFileError, Target, read_model_file, save_model
from eqplugin.mace.products import make_plain


def convert_model(path: str | Path, out: str | Path, target: Target) -> nn.Module:
    """Write the MACE model in ``path`` to ``out`` in the form that e3nn ``target`` reads.

    The result is read back and compared bit by bit before it takes its place; an existing ``out``
    (which may be ``path``) is replaced then, and left alone when anything fails.

    Args:
        path: a ``.model`` file, written on e3nn 0.4.x or 0.6.
        out: where to write.
        target: "0.4" for a plain MACE installation, which pins e3nn 0.4.4: faster products
            (``eqplugin products``) are made plain; "0.6" for e3nn >= 0.5.

    Returns:
        the model, on the CPU.

    Raises:
        EqPluginError: for a file that cannot be read or written; for target 0.4 also for a model
            with the Clebsch-Gordan signs of e3nn 0.6, i.e. built without eqplugin.mace.
    """
    if target not in ("0.4", "0.6"):
        raise ModelFileError(f"e3nn={target} is not valid: choose 0.4 or 0.6.")
    model = read_model_file(path)
    if target == "0.4":
        make_plain(model)
        require_legacy(model, f"Converting {path} to e3nn 0.4")
    else:
        convention_of(model)  # a model of mixed signs is refused
    with whole_file(out, error=ModelFileError) as temporary:
        save_model(model, temporary, target)
        _compare(model, read_model_file(temporary), path)
    return model


def _compare(model: nn.Module, again: nn.Module, path: str | Path) -> None:
    before, after = model.state_dict(), again.state_dict()
    same = before.keys() == after.keys() and all(
        before[name].dtype == after[name].dtype and torch.equal(before[name], after[name])
        for name in before
    )
    if not same:
        raise ModelFileError(
            f"{path} was not converted: the written file does not read back as the same model."
        )
