"""``copy.deepcopy`` of modules with generated code, as they are: nothing is traced anew."""

from __future__ import annotations

import copy
from typing import Any

from e3nn.util.codegen import CodeGenMixin
from torch import fx, nn


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy the attributes; generated graphs keep their buffers and the order of these."""
    new = self.__class__.__new__(self.__class__)
    memo[id(self)] = new  # first: MACE stores bound methods of the module on the module itself
    new.__dict__.update(copy.deepcopy(self.__dict__, memo))
    for name in getattr(self, "__codegen__", []):
        graph = self._modules.get(name)
        if isinstance(graph, fx.GraphModule):
            _keep_order(graph, new._modules[name])
    return new


def _keep_order(source: nn.Module, target: nn.Module) -> None:
    # fx.GraphModule.__deepcopy__ registers buffers in the order of their first use, but
    # AveragedModel (torch/optim/swa_utils.py) pairs those of copy and original by position
    copied = dict(target._buffers)
    target._buffers.clear()
    for name, buffer in source._buffers.items():
        target._buffers[name] = copied[name] if name in copied else copy.deepcopy(buffer)


def repair() -> None:
    """Repair the deepcopy of e3nn/util/codegen/_mixin.py:CodeGenMixin, which has none of its own.

    Python falls back to ``__getstate__`` and ``__setstate__`` (lines 57 and 101), which in e3nn's
    eager mode pickle the graph and trace it again, with one more buffer: the copy that MACE's
    second stage averages (mace/cli/run_train.py, ``AveragedModel(model)``) then does not match.
    """
    if "__deepcopy__" not in CodeGenMixin.__dict__:
        CodeGenMixin.__deepcopy__ = _deepcopy
