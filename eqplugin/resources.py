"""Where the shipped configs and the quick-start data lie, and what is installed.

In a clone, hence in an editable install, they are beside the package; a wheel carries them inside
it, under the same names (``setup.py``). Standard library only.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# inside first: site-packages may hold somebody else's `configs`
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
CONFIGS = ROOT / "configs"
DATA = ROOT / "examples" / "data"


def shipped_file(path: str) -> str:
    """The shipped file for a path such as ``examples/data/ethanol_xtb/train_300K.xyz``.

    The shipped configs name the quick-start data as a clone has them. A file of that name in the
    working directory goes first; any other path is returned as it is.

    >>> shipped_file("mine.xyz")
    'mine.xyz'
    """
    shipped = ROOT / path
    inside = path.startswith("examples/data/") and shipped.is_file()
    return str(shipped) if inside and not Path(path).exists() else path


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
