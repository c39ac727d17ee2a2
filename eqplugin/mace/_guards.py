"""MACE's places that assume equal irreps in every layer: answered for our models, or refused.
And one that assumes torch's default dtype to be the model's.

Left alone, conversions to accelerated kernels log the mismatch at debug level and leave weights
random, and ``get_descriptors`` cuts features at the wrong columns.
"""

from __future__ import annotations

import functools
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
from mace.modules import irreps_tools
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
_STOCK_CONFIG = scripts_utils.extract_config_mace_model
_STOCK_MODEL = scripts_utils.extract_model
_STOCK_MASK = irreps_tools.mask_head
_STOCK_DESCRIPTORS = calculators.MACECalculator.get_descriptors


def install() -> None:
    """Install the guards; stock models are passed on unchanged."""
    for module, backend in _CONVERSIONS.items():
        module.extract_config_mace_model = functools.partial(_config_for, backend)
    rebind(_STOCK_CONFIG, _extract_config)
    rebind(_STOCK_MODEL, _extract_model)
    rebind(_STOCK_MASK, _mask_head)
    calculators.MACECalculator.get_descriptors = _get_descriptors


def _mask_head(x: torch.Tensor, head: torch.Tensor, num_heads: int) -> torch.Tensor:
    """In the dtype of the features: stock MACE takes torch's default one, whatever the model's."""
    return _STOCK_MASK(x, head, num_heads).to(x.dtype)


def _config_for(backend: str, model: torch.nn.Module) -> dict[str, Any]:
    design = design_of(model)
    if design is not None:
        if not plan_layers(design, getattr(model, "use_so3", False)).is_stock:
            raise EqPluginError(
                f"This {family_name(model)} cannot be converted to or from {backend}, whose "
                f"kernels assume equal channels and the same irreps in every layer and would leave "
                f"weights random; use it as it is (for LAMMPS: `eqplugin mace-export`)."
            )
        model.__class__ = ScaleShiftMACE  # it is the stock model, weight for weight
    return _STOCK_CONFIG(model)


def _extract_config(model: torch.nn.Module) -> dict[str, Any]:
    # under our class: callers go on with model.__class__(**config)
    return extract_config(as_family(model))


def _extract_model(model: torch.nn.Module, map_location: str = "cpu") -> torch.nn.Module:
    if family_name(model) is None:
        return _STOCK_MODEL(model, map_location=map_location)
    return rebuild(model).to(map_location)


@functools.wraps(_STOCK_DESCRIPTORS)
def _get_descriptors(
    self: calculators.MACECalculator,
    atoms: Any = None,
    invariants_only: bool = True,
    num_layers: int = -1,
) -> Any:
    atoms = self.atoms if atoms is None else atoms
    if atoms is None or not any(family_name(model) for model in self.models):
        return _STOCK_DESCRIPTORS(self, atoms, invariants_only, num_layers)
    layers = None if num_layers == -1 else num_layers
    found = [
        np.concatenate(descriptors(model, atoms, layers, invariants_only), axis=1)
        for model in self.models
    ]
    return found[0] if self.num_models == 1 else found
