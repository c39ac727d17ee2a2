"""The signs of the Clebsch-Gordan coefficients: e3nn 0.4.x ("legacy") against e3nn >= 0.5.

The two differ for an odd sum l1 + l2 + l3 only, and only by the sign of the whole tensor, whatever
the order of the three l: e3nn 0.4.x makes the first non-zero entry of the tensor with sorted l
positive. MACE keeps these coefficients in buffers, and its published models carry the legacy
signs; so MACE's modules build with the legacy signs here, through an ``o3`` of their own. e3nn
itself, and NequIP, are not touched.
"""

from __future__ import annotations

import functools
import re
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
from e3nn import o3
from mace.modules import field_blocks, wrapper_ops
from mace.tools import cg
from torch import nn

from eqplugin.exchange import exchanged

W3J_BUFFER = re.compile(r"(?:^|\.)_w3j_(\d+)_(\d+)_(\d+)$")


@functools.cache
def is_flipped(l1: int, l2: int, l3: int) -> bool:
    """Does ``wigner_3j(l1, l2, l3)`` have the other sign in e3nn 0.4.x?

    >>> is_flipped(1, 2, 2), is_flipped(1, 1, 1), is_flipped(1, 1, 2)
    (True, False, False)
    """
    if (l1 + l2 + l3) % 2 == 0:
        return False
    entries = o3.wigner_3j(*sorted((l1, l2, l3)), dtype=torch.float64, device="cpu").flatten()
    first = entries[entries.abs() > 1e-10][0]
    return bool(first < 0)


def legacy_wigner_3j(
    l1: int,
    l2: int,
    l3: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """``e3nn.o3.wigner_3j`` with the signs of e3nn 0.4.x, shape (2 l1 + 1, 2 l2 + 1, 2 l3 + 1)."""
    tensor = o3.wigner_3j(l1, l2, l3, dtype=dtype, device=device)
    return tensor.neg_() if is_flipped(l1, l2, l3) else tensor


def flip_to_legacy(module: nn.Module) -> nn.Module:
    """Give the Clebsch-Gordan buffers of a freshly built e3nn module the legacy signs, in place."""
    for name, buffer in module.named_buffers():
        match = W3J_BUFFER.search(name)
        if match and is_flipped(*(int(degree) for degree in match.groups())):
            with torch.no_grad():
                buffer.neg_()
    return module


class LegacyO3(ModuleType):
    """``e3nn.o3`` for MACE's modules: what holds Clebsch-Gordan coefficients has legacy signs."""

    wigner_3j = staticmethod(legacy_wigner_3j)

    def __init__(self) -> None:
        super().__init__("e3nn.o3", "e3nn.o3 with the Clebsch-Gordan signs of e3nn 0.4.x")

    def __getattr__(self, name: str) -> Any:
        return getattr(o3, name)

    # e3nn.o3.Linear multiplies by no Clebsch-Gordan coefficients and is passed on as it is.
    @staticmethod
    def TensorProduct(*args: Any, **kwargs: Any) -> o3.TensorProduct:
        """``e3nn.o3.TensorProduct`` with legacy signs."""
        return flip_to_legacy(o3.TensorProduct(*args, **kwargs))

    @staticmethod
    def FullyConnectedTensorProduct(*args: Any, **kwargs: Any) -> o3.FullyConnectedTensorProduct:
        """``e3nn.o3.FullyConnectedTensorProduct`` with legacy signs."""
        return flip_to_legacy(o3.FullyConnectedTensorProduct(*args, **kwargs))


# the modules of MACE that take coefficients from e3nn
_MODULES = (
    cg,  # wigner_3j, lines 70 and 254: the product basis and the basis for cuEquivariance
    wrapper_ops,  # lines 325 and 363: the tensor products of the interactions
    field_blocks,  # line 323: the tensor product of PolarMACE
)


def building_with(namespace: ModuleType) -> AbstractContextManager[None]:
    """Within the context MACE builds with this ``o3``: ``e3nn.o3`` itself, or a LegacyO3."""
    return exchanged(*((module, "o3", namespace) for module in _MODULES))


def repair() -> None:
    """Give LegacyO3 to the modules of MACE that take coefficients from e3nn."""
    for module in _MODULES:
        if not isinstance(module.o3, LegacyO3):
            module.o3 = LegacyO3()
