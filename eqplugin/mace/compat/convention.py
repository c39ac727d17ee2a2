"""Which Clebsch-Gordan signs a MACE model carries: recorded when it is built, found when not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import e3nn.o3
import torch
from mace.cli import convert_e3nn_cueq, convert_e3nn_hybrid, convert_e3nn_oeq
from mace.tools.cg import U_matrix_real
from torch import nn

from eqplugin.errors import EqPluginError
from eqplugin.exchange import default_dtype
from eqplugin.mace.compat import signs
from eqplugin.mace.compat._rebind import MODEL_CLASSES, rebind
from eqplugin.mace.compat.jitmode import building_eagerly
from eqplugin.modelfile.trust import check_pickle_file

Convention = Literal["0.4", "0.6", "both", "unknown"]
"""Signs of e3nn 0.4.x; of e3nn >= 0.5; equal in both; neither (a basis of cuEquivariance)."""

# a plain attribute: it is pickled with the model, and MACE without eqplugin ignores it
ATTRIBUTE = "e3nn_convention"


class ConventionError(EqPluginError):
    """A model carries the Clebsch-Gordan signs of the other e3nn."""


def convention_of(model: nn.Module) -> Convention:
    """The signs recorded in a MACE model, or found in its buffers where nothing is recorded."""
    return getattr(model, ATTRIBUTE, None) or detect_convention(model)


def detect_convention(model: nn.Module) -> Convention:
    """Find the signs of a MACE model by comparing its buffers with both conventions.

    Looks at the coefficients of the interactions (``_w3j_*``) and of the product basis
    (``U_matrix_*``). Rebuilding the latter takes seconds for degree 3 and correlation 3.

    Raises:
        ConventionError: when a part of the model has one convention, a part the other.
    """
    found: set[str] = set()
    for name, buffer in model.named_buffers():
        match = signs.W3J_BUFFER.search(name)
        if match is None:
            continue
        degrees = tuple(int(degree) for degree in match.groups())
        if signs.is_flipped(*degrees):
            modern = e3nn.o3.wigner_3j(*degrees, dtype=torch.float64, device="cpu")
            found.add("0.6" if (buffer.detach().cpu().double() * modern).sum() > 0 else "0.4")
    for module in model.modules():
        if type(module).__name__ == "SymmetricContraction":
            found |= _of_product_basis(module)
    if {"0.4", "0.6"} <= found:
        raise ConventionError(
            "This model mixes the Clebsch-Gordan signs of e3nn 0.4 and 0.6; "
            "rebuild it after `import eqplugin.mace`."
        )
    for convention in ("0.4", "0.6", "unknown"):
        if convention in found:
            return convention
    return "both"


def _of_product_basis(module: nn.Module) -> set[str]:
    found: set[str] = set()
    for out, contraction in zip(module.irreps_out, module.contractions, strict=True):
        for order in range(2, contraction.correlation + 1):
            stored = getattr(contraction, f"U_matrix_{order}", None)
            if stored is None:
                continue
            legacy, modern = _bases(str(contraction.coupling_irreps), str(out.ir), order)
            if torch.equal(legacy, modern):
                continue
            values = stored.detach().cpu().double()
            if values.shape == legacy.shape and torch.allclose(values, legacy, atol=1e-5):
                found.add("0.4")
            elif values.shape == modern.shape and torch.allclose(values, modern, atol=1e-5):
                found.add("0.6")
            else:
                found.add("unknown")
    return found


@functools.lru_cache(maxsize=64)
def _bases(irreps_in: str, irrep_out: str, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """MACE's product basis with the signs of e3nn 0.4 and with those of e3nn 0.6."""

    def basis(namespace: ModuleType) -> torch.Tensor:
        # U_matrix_real starts from torch.tensor([])
        with signs.building_with(namespace), default_dtype(torch.float64):
            return U_matrix_real(
                irreps_in, irrep_out, order, dtype=torch.float64, use_cueq_cg=False
            )[-1]

    return basis(signs.LegacyO3()), basis(e3nn.o3)


def require_legacy(model: nn.Module, purpose: str) -> None:
    """Refuse a model whose coefficients would change when it is rebuilt with the legacy signs.

    The purpose, such as "Conversion to cuEquivariance", is what cannot be done then.

    Raises:
        ConventionError: for a model that carries the signs of e3nn 0.6, or a mixture.
    """
    if convention_of(model) == "0.6":
        raise ConventionError(
            f"{purpose} is not possible: this model was built with the Clebsch-Gordan signs of "
            "e3nn 0.6 (without eqplugin.mace), and rebuilt with those of e3nn 0.4, which MACE "
            "pins, it would silently predict other forces; train it again with "
            "`eqplugin mace -- mace_run_train`."
        )


def repair() -> None:
    """Build models eagerly, record their convention, and check it where MACE rebuilds one.

    The conversions to cuEquivariance and OpenEquivariance (``run`` in mace/cli/convert_e3nn_*.py)
    take the coefficients of the running process instead of the model's, so they check it.
    """
    for cls in MODEL_CLASSES:
        if not hasattr(cls.__init__, "_eqplugin"):
            cls.__init__ = _recording(cls.__init__)
    for kernel, module in (
        ("cuEquivariance", convert_e3nn_cueq),
        ("OpenEquivariance", convert_e3nn_oeq),
        ("cuEquivariance and OpenEquivariance", convert_e3nn_hybrid),
    ):
        if not hasattr(module.run, "_eqplugin"):
            rebind(module.run, _checking(module.run, f"Conversion to {kernel}"))


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def __init__(self: nn.Module, *args: object, **kwargs: object) -> None:
        with building_eagerly():
            init(self, *args, **kwargs)
        setattr(self, ATTRIBUTE, "0.4")

    __init__._eqplugin = True
    return __init__


def _checking(run: Callable[..., Any], purpose: str) -> Callable[..., Any]:
    @functools.wraps(run)
    def checked(input_model: str | nn.Module, *args: object, **kwargs: object) -> Any:
        model = input_model
        if isinstance(model, str):
            check_pickle_file(model)
            model = torch.load(model, map_location="cpu", weights_only=False)
        require_legacy(model, purpose)
        return run(input_model, *args, **kwargs)

    checked._eqplugin = True
    return checked
