"""A stranger's ``.model`` file, read without running anything in it.

Every class in the pickle is a stand-in; tensors, irreps and activations, which are plain data, are
real. A :class:`View` answers what MACE's ``extract_config_mace_model`` asks of a model, and the
model is then built anew from the arguments found and given the tensors.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from e3nn.o3._irreps import Irrep, Irreps, _MulIr
from mace.modules import gate_dict

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.mace.model_file import ModelFileError
from eqplugin.modelfile.archive import check_archive, is_archive
from eqplugin.modelfile.mirror import PLAIN, Instance, Mirror, Name, Policy, is_object, name_of

_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
}  # fmt: skip
# plain data, made as it is
_REAL = {
    "e3nn.o3._irreps.Irrep": Irrep,
    "e3nn.o3._irreps.Irreps": Irreps,
    "e3nn.o3._irreps._MulIr": _MulIr,
    "torch.nn.functional.silu": torch.nn.functional.silu,
}
_GATES = {name: gate for name, gate in gate_dict.items() if gate is not None}


class View:
    """A module of the file as an object: its attributes, parameters, buffers and submodules."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self.__dict__.update(_plain(node))

    def __len__(self) -> int:
        return len(self._children())

    def __getitem__(self, index: int) -> Any:
        return self._children()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._children())

    def _children(self) -> list[Any]:
        state = self._node.state
        return [_seen(v) for v in (state["_modules"] or state["_parameters"]).values()]


def _seen(value: Any) -> Any:
    """A view where the value is a module, of a class that has its name; else the value."""
    if not is_object(value) or not isinstance(value.state, dict):
        return value
    name = (name_of(value) or "").rpartition(".")[2]
    return type(name, (View,), {})(value)


def _plain(node: Any) -> dict[str, Any]:
    state = node.state
    found = {key: value for key, value in state.items() if not key.startswith("_parameters")}
    for part in ("_parameters", "_buffers", "_modules"):
        found |= {key: _seen(value) for key, value in (state.get(part) or {}).items()}
    return found


def read_inert(path: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Read a ``.model`` file as a view of its model, and its state dict.

    Raises:
        EqPluginError: for a damaged file, or one that holds no MACE model.
    """
    if is_archive(path):
        check_archive(path)
    try:
        root = _read(Path(path).read_bytes())
        if not (name_of(root) or "").startswith("mace.modules.models.") or root.state is None:
            raise ModelFileError(
                f"{path} does not hold a MACE model but a {name_of(root) or type(root).__name__}: "
                f"give a .model file that MACE or eqplugin wrote."
            )
        return _seen(root), dict(_state_dict(root))
    except EqPluginError:
        raise
    except Exception as error:  # a damaged pickle trips over anything
        raise ModelFileError(
            f"{path} is damaged or no file of MACE ({reason_of(error, named=True)[:200]})."
        ) from error


class _Tensors:
    """The storages of an archive."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive
        self._read: dict[str, torch.Tensor] = {}

    def __call__(self, reference: tuple[Any, ...]) -> torch.Tensor:
        """Its numbers, flat, with the dtype of the storage."""
        _, kind, key, _, count = reference
        dtype = _DTYPES[(name_of(kind) or "").rpartition(".")[2].removesuffix("Storage")]
        if key not in self._read:
            content = bytearray(self._archive.get_record(f"data/{key}"))
            self._read[key] = (
                torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)
            )
        return self._read[key]


class _Inert(Policy):
    """Runs nothing; makes tensors and containers."""

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name in PLAIN:
            return PLAIN[name](*arguments)
        if name == "_codecs.encode":
            return arguments[0].encode("latin1")
        if name == "builtins.getattr" and isinstance(arguments[0], Name):
            return _GATES.get(arguments[1], Policy.call(self, name, arguments))
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            storage, offset, size, stride = arguments[:4]
            return torch.as_strided(storage, size, stride, offset)
        if name == "torch._utils._rebuild_parameter":
            return arguments[0]
        if name == "copyreg._reconstructor":
            return Instance(arguments[0], ())
        if name == "torch.fx.graph_module.reduce_graph_module":
            graph = Policy.call(self, name, ())
            graph.state = arguments[0]
            return graph
        if name == "torch.storage._load_from_bytes":
            return _read(arguments[0])
        return Policy.call(self, name, arguments)


def _read(content: bytes) -> Any:
    if content[:4] == b"PK\x03\x04":
        archive = torch._C.PyTorchFileReader(io.BytesIO(content))
        data = io.BytesIO(archive.get_record("data.pkl"))
        return Mirror(data, _Inert(), _Tensors(archive), _REAL).load()
    return _read_legacy(content)


def _read_legacy(content: bytes) -> Any:
    """A file in the form from before torch 1.6: the storages stand behind the pickles."""
    stream = io.BytesIO(content)
    storages: dict[str, torch.Tensor] = {}

    def storage(reference: tuple[Any, ...]) -> torch.Tensor:
        _, kind, key, _, count, *_ = reference
        dtype = _DTYPES[(name_of(kind) or "").rpartition(".")[2].removesuffix("Storage")]
        return storages.setdefault(key, torch.empty(count, dtype=dtype))

    for _ in range(3):  # a magic number, a version, the machine
        Mirror(stream, _Inert()).load()
    found = Mirror(stream, _Inert(), storage, _REAL).load()
    for key in Mirror(stream, _Inert()).load():
        values = storages[key]
        (count,) = torch.frombuffer(bytearray(stream.read(8)), dtype=torch.int64).tolist()
        size = count * values.element_size()
        values.copy_(torch.frombuffer(bytearray(stream.read(size)), dtype=values.dtype))
    # a storage by itself is a tensor's in the making
    return found


def _state_dict(node: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors, in the order in which torch has them."""
    state = node.state
    hidden = state.get("_non_persistent_buffers_set") or set()
    for part in ("_parameters", "_buffers"):
        for name, tensor in (state.get(part) or {}).items():
            if tensor is not None and not (part == "_buffers" and name in hidden):
                yield prefix + name, tensor
    for name, child in (state.get("_modules") or {}).items():
        if child is not None:
            yield from _state_dict(child, f"{prefix}{name}.")
    for name, entry in (state.get("__codegen__") or {}).items():
        kind, content = ("torchscript", entry) if isinstance(entry, bytes) else entry
        yield from _graph_tensors(kind, content, f"{prefix}{name}.")


def _graph_tensors(kind: str, content: bytes, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Coefficients in the code that e3nn generated."""
    if kind == "torchscript":
        yield from _scripted(_read(content), prefix)
        return
    yield from _state_dict(Mirror(io.BytesIO(content), _Inert(), None, _REAL).load(), prefix)


def _scripted(node: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in (node.state or {}).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif is_object(value) and isinstance(value.state, dict):
            yield from _scripted(value, f"{prefix}{name}.")
