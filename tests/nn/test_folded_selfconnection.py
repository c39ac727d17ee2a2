"""The folded self-connection against e3nn's fully connected product, with its derivatives."""

import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from eqplugin.nn.folded_selfconnection import FoldedSelfConnection, foldable, gains

IRREPS = ["0e", "0o", "1e", "1o", "2e", "3o"]


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def connection(irreps_in, irreps_out, width=5, num_types=3):
    torch.manual_seed(0)
    sc = o3.FullyConnectedTensorProduct(irreps_in, f"{width}x0e", irreps_out)
    return sc, torch.nn.Embedding(num_types, width)


def nodes(irreps, num_nodes, num_types=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    types = torch.randint(num_types, (num_nodes,), generator=generator)
    x = torch.randn(num_nodes, o3.Irreps(irreps).dim, generator=generator)
    return x.requires_grad_(), types


def one_hot(types, num_types=3):
    return torch.nn.functional.one_hot(types, num_types).to(torch.float64)


def derivatives(call, x, weights):
    """Outputs, and gradients of a function of the gradient with respect to x."""
    out = call(x)
    if not out.requires_grad:  # no path at all
        return [out]
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    return [out, first, *torch.autograd.grad(first.square().sum(), (x, *weights))]


def parts(max_size):
    return st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(IRREPS)), min_size=1, max_size=max_size
    ).map(lambda items: " + ".join(f"{mul}x{ir}" for mul, ir in items))


@settings(max_examples=15, deadline=None)
@given(irreps_in=parts(4), irreps_out=parts(4), num_nodes=st.integers(0, 6))
def test_equals_e3nn_for_any_irreps(irreps_in, irreps_out, num_nodes):
    sc, embedding = connection(irreps_in, irreps_out)
    if sc.weight_numel == 0:
        return
    x, types = nodes(irreps_in, num_nodes)
    weights = (sc.weight, embedding.weight)
    expected = derivatives(lambda x: sc(x, embedding(types)), x, weights)
    folded = FoldedSelfConnection(sc, embedding)
    ours = derivatives(lambda x: folded(x, one_hot(types)), x, weights)
    for a, b in zip(ours, expected, strict=True):
        scale = max(1.0, b.abs().max().item() if b.numel() else 0.0)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * scale)


def test_weights_are_shared_under_their_names():
    sc, embedding = connection("4x0e + 2x1o", "3x0e + 2x1o")
    folded = FoldedSelfConnection(sc, embedding)
    assert folded.state_dict().keys() == sc.state_dict().keys()
    assert folded.weight is sc.weight
    assert [name for name, _ in folded.named_parameters()] == ["weight"]  # not the embedding


def test_permanent_keeps_the_function_and_no_weights():
    sc, embedding = connection("4x0e + 2x1o", "3x0e + 2x1o")
    folded = FoldedSelfConnection(sc, embedding)
    x, types = nodes("4x0e + 2x1o", 6)
    expected = folded(x, one_hot(types))
    folded.make_permanent()
    assert not list(folded.parameters())
    torch.testing.assert_close(folded(x, one_hot(types)), expected, rtol=0, atol=0)
    with torch.no_grad():
        embedding.weight.zero_()
        sc.weight.zero_()
    torch.testing.assert_close(folded(x, one_hot(types)), expected, rtol=0, atol=0)
    folded.make_permanent()  # once more changes nothing
    torch.testing.assert_close(folded(x, one_hot(types)), expected, rtol=0, atol=0)


def test_outputs_without_a_path_are_zero():
    sc, embedding = connection("4x0e", "3x0e + 2x1o")
    x, types = nodes("4x0e", 5)
    out = FoldedSelfConnection(sc, embedding)(x, one_hot(types))
    assert out.shape == (5, 9)
    assert out[:, :3].all()
    assert not out[:, 3:].any()


def test_attributes_that_are_not_scalars_are_refused():
    sc = o3.FullyConnectedTensorProduct("4x0e", "3x0e + 1o", "2x0e + 2x1o")
    assert not foldable(sc)
    with pytest.raises(ValueError, match="not scalars alone"):
        FoldedSelfConnection(sc, torch.nn.Embedding(3, 6))


def test_many_types_gain_nothing():
    sc, _ = connection("4x0e", "3x0e", width=32)
    assert gains(sc, 3, smallest=0)
    assert not gains(sc, 3)  # too narrow
    assert not gains(sc, 32, smallest=0)
    assert not gains(sc, 89, smallest=0)
