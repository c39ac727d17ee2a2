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
from mace.tools import scripts_utils

from eqplugin.errors import EqPluginError
from eqplugin.mace.compat._rebind import rebind
from eqplugin.mace.export import descriptors, extract_config, rebuild
from eqplugin.mace.models import as_family
from eqplugin.mace.plan import design_of, family_name, plan_layers

_CONVERSIONS = {
    convert_cueq_e3nn: "cuEquivariance",
    convert_e3nn_cueq: "cuEquivariance",
    convert_e3nn_hybrid: "cuEquivariance",
    convert_e3nn_oeq: "OpenEquivariance",
    convert_oeq_e3nn: "OpenEquivariance",
}


def install() -> None:
    """Install the guards; stock models are passed on unchanged."""
    stock = scripts_utils.extract_config_mace_model
    for module, backend in _CONVERSIONS.items():
        module.extract_config_mace_model = _refusing(backend, stock)
    rebind(stock, _extract_config)
    rebind(scripts_utils.extract_model, _extract_model(scripts_utils.extract_model))
    calculator = calculators.MACECalculator
    calculator.get_descriptors = _get_descriptors(calculator.get_descriptors)


def _refusing(backend: str, stock: Callable) -> Callable:
    @functools.wraps(stock)
    def extract(model: torch.nn.Module) -> dict[str, Any]:
        design = design_of(model)
        if design is None:
            return stock(model)
        if not plan_layers(design, getattr(model, "use_so3", False)).is_stock:
            raise EqPluginError(
                f"This {family_name(model)} cannot be converted to or from {backend}, whose "
                f"kernels assume equal channels and the same irreps in every layer and would leave "
                f"weights random; use it as it is (for LAMMPS: `eqplugin mace-export`)."
            )
        model.__class__ = ScaleShiftMACE  # it is the stock model, weight for weight
        return stock(model)

    return extract


def _extract_config(model: torch.nn.Module) -> dict[str, Any]:
    # under our class: callers go on with model.__class__(**config)
    return extract_config(as_family(model))


def _extract_model(stock: Callable) -> Callable:
    @functools.wraps(stock)
    def extract(model: torch.nn.Module, map_location: str = "cpu") -> torch.nn.Module:
        if family_name(model) is None:
            return stock(model, map_location=map_location)
        return rebuild(model).to(map_location)

    return extract


def _get_descriptors(stock: Callable) -> Callable:
    @functools.wraps(stock)
    def get(
        self: calculators.MACECalculator,
        atoms: Any = None,
        invariants_only: bool = True,
        num_layers: int = -1,
    ) -> Any:
        atoms = self.atoms if atoms is None else atoms
        if atoms is None or not any(family_name(model) for model in self.models):
            return stock(self, atoms, invariants_only, num_layers)
        layers = None if num_layers == -1 else num_layers
        found = [
            np.concatenate(descriptors(model, atoms, layers, invariants_only), axis=1)
            for model in self.models
        ]
        return found[0] if self.num_models == 1 else found

    return get
