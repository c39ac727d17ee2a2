"""Products along one mode of a batch of tensors, and bases that do not hang on rounding."""

from __future__ import annotations

from math import prod

import torch

SHIFT = 1e-4  # of the mean eigenvalue
_LEAST = 1e-6  # of the largest eigenvalue


def along(x: torch.Tensor, q: torch.Tensor, mode: int) -> torch.Tensor:
    """Contract mode `mode` of x, (n, ..., d, ...), with q, (n, d, r)."""
    flat = unfolded(x, mode)
    out = flat.squeeze(-1) @ q if flat.shape[-1] == 1 else q.mT.unsqueeze(1) @ flat
    return out.reshape(*x.shape[:mode], q.shape[-1], *x.shape[mode + 1 :])


def products(x: torch.Tensor, mode: int) -> torch.Tensor:
    """Inner products of the slices along a mode, (n, d, d)."""
    flat = unfolded(x, mode)
    if flat.shape[-1] == 1:
        return flat.squeeze(-1).mT @ flat.squeeze(-1)
    return (flat @ flat.mT).sum(1)


def unfolded(x: torch.Tensor, mode: int) -> torch.Tensor:
    """View of x as (n, modes before, d, modes after)."""
    return x.reshape(x.shape[0], prod(x.shape[1:mode]), x.shape[mode], -1)


def eigenbasis(products: torch.Tensor) -> torch.Tensor:
    """Eigenvectors of symmetric matrices, (n, d, d), the largest value first.

    One gradient hardly reaches some directions, and eigenvectors of values near zero are whatever
    rounding makes of them. They are fixed here, so that two processes agree with one.
    """
    wide = products.double()  # float32 may not converge
    values, vectors = torch.linalg.eigh(wide)
    largest = values[:, -1:].clamp(min=torch.finfo(wide.dtype).tiny)
    noise = max(_LEAST, 10 * values.shape[-1] * torch.finfo(products.dtype).eps)
    rest = vectors * (values <= noise * largest).unsqueeze(1)
    rest = rest @ rest.mT
    order = torch.linspace(1, 2, values.shape[-1], dtype=wide.dtype, device=wide.device)
    apart = wide / largest.unsqueeze(-1) - rest @ order.diag() @ rest
    return torch.linalg.eigh(apart)[1].flip(-1).to(products.dtype)


def turned(basis: torch.Tensor, image: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis of `image`, (n, d, r), the product of matrices with `basis`.

    Directions in which the product vanishes keep those of `basis` instead of rounding errors.

    Args:
        basis: (n, d, r).
        image: (n, d, r), columns by descending value.
        values: estimates of the eigenvalues, (n, r).
    """
    shift = SHIFT * values.mean(-1).view(-1, 1, 1)
    return torch.linalg.qr(image + shift * basis)[0]
