"""The one place that applies NequIP's model modifiers by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from nequip.model import modify
from nequip.model.modify_utils import get_all_modifiers
from nequip.nn.model_modifier_utils import get_model_modifier_unsupported_devices

from eqplugin.errors import EqPluginError
from eqplugin.quiet import quiet


def modify_model(
    model: torch.nn.Module,
    modifiers: Sequence[str],
    name: str = "this model",
    device: str | torch.device | None = None,
) -> torch.nn.Module:
    """Apply model modifiers, ours or NequIP's, as NequIP's ``modify`` in a config would.

    Args:
        model: a NequIP model; it may be changed in place.
        modifiers: such as ``enable_CompiledTP``, applied in this order.
        name: what messages call the model.
        device: where the model will run and is moved to; None: it stays where it is.

    Raises:
        EqPluginError: for a modifier that the model does not have, that does not run on the
            device, or that needs a package that is not installed.
    """
    if not modifiers:
        return model if device is None else model.to(device)
    available = get_all_modifiers(model)
    for modifier in modifiers:
        if modifier not in available:
            known = ", ".join(sorted(available))
            advice = f"use some of {known}" if known else "leave it out, for the model has none"
            raise EqPluginError(
                f"modifiers={modifier!r} is not a model modifier of {name}: {advice}."
            )
        unsupported = get_model_modifier_unsupported_devices(available[modifier])
        if device is not None and torch.device(device).type in unsupported:
            raise EqPluginError(f"the modifier {modifier!r} does not run on device={device}.")
    try:
        with quiet(logging.NOTSET):  # warnings alone: modifiers log what a user should read
            model = modify(model, [{"modifier": modifier} for modifier in modifiers])
    except ImportError as error:
        raise EqPluginError(
            f"the modifiers {', '.join(modifiers)} need a package that is not installed: {error}."
        ) from error
    return model if device is None else model.to(device)
