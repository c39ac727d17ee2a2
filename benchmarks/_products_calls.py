"""What is timed: inference, training steps, products and bare operators; for products.py."""

import os
from contextlib import contextmanager

import numpy as np
import torch

WIDEST = "layer1_convnet.conv.tp_scatter"


def waiting(call):
    """The call, ended when the GPU has done it."""

    def done():
        result = call()
        torch.cuda.synchronize()
        return result

    return done


def model_calls(model, data):
    def inference():
        return model({key: value.clone() for key, value in data.items()})["forces"].detach()

    def train():
        out = model({key: value.clone() for key, value in data.items()})
        loss = out["forces"].square().mean() + out["total_energy"].square().mean()
        loss.backward()
        model.zero_grad()

    return {"model train": train, "model inference": inference}


def product_inputs(product, data):
    """Random features, harmonics, radial weights and a cotangent for a product of the model."""
    num_nodes, num_edges = data["pos"].shape[0], data["edge_index"].shape[1]
    sizes = (
        (num_nodes, product.tp.irreps_in1.dim),
        (num_edges, product.tp.irreps_in2.dim),
        (num_edges, product.tp.weight_numel),
        (num_nodes, product.tp.irreps_out.dim),
    )
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(s, generator=generator, dtype=torch.float32).to(data["pos"].device)
        for s in sizes
    ]


def widest(model):
    """The product of the second layer."""
    return next(m for name, m in model.named_modules() if name.endswith(WIDEST))


def product_calls(model, data):
    """The widest product, with first and with second derivatives."""
    product = widest(model)
    dst, src = data["edge_index"]
    *inputs, cotangent = product_inputs(product, data)

    def first(create_graph):
        args = [value.clone().requires_grad_() for value in inputs]
        weight = cotangent.clone().requires_grad_(create_graph)
        out = product(*args, dst, src)
        return out, torch.autograd.grad(out, args, weight, create_graph=create_graph)

    def train():
        out, gradients = first(create_graph=True)
        (out.mean() + sum(gradient.square().mean() for gradient in gradients)).backward()

    return {"product train": train, "product inference": lambda: first(create_graph=False)}


def operator_calls(model, data):
    """The three C++ operators of the widest product, called as autograd calls them."""
    product = widest(model)
    plan = product.compiled.plan, product.compiled.coefficients.float()
    x, y, w, g = product_inputs(product, data)
    graph = (*data["edge_index"].unbind(), *plan)
    ops = torch.ops.eqplugin
    return {
        "operator": lambda: ops.uvu_scatter(x, y, w, *graph, g.shape[1]),
        "its backward": lambda: ops.uvu_scatter_backward(g, x, y, w, *graph),
        "and double": lambda: ops.uvu_scatter_double_backward(x, y, w, g, x, y, w, *graph),
    }


@contextmanager
def quiet():
    """The profiler announces itself on stderr, past Python."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def peak_memory(call, device):
    """Largest sum of live torch allocations during a call, in MB."""
    call()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with quiet(), torch.profiler.profile(profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return float(np.cumsum([event.nbytes() for event in events]).max(initial=0)) / 1e6
