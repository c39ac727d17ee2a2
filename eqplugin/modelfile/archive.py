"""Is a file what was written? Zip archives, as torch writes them, hold a checksum of each part."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from eqplugin.errors import EqPluginError, reason_of


def is_archive(path: str | Path) -> bool:
    """Whether a file is a zip archive, as all model files but very old ones are."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_archive(path: str | Path, otherwise: str = "not a model file") -> None:
    """Compare all parts of a zip archive with their checksums: torch itself does not.

    Args:
        path: the file.
        otherwise: what the sentence says of a file that is no archive, beside "damaged".

    Raises:
        EqPluginError: naming the file, and the part that is not what was written.
    """
    if not is_archive(path):
        raise EqPluginError(f"{path} is damaged or {otherwise}: it is not a zip file.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise EqPluginError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise damage(path, reason_of(error)) from error
    if damaged is not None:
        raise damage(path, f"{damaged} does not match its checksum")


def damage(path: str | Path, what: str) -> EqPluginError:
    """The sentence for a file that is not what was written."""
    return EqPluginError(
        f"{path} is damaged and cannot be read (corrupt: {what.rstrip('.')}): copy it again from "
        f"where it came, or write it again."
    )
