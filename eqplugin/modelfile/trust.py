"""How far a model file is trusted: ``trust=``, or the environment variable for all commands.

None, the default: pickles are walked before they are opened, and files that are code by design are
opened where only the user can have written them, else with a warning. True: everything is opened.
False: code is refused.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

from eqplugin.errors import EqPluginError, TrustWarning
from eqplugin.modelfile.owner import why_not_ours
from eqplugin.modelfile.pickles import check_pickles

VARIABLE = "EQPLUGIN_TRUST_MODELS"
_WORDS = {"": None, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_warned: set[tuple[str, str]] = set()


def trusted(trust: bool | None) -> bool | None:
    """``trust``, or where that is None what EQPLUGIN_TRUST_MODELS says: 1, 0 or nothing.

    Raises:
        EqPluginError: for another value.
    """
    if trust is not None:
        if not isinstance(trust, bool):
            raise EqPluginError(f"trust={trust!r} is not valid: give True, False or None.")
        return trust
    word = os.environ.get(VARIABLE, "").strip().lower()
    if word not in _WORDS:
        raise EqPluginError(f"{VARIABLE}={word} is not possible: set it to 1 or 0, or unset it.")
    return _WORDS[word]


def check_pickle_file(path: str | Path, trust: bool | None = None) -> Any:
    """Walk a pickle before torch opens it, unless it is trusted.

    Returns:
        What it holds, as stand-ins; None where it is trusted.

    Raises:
        EqPluginError: see :func:`eqplugin.modelfile.pickles.check_pickles`.
    """
    return None if trusted(trust) else check_pickles(path)


def check_code_file(path: str | Path, trust: bool | None = None) -> None:
    """Let a file be opened that is code by design: a package, a compiled model.

    Raises:
        EqPluginError: with ``trust=False``.
    """
    trust = trusted(trust)
    if trust:
        return
    if trust is False:
        raise EqPluginError(
            f"{path} is code, which runs when it is opened, and trust=False: give the checkpoint "
            f"that it was made from, or an .eqm file of it."
        )
    reason = why_not_ours(path)
    if reason is None:
        return
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = str(Path(path).resolve()), digest
    if known not in _warned:
        _warned.add(known)
        warnings.warn(
            f"{path} is code, which runs now, and {reason}; its sha256 is {digest}. Ask its maker "
            f"for an .eqm file, which holds none: `eqplugin model convert CHECKPOINT OUT.eqm`.",
            TrustWarning,
            stacklevel=2,
        )
