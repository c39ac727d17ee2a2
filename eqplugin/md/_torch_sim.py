"""torch-sim's integrators, whichever version is installed: 0.3 is the newest for Python 3.11.

Version 0.3 makes a step from a model and options, later versions have functions of a state. From
0.6 on, a state carries its own random numbers, and there is velocity rescaling. All that depends on
the version is here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from ase import units

from eqplugin.errors import EqPluginError
from eqplugin.md.settings import MdSettings

# ensemble: torch-sim's name
_NAMES = {"nve": "nve", "nvt-langevin": "nvt_langevin", "nvt-bussi": "nvt_vrescale"}


def integrators() -> ModuleType:
    """Import torch-sim's integrators.

    Raises:
        EqPluginError: when torch-sim is not installed.
    """
    try:
        from torch_sim import integrators
    except ImportError:
        raise EqPluginError(
            "--engine torch-sim needs torch-sim: pip install torch-sim-atomistic."
        ) from None
    return integrators


def check_ensemble(ensemble: str) -> None:
    """Refuse an ensemble that the installed torch-sim does not have, saying why."""
    name, installed = _NAMES.get(ensemble), integrators()
    if name is None:
        why = "torch-sim's barostat is not validated here"
    elif not any(hasattr(installed, choice) for choice in (name, f"{name}_step")):
        why = f"it needs torch-sim 0.6 and Python 3.12; this is {version('torch-sim-atomistic')}"
    else:
        return
    raise EqPluginError(
        f"--engine torch-sim does not run --ensemble {ensemble}: {why}; use nve or nvt-langevin, "
        f"or --engine ase."
    )


def stepper(model: Any, settings: MdSettings) -> Callable[[Any], Any]:
    """Return the function that moves a state of all structures by one time step.

    Args:
        model: torch-sim model.
        settings: of the run; its ensemble has passed :func:`check_ensemble`.
    """
    name, installed = _NAMES[settings.ensemble], integrators()
    # ASE's unit of time is torch-sim's
    options = {"dt": settings.timestep * units.fs, "kT": settings.temperature * units.kB}
    if settings.ensemble == "nvt-langevin":
        options["gamma"] = settings.friction / units.fs
    elif settings.ensemble == "nvt-bussi":
        options["tau"] = units.fs / settings.friction
    step = getattr(installed, f"{name}_step", None)
    if step is None:  # 0.3
        return getattr(installed, name)(model, **options)[1]
    # by name: velocity rescaling takes model and state in another order
    return lambda state: step(state=state, model=model, **options)


def generator(state: Any) -> torch.Generator:
    """Random numbers of the thermostat: the state's own or, before 0.6, the device's."""
    if hasattr(state, "rng"):
        return state.rng
    device = state.positions.device
    return (
        torch.cuda.default_generators[device.index]
        if device.type == "cuda"
        else torch.default_generator
    )
