"""Products as NequIP builds them, graphs, and the stock module they are compared with."""

from __future__ import annotations

import torch
from e3nn import o3
from nequip.nn.utils import scatter

F64 = torch.float64


def nequip_product(features, l_max, outputs=None):
    """NequIP's tensor product of a layer: features with harmonics up to l_max, sorted outputs."""
    features, outputs = o3.Irreps(features), o3.Irreps(outputs or features)
    harmonics = o3.Irreps.spherical_harmonics(l_max)
    middle, instructions = [], []
    for i, (mul, ir) in enumerate(features):
        for j, (_, ir_edge) in enumerate(harmonics):
            for ir_out in ir * ir_edge:
                if ir_out in outputs:
                    instructions.append((i, j, len(middle), "uvu", True))
                    middle.append((mul, ir_out))
    middle, place, _ = o3.Irreps(middle).sort()
    instructions = [(i, j, place[k], mode, train) for i, j, k, mode, train in instructions]
    return o3.TensorProduct(
        features, harmonics, middle, instructions, shared_weights=False, internal_weights=False
    )


def natural(l_max, muls):
    """Irreps of natural parity with the given multiplicities."""
    return o3.Irreps(
        [(mul, (degree, (-1) ** degree)) for degree, mul in enumerate(muls[: l_max + 1])]
    )


class Case:
    """Random inputs of one product on one graph, edges in random order."""

    def __init__(self, tp, nodes=5, edges=11, seed=0, dtype=F64, graph=None):
        self.tp, self.nodes = tp, nodes
        random = {"generator": torch.Generator().manual_seed(seed)}
        if graph is None:
            graph = torch.randint(nodes, (2, edges), **random)
        self.dst, self.src = graph
        edges = self.dst.shape[0]
        shapes = [(nodes, tp.irreps_in1.dim), (edges, tp.irreps_in2.dim), (edges, tp.weight_numel)]
        self.inputs = [torch.randn(s, dtype=F64, **random).to(dtype) for s in shapes]
        self.tangents = [torch.randn(s, dtype=F64, **random).to(dtype) for s in shapes]
        self.grad = torch.randn((nodes, tp.irreps_out.dim), dtype=F64, **random).to(dtype)

    def stock(self, x, y, w):
        return scatter(self.tp(x[self.src], y, w), self.dst, dim=0, dim_size=self.nodes)

    def through(self, product):
        return lambda x, y, w: product(x, y, w, self.dst, self.src)

    def derivatives(self, function):
        """Return value, three first derivatives and four derivatives of those along tangents."""
        inputs = [t.detach().clone().requires_grad_() for t in self.inputs]
        grad = self.grad.clone().requires_grad_()
        value = function(*inputs)
        first = torch.autograd.grad(value, inputs, grad, create_graph=True)
        second = torch.autograd.grad(first, (*inputs, grad), self.tangents)
        return [value.detach(), *(t.detach() for t in first), *second]


def largest_deviation(found, expected):
    """Largest difference in units of the largest entry of each tensor (at least 1)."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if b.numel():
            worst = max(worst, ((a - b).abs().max() / b.abs().max().clamp(min=1)).item())
    return worst


class OtherSigns(torch.nn.Module):
    """A product from an e3nn that defines the coefficients of one path differently."""

    def __init__(self, tp, factor, path=1):
        super().__init__()
        self.tp, self.factor, self.path = tp, factor, path

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.tp, name)

    def forward(self, *arguments):
        out = self.tp(*arguments).clone()
        out[:, self.tp.irreps_out.slices()[self.path]] *= self.factor
        return out
