"""The functions that a checkpoint names: NequIP calls them to build its model again.

A checkpoint can be free of harmful pickles and still say ``_target_: os.system`` in the config that
it carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule

from eqplugin.modelfile.mirror import is_object
from eqplugin.modelfile.pickles import HostileFileError
from eqplugin.modelfile.trust import check_code_file, check_pickle_file, trusted

# what a config's classes are, and whose
_KINDS = (
    torch.nn.Module,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    Callback,
    LightningDataModule,
)
# and of these places any class
_HOMES = ("nequip.train.", "nequip.nn.", "nequip.data.modifier", "allegro.")
_PACKAGES = ("nequip", "eqplugin", "allegro", "torch", "lightning", "pytorch_lightning")
# where its functions stand
_BUILDERS = (
    "eqplugin.nequip.models",
    "eqplugin.optim.blocks",
    "nequip.model.modify_utils",
    "nequip.model.nequip_models",
    "nequip.model.pair_potential",
    "nequip.model.param_groups",
    "nequip.train.metrics_manager",
    "allegro.model",
)
_FUNCTIONS = {
    "nequip.model.ModelFromCheckpoint",
    "nequip.model.ModelFromPackage",
    "nequip.model.saved_models.ModelFromCheckpoint",
    "nequip.model.saved_models.ModelFromPackage",
    "nequip.train.lightning._default_param_group_factory",
    # a package of its own, which need not be there to open a model
    "schedulefree.AdamWScheduleFree",
}
_DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")
# parts of a run's config that are not built when the model is opened
_NOT_BUILT = ("data", "trainer", "global_options", "runs", "versions")


def check_checkpoint(path: str | Path, trust: bool | None = None) -> None:
    """Walk a checkpoint's pickle and its config, and those of the files that it starts from.

    Raises:
        HostileFileError: naming what opening it would run.
    """
    _check(Path(path), trust, set())


def _check(path: Path, trust: bool | None, seen: set[Path]) -> None:
    if trusted(trust) or path.resolve() in seen:
        return
    seen.add(path.resolve())
    found = check_pickle_file(path, trust)
    for node in _configs(found):
        target = node["_target_"]
        if not _is_known(target):
            raise HostileFileError(
                f"{path} has {target!r} in its config, which is no model, loss or optimizer of "
                f"NequIP: do not open it; if it is your own class, give trust=True or set "
                f"EQPLUGIN_TRUST_MODELS=1."
            )
        for key, check in (("checkpoint_path", _check), ("package_path", None)):
            start = node.get(key)
            if not isinstance(start, str) or not Path(start).is_file():
                continue  # NequIP says so
            if check is None or start.endswith(".nequip.zip"):
                check_code_file(start, trust)
            else:
                check(Path(start), trust, seen)


def _configs(checkpoint: Any) -> Iterator[Mapping[str, Any]]:
    """All sections of the model's config that name a function."""
    if not isinstance(checkpoint, Mapping):
        return
    parameters = dict(_entries(checkpoint.get("hyper_parameters")))
    information = dict(_entries(parameters.pop("info_dict", None)))
    yield from _sections(parameters)
    yield from _sections({k: v for k, v in information.items() if k not in _NOT_BUILT})


def _sections(node: Any) -> Iterator[Mapping[str, Any]]:
    entries = dict(_entries(node))
    if "_target_" in entries:
        yield entries
    for value in [*entries.values(), *_items(node)]:
        yield from _sections(value)


def _entries(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        yield from node.items()
    elif is_object(node):
        yield from node.entries.items()
        if isinstance(node.state, Mapping):
            yield from node.state.items()


def _items(node: Any) -> Iterator[Any]:
    if isinstance(node, list | tuple | set | frozenset):
        yield from node
    elif is_object(node):
        yield from node.items
        yield from node.arguments


def _is_known(target: Any) -> bool:
    """Whether a name is a model, loss, metric or optimizer of the stack."""
    if not isinstance(target, str):
        return False
    if target in _FUNCTIONS:
        return True
    if not _DOTTED.fullmatch(target):
        return False
    package = target.partition(".")[0]
    found = _found(target) if package in _PACKAGES else None
    home = getattr(found, "__module__", None) or ""
    if home.partition(".")[0] not in _PACKAGES:
        return False
    if isinstance(found, type):
        return issubclass(found, _KINDS) or home.startswith(_HOMES)
    return callable(found) and home.startswith(_BUILDERS)


def _found(target: str) -> Any:
    """What a dotted name stands for; None where there is nothing."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found
    return None
