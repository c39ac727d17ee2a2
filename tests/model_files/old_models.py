"""Names of the model files that earlier versions wrote, and who can open them."""

from importlib.util import find_spec
from pathlib import Path

import pytest

OLD = Path(__file__).parents[1] / "old_files"
MACE = ("mace_steerable.model", "mace_khop.model")
NEQUIP = ("steerable.ckpt", "khop.ckpt")


def needs(*names):
    """Skip what needs MACE where it is missing; importing MACE would change the environment."""
    if any(Path(name).suffix == ".model" for name in names) and find_spec("mace") is None:
        pytest.skip("mace-torch is not installed")
