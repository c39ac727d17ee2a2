"""The invariant contraction: invariance, how much it keeps, and what it cannot see."""

import pytest
import torch
from e3nn import o3

from eqplugin.design import CONTRACTIONS, Design
from eqplugin.nn.contraction import InvariantContraction

F64 = torch.float64
# contraction -> whether it sees one channel, and one degree, rotated against the others
SEES = {"power": (True, False), "bispectrum": (True, True)}
POLYNOMIAL = tuple(SEES)
IRREPS = [
    "6x0e",
    "5x0e + 2x1o",
    "7x0e + 6x1o + 5x2e",
    "4x0e + 3x0o + 4x1o + 5x1e + 3x2e + 2x2o",
    "4x0e + 4x1o + 4x2e + 4x3o + 4x4e",
]


@pytest.fixture(autouse=True)
def float64():
    """Build in float64 as NequIP does; converted later, coupling coefficients keep their errors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


def contraction(irreps, kind="bispectrum", out_features=7, seed=0, **options):
    torch.manual_seed(seed)
    return InvariantContraction(irreps, out_features, kind, **options)


def features(irreps, nodes=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(nodes, o3.Irreps(irreps).dim, dtype=F64, generator=generator)


def rotation(seed=0):
    torch.manual_seed(seed)
    return o3.rand_matrix(dtype=F64)


# ---- invariance


@pytest.mark.parametrize("irreps", IRREPS)
@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_invariant_under_rotation_and_inversion(kind, irreps):
    module, x = contraction(irreps, kind), features(irreps)
    for matrix in (rotation(), -torch.eye(3, dtype=F64), -rotation(1)):
        turned = x @ o3.Irreps(irreps).D_from_matrix(matrix).T
        for function in (module, module.invariants):
            before, after = function(x), function(turned)
            assert (before - after).abs().max() < 1e-12 * max(1.0, before.abs().max())
    assert module(x).std() > 1e-3
    assert module.irreps_out == o3.Irreps("7x0e")
    assert module(x).shape == (3, 7)
    assert module.invariants(x).shape == (3, module.num_invariants)


def test_inversion_of_the_wrong_parity_is_seen():
    # 1e x 1o is odd: had the contraction let such a product pass, it would look like this
    irreps = o3.Irreps("4x1o + 4x1e")
    x = features(irreps)
    pseudo = contraction("8x1e")
    inverted = x @ irreps.D_from_matrix(-torch.eye(3, dtype=F64)).T
    assert (pseudo(inverted) - pseudo(x)).abs().max() > 1e-3
    proper = contraction(irreps)
    assert (proper(inverted) - proper(x)).abs().max() < 1e-12


# ---- how many independent invariants are kept


def rank(irreps, kind):
    module = contraction(irreps, kind)
    x = features(irreps, nodes=1)
    jacobian = torch.autograd.functional.jacobian(module.invariants, x).squeeze()
    jacobian = jacobian / jacobian.norm(dim=1, keepdim=True).clamp(min=1e-300)
    values = torch.linalg.svdvals(jacobian)
    count = int((values > 1e-9 * values[0]).sum())
    if count < len(values):  # a clear step, not a slope
        assert values[count] < 1e-12 * values[0]
    return count


def power_rank(irreps):
    """Scalars, and the rank of the map from C vectors of dimension d to their Gram matrix."""
    total = 0
    for mul, ir in o3.Irreps(irreps):
        if ir.l == 0 and ir.p == 1:
            total += mul
        elif mul >= ir.dim:
            total += mul * ir.dim - ir.dim * (ir.dim - 1) // 2
        else:
            total += mul * (mul + 1) // 2
    return total


BUDGETS = [(32, 1), (64, 2), (128, 3), (100, 4), (180, 5), (200, 6)]


@pytest.mark.parametrize("feature_dim, l_max", BUDGETS)
def test_power_keeps_the_gram_matrices(feature_dim, l_max):
    irreps = Design(feature_dim, l_max).irreps
    assert rank(irreps, "power") == power_rank(irreps)


def test_power_at_128_keeps_94_of_125():
    irreps = Design(128, 3).irreps
    assert irreps == o3.Irreps("8x0e + 8x1o + 8x2e + 8x3o")
    assert rank(irreps, "power") == 94
    assert rank(irreps, "bispectrum") == 125


@pytest.mark.parametrize("feature_dim, l_max", BUDGETS)
def test_bispectrum_keeps_all_but_the_orientation(feature_dim, l_max):
    irreps = Design(feature_dim, l_max).irreps
    assert min(mul for mul, _ in irreps) >= 4
    assert rank(irreps, "bispectrum") == feature_dim - 3


def test_both_parities_keep_all_but_the_orientation():
    irreps = Design(96, 2, parity="both").irreps
    assert rank(irreps, "bispectrum") == 96 - 3


# ---- what each of them sees


@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_relative_rotation_of_two_degrees(kind):
    irreps = o3.Irreps("4x0e + 5x1o + 6x2e")
    module, x = contraction(irreps, kind), features(irreps)
    turn = irreps.D_from_matrix(rotation())
    only_l2 = turn.clone()
    only_l2[:19, :19] = torch.eye(19, dtype=F64)
    change = (module(x @ only_l2.T) - module(x)).abs().max()
    assert change > 1e-3 if SEES[kind][1] else change < 1e-12


@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_relative_rotation_of_two_channels(kind):
    irreps = o3.Irreps("4x0e + 4x1o")
    module, x = contraction(irreps, kind), features(irreps)
    changed = x.clone()
    changed[:, 4:7] = x[:, 4:7] @ rotation().T
    change = (module(changed) - module(x)).abs().max()
    assert change > 1e-3 if SEES[kind][0] else change < 1e-12


# ---- size


@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_large_features_grow_as_in_a_linear_layer(kind):
    module, x = contraction("4x0e + 5x1o + 6x2e", kind), features("4x0e + 5x1o + 6x2e")
    small, large = module.invariants(1e3 * x), module.invariants(1e5 * x)
    assert (large / small - 100).abs().max() < 1e-2
    assert (small / module.invariants(x)).abs().max() < 2.1e3  # undamped: 1e6 or 1e9


def test_several_resets_of_large_features_stay_finite_in_float32():
    """Undamped, the third power of the third power ... of 6 is infinite."""
    irreps = o3.Irreps("12x0e + 11x1o + 11x2e")
    layers = [contraction(irreps, out_features=irreps.dim, seed=n).float() for n in range(4)]
    x = start = (6 * features(irreps, nodes=20)).float().requires_grad_()
    for layer in layers:
        x = layer(x)  # scalars, taken for components of the next: only the size matters
    (force,) = torch.autograd.grad(x.sum(), start, create_graph=True)
    gradients = torch.autograd.grad(force.square().sum(), list(layers[0].parameters()))
    assert x.abs().max() < 1e4
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_scalars_are_kept_with_their_sign():
    module = contraction("4x0e + 4x1o", "power")
    x = features("4x0e + 4x1o")
    assert torch.equal(module.invariants(x)[:, :4], x[:, :4])


# ---- zero, smoothness, derivatives


@pytest.mark.parametrize("kind", POLYNOMIAL)
@pytest.mark.parametrize("irreps", IRREPS)
def test_zero_in_zero_out(irreps, kind):
    module = contraction(irreps, kind)
    x = torch.zeros(2, o3.Irreps(irreps).dim, dtype=F64, requires_grad=True)
    out = module(x)
    assert not out.any()
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.isfinite().all()  # smooth there, unlike a norm
    assert module(torch.ones_like(x)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_double_backward(kind):
    irreps = "2x0e + 2x1o + 2x2e"
    module = contraction(irreps, kind, out_features=2, bilinear_channels=2)
    x = features(irreps, nodes=1).requires_grad_()
    assert torch.autograd.gradcheck(module, x)
    assert torch.autograd.gradgradcheck(module, x)


@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_force_training_reaches_every_weight(kind):
    irreps = "2x0e + 4x1o + 4x2e"
    module, x = contraction(irreps, kind), features(irreps).requires_grad_()
    (force,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    force.square().sum().backward()
    for name, weight in module.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", POLYNOMIAL)
def test_nodes_are_independent_and_may_be_none(kind):
    irreps = "3x0e + 4x1o + 4x2e"
    module, x = contraction(irreps, kind), features(irreps, nodes=4)
    one_by_one = torch.cat([module(x[i : i + 1]) for i in range(4)])
    assert (module(x) - one_by_one).abs().max() < 1e-14
    assert module(x[:0]).shape == (0, 7)


def test_output_has_unit_scale_at_any_width():
    for feature_dim, l_max in ((32, 1), (512, 1), (512, 3)):
        irreps = Design(feature_dim, l_max).irreps
        out = contraction(irreps, out_features=64)(features(irreps, nodes=200))
        assert 0.3 < out.square().mean() < 3.0


# ---- construction


@pytest.mark.parametrize("kind", ["drop", "gram", ""])
def test_unknown_contraction(kind):
    with pytest.raises(ValueError, match=rf"contraction='{kind}'.*'power' or 'bispectrum'"):
        InvariantContraction("4x0e + 4x1o", 4, kind)


def test_no_outputs():
    with pytest.raises(ValueError, match="out_features=0"):
        InvariantContraction("4x0e + 4x1o", 0)


def test_every_contraction_is_tested_here():
    assert set(CONTRACTIONS) == {*SEES, "drop"}  # which needs no module


def test_repr():
    text = repr(contraction("4x0e + 4x1o", "power"))
    assert text == "InvariantContraction(power: 4x0e+4x1o -> 7x0e)"
