"""Builds the C++ operators on first use and keeps the result in the user's cache.

Why on first use and not in the wheel or with ``pip install``: the library has to match the
installed torch exactly, which a build in pip's isolated environment does not see; it is meant to
use the widest vectors of the processor it runs on, which a portable wheel may not; and a machine
without a compiler must still be able to install the package. It takes about half a minute, once
per torch version, compiler, processor and version of the sources: all of these are in the key, so
a home directory shared by different machines holds one library for each.

Why not ``torch.utils.cpp_extension.load``: it needs ninja, leaves a lock behind when interrupted
(the next process then waits forever) and does not know which processor it built for.

Without a compiler :class:`Unavailable` is raised with one sentence; callers fall back to a product
in torch. Environment: ``CXX`` names the compiler, ``EQPLUGIN_CACHE_DIR`` the cache (default
``$XDG_CACHE_HOME/eqplugin`` or ``~/.cache/eqplugin``), ``EQPLUGIN_NO_COMPILED=1`` switches the
operators off.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from filelock import FileLock

from eqplugin.errors import EqPluginError
from eqplugin.modelfile.owner import private_folder, require_ours

SOURCES = Path(__file__).with_name("csrc")
MAIN = "uvu_scatter.cpp"
LIBRARY = "libeqplugin_ops.so"
# tried in this order: x86, then Arm's spelling, then no tuning; last, a compiler without OpenMP
# (Apple's), where the operators run on one thread
TUNINGS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-fopenmp",),
    ("-mcpu=native",),
    (),
)


class Unavailable(RuntimeError):
    """The compiled operators cannot be had here; the message is one sentence."""


def cache_dir() -> Path:
    """Folder of the built libraries."""
    explicit = os.environ.get("EQPLUGIN_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(explicit) if explicit else Path(base) / "eqplugin"


@functools.cache
def _compiler(named: str | None, search: str | None) -> tuple[str, str] | None:
    for candidate in filter(None, (named, "c++", "g++", "clang++")):
        path = shutil.which(candidate, path=search)
        if path is None:
            continue
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return path, done.stdout.splitlines()[0]
    return None


def compiler() -> tuple[str, str] | None:
    """Path and version line of the C++ compiler that would be used, or None."""
    if sys.platform == "win32":
        return None
    return _compiler(os.environ.get("CXX"), os.environ.get("PATH"))


def processor_features() -> str:
    """Model and instruction sets of the processor: what code made for it may run on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def library_path() -> Path:
    """Where the library of this torch, compiler, processor and source is or would be.

    Raises:
        Unavailable: where it can never be: switched off, or no compiler.
    """
    if os.environ.get("EQPLUGIN_NO_COMPILED", "0") not in ("", "0"):
        raise Unavailable("they are switched off by EQPLUGIN_NO_COMPILED")
    found = compiler()
    if found is None:
        raise Unavailable("no C++ compiler was found (install g++ or clang++, or set CXX)")
    key = hashlib.sha256()
    versions = torch.__version__, torch.version.git_version
    for part in (*versions, *found, processor_features(), repr(TUNINGS)):
        key.update(f"{part}\n".encode())
    for path in sorted(file for file in SOURCES.iterdir() if file.suffix in (".cpp", ".h")):
        key.update(path.name.encode() + path.read_bytes())
    return cache_dir() / key.hexdigest()[:20] / LIBRARY


def build() -> Path:
    """Return the library, building it first where it is not in the cache.

    Processes that want it at the same time wait for the first one; it appears under its name
    only when complete.

    Raises:
        Unavailable: no compiler, no writable cache, or the compiler fails.
    """
    target = library_path()
    try:
        private_folder(private_folder(cache_dir()) / target.parent.name)
        if _whole(target):
            return target
        with FileLock(target.with_suffix(".lock")):
            if not _whole(target):
                _compile(target)
    except EqPluginError as error:
        raise Unavailable(str(error).rstrip(".")) from error
    except OSError as error:
        raise Unavailable(
            f"the cache {target.parent} cannot be written ({error}); set EQPLUGIN_CACHE_DIR"
        ) from error
    return target


def _whole(library: Path) -> bool:
    """Whether a library is there as it was built: opening a damaged one kills the process.

    Raises:
        EqPluginError: where somebody else could have written it; the hash beside it tells nothing.
    """
    try:
        for file in (library, library.with_suffix(".sha256")):
            require_ours(file)
        expected = library.with_suffix(".sha256").read_text()
        return hashlib.sha256(library.read_bytes()).hexdigest() == expected
    except OSError:
        return False


def _compile(target: Path) -> None:
    path, version = compiler()
    note = f"eqplugin: compiling its C++ operators with {version} (once, about half a minute)"
    print(note, file=sys.stderr, flush=True)
    log = []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / LIBRARY
        for tuning in TUNINGS:
            command = _command(path, tuning, part)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                digest = hashlib.sha256(part.read_bytes()).hexdigest()
                part.with_suffix(".sha256").write_text(digest)
                for made in (part, part.with_suffix(".sha256")):
                    made.chmod(0o700)  # whatever the umask
                part.with_suffix(".sha256").replace(target.with_suffix(".sha256"))
                part.replace(target)
                return
            log.append(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
    report = target.with_suffix(".log")
    report.write_text("\n".join(log))
    raise Unavailable(f"{path} fails to compile them; its messages are in {report}")


def _command(path: str, tuning: tuple[str, ...], output: Path) -> list[str]:
    root = Path(torch.__file__).resolve().parent
    command = [path, "-O3", *tuning, "-std=c++20", "-shared", "-fPIC", "-ffp-contract=fast"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-I{root / 'include'}", str(SOURCES / MAIN), "-o", str(output)]
    command += [f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}", "-ltorch_cpu", "-lc10"]
    return command
