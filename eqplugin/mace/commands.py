"""MACE's own commands, run in this process with the repairs on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata

from eqplugin.errors import EqPluginError
from eqplugin.exchange import exchanged
from eqplugin.mace import compat
from eqplugin.mace.compat import opening

_PREFIX = "mace_"


def available_commands() -> dict[str, metadata.EntryPoint]:
    """MACE's console scripts by name: ``mace_run_train``, ``mace_eval_configs``, ..."""
    scripts = metadata.distribution("mace-torch").entry_points.select(group="console_scripts")
    return {script.name: script for script in sorted(scripts, key=lambda script: script.name)}


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run one of MACE's commands, as its console script would, with the repairs on.

    Args:
        name: e.g. ``mace_run_train``; the prefix may be left out.
        arguments: its command line.

    Returns:
        the exit status. What the command raises is not caught.

    Raises:
        EqPluginError: when MACE has no such command.
    """
    commands = available_commands()
    script = commands.get(name) or commands.get(_PREFIX + name)
    if script is None:
        known = ", ".join(command.removeprefix(_PREFIX) for command in commands)
        raise EqPluginError(f"MACE has no command {name}; choose one of: {known}.")
    compat.apply()
    main = script.load()
    opening.repair()  # of the command's module too
    with exchanged((sys, "argv", [script.name, *arguments])):
        status = main()
    return status if isinstance(status, int) else 0
