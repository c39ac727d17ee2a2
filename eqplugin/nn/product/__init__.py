"""Faster forms of e3nn's tensor product followed by a scatter: the same weights and numbers."""
