"""``enable_CompiledTP``: NequIP's tensor product and scatter in one C++ operator on the CPU."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import model_modifier

from eqplugin.errors import reason_of
from eqplugin.nequip._stock import replace_stock
from eqplugin.nequip.factorized_modifier import FasterScatter, factorize_products
from eqplugin.nn.product.compiled import OPS_MODULE, CompiledProduct, load_operators
from eqplugin.nn.product.plan import gains, why_not

_notices: set[str] = set()


def _notice(message: str) -> None:
    """Say something once per process."""
    if message not in _notices:
        _notices.add(message)
        print(f"eqplugin: {message}", file=sys.stderr, flush=True)


class CompiledTensorProductScatter(FasterScatter):
    """A stock ``TensorProductScatter`` whose sums run through :class:`CompiledProduct`.

    On other devices than the CPU the work is done by `elsewhere`, a product of the same arguments
    without state of its own, or by the stock product ``tp`` where there is none.

    Raises:
        ValueError: its product is of an unsupported kind.
        RuntimeError: the operators cannot be used here.
    """

    def __init__(self, old: torch.nn.Module, elsewhere: torch.nn.Module | None = None) -> None:
        super().__init__(old)
        self.compiled = CompiledProduct(old.tp)
        self.elsewhere = elsewhere

    @property
    def _nequip_custom_ops_libs(self) -> tuple[str, ...]:
        """What NequIP has to import before it opens a package compiled where the model is now."""
        on_cpu = self.compiled.coefficients.device.type == "cpu"
        return (OPS_MODULE,) if on_cpu or self.elsewhere is None else ("openequivariance",)

    def forward(
        self,
        x: torch.Tensor,
        edge_attr: torch.Tensor,
        edge_weight: torch.Tensor,
        edge_dst: torch.Tensor,
        edge_src: torch.Tensor,
    ) -> torch.Tensor:
        """As the stock module: node features (num_nodes, D) to (num_nodes, dim of irreps_mid)."""
        product = self.compiled if x.device.type == "cpu" else self.elsewhere
        if product is None:
            _notice(
                "enable_CompiledTP works on the CPU only, so the stock product is used on "
                f"{x.device}: install openequivariance, which takes its place there, or name "
                "enable_CuEquivariance instead."
            )
            return super().forward(x, edge_attr, edge_weight, edge_dst, edge_src)
        # under automatic mixed precision the arguments may come in another dtype
        dtype = self.model_dtype
        return product(x.to(dtype), edge_attr.to(dtype), edge_weight.to(dtype), edge_dst, edge_src)


def product_on_gpu(old: torch.nn.Module, opaque: bool = False) -> torch.nn.Module | None:
    """The product of a stock ``TensorProductScatter`` by OpenEquivariance, as NequIP's own modifier
    would use it; ``opaque`` for a model that is compiled while it trains.

    Returns:
        None where there is no GPU, or openequivariance is not installed or does not work.
    """
    if not torch.cuda.is_available() or find_spec("openequivariance") is None:
        return None
    from nequip.nn._tp_scatter_oeq import OpenEquivarianceTensorProductScatter
    from nequip.utils.dtype import torch_default_dtype

    names = ("feature_irreps_in", "irreps_edge_attr", "irreps_mid", "instructions")
    try:
        with torch_default_dtype(old.model_dtype):
            scatter = OpenEquivarianceTensorProductScatter(
                **{name: getattr(old, name) for name in names}, use_opaque=opaque
            )
    except Exception as error:  # its kernels are built for the GPU at hand: anything may fail
        _notice(f"OpenEquivariance cannot be used on this GPU: {reason_of(error)}")
        return None
    return scatter.tp_conv  # without its stock product, whose entries the state dict has already


def compile_products(model: torch.nn.Module) -> torch.nn.Module:
    """Replace, in place, every tensor product that gains from the C++ operator; returns `model`.

    Where the operator cannot be had (no compiler), the products become the factorised ones in
    torch, and one line on stderr says so. On a GPU the products are OpenEquivariance's where it is
    installed, stock where not. Outputs and state dict stay the same in every case.
    """
    opaque = bool(getattr(model, "is_compile_graph_model", False))
    reason = load_operators()
    if reason is not None:
        _notice(f"{reason} The factorised product in torch (enable_FactorizedTP) is used instead.")
        return factorize_products(model)

    def factory(old: torch.nn.Module) -> torch.nn.Module:
        if isinstance(old, CompiledTensorProductScatter):
            return old
        unsupported = why_not(old.tp)
        if unsupported is None and not gains(old.tp):
            return old
        if unsupported is None:
            try:
                return CompiledTensorProductScatter(old, product_on_gpu(old, opaque))
            except ValueError as error:  # coefficients that are not e3nn's
                unsupported = str(error).rstrip(".")
        _notice(f"a tensor product stays the stock one, because {unsupported}.")
        return old

    return replace_stock(model, TensorProductScatter, factory)


@model_modifier(  # type: ignore[misc]
    persistent=False,
    private=False,
    unsupported_devices=["cuda"],
    supported_compile_modes=["aotinductor"],
)
@classmethod
def enable_CompiledTP(cls: type, model: torch.nn.Module) -> torch.nn.Module:
    """Tensor products and scatters in one C++ operator, on the CPU: exact, several times faster.

    Same weights, same numbers to rounding, same state dict, in training, AOTInductor and
    packaging. Compiled for this machine on first use (about half a minute). Without a compiler it
    falls back to a product in torch and says so. On a GPU OpenEquivariance does the work where it
    is installed, the stock product where not. Products that would gain nothing (few channels of
    scalars only) stay as they are.
    """
    return compile_products(model)
