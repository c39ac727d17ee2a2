"""Errors meant for the user: one sentence that names the culprit and says what to do."""

from __future__ import annotations

__all__ = ["EqPluginError"]


class EqPluginError(ValueError):
    """A mistake the user can mend; commands print it as one sentence and exit non-zero."""
