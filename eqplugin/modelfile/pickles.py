"""What opening a pickle would run, read before torch opens it.

``torch.load`` of a MACE ``.model`` calls whatever the file names. ``weights_only`` is no way out:
e3nn's modules unpickle bytes in their own state, and torch.fx runs Python text that it finds in
them. So the pickle is walked (:mod:`eqplugin.modelfile.mirror`), pickles inside it too, and every
name, call and text in it has to be one that honest files of NequIP and MACE hold.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.modelfile.graphcode import check_python, check_torchscript
from eqplugin.modelfile.mirror import (
    PLAIN,
    Instance,
    Mirror,
    Name,
    Policy,
    Refused,
    is_object,
    name_of,
)

_DTYPES = {f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_KINDS = (
    "BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long Short Untyped"
)
_STORAGES = {f"torch.{kind}Storage" for kind in _KINDS.split()} | {
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
}
# functions that models keep, and never call while they are opened
_ACTIVATIONS = (
    "silu relu elu selu gelu softplus sigmoid tanh leaky_relu logsigmoid mish hardtanh softsign"
)
_KEPT = {
    *(f"torch.nn.functional.{name}" for name in _ACTIVATIONS.split()),
    *(f"torch._C._nn.{name}" for name in _ACTIVATIONS.split()),
    *(f"builtins.{name}" for name in ("object", "int", "float", "str", "bool", "bytes")),
    "e3nn.o3._spherical_harmonics._spherical_harmonics",
    "torch._C._VariableFunctionsClass",
    "torch.fx._symbolic_trace.Tracer",
    "typing.Any",
}
# functions of torch that are kept by name: getattr(torch._C._VariableFunctionsClass, "tanh")
_BY_NAME = {"abs", "tanh", "sigmoid", "relu", "sin", "cos", "exp", "square", "sqrt", "selu"}
# called while the file is opened; those with more than plain data as arguments are looked into
_CALLED = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.torch_version.TorchVersion",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "collections.Counter",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib._local.PosixPath",
}
_LOOKED_INTO = {
    "_codecs.encode",
    "builtins.getattr",
    "collections.defaultdict",
    "copyreg._reconstructor",
    "torch.fx.graph_module.reduce_graph_module",
    "torch.storage._load_from_bytes",
}
# made without their __init__; beside them, the modules of these packages
_MADE = {
    "e3nn.o3._irreps.Irrep",
    "e3nn.o3._irreps.Irreps",
    "e3nn.o3._irreps._MulIr",
    "e3nn.o3._linear.Instruction",
    "e3nn.o3._linear.LinearSlices",
    "e3nn.o3._tensor_product._instruction.Instruction",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mace.modules.wrapper_ops.CuEquivarianceConfig",
    "mace.modules.wrapper_ops.OEQConfig",
    "mace.tools.utils.AtomicNumberTable",
    "numpy.ndarray",
    "torch.nn.parameter.UninitializedParameter",
    "torch.torch_version.TorchVersion",
}
_PACKAGES = (
    "e3nn.",
    "mace.modules.",
    "torch.nn.modules.",
    "eqplugin.mace.",
    "eqplugin.nn.",
    "eqplugin.nequip.",
    "nequip.nn.",
    "cuequivariance_torch.",
    "openequivariance.",
)
_DEPTH = 8  # of pickles in pickles; e3nn's go to 3
_TRUST = (
    "do not open it; if you know who made it and why, give trust=True or set "
    "EQPLUGIN_TRUST_MODELS=1"
)


class HostileFileError(EqPluginError):
    """A model file that would run what no honest model file does."""


def check_pickles(path: str | Path, content: bytes | None = None) -> Any:
    """Walk the pickles that ``torch.load`` would run.

    Args:
        path: the file; it names it in messages.
        content: in place of what the file holds.

    Returns:
        The object in the file as stand-ins, see :mod:`eqplugin.modelfile.mirror`.

    Raises:
        HostileFileError: naming the file and what it would run.
        EqPluginError: for a file that cannot be read as torch writes them.
    """
    try:
        return _walk(Path(path).read_bytes() if content is None else content, 0)
    except Refused as error:
        raise HostileFileError(
            f"{path} {error}, which no model file of NequIP or MACE does: {_TRUST}."
        ) from None
    except OSError as error:
        raise EqPluginError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle trips over anything
        raise EqPluginError(
            f"{path} is damaged or not a file of torch ({reason_of(error, named=True)[:200]})."
        ) from error


def _walk(content: bytes, depth: int) -> Any:
    """Walk what ``torch.load`` would read from these bytes, the way it would find it."""
    if depth > _DEPTH:
        raise Refused("hides pickles in pickles in pickles")
    policy = _Honest(depth)
    if content[:4] == b"PK\x03\x04":
        # as torch.load reads it: another reader might find another part of that name
        archive = torch._C.PyTorchFileReader(io.BytesIO(content))
        if archive.has_record("constants.pkl"):
            raise Refused("is compiled TorchScript")
        return Mirror(io.BytesIO(archive.get_record("data.pkl")), policy).load()
    if tarfile.is_tarfile(io.BytesIO(content)):
        raise Refused("is a tar file")
    # before torch 1.6: a magic number, a version, the machine, the object, the names of storages
    stream = io.BytesIO(content)
    magic, _, _, found, _ = (Mirror(stream, policy).load() for _ in range(5))
    if magic != torch.serialization.MAGIC_NUMBER:
        raise pickle.UnpicklingError("no magic number of torch")
    return found


class _Honest(Policy):
    """What files of NequIP and MACE do."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def name(self, name: str) -> None:
        known = (_CALLED, _LOOKED_INTO, _KEPT, _MADE, _DTYPES, _STORAGES, PLAIN)
        if not any(name in names for names in known) and not _is_module(name):
            raise Refused(f"names {name}")

    def create(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in _MADE or (not arguments and _is_module(name)):
            return
        if name not in PLAIN:
            raise Refused(f"makes an object of {name}")

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name in PLAIN:
            return PLAIN[name](*arguments)
        if name in _LOOKED_INTO:
            return getattr(self, f"_{name.rpartition('.')[2].lstrip('_')}")(name, arguments)
        if name not in _CALLED:
            raise Refused(f"calls {name}")
        return Policy.call(self, name, arguments)

    def state(self, name: str, state: Any) -> None:
        if not isinstance(state, dict) or "__codegen__" not in state:
            return
        generated = state["__codegen__"]
        if not isinstance(generated, dict):
            raise Refused("holds generated code in an unknown form")
        for entry in generated.values():
            # e3nn 0.4 has the bytes alone
            kind, content = ("torchscript", entry) if isinstance(entry, bytes) else entry
            if kind == "torchscript":
                check_torchscript(content)
            elif kind == "fx" and isinstance(content, bytes):
                Mirror(io.BytesIO(content), _Honest(self._deeper())).load()
            else:
                raise Refused("holds generated code in an unknown form")

    def _deeper(self) -> int:
        if self.depth >= _DEPTH:
            raise Refused("hides pickles in pickles in pickles")
        return self.depth + 1

    def _encode(self, name: str, arguments: tuple[Any, ...]) -> bytes:
        # bytes in pickles of protocol 2
        if not (len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1"):
            raise Refused(f"calls {name} with other arguments than files of torch")
        return arguments[0].encode("latin1")

    def _getattr(self, name: str, arguments: tuple[Any, ...]) -> Any:
        # a function of torch, or a method of a module that keeps it
        owner, attribute = arguments
        of_torch = name_of(owner) == "torch._C._VariableFunctionsClass"
        of_module = is_object(owner) and _is_module(name_of(owner) or "")
        plain = isinstance(attribute, str) and attribute.isidentifier() and attribute[0] != "_"
        if not (of_torch and attribute in _BY_NAME) and not (of_module and plain):
            raise Refused(f"asks for {name_of(owner) or type(owner).__name__}.{attribute}")
        return Policy.call(self, name, arguments)

    def _defaultdict(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if arguments and name_of(arguments[0]) not in PLAIN | dict.fromkeys(_KEPT):
            raise Refused(f"calls {name} with {arguments[0]}")
        return {}

    def _reconstructor(self, name: str, arguments: tuple[Any, ...]) -> Any:
        cls, base, state = arguments
        if not isinstance(cls, Name) or name_of(base) != "builtins.object" or state is not None:
            raise Refused(f"calls {name} with other arguments than files of torch")
        self.create(cls.name, ())
        return Instance(cls, ())

    def _load_from_bytes(self, name: str, arguments: tuple[Any, ...]) -> Any:
        (content,) = arguments
        if not isinstance(content, bytes):
            raise Refused(f"calls {name} with other arguments than files of torch")
        return _walk(content, self._deeper())

    def _reduce_graph_module(self, name: str, arguments: tuple[Any, ...]) -> Any:
        body, imports = arguments
        # "code" is what torch reads where there is no "_code"
        texts = [body[key] for key in ("_code", "code") if body.get(key) is not None]
        for text in texts or [None]:
            check_python(imports, text)
        if body.get("_tracer_extras") or body.get("_graphmodule_cls_name", "GraphModule") not in (
            "GraphModule",
        ):
            raise Refused("holds a graph of another kind than e3nn's")
        tracer = body.get("_tracer_cls")
        if tracer is not None and name_of(tracer) not in _KEPT:
            raise Refused(f"traces with {tracer}")
        return Policy.call(self, name, arguments)


def _is_module(name: str) -> bool:
    """Whether a name is that of a torch module of one of the stacks."""
    if not name.startswith(_PACKAGES):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, torch.nn.Module)
