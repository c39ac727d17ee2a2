"""Settings shared by all tests."""

import os
import sys
from pathlib import Path

import pytest

# Two workers on two cores: one thread each, set before torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# NequIP's mixins call nequip-train & co. by name: let them find those of this environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def nequips_default_dtype():
    """Start every test with the default dtype that NequIP's global state sets, once it is set.

    MACE's trainer and calculator change it, and with another one NequIP's data module rounds
    positions: a test would depend on those that ran before it in the same process.
    """
    state = sys.modules.get("nequip.utils.global_state")
    if state is not None and state.global_state_initialized():
        import torch

        torch.set_default_dtype(state._GLOBAL_DTYPE)
