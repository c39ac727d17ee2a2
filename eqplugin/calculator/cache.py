"""Compiled models on disk: found by what they were made from, made once, never half written."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock

from eqplugin.errors import EqPluginError
from eqplugin.modelfile.owner import private_folder, require_ours
from eqplugin.nn.product.build import cache_dir, processor_features

# raise when what is compiled, or how, changes
_RECIPE = 1
_INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
_PACKAGES = ("torch", "nequip", "e3nn", "eqplugin")


def cache_directory(chosen: Path | None = None) -> Path:
    """Folder of compiled models; by default ``$EQPLUGIN_CACHE_DIR``, or ``eqplugin`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``. Files may be deleted at any time.
    """
    return cache_dir() if chosen is None else Path(chosen)


@contextmanager
def inductor_cache(directory: Path) -> Iterator[None]:
    """Let torch's compiler keep its files in a folder of this cache, but where the user chose one.

    Its own is in /tmp, under a name that anybody can take first.
    """
    if _INDUCTOR in os.environ:
        yield
        return
    os.environ[_INDUCTOR] = str(private_folder(private_folder(directory) / "inductor"))
    try:
        yield
    finally:
        del os.environ[_INDUCTOR]


def compile_key(model: torch.nn.Module, device: torch.device, options: tuple[object, ...]) -> str:
    """Hash of all that a compiled model depends on: weights, modules, versions, machine, threads.

    Args:
        model: the eager model, modifiers applied.
        device: that it is compiled for.
        options: of the compilation, with a repr that tells them apart.
    """
    digest = hashlib.sha256()

    def add(*facts: object) -> None:
        digest.update(repr(facts).encode())

    add(_RECIPE, [(p, version(p)) for p in _PACKAGES], platform.machine(), options)
    if device.type == "cuda":
        add(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
    else:
        # the C++ is made for this very processor and for this many threads
        add(torch.backends.cpu.get_cpu_capability(), processor_features(), torch.get_num_threads())
    add(str(device.type), sorted(model.metadata.items()), repr(model))
    for name, module in model.named_modules():
        add(name, type(module).__qualname__)
    for name, tensor in sorted(model.state_dict().items()):
        add(name, tuple(tensor.shape), str(tensor.dtype))
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:32]


def cached_file(directory: Path, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """Return the file of this key; make it first where it is not there.

    Another process that wants the same file waits, and then finds it.

    Raises:
        EqPluginError: when the directory cannot be written, or others can write to it.
    """
    path = directory / f"{key}{suffix}"
    try:
        private_folder(directory)
        with FileLock(directory / f"{key}.lock"):
            if path.is_file():
                require_ours(path)
            else:
                unfinished = directory / f".{key}.{os.getpid()}{suffix}"
                try:
                    with inductor_cache(directory):
                        make(unfinished)
                    unfinished.chmod(0o600)  # whatever the umask
                    os.replace(unfinished, path)
                finally:
                    unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise EqPluginError(
            f"compiled models cannot be stored in {directory} ({error}): pass cache_dir or set "
            f"EQPLUGIN_CACHE_DIR."
        ) from error
    return path
