"""Reading and writing MACE's ``.model`` files, in the form of e3nn 0.4 or 0.6.

A ``.model`` file is a pickle of modules, and e3nn 0.4 and 0.6 store other attributes. A pickle can
run code when it is read; it is walked before (:mod:`eqplugin.modelfile.pickles`).
"""

from __future__ import annotations

import copy
import io
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import e3nn.util.jit
import torch
from e3nn.util.codegen import CodeGenMixin
from torch import fx, nn

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.mace.compat._rebind import MODEL_CLASSES
from eqplugin.mace.compat.pickles import NEW_ATTRIBUTES
from eqplugin.modelfile.archive import check_archive, is_archive
from eqplugin.modelfile.eqm import SUFFIX
from eqplugin.modelfile.pickles import HostileFileError
from eqplugin.modelfile.trust import check_pickle_file, trusted
from eqplugin.process import loading

Target = Literal["0.4", "0.6"]

_GIVE = ": give a .model file that MACE or eqplugin wrote"


class ModelFileError(EqPluginError):
    """A file that is not a MACE model, or not readable, or not writable."""


def read_model_file(path: str | Path, trust: bool | None = None) -> nn.Module:
    """Read what a ``.model`` file, of e3nn 0.4.x or 0.6, or an ``.eqm`` holds, onto the CPU.

    :func:`eqplugin.mace.load_model` gives models of ours their class.

    Args:
        path: the file.
        trust: see :mod:`eqplugin.modelfile.trust`.

    Raises:
        EqPluginError: for a missing or corrupt file, one that holds something else, or one that
            would run what no honest file does.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise ModelFileError(f"{path} {what}: give a MACE .model file.")
    if path.suffix == SUFFIX:
        from eqplugin.mace.eqm import load_eqm  # which rests on this module

        return load_eqm(path)
    if is_archive(path):
        check_archive(path)
    if _is_torchscript(path):
        raise ModelFileError(
            f"{path} is a compiled (TorchScript) model, which does not depend on e3nn: "
            "give the .model file it was made from."
        )
    trust = trusted(trust)
    try:
        check_pickle_file(path, trust)
        with loading():  # e3nn's graphs are traced anew
            model = torch.load(path, map_location="cpu", weights_only=False)
    except HostileFileError:
        raise
    except Exception as error:  # unpickling runs code of many packages: anything may be raised
        raise ModelFileError(
            f"{path} cannot be read as a MACE model: it is corrupt or needs a package that is "
            f"missing here ({reason_of(error)[:200]})."
        ) from error
    if not isinstance(model, MODEL_CLASSES):
        hint = ""
        if isinstance(model, dict) and "model" in model:
            hint = ", a checkpoint of a training run; give the .model file that the run wrote"
        raise ModelFileError(
            f"{path} does not hold a MACE model but a {type(model).__name__}{hint or _GIVE}."
        )
    return model


def save_model(model: nn.Module, path: str | Path, target: Target = "0.6") -> None:
    """Pickle a MACE model in the form that e3nn ``target`` reads, without any check.

    Raises:
        ModelFileError: for the ending of files without pickles.
    """
    if Path(path).suffix == SUFFIX:
        raise ModelFileError(
            f"This would write a pickle under the ending {SUFFIX}: name a .model file, or use "
            f"`eqplugin model convert`, which writes {SUFFIX} files."
        )
    module = pickle if target == "0.6" else _E3NN04_PICKLE
    torch.save(model, path, pickle_module=module)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _E3NN04Pickler(pickle.Pickler):
    """Writes e3nn's modules as e3nn 0.4.x did; everything else as it is."""

    def reducer_override(self, obj: Any) -> Any:
        """The reduction of one object; NotImplemented means the usual one."""
        if not isinstance(obj, (CodeGenMixin, *(cls for cls, *_ in NEW_ATTRIBUTES))):
            return NotImplemented
        reduction: tuple[Any, ...] = obj.__reduce_ex__(2)  # type: ignore[assignment]
        make, arguments, state, *rest = reduction
        state = dict(state)
        if isinstance(state.get("__codegen__"), dict):
            state["__codegen__"] = {
                name: _torchscript_bytes(getattr(obj, name)) for name in state["__codegen__"]
            }
        for cls, attribute, _ in NEW_ATTRIBUTES:
            if isinstance(obj, cls):
                state.pop(attribute, None)
        return (make, arguments, state, *rest)


def _torchscript_bytes(module: nn.Module) -> bytes:
    if isinstance(module, fx.GraphModule):
        # a copy, because compiling rewrites the graph
        module = e3nn.util.jit.compile(copy.deepcopy(module), recurse=False)
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


# torch.save derives its own pickler from this one's
_E3NN04_PICKLE = SimpleNamespace(
    Pickler=_E3NN04Pickler, dumps=pickle.dumps, __name__="eqplugin.mace.model_file"
)
