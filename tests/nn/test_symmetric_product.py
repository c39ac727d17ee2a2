"""Symmetric powers over distinct monomials against the plain sum over all index tuples."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eqplugin.nn.symmetric_product import SymmetricProduct, symmetric_monomials

F64 = torch.float64
TOLERANCE = 1e-12


def couplings(degrees, dim_out, n, paths, seed, density):
    """Random tensors, not symmetric, mostly zero as MACE's are."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for degree in range(1, degrees + 1):
        shape = (dim_out, *[n] * degree, paths)
        values = torch.randn(shape, generator=generator, dtype=F64)
        kept = torch.rand(shape, generator=generator, dtype=F64) < density
        found.append(values * kept)
    return found


def plain(tensors, x, weights):
    """The definition, degree by degree."""
    out = 0
    for degree, (tensor, weight) in enumerate(zip(tensors, weights, strict=True), 1):
        indices = "ijlm"[:degree]
        factors = ",".join(f"bc{index}" for index in indices)
        out = out + torch.einsum(
            f"w{indices}k,bkc,{factors}->bcw", tensor, weight, *[x] * degree
        )  # fmt: skip
    return out


def derivatives(call, x, weights):
    """Outputs, gradients, and gradients of a function of those, as in force training."""
    inputs = [t.clone().requires_grad_() for t in (x, *weights)]
    out = call(inputs[0], inputs[1:])
    first = torch.autograd.grad(
        out.square().sum(), inputs, create_graph=True, materialize_grads=True
    )
    scalar = sum(g.square().sum() for g in first)
    return [out, *first, *torch.autograd.grad(scalar, inputs, materialize_grads=True)]


@settings(max_examples=25, deadline=None)
@given(
    degrees=st.integers(1, 4),
    dim_out=st.integers(1, 3),
    n=st.integers(1, 4),
    paths=st.integers(1, 3),
    nodes=st.integers(0, 3),
    seed=st.integers(0, 999),
    density=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_equals_the_sum_over_all_tuples(degrees, dim_out, n, paths, nodes, seed, density):
    tensors = couplings(degrees, dim_out, n, paths, seed, density)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(nodes, 2, n, generator=generator, dtype=F64)
    weights = [torch.randn(nodes, paths, 2, generator=generator, dtype=F64) for _ in tensors]
    product = SymmetricProduct(tensors)
    ours = derivatives(product, x, weights)
    theirs = derivatives(lambda x, weights: plain(tensors, x, weights), x, weights)
    for a, b in zip(ours, theirs, strict=True):
        scale = max(1.0, b.abs().max().item() if b.numel() else 0.0)
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE * scale)


def test_only_monomials_that_occur_are_formed():
    tensor = torch.zeros(1, 3, 3, 1)
    tensor[0, 0, 1], tensor[0, 1, 0], tensor[0, 2, 2] = 2.0, 3.0, 1.0
    tensor[0, 0, 2], tensor[0, 2, 0] = 1.0, -1.0  # they cancel
    factors, matrix = symmetric_monomials(tensor)
    assert factors.tolist() == [[0, 1], [2, 2]]
    assert matrix.tolist() == [[5.0, 1.0]]
    assert matrix.dtype == F64


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_keeps_the_dtype_and_an_empty_state_dict(dtype):
    product = SymmetricProduct(couplings(3, 3, 4, 2, seed=0, density=0.5))
    assert not product.state_dict()
    weights = [torch.ones(2, 2, 5, dtype=dtype)] * 3
    out = product(torch.ones(2, 5, 4, dtype=dtype), weights)
    assert out.dtype == dtype
    assert out.shape == (2, 5, 3)
