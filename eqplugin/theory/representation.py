"""How irreps turn: matrices of rotations and rotoinversions, exact to the last digits.

``e3nn.o3.Irrep.D_from_matrix`` goes through Euler angles, whose arc cosine costs half the digits
near the poles. Here the matrix of degree l is read off the spherical harmonics at a few fixed
directions, before and after the rotation.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from e3nn import o3

__all__ = ["blocks", "represent", "rotate"]


@functools.cache
def _directions(degree: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (m, 3) on which harmonics of a degree are well conditioned, and their inverse."""
    count = 4 * (2 * degree + 1)
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - 2 * (index + 0.5) / count
    azimuth = index * (torch.pi * (3 - 5**0.5))  # golden angle
    radius = (1 - z**2).sqrt()
    points = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], dim=-1)
    return points, torch.linalg.pinv(_harmonics(degree, points))


def _harmonics(degree: int, points: torch.Tensor) -> torch.Tensor:
    return o3.spherical_harmonics(degree, points, normalize=False, normalization="norm")


def represent(ir: o3.Irrep | str, operations: torch.Tensor) -> torch.Tensor:
    """Matrices of rotations and rotoinversions in an irrep, in e3nn's basis.

    Args:
        ir: such as ``"2e"``.
        operations: (n, 3, 3) orthogonal matrices, float64.

    Returns:
        (n, 2l + 1, 2l + 1), orthogonal, float64.
    """
    ir = o3.Irrep(ir)
    operations = torch.as_tensor(operations, dtype=torch.float64)
    signs = torch.linalg.det(operations).sign()
    points, inverse = _directions(ir.l)
    turned = torch.einsum("n,nij,mj->nmi", signs, operations, points)
    # Y(R p) = D(R) Y(p), rows are directions
    matrices = torch.einsum("am,nmb->nba", inverse, _harmonics(ir.l, turned))
    if ir.p == -1:
        matrices = matrices * signs[:, None, None]
    return matrices


def blocks(irreps: o3.Irreps | str) -> Iterator[tuple[slice, int, o3.Irrep]]:
    """Columns, multiplicity and irrep of each part of a feature vector."""
    irreps = o3.Irreps(irreps)
    for columns, (mul, ir) in zip(irreps.slices(), irreps, strict=True):
        yield columns, mul, ir


def rotate(
    features: torch.Tensor, irreps: o3.Irreps | str, operations: torch.Tensor
) -> torch.Tensor:
    """Apply one operation to each node's features.

    Args:
        features: (num_nodes, D) in e3nn's mul_ir layout.
        irreps: of the features.
        operations: (num_nodes, 3, 3), or (3, 3) for all nodes.

    Returns:
        (num_nodes, D), in the dtype and on the device of the features.
    """
    operations = torch.as_tensor(operations, dtype=torch.float64).cpu().view(-1, 3, 3)
    parts = [features.new_zeros(len(features), 0)]
    for columns, mul, ir in blocks(irreps):
        part = features[:, columns].reshape(len(features), mul, ir.dim)
        parts.append((part @ represent(ir, operations).to(features).mT).flatten(1))
    return torch.cat(parts, dim=-1)
