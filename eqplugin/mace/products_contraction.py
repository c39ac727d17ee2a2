"""MACE's symmetric contraction over distinct monomials, inside the model that has it.

:func:`fasten_contractions` changes the class of MACE's ``SymmetricContraction`` modules and gives
them constant matrices outside the state dict; weights and the coupling tensors U stay as they are,
and :func:`restore_contractions` undoes it exactly. See :mod:`eqplugin.nn.symmetric_product`.
"""

from __future__ import annotations

import torch
from mace.modules.symmetric_contraction import SymmetricContraction

from eqplugin.nn.symmetric_product import SymmetricProduct


class MonomialContraction(SymmetricContraction):
    """MACE's symmetric contraction; on the CPU its powers are formed as distinct monomials."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Contracted features, irrep by irrep, (num_nodes, channels * dim of one's irreps_out).

        Args:
            x: (num_nodes, channels, n), n the sum of 2 l + 1.
            y: one-hot elements, (num_nodes, num_elements).
        """
        if x.device.type != "cpu":
            return super().forward(x, y)
        outs = []
        for contraction, product in zip(self.contractions, self.fast, strict=True):
            # MACE keeps the weights from the highest degree down
            weights = [contraction.weights_max, *contraction.weights][::-1]
            of_nodes = [(y @ w.flatten(1)).view(-1, *w.shape[1:]) for w in weights]
            outs.append(product(x, of_nodes).flatten(1))
        return torch.cat(outs, dim=-1)


def gains(contraction: torch.nn.Module) -> bool:
    """Whether the monomials pay. Measured, see docs/products.md.

    Not for a correlation of 1, where both are one GEMM, nor for pairs of the few components of
    ``max_ell`` 1 with less than 32 channels, where the number of calls decides.
    """
    correlation = max((c.correlation for c in contraction.contractions), default=0)
    components = sum(ir.dim for _, ir in contraction.irreps_in)
    channels = max((mul for mul, _ in contraction.irreps_in), default=0)
    return correlation > 2 or (correlation == 2 and (components > 4 or channels >= 32))


def fasten_contractions(model: torch.nn.Module) -> None:
    """Convert, in place, every symmetric contraction that gains.

    Contractions of other libraries (cuEquivariance) are left alone.
    """
    for block in model.products:
        contraction = block.symmetric_contractions
        if type(contraction) is SymmetricContraction and gains(contraction):
            contraction.fast = torch.nn.ModuleList(
                SymmetricProduct(_couplings(c)) for c in contraction.contractions
            )
            contraction.__class__ = MonomialContraction


def restore_contractions(model: torch.nn.Module) -> None:
    """Undo :func:`fasten_contractions`, in place."""
    for block in model.products:
        contraction = block.symmetric_contractions
        if isinstance(contraction, MonomialContraction):
            del contraction.fast
            contraction.__class__ = SymmetricContraction


def _couplings(contraction: torch.nn.Module) -> list[torch.Tensor]:
    """U of the degrees 1, 2, ... with the components of the output as the first index."""
    found = []
    for degree in range(1, contraction.correlation + 1):
        coupling = contraction.U_tensors(degree)
        # MACE leaves out the index of a scalar
        found.append(coupling if coupling.dim() == degree + 2 else coupling.unsqueeze(0))
    return found
