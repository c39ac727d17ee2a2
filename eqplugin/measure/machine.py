"""The machine and the version of the code that a measurement was made with."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def processor_name() -> str:
    """The processor as its maker calls it; on systems that do not say, what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def gpu_name() -> str | None:
    """The first GPU that PyTorch sees, as its maker calls it."""
    import torch  # seconds: not for a command that only wants the commit

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def commit() -> str | None:
    """Commit of the clone that runs, marked ``-dirty`` where files differ from it; None: no git."""
    here = Path(__file__).parent
    try:
        git = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
        found = subprocess.run(git, cwd=here, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
