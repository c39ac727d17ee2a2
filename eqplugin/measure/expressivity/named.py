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

from eqplugin.design import Design
from eqplugin.errors import EqPluginError, reason_of
from eqplugin.measure.expressivity.subject import Subject
from eqplugin.theory.structures import CUTOFF

_CHANNELS = 8
# builder, and what the family means beside it
_NEQUIP = {
    "steerable": ("eqplugin.nequip.SteerableModel", {}),
    "khop": ("eqplugin.nequip.KHopInvariantModel", {"hops": 1}),
    "nequip": ("nequip.model.NequIPGNNModel", {"parity": False, "num_features": _CHANNELS}),
}
_MACE = {
    "mace-steerable": ("SteerableMACE", {}),
    "mace-khop": ("SteerableMACE", {"hops": 1}),
    "mace": ("ScaleShiftMACE", {}),
}
FAMILIES = (*_NEQUIP, *_MACE)
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


def _require_positive(name: str, key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise EqPluginError(f"--model {name}: {key}={value} is not valid: give an integer >= 1.")


def _nequip(family: str, options: dict[str, Any], name: str) -> Subject:
    from eqplugin.measure.expressivity.nequip_subject import build_nequip

    names = {"L": "l_max", "D": "feature_dim", "layers": "num_layers", "blocks": "num_blocks"}
    builder, defaults = _NEQUIP[family]
    options = {"l_max": 1} | defaults | _renamed(options, names)
    _check_design(options)
    if "num_features" not in options:
        channels = _CHANNELS * (2 if options.get("parity") in ("both", True) else 1)
        options.setdefault("feature_dim", channels * (options["l_max"] + 1) ** 2)
    common = {
        "_target_": builder,
        "type_names": ["C", "H", "O"],
        "r_max": CUTOFF,
        "avg_num_neighbors": 2.0,
    }
    return build_nequip(common | options, name)


def _check_design(options: dict[str, Any], stack: str = "nequip") -> None:
    """Refuse what the stacks would answer with an error of their own from deep inside."""
    known = ("feature_dim", "l_max", "hops", "contraction", "num_layers", "parity", "profile")
    chosen = {key: options[key] for key in known if key in options}
    if "num_blocks" in options:  # the builder multiplies the two
        chosen.pop("hops", None)
    Design(**chosen, stack=stack)


def _mace(family: str, options: dict[str, Any], name: str) -> Subject:
    from eqplugin.measure.expressivity.mace_subject import MACESubject, in_float64

    import numpy as np  # isort: skip
    import torch
    from e3nn.o3 import Irreps
    from mace import modules

    from eqplugin.mace import models

    names = {
        "L": "max_L",
        "D": "feature_dim",
        "layers": "num_interactions",
        "nu": "correlation",
        "ell": "max_ell",
        "irreps": "hidden_irreps",
    }
    builder, defaults = _MACE[family]
    options = defaults | _renamed(options, names)
    for key in ("nu", "ell"):
        _require_positive(name, key, options.get(names[key], 1))
    degree = options.pop("max_L", 1)
    layers = options.setdefault("num_interactions", 2)
    _check_design({"l_max": degree, "num_layers": layers, "hops": options.get("hops")}, "mace")
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
    cls = models.FAMILIES.get(builder, modules.ScaleShiftMACE)
    try:
        if cls is modules.ScaleShiftMACE and "hidden_irreps" in arguments:
            arguments["hidden_irreps"] = Irreps(arguments["hidden_irreps"])
        model = in_float64(lambda: cls(**arguments))
    except EqPluginError:
        raise
    except Exception as error:
        raise EqPluginError(f"--model {name} cannot be built: {reason_of(error)}") from error
    return MACESubject(name, model)


def _atomic_numbers(numbers: Any, name: str) -> list[int]:
    if (
        not isinstance(numbers, list | tuple)
        or not numbers
        or not all(isinstance(z, int) and 0 < z < len(chemical_symbols) for z in numbers)
    ):
        raise EqPluginError(
            f"--model {name}: atomic_numbers={numbers} is not valid: give a list of atomic "
            f"numbers such as [1,6,8]."
        )
    return list(numbers)
