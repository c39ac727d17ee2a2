"""MACE's own commands, run in this process with the repairs on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import metadata

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.exchange import exchanged
from eqplugin.mace import compat

_LOGGER = logging.getLogger(__name__)
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
        the exit status.

    Raises:
        EqPluginError: when MACE has no such command, and whatever stops it.
    """
    commands = available_commands()
    script = commands.get(name) or commands.get(_PREFIX + name)
    if script is None:
        known = ", ".join(command.removeprefix(_PREFIX) for command in commands)
        raise EqPluginError(f"MACE has no command {name}; choose one of: {known}.")
    compat.apply()
    main = script.load()
    exchanges: list[tuple[object, str, object]] = [(sys, "argv", [script.name, *arguments])]
    if script.name == "mace_eval_configs":
        from eqplugin.mace import _evaluation

        exchanges.append((_evaluation.eval_configs, "run", _evaluation.evaluate))
    with exchanged(*exchanges):
        try:
            status = main()
        except EqPluginError:
            raise
        except (AssertionError, ValueError, LookupError, TypeError, AttributeError) as error:
            # what a user's mistake ends in; a full disk and the like the command line knows
            _LOGGER.debug("The traceback:", exc_info=True)
            raise EqPluginError(
                f"{script.name} stopped with {reason_of(error, named=True)[:200]}: check its "
                f"options and files."
            ) from error
    return status if isinstance(status, int) else 0
