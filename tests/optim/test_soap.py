"""SOAP: its update on plain matrices, on blocks, in batches; states; bad input."""

import copy
import json
from pathlib import Path

import pytest
import torch
from e3nn import o3

from eqplugin.errors import EqPluginError
from eqplugin.optim import SOAP, block_groups, modes

RECORDED = Path(__file__).with_name("soap_of_pytorch_optimizer.json")


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class PaperSOAP:
    """Algorithm 3 of Vyas et al. for one matrix, as it stands there."""

    def __init__(self, w, lr, beta, eps, freq):
        self.w, self.lr, self.beta, self.eps, self.freq, self.t = w.clone(), lr, beta, eps, freq, 0
        self.m = torch.zeros_like(w)
        self.v = torch.zeros_like(w)

    def step(self, g):
        rest = 1 - self.beta
        if self.t == 0:
            self.left, self.right = rest * g @ g.T, rest * g.T @ g
            self.ql = torch.linalg.eigh(self.left)[1].flip(1)
            self.qr = torch.linalg.eigh(self.right)[1].flip(1)
            self.t = 1
            return self.w
        t = self.t
        self.m = self.beta * self.m + rest * g
        turned = self.ql.T @ g @ self.qr
        self.v = self.beta * self.v + rest * turned**2
        root = (self.v / (1 - self.beta**t)).sqrt() + self.eps
        mean = self.ql.T @ (self.m / (1 - self.beta**t)) @ self.qr
        self.w = self.w - self.lr * self.ql @ (mean / root) @ self.qr.T
        self.left = self.beta * self.left + rest * g @ g.T
        self.right = self.beta * self.right + rest * g.T @ g
        if t % self.freq == 0:
            rows = torch.argsort((self.ql.T @ self.left @ self.ql).diag(), descending=True)
            columns = torch.argsort((self.qr.T @ self.right @ self.qr).diag(), descending=True)
            self.ql = torch.linalg.qr(self.left @ self.ql[:, rows])[0]
            self.qr = torch.linalg.qr(self.right @ self.qr[:, columns])[0]
            self.v = self.v[rows][:, columns]
        self.t += 1
        return self.w


def gradients(shape, number=25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -1, shape[0]).view(-1, *([1] * (len(shape) - 1)))
    return [torch.randn(shape, generator=generator) * scale for _ in range(number)]


def walked(optimizer, parameters, steps):
    for grads in steps:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("freq", [1, 4, 100])
def test_update_on_a_matrix_is_the_papers(freq, monkeypatch):
    monkeypatch.setattr(modes, "SHIFT", 0.0)
    w = torch.randn(5, 4)
    paper = PaperSOAP(w, 0.1, 0.95, 1e-8, freq)
    p = torch.nn.Parameter(w.clone())
    soap = SOAP([p], lr=0.1, freq=freq, warmup=0)
    for grad in gradients((5, 4)):
        p.grad = grad.clone()
        soap.step()
        torch.testing.assert_close(p.detach(), paper.step(grad), rtol=1e-9, atol=1e-9)


def test_update_is_that_of_pytorch_optimizer():
    """Recorded with pytorch-optimizer 4.1.0, whose bases are float32."""
    recorded = json.loads(RECORDED.read_text())
    for shape, end in zip(recorded["shapes"], recorded["ends"], strict=True):
        p = torch.nn.Parameter(torch.ones(shape))
        soap = SOAP([p], lr=0.1, freq=recorded["freq"], warmup=0)
        (ours,) = walked(soap, [p], [[g] for g in gradients(shape)])
        torch.testing.assert_close(ours.flatten(), torch.tensor(end), rtol=0, atol=2e-4)


def test_blocks_of_a_linear_are_stepped_as_its_matrices():
    linear = o3.Linear("4x0e+3x1o+4x2e", "5x0e+3x1o+5x2e")
    views = [view.detach().clone() for view in linear.weight_views()]
    matrices = [torch.nn.Parameter(view) for view in views]
    # the blocks of one shape (4, 5) are one batch and share their turn, so each is on its own here
    alone = [SOAP([m], lr=0.1, freq=3, warmup=0) for m in matrices]
    whole = SOAP(block_groups(linear), lr=0.1, freq=3, warmup=0)
    turns = {(4, 5): 0, (3, 3): 1}
    for number in range(8):
        grads = [gradients(tuple(m.shape), 8, seed=i)[number] for i, m in enumerate(matrices)]
        linear.weight.grad = torch.cat([grad.flatten() for grad in grads])
        whole.step()
        for matrix, grad, soap in zip(matrices, grads, alone, strict=True):
            matrix.grad = grad
            soap.step()
        if number == 1:
            for view, matrix in zip(linear.weight_views(), matrices, strict=True):
                torch.testing.assert_close(view, matrix, rtol=0, atol=1e-13)
    for view, matrix in zip(linear.weight_views(), matrices, strict=True):
        if turns[tuple(matrix.shape)] == 0:
            torch.testing.assert_close(view, matrix, rtol=1e-11, atol=1e-11)


def test_a_shortened_basis_loses_nothing_where_gradients_have_no_more_directions():
    table = torch.randn(3, 8)
    steps = [torch.einsum("utw,tv->uvw", g, table) for g in gradients((4, 3, 5))]
    full, short = (torch.nn.Parameter(torch.ones(4, 8, 5)) for _ in range(2))
    walked(SOAP([full], lr=0.1, warmup=0, eps=1e-6), [full], [[g] for g in steps])
    group = {"params": [short], "blocks": [[(0, (4, 8, 5), (4, 3, 5))]]}
    soap = SOAP([group], lr=0.1, warmup=0, eps=1e-6)
    walked(soap, [short], [[g] for g in steps])
    torch.testing.assert_close(full, short, rtol=1e-5, atol=1e-5)
    state = next(iter(soap.state[short].values()))
    assert state["m"].shape == (1, 4, 3, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resumed_equals_straight_bitwise(dtype, tmp_path):
    shapes = [(4, 5), (4, 5), (6, 2, 3), (7,), (), (1, 4)]
    start = [torch.randn(shape, dtype=dtype) for shape in shapes]
    steps = [[torch.randn(s, dtype=dtype) for s in shapes] for _ in range(24)]

    def new(values):
        parameters = [torch.nn.Parameter(v.clone()) for v in values]
        return parameters, SOAP(parameters, lr=0.1, freq=3, warmup=5, weight_decay=0.1)

    parameters, soap = new(start)
    straight = walked(soap, parameters, steps)
    parameters, soap = new(start)
    half = walked(soap, parameters, steps[:11])
    torch.save(soap.state_dict(), tmp_path / "state.pt")
    parameters, soap = new(half)
    soap.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed = walked(soap, parameters, steps[11:])
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_weight_decay_warm_up_and_schedules_scale_steps():
    p = torch.nn.Parameter(torch.ones(3, 2))
    soap = SOAP([p], lr=0.1, warmup=10, weight_decay=0.5)
    walked(soap, [p], [[torch.zeros(3, 2)]] * 2)
    torch.testing.assert_close(p.detach(), torch.full((3, 2), 0.95**2))
    p, q = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    steps = [[g] for g in gradients((3, 2), 2)]
    walked(SOAP([p], lr=0.1, warmup=10), [p], steps)
    walked(SOAP([q], lr=0.01, warmup=0), [q], steps)
    torch.testing.assert_close(p, q)


def test_rounding_of_gradients_does_not_grow_where_they_leave_directions_out():
    """Otherwise two processes, which sum in another order, would train another model than one."""
    shapes = [(20, 3), (12, 1), (6, 8, 2)]
    steps = [[torch.randn(s) for s in shapes] for _ in range(15)]
    for part in steps:
        part[0][:, 0] = part[0][0, 0]
    other = [[g * (1 + 1e-15 * torch.randn_like(g)) for g in part] for part in steps]
    ends = []
    for grads in (steps, other):
        parameters = [torch.nn.Parameter(torch.ones(s)) for s in shapes]
        ends.append(walked(SOAP(parameters, lr=0.1, freq=4, warmup=0), parameters, grads))
    for one, two in zip(*ends, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def test_missing_gradients_frozen_parameters_and_closures():
    p, q, frozen = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(3))
    frozen.requires_grad_(False)
    soap = SOAP([p, q, frozen], lr=0.1, warmup=0)
    for _ in range(4):
        soap.zero_grad()
        loss = soap.step(lambda: backward((p**4).sum()))
    assert loss < 6
    assert (p < 1).all()
    for unmoved in (q, frozen):
        assert torch.equal(unmoved, torch.ones(3, 2))


def backward(loss):
    loss.backward()
    return float(loss.detach())


def test_weights_that_are_not_contiguous_are_stepped_too():
    p = torch.nn.Parameter(torch.ones(2, 3).T)
    q = torch.nn.Parameter(torch.ones(3, 2))
    steps = [[g] for g in gradients((3, 2), 5)]
    walked(SOAP([p], lr=0.1), [p], steps)
    walked(SOAP([q], lr=0.1), [q], steps)
    torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_copies_and_learning_rates_by_group_work():
    p, q = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    soap = SOAP([{"params": [p]}, {"params": [q], "lr": 0.0}], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(soap, T_max=5)
    walked(soap, [p, q], [[g, g] for g in gradients((3, 2), 3)])
    schedule.step()
    assert torch.equal(q, torch.ones(3, 2))
    assert not torch.equal(p, q)
    assert copy.deepcopy(soap).param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize(
    "options, words",
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"betas": (1.0, 0.9)}, "betas"),
        ({"freq": 0}, "freq=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_bad_numbers_are_one_sentence(options, words):
    with pytest.raises(EqPluginError, match=words):
        SOAP([torch.nn.Parameter(torch.ones(2))], **options)


def test_blocks_that_do_not_fit_are_refused():
    p = torch.nn.Parameter(torch.ones(6))
    for blocks in ([[(0, (2, 2), (2, 2))]], [[(0, (7,), (7,))]], []):
        with pytest.raises(EqPluginError, match=r"list of blocks|exactly once"):
            SOAP([{"params": [p], "blocks": blocks}])


def test_states_of_others_are_refused():
    p = torch.nn.Parameter(torch.ones(3, 2))
    for other in (torch.optim.Adam([p]), SOAP([torch.nn.Parameter(torch.ones(2, 3))])):
        with pytest.raises(EqPluginError, match="does not belong to SOAP on this model"):
            SOAP([p]).load_state_dict(other.state_dict())
