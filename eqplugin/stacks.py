"""The training stacks by name, imported on first use."""

from __future__ import annotations

from importlib import import_module

from eqplugin.design import STACKS
from eqplugin.errors import EqPluginError
from eqplugin.stack import Stack

__all__ = ["stack_named"]


def stack_named(name: str) -> Stack:
    """The stack ``nequip`` or ``mace``.

    Raises:
        EqPluginError: for another name.
    """
    if name not in STACKS:
        raise EqPluginError(f"stack={name!r} is not known: use one of {', '.join(STACKS)}.")
    return import_module(f"eqplugin.{name}.stack").STACK
