"""The factorised tensor product against e3nn's, to rounding, with first and second derivatives."""

import pytest
import torch
from compiled_product_under_test import OtherSigns
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from eqplugin.nn.product.factorized import FactorizedTensorProduct
from eqplugin.nn.product.paths import gains, plan_blocks, unsupported

F64 = torch.float64
TOLERANCE = 1e-12
IRREPS = [str(o3.Irrep(degree, parity)) for degree in range(4) for parity in (1, -1)]
NATURAL_6 = "2x0e + 1x1o + 2x2e + 1x3o + 1x4e + 1x5o + 1x6e"


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


def product(features, l_max, wanted=None, **options):
    """The product of a NequIP interaction block; `wanted` keeps only those output irreps."""
    features, harmonics = o3.Irreps(features), o3.Irreps.spherical_harmonics(l_max)
    out, instructions = [], []
    for i, (mul, ir) in enumerate(features):
        for j, (_, edge_ir) in enumerate(harmonics):
            for ir_out in ir * edge_ir:
                if wanted is None or str(ir_out) in wanted:
                    instructions.append((i, j, len(out)))
                    out.append((mul, ir_out))
    out, position, _ = o3.Irreps(out).sort()
    instructions = [(i, j, position[k], "uvu", True) for i, j, k in instructions]
    return o3.TensorProduct(
        features, harmonics, out, instructions,
        shared_weights=False, internal_weights=False, **options,
    )  # fmt: skip


def stock(tp, x, y, w, dst, src):
    messages = tp(x[src], y, w)
    return x.new_zeros(x.shape[0], messages.shape[1]).index_add(0, dst, messages)


def edges(num_nodes, num_edges, seed, directions=None):
    """Random directed edges; the last node has none."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(num_nodes - 1, (2, num_edges), generator=generator)
    if directions is None:
        directions = torch.randn(num_edges, 3, generator=generator)
    return ends[0], ends[1], directions


def derivatives(call, tp, dst, src, directions, num_nodes, seed=0):
    """Outputs, gradients, and gradients of a function of the gradients, as in force training."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    x = draw(num_nodes, tp.irreps_in1.dim).requires_grad_()
    w = draw(len(dst), tp.weight_numel).requires_grad_()
    y = o3.spherical_harmonics(tp.irreps_in2, directions, True, "component").requires_grad_()
    out = call(x, y, w, dst, src)
    cotangent = draw(*out.shape).requires_grad_()
    first = torch.autograd.grad(out, (x, y, w), cotangent, create_graph=True)
    scalar = sum((g * draw(*g.shape)).sum() + g.square().sum() for g in first)
    second = torch.autograd.grad(scalar, (x, y, w, cotangent), allow_unused=True)
    return [out, *first, *(torch.zeros(()) if g is None else g for g in second)]


def assert_same(tp, dst, src, directions, num_nodes):
    factorized = FactorizedTensorProduct(tp)
    args = (tp, dst, src, directions, num_nodes)
    expected = derivatives(lambda *a: stock(tp, *a), *args)
    for ours, theirs in zip(derivatives(factorized, *args), expected, strict=True):
        scale = max(1.0, theirs.abs().max().item() if theirs.numel() else 0.0)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * scale)


feature_irreps = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(IRREPS)), min_size=1, max_size=4
).map(lambda parts: " + ".join(f"{mul}x{ir}" for mul, ir in parts))


@settings(max_examples=12, deadline=None)
@given(
    features=feature_irreps,
    l_max=st.integers(0, 3),
    wanted=st.none() | st.sets(st.sampled_from(IRREPS), min_size=3),
    num_edges=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_equals_e3nn_for_any_irreps(features, l_max, wanted, num_edges, seed):
    tp = product(features, l_max, wanted)
    if not tp.instructions:
        return
    dst, src, directions = edges(4, num_edges, seed)
    assert_same(tp, dst, src, directions, num_nodes=4)


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_edges_on_the_axes(l_max):
    tp = product("2x0e + 2x1o + 1x1e + 2x2e", l_max)
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    dst, src, _ = edges(3, 6, seed=0)
    assert_same(tp, dst, src, axes, num_nodes=3)


def test_degree_six():
    natural = {str(ir) for _, ir in o3.Irreps(NATURAL_6)}
    tp = product(NATURAL_6, 6, natural)
    assert len(tp.instructions) == 106  # a whole layer at l_max = 6, natural parity
    assert_same(tp, *edges(3, 4, seed=0), num_nodes=3)


@pytest.mark.parametrize("normalization", ["norm", "none"])
def test_other_normalisations_of_the_product(normalization):
    tp = product("2x0e + 2x1o + 2x2e", 2, irrep_normalization=normalization)
    assert_same(tp, *edges(3, 5, seed=1), num_nodes=3)


def test_without_edges_and_for_isolated_nodes():
    tp = product("2x0e + 2x1o", 1)
    factorized = FactorizedTensorProduct(tp)
    dst, src, directions = edges(4, 5, seed=0)
    x, w = torch.randn(4, tp.irreps_in1.dim), torch.randn(5, tp.weight_numel)
    y = o3.spherical_harmonics(tp.irreps_in2, directions, True, "component")
    out = factorized(x, y, w, dst, src)
    assert not out[3].any()  # the isolated one
    assert out[:3].any()
    none = factorized(x, y[:0], w[:0], dst[:0], src[:0])
    assert none.shape == out.shape
    assert not none.any()


def test_gradients_against_finite_differences():
    tp = product("1x0e + 1x1o", 1)
    factorized = FactorizedTensorProduct(tp)
    dst, src, directions = edges(3, 2, seed=0)
    y = o3.spherical_harmonics(tp.irreps_in2, directions, True, "component").requires_grad_()
    x = torch.randn(3, tp.irreps_in1.dim, requires_grad=True)
    w = torch.randn(2, tp.weight_numel, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: factorized(*a, dst, src), (x, y, w))
    assert torch.autograd.gradgradcheck(lambda *a: factorized(*a, dst, src), (x, y, w))


def test_float32_stays_float32_and_constants_stay_out_of_the_state_dict():
    torch.set_default_dtype(torch.float32)
    tp = product("4x0e + 4x1o + 4x2e", 2)
    factorized = FactorizedTensorProduct(tp)
    assert not factorized.state_dict()
    assert {b.dtype for b in factorized.buffers() if b.is_floating_point()} == {torch.float32}
    dst, src, directions = edges(5, 12, seed=0)
    x, w = torch.randn(5, tp.irreps_in1.dim), torch.randn(12, tp.weight_numel)
    y = o3.spherical_harmonics(tp.irreps_in2, directions, True, "component")
    out = factorized(x, y, w, dst, src)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, stock(tp, x, y, w, dst, src), rtol=0, atol=1e-4)


# ---- the plan


def test_natural_parity_at_degree_one_needs_one_dot_product_only():
    blocks, kernels = plan_blocks(product("4x0e + 4x1o", 1, {"0e", "1o"}))
    assert [len(block.direct) for block in blocks] == [2, 1]
    assert [[run.dim for run in block.coupled] for block in blocks] == [[], [1]]
    assert kernels[0] is None
    assert kernels[1].shape == (4, 1 * 3)


def test_what_cannot_be_factorised_is_refused():
    shared = o3.TensorProduct("2x0e", "1x0e", "2x0e", [(0, 0, 0, "uvu", True)])
    channels = product("2x0e", 0)
    full = o3.FullyConnectedTensorProduct("2x0e", "1x0e", "2x0e", shared_weights=False)
    several = o3.TensorProduct(
        "2x0e", "3x0e", "2x0e", [(0, 0, 0, "uvu", True)],
        shared_weights=False, internal_weights=False,
    )  # fmt: skip
    added = o3.TensorProduct(
        "2x0e", "0e + 0e", "2x0e", [(0, 0, 0, "uvu", True), (0, 1, 0, "uvu", True)],
        shared_weights=False, internal_weights=False,
    )  # fmt: skip
    empty = product("2x0e + 0x1o", 1)
    refused = ((shared, "weights"), (full, "uvu"), (several, "several channels"), (added, "own"),
               (empty, "without channels"))  # fmt: skip
    for tp, word in refused:
        assert word in unsupported(tp)
        with pytest.raises(ValueError, match="cannot be factorised"):
            FactorizedTensorProduct(tp)
    assert unsupported(channels) is None


def test_signs_follow_the_product_itself():
    tp = product("3x0e + 2x1o + 2x2e", 2)
    turned = OtherSigns(tp, -1.0)
    blocks, _ = plan_blocks(tp)
    assert any(block.coupled for block in blocks)
    for path in range(len(tp.irreps_out)):
        turned.path = path
        assert_same(turned, *edges(4, 7, seed=2), num_nodes=4)
    turned.factor = 1.5
    with pytest.raises(ValueError, match="coefficients are not e3nn's"):
        FactorizedTensorProduct(turned)


def test_what_gains_nothing():
    assert not gains(product("4x0e", 0))
    assert not gains(product("512x0e", 0))
    assert gains(product("4x0e", 1))
    assert not gains(product("31x0e + 31x1o", 1, {"0e"}))  # a last layer with 62 outputs
    assert gains(product("32x0e + 32x1o", 1, {"0e"}))


def test_scalar_outputs_of_a_last_layer():
    tp = product("3x0e + 2x1o + 2x2e", 2, {"0e"})
    assert {ir.l for _, ir in tp.irreps_out} == {0}
    assert_same(tp, *edges(4, 7, seed=2), num_nodes=4)
