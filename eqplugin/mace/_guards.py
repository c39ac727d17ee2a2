"""MACE's places that assume equal irreps in every layer: answered for our models, or refused.

Left alone, conversions to accelerated kernels log the mismatch at debug level and leave weights
random, and ``get_descriptors`` cuts features at the wrong columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mace.calculators import mace as calculators
from mace.cli import (
    convert_cueq_e3nn,
    convert_e3nn_cueq,
    convert_e3nn_hybrid,
    convert_e3nn_oeq,
    convert_oeq_e3nn,
)
from mace.modules.models import ScaleShiftMACE
from mace.tools import model_script_utils, scripts_utils

from eqplugin.errors import EqPluginError
from eqplugin.mace.export import descriptors, family_config, rebuild
from eqplugin.mace.plan import design_of, family_name, plan_layers

_CONVERSIONS = {
    convert_cueq_e3nn: "cuEquivariance",
    convert_e3nn_cueq: "cuEquivariance",
    convert_e3nn_hybrid: "cuEquivariance",
    convert_e3nn_oeq: "OpenEquivariance",
    convert_oeq_e3nn: "OpenEquivariance",
}
_MARK = "_eqplugin_guard"


def install() -> None:
    """Install the guards once; stock models are passed on unchanged."""
    for module, backend in _CONVERSIONS.items():
        _guard(module, "extract_config_mace_model", functools.partial(_refuse, backend))
    for module in (scripts_utils, model_script_utils):
        _guard(module, "extract_config_mace_model", family_config)
    for module in (scripts_utils, calculators):
        _guard(module, "extract_model", _extract_model)
    _guard(calculators.MACECalculator, "get_descriptors", _get_descriptors)


def _guard(owner: Any, name: str, ours: Callable) -> None:
    """Put a function of ours, which takes the stock one first, in its place."""
    stock = getattr(owner, name)
    if hasattr(stock, _MARK):
        return

    @functools.wraps(stock)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return ours(stock, *args, **kwargs)

    setattr(guarded, _MARK, True)
    setattr(owner, name, guarded)


def _refuse(backend: str, stock: Callable, model: torch.nn.Module) -> dict[str, Any]:
    design = design_of(model)
    if design is not None:
        if not plan_layers(design, getattr(model, "use_so3", False)).is_stock:
            raise EqPluginError(
                f"This {family_name(model)} cannot be converted to or from {backend}, whose "
                f"kernels assume equal channels and the same irreps in every layer and would leave "
                f"weights random; use it as it is (for LAMMPS: `eqplugin mace-export`)."
            )
        model.__class__ = ScaleShiftMACE  # it is the stock model, weight for weight
    return stock(model)


def _extract_model(
    stock: Callable, model: torch.nn.Module, map_location: str = "cpu"
) -> torch.nn.Module:
    if family_name(model) is None:
        return stock(model, map_location=map_location)
    return rebuild(model).to(map_location)


def _get_descriptors(
    stock: Callable,
    calculator: calculators.MACECalculator,
    atoms: Any = None,
    invariants_only: bool = True,
    num_layers: int = -1,
) -> Any:
    atoms = calculator.atoms if atoms is None else atoms
    if atoms is None or not any(family_name(model) for model in calculator.models):
        return stock(calculator, atoms, invariants_only, num_layers)
    layers = None if num_layers == -1 else num_layers
    found = [
        np.concatenate(descriptors(model, atoms, layers, invariants_only), axis=1)
        for model in calculator.models
    ]
    return found[0] if calculator.num_models == 1 else found
