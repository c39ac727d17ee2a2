"""Reading modules that were pickled on e3nn 0.4.x, as MACE's ``.model`` files are; copying them.

Each repair adds to ``__setstate__`` what e3nn 0.6 expects and 0.4.x did not store; a state that
e3nn 0.6 wrote is passed on untouched. Constants (Clebsch-Gordan tensors) are stored in the file,
so an old model keeps its numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import e3nn.nn
import e3nn.o3
import e3nn.o3._spherical_harmonics as sh
from e3nn.o3._linear import LinearSlices
from e3nn.util import prod
from e3nn.util.codegen import CodeGenMixin
from torch import fx, nn

_State = dict[str, Any]


def _tag_torchscript(state: _State) -> _State:
    """e3nn/util/codegen/_mixin.py:115 unpacks (kind, bytes); 0.4.x stored TorchScript bytes."""
    codegen = state.get("__codegen__")
    if not isinstance(codegen, dict) or not any(isinstance(v, bytes) for v in codegen.values()):
        return state
    tagged = {
        name: ("torchscript", value) if isinstance(value, bytes) else value
        for name, value in codegen.items()
    }
    return {**state, "__codegen__": tagged}


def _paths(module: nn.Module) -> list[tuple]:
    pairs = zip(module.irreps_in, module.acts, strict=True)
    return [(mul, (ir.l, ir.p), act) for (mul, ir), act in pairs]


def _weight_index_slices(module: nn.Module) -> list[LinearSlices]:
    slices, start = [], 0
    for instruction in module.instructions:
        stop = start + prod(instruction.path_shape)
        slices.append(LinearSlices(slice(start, stop, None), instruction.path_shape))
        start = stop
    return slices


# class, attribute that e3nn 0.6 stores and 0.4.x does not know, its value
NEW_ATTRIBUTES: tuple[tuple[type[nn.Module], str, Callable[[nn.Module], Any]], ...] = (
    # o3/_spherical_harmonics.py:100 calls it; 0.4.x called a global function
    (e3nn.o3.SphericalHarmonics, "sph_func", lambda _: sh._spherical_harmonics),
    # nn/_activation.py:94 walks them; 0.4.x zipped irreps_in and acts
    (e3nn.nn.Activation, "paths", _paths),
    # o3/_tensor_product/_tensor_product.py:516 asks whether right() was compiled; 0.4.x always
    # stored a graph, or one that raises when it is called: True keeps both as they were
    (e3nn.o3.TensorProduct, "_did_compile_right", lambda _: True),
    # o3/_linear.py:245-249 stores slices of the flat weight, one for each instruction
    (e3nn.o3.Linear, "weight_index_slices", _weight_index_slices),
)


def _adder(attribute: str, value_of: Callable[[nn.Module], Any]) -> Callable[[nn.Module], None]:
    def add(module: nn.Module) -> None:
        if attribute not in module.__dict__:
            setattr(module, attribute, value_of(module))

    return add


def _extend_setstate(
    cls: type[nn.Module],
    before: Callable[[_State], _State] | None = None,
    after: Callable[[nn.Module], None] | None = None,
) -> None:
    """Let ``cls.__setstate__`` change the state before, or the module after, it is set."""
    original = cls.__setstate__
    if getattr(original, "_eqplugin", None) is cls:
        return

    def __setstate__(self: nn.Module, state: _State) -> None:
        original(self, state if before is None else before(state))
        if after is not None:
            after(self)

    __setstate__._eqplugin = cls
    cls.__setstate__ = __setstate__


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy the attributes; generated graphs keep their buffers and the order of these.

    e3nn/util/codegen/_mixin.py:CodeGenMixin has no deepcopy of its own. Python falls back to
    ``__getstate__`` and ``__setstate__`` (lines 57 and 101), which in e3nn's eager mode pickle the
    graph and trace it again, with one more buffer: the copy that MACE's second stage averages
    (mace/cli/run_train.py, ``AveragedModel(model)``) then does not match.
    """
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
    """Let e3nn's classes read what e3nn 0.4.x wrote, and be copied as they are."""
    _extend_setstate(CodeGenMixin, before=_tag_torchscript)
    for cls, attribute, value_of in NEW_ATTRIBUTES:
        _extend_setstate(cls, after=_adder(attribute, value_of))
    if "__deepcopy__" not in CodeGenMixin.__dict__:
        CodeGenMixin.__deepcopy__ = _deepcopy
