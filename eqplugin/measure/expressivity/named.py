"""Small models by name: ``steerable:L=1,layers=3``, to ask about an architecture without a config.

Families: ``steerable``, ``khop`` (eqplugin for NequIP), ``nequip`` (stock), ``mace-steerable``,
``mace-khop`` (eqplugin for MACE), ``mace`` (stock). Short keys: ``L`` highest degree, ``D`` feature
dimension, ``layers``, ``hops``, ``nu`` MACE's correlation, ``ell`` MACE's edge harmonics; every
other key is an argument of the model itself.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from ase.data import chemical_symbols

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.subject import Subject
from eqplugin.theory.structures import CUTOFF

__all__ = ["FAMILIES", "build_named", "is_named"]

_NEQUIP = {
    "steerable": "eqplugin.nequip.SteerableModel",
    "khop": "eqplugin.nequip.KHopInvariantModel",
    "nequip": "nequip.model.NequIPGNNModel",
}
FAMILIES = (*_NEQUIP, "mace-steerable", "mace-khop", "mace")
_CHANNELS = 8
_COMMA = re.compile(r",(?![^\[(]*[\])])")  # outside brackets


def is_named(text: str) -> bool:
    """Whether the text is an architecture rather than a path."""
    return text.partition(":")[0] in FAMILIES


def build_named(text: str) -> Subject:
    """Build ``family:key=value,...`` with 8 channels of every degree, unless D says otherwise.

    Raises:
        EqPluginError: for anything that cannot be read or built.
    """
    family, _, tail = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, _COMMA.split(tail)):
        key, separator, value = part.partition("=")
        if not separator:
            raise EqPluginError(f"--model {text}: {part} is not key=value.")
        options[key.strip()] = _value(value.strip())
    if family in _NEQUIP:
        return _nequip(family, options, text)
    return _mace(family, options, text)


def _value(text: str) -> Any:
    named = {"none": None, "null": None, "true": True, "false": False}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _renamed(options: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in options.items()}


def _require_integers(name: str, options: dict[str, Any], keys: dict[str, tuple[str, int]]) -> None:
    """Refuse what the stacks would answer with an error of their own from deep inside."""
    for key, (argument, least) in keys.items():
        value = options.get(argument, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise EqPluginError(
                f"--model {name}: {key}={value} is not possible: give an integer >= {least}."
            )


def _nequip(family: str, options: dict[str, Any], name: str) -> Subject:
    from eqplugin.measure.expressivity.nequip_subject import build_nequip

    names = {"L": "l_max", "D": "feature_dim", "layers": "num_layers", "blocks": "num_blocks"}
    options = {"l_max": 1} | _renamed(options, names)
    _require_integers(name, options, {"L": ("l_max", 0), "layers": ("num_layers", 1)})
    if family == "nequip":
        options = {"parity": False, "num_features": _CHANNELS} | options
    else:
        channels = _CHANNELS * (2 if options.get("parity") in ("both", True) else 1)
        options.setdefault("feature_dim", channels * (options["l_max"] + 1) ** 2)
    if family == "khop":
        options.setdefault("hops", 1)
    common = {
        "_target_": _NEQUIP[family],
        "type_names": ["C", "H", "O"],
        "r_max": CUTOFF,
        "avg_num_neighbors": 2.0,
    }
    return build_nequip(common | options, name)


def _mace(family: str, options: dict[str, Any], name: str) -> Subject:
    from eqplugin.measure.expressivity.mace_subject import MACESubject, in_float64

    import numpy as np  # isort: skip
    import torch
    from e3nn.o3 import Irreps
    from mace import modules

    from eqplugin.mace.models import KHopInvariantMACE, SteerableMACE

    names = {
        "L": "max_L",
        "D": "feature_dim",
        "layers": "num_interactions",
        "nu": "correlation",
        "ell": "max_ell",
        "irreps": "hidden_irreps",
    }
    options = _renamed(options, names)
    least = {"L": 0, "layers": 1, "nu": 1, "ell": 1}
    _require_integers(name, options, {key: (names[key], value) for key, value in least.items()})
    degree = options.pop("max_L", 1)
    if "hidden_irreps" not in options:
        if "feature_dim" in options:
            options["max_L"] = degree
        else:
            irreps = [f"{_CHANNELS}x{l}{'eo'[l % 2]}" for l in range(degree + 1)]  # noqa: E741
            options["hidden_irreps"] = "+".join(irreps)
    numbers = _atomic_numbers(options.setdefault("atomic_numbers", [1, 6, 8]), name)
    arguments = {
        "r_max": CUTOFF,
        "num_bessel": 6,
        "num_polynomial_cutoff": 5,
        "max_ell": max(degree, 1),
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "num_interactions": 2,
        "num_elements": len(numbers),
        "MLP_irreps": Irreps("8x0e"),
        "atomic_energies": np.zeros((1, len(numbers))),
        "avg_num_neighbors": 2.0,
        "correlation": 2,
        "gate": torch.nn.functional.silu,
        "atomic_inter_scale": 1.0,
        "atomic_inter_shift": 0.0,
        "radial_MLP": [8],
        "heads": ["Default"],
    } | options
    for key in ("interaction_cls", "interaction_cls_first"):
        known = modules.interaction_classes
        if arguments[key] not in known:
            raise EqPluginError(
                f"--model {name}: {key}={arguments[key]} is not known: use one of "
                f"{', '.join(known)}."
            )
        arguments[key] = known[arguments[key]]
    if family == "mace-khop":
        arguments.setdefault("hops", 1)
    classes = {
        "mace": modules.ScaleShiftMACE,
        "mace-steerable": SteerableMACE,
        "mace-khop": KHopInvariantMACE,
    }
    try:
        if family == "mace" and "hidden_irreps" in arguments:
            arguments["hidden_irreps"] = Irreps(arguments["hidden_irreps"])
        model = in_float64(lambda: classes[family](**arguments))
    except EqPluginError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EqPluginError(f"--model {name} does not build: {reason}") from error
    return MACESubject(name, model)


def _atomic_numbers(numbers: Any, name: str) -> list[int]:
    if (
        not isinstance(numbers, list | tuple)
        or not numbers
        or not all(isinstance(z, int) and 0 < z < len(chemical_symbols) for z in numbers)
    ):
        raise EqPluginError(
            f"--model {name}: atomic_numbers={numbers} is not possible: give a list of atomic "
            f"numbers such as [1,6,8]."
        )
    return list(numbers)
