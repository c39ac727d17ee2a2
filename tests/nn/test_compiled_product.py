"""The C++ product against e3nn's in float64: values, every first and every second derivative."""

import copy
import io

import pytest
import torch
from compiled_product_under_test import (
    F64,
    Case,
    OtherSigns,
    largest_deviation,
    natural,
    nequip_product,
)
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from eqplugin.nn.product import compiled as compiled_product
from eqplugin.nn.product.compiled import CompiledProduct, load_operators, status
from eqplugin.nn.product.plan import why_not

if load_operators() is not None:
    pytest.skip(f"no compiled operators here: {load_operators()}", allow_module_level=True)

EXACT = 1e-12


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


def deviation(case):
    product = case.through(CompiledProduct(case.tp))
    return largest_deviation(case.derivatives(product), case.derivatives(case.stock))


# ---- the stock product's numbers


@pytest.mark.parametrize(
    "features, l_max, outputs",
    [
        ("16x0e", 0, None),
        ("16x0e + 8x1o", 1, None),
        ("3x0e + 2x0o + 4x1o + 5x1e + 2x2e + 3x2o", 2, None),
        (natural(3, (32, 9, 8, 7)), 3, None),
        (natural(4, (8, 1, 17, 2, 3)), 4, "5x0e"),  # a last layer: scalars only
        (natural(6, (3, 2, 2, 2, 2, 2, 2)), 6, None),
        ("4x1o + 2x0e + 3x1o", 2, "1x0e + 1x1o"),  # blocks of a degree twice, out of order
    ],
    ids=str,
)
def test_equals_the_stock_product(features, l_max, outputs):
    assert deviation(Case(nequip_product(features, l_max, outputs))) < EXACT


irrep_blocks = st.lists(
    st.tuples(st.integers(1, 19), st.tuples(st.integers(0, 3), st.sampled_from([-1, 1]))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None)
@given(
    features=irrep_blocks,
    outputs=irrep_blocks,
    l_max=st.integers(0, 3),
    nodes=st.integers(1, 6),
    edges=st.integers(0, 12),
    seed=st.integers(0, 10**6),
)
def test_equals_the_stock_product_for_random_irreps(features, outputs, l_max, nodes, edges, seed):
    # with the features among the outputs something always couples: every block with 0e
    tp = nequip_product(o3.Irreps(features), l_max, o3.Irreps(features + outputs))
    assert deviation(Case(tp, nodes, edges, seed)) < EXACT


def test_paths_may_share_an_output_block():
    tp = o3.TensorProduct(
        "4x0e + 4x1o", "1x0e + 1x1o", "4x0e + 4x1o",
        [(0, 0, 0, "uvu", True), (1, 1, 0, "uvu", True, 0.3), (0, 1, 1, "uvu", True)],
        shared_weights=False, internal_weights=False,
    )  # fmt: skip
    assert deviation(Case(tp)) < EXACT


def test_float32_is_as_close_to_float64_as_the_stock_product():
    exact = Case(nequip_product("7x0e + 6x1o + 5x2e", 2), edges=40)
    torch.set_default_dtype(torch.float32)
    single = Case(nequip_product("7x0e + 6x1o + 5x2e", 2), edges=40, dtype=torch.float32)
    torch.set_default_dtype(F64)
    expected = exact.derivatives(exact.stock)
    found = single.derivatives(single.through(CompiledProduct(single.tp)))
    assert all(t.dtype == torch.float32 for t in found)
    ours = largest_deviation([t.double() for t in found], expected)
    stock = largest_deviation([t.double() for t in single.derivatives(single.stock)], expected)
    assert ours < 2 * stock + 1e-7


def test_axes_aligned_edges():
    directions = torch.cat([torch.eye(3), -torch.eye(3)])
    graph = torch.tensor([[0, 1, 2, 3, 0, 1], [1, 2, 3, 0, 2, 3]])
    case = Case(nequip_product("3x0e + 3x1o + 3x2e + 2x1e", 3), nodes=4, graph=graph)
    case.inputs[1] = o3.spherical_harmonics(
        case.tp.irreps_in2, directions, normalize=True, normalization="component"
    )
    assert deviation(case) < EXACT


# ---- graphs


def test_no_edges_give_zeros():
    case = Case(nequip_product("4x0e + 4x1o", 1), nodes=3, edges=0)
    found = case.derivatives(case.through(CompiledProduct(case.tp)))
    assert found[0].shape == (3, case.tp.irreps_out.dim)
    assert all((t == 0).all() for t in found)


def test_no_nodes():
    tp = nequip_product("4x0e + 4x1o", 1)
    case = Case(tp, nodes=0, graph=torch.empty((2, 0), dtype=torch.int64))
    assert case.through(CompiledProduct(tp))(*case.inputs).shape == (0, tp.irreps_out.dim)


def test_isolated_atoms_get_nothing_and_give_nothing():
    graph = torch.tensor([[4, 0, 4], [0, 4, 2]])  # 1 and 3 are alone, 2 only sends
    case = Case(nequip_product("4x0e + 4x1o", 1), nodes=5, graph=graph)
    found = case.derivatives(case.through(CompiledProduct(case.tp)))
    assert (found[0][[1, 2, 3]] == 0).all()
    assert (found[1][[1, 3]] == 0).all()
    assert (found[1][2] != 0).any()
    assert deviation(case) < EXACT


def test_order_of_edges_does_not_matter():
    case = Case(nequip_product("4x0e + 4x1o + 4x2e", 2), nodes=6, edges=30)
    product = CompiledProduct(case.tp)
    x, y, w = case.inputs
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    shuffled = product(x, y[order], w[order], case.dst[order], case.src[order])
    torch.testing.assert_close(shuffled, product(x, y, w, case.dst, case.src), rtol=0, atol=1e-13)


def test_strided_inputs():
    case = Case(nequip_product("4x0e + 4x1o", 1))
    expected = case.derivatives(case.stock)
    case.inputs = [t.T.contiguous().T for t in case.inputs]
    case.grad = case.grad.T.contiguous().T
    case.dst, case.src = torch.stack([case.dst, case.src], 1).unbind(1)
    assert not case.inputs[0].is_contiguous()
    found = case.derivatives(case.through(CompiledProduct(case.tp)))
    assert largest_deviation(found, expected) < EXACT


def test_same_bits_on_any_number_of_threads():
    case = Case(nequip_product(natural(3, (32, 9, 8, 7)), 3), nodes=40, edges=500)
    product = case.through(CompiledProduct(case.tp))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(case.derivatives(product))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# ---- autograd and the compiler


def small_case():
    return Case(nequip_product("2x0e + 1x1o", 1), nodes=3, edges=4)


def test_numerical_derivatives():
    case = small_case()
    product = case.through(CompiledProduct(case.tp))
    inputs = [t.requires_grad_() for t in case.inputs]
    assert torch.autograd.gradcheck(product, inputs)
    assert torch.autograd.gradgradcheck(product, inputs)


def test_third_derivatives_equal_stock():
    case = small_case()

    def third(function):
        inputs = [t.detach().clone().requires_grad_() for t in case.inputs]
        value = function(*inputs)
        first = torch.autograd.grad(value.pow(2).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(t.pow(3).sum() for t in first), inputs, create_graph=True)
        return torch.autograd.grad(sum(t.sum() for t in second), inputs)

    expected = third(case.stock)
    assert largest_deviation(third(case.through(CompiledProduct(case.tp))), expected) < EXACT


def test_forward_mode_is_refused_not_answered_with_zero():
    case = Case(nequip_product("4x0e + 4x1o", 1))
    product = CompiledProduct(case.tp)
    x, *others = case.inputs
    with pytest.raises(NotImplementedError, match="reverse mode only"):
        torch.func.jvp(lambda x: case.through(product)(x, *others), (x,), (x,))


def test_one_pass_second_derivative_equals_the_composed_one():
    from eqplugin.nn.product.operators import _composed

    case = Case(nequip_product("5x0e + 3x1o + 2x2e", 2))
    product = CompiledProduct(case.tp)
    arguments = (*case.tangents, case.grad, *case.inputs, case.dst, case.src, product.plan,
                 product.coefficients)  # fmt: skip
    fused = torch.ops.eqplugin.uvu_scatter_double_backward(*arguments)
    assert largest_deviation(fused, _composed(*arguments)) < EXACT


@pytest.mark.parametrize("order", [0, 1, 2])
def test_operators_are_well_behaved(order):
    """torch's own checks: schema, fake tensors, autograd registration, tracing with any shapes."""
    case = small_case()
    product = CompiledProduct(case.tp)
    graph = (case.dst, case.src, product.plan, product.coefficients)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    grad = case.grad.clone().requires_grad_()
    operator, arguments = [
        (torch.ops.eqplugin.uvu_scatter, (*inputs, *graph, product.dim_out)),
        (torch.ops.eqplugin.uvu_scatter_backward, (grad, *inputs, *graph)),
        (torch.ops.eqplugin.uvu_scatter_double_backward,
         (*case.tangents, case.grad, *case.inputs, *graph)),
    ][order]  # fmt: skip
    torch.library.opcheck(operator.default, arguments)


def test_fused_second_derivative_refuses_to_be_differentiated():
    case = small_case()
    product = CompiledProduct(case.tp)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    found = torch.ops.eqplugin.uvu_scatter_double_backward(
        *case.tangents, case.grad, *inputs, case.dst, case.src, product.plan, product.coefficients
    )
    with pytest.raises(NotImplementedError, match="create_graph"):
        found[0].sum().backward()


def test_export_keeps_sizes_open():
    case = Case(nequip_product("4x0e + 4x1o", 1), nodes=6, edges=12)
    product = CompiledProduct(case.tp)
    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    rows = ({0: nodes}, {0: edges}, {0: edges}, {0: edges}, {0: edges})
    exported = torch.export.export(product, (*case.inputs, case.dst, case.src), dynamic_shapes=rows)
    other = Case(case.tp, nodes=9, edges=31, seed=5)
    found = exported.module()(*other.inputs, other.dst, other.src)
    assert largest_deviation([found], [other.stock(*other.inputs)]) < EXACT


# ---- the module


def test_copies_and_pickles_without_touching_the_state_dict():
    case = Case(nequip_product("4x0e + 4x1o", 1))
    product = CompiledProduct(case.tp)
    assert not product.state_dict()
    stream = io.BytesIO()
    torch.save(product, stream)
    stream.seek(0)
    expected = case.stock(*case.inputs)
    for other in (copy.deepcopy(product), torch.load(stream, weights_only=False)):
        assert largest_deviation([case.through(other)(*case.inputs)], [expected]) < EXACT


def test_signs_follow_the_product_itself():
    case = Case(OtherSigns(nequip_product("4x0e + 4x1o", 1), -1.0))
    assert deviation(case) < EXACT


def test_refuses_a_product_with_other_coefficients():
    with pytest.raises(ValueError, match="are not e3nn's"):
        CompiledProduct(OtherSigns(nequip_product("4x0e + 4x1o", 1), 1.5))


def product_of(instruction, **options):
    return o3.TensorProduct(
        "4x0e", "1x0e", "4x0e", [instruction],
        **{"shared_weights": False, "internal_weights": False, **options},
    )  # fmt: skip


@pytest.mark.parametrize(
    "tp, reason",
    [
        (product_of((0, 0, 0, "uvw", True)), "uvu"),
        (product_of((0, 0, 0, "uvu", False)), "uvu"),
        (product_of((0, 0, 0, "uvu", True), shared_weights=True), "per edge"),
        (o3.TensorProduct("2x0e", "2x0e", "2x0e", [(0, 0, 0, "uvu", True)],
                          shared_weights=False, internal_weights=False), "several copies"),
        (nequip_product("1x7o", 0), "degree 7"),
        (nequip_product("2x0e + 0x1o", 1), "without channels"),
        (nequip_product("2x0e", 0).to(torch.float16), "float16"),
    ],
    ids=["uvw", "unweighted", "shared", "copies", "degree", "no channels", "half precision"],
)  # fmt: skip
def test_refuses_other_products(tp, reason):
    assert reason in why_not(tp)
    with pytest.raises(ValueError, match=reason):
        CompiledProduct(tp)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": lambda t: t[:, :-1]}, "x must have shape"),
        ({"y": lambda t: t[:-1]}, "w must have shape"),
        ({"w": lambda t: t.float()}, "w is"),
        ({"dst": lambda t: t + 100}, "not one of the 5 nodes"),
        ({"src": lambda t: t - 100}, "not one of the 5 nodes"),
        ({"dst": lambda t: t.int()}, "int64"),
    ],
    ids=["x-shape", "y-edges", "w-dtype", "dst-too-high", "src-negative", "dst-int32"],
)
def test_wrong_inputs_are_told_apart(change, message):
    case = Case(nequip_product("4x0e + 4x1o", 1))
    named = dict(zip(("x", "y", "w"), case.inputs, strict=True), dst=case.dst, src=case.src)
    for name, function in change.items():
        named[name] = function(named[name])
    with pytest.raises(RuntimeError, match=message):
        CompiledProduct(case.tp)(*named.values())


@pytest.mark.parametrize("length", [0, 3, -1])
def test_damaged_plan_is_refused(length):
    case = Case(nequip_product("4x0e + 4x1o", 1))
    product = CompiledProduct(case.tp)
    product.plan = product.plan[:length]
    with pytest.raises(RuntimeError, match="damaged plan"):
        case.through(product)(*case.inputs)


def test_status_tells_of_the_library():
    found = status()
    assert found.available
    assert "built" in found.found
    assert found == compiled_product.Status(True, found.found, "")
