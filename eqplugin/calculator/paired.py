"""Half the radial network: an edge and its reverse have one length, and so one set of weights.

NequIP evaluates its radial basis and its radial networks on every edge; they depend on the length
alone. Here the model is given each pair once, makes the edge vectors v and -v of it, and evaluates
the radial part on one of the two: the same function, and a third of a compiled step on a CPU.
"""

from __future__ import annotations

import torch
from nequip.data import AtomicDataDict

# graph modules that read the radial embedding in no other way than through `edge_mlp`;
# AtomwiseOperation, which holds a k-hop model's InvariantContraction, reads one field of the nodes
_KNOWN = {
    "GraphModel", "ForceStressOutput", "SequentialGraphNetwork", "NodeTypeEmbed",
    "SphericalHarmonicEdgeAttrs", "EdgeLengthNormalizer", "BesselEdgeLengthEncoding",
    "ApplyFactor", "ConvNetLayer", "InteractionBlock", "AvgNumNeighborsNorm",
    "NoOpGhostExchangeModule", "ScalarMLP", "PerTypeScaleShift", "AtomwiseReduce",
    "AtomwiseOperation", "AtomwiseLinear", "ZBL", "LennardJones", "SimpleLennardJones",
}  # fmt: skip


def can_be_paired(model: torch.nn.Module) -> bool:
    """Tell whether all of a NequIP model's modules are known to allow it.

    Cutoffs per pair of types do not: an edge may then be in the list and its reverse not.
    """
    if model.metadata.get("per_edge_type_cutoff") is not None:
        return False
    readers = [m for m in model.modules() if getattr(m, "_is_graph_module_mixin", False)]
    return all(type(m).__name__ in _KNOWN for m in readers) and any(
        type(m).__name__ == "BesselEdgeLengthEncoding" for m in readers
    )


class PairedModel(torch.nn.Module):
    """A NequIP model that takes pairs instead of edges.

    Input: edge vectors and edge index of the pairs, (num_pairs, 3) and (2, num_pairs), and atom
    types. Output: the model's, with the gradient for the pair vectors, (num_pairs, 3).

    Args:
        model: a GraphModel for which :func:`can_be_paired` is true; it is changed.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        _replace(model)
        self.model = model
        self.model_dtype = model.model_dtype

    def forward(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See the class."""
        vectors = data[AtomicDataDict.EDGE_VECTORS_KEY]
        index = data[AtomicDataDict.EDGE_INDEX_KEY]
        edges = {
            AtomicDataDict.EDGE_VECTORS_KEY: torch.cat((vectors, -vectors)),
            AtomicDataDict.EDGE_INDEX_KEY: torch.cat((index, index.flip(0)), 1),
            AtomicDataDict.ATOM_TYPE_KEY: data[AtomicDataDict.ATOM_TYPE_KEY],
        }
        out = dict(self.model(edges))
        pairs = vectors.shape[0]
        gradient = out[AtomicDataDict.EDGE_FORCE_KEY]
        out[AtomicDataDict.EDGE_FORCE_KEY] = gradient[:pairs] - gradient[pairs:]
        return out


def _replace(module: torch.nn.Module) -> None:
    for name, child in module.named_children():
        if type(child).__name__ == "BesselEdgeLengthEncoding":
            module._modules[name] = _HalfEncoding(child)
        elif type(child).__name__ == "InteractionBlock":
            child.edge_mlp = _BothWays(child.edge_mlp)
        else:
            _replace(child)


class _HalfEncoding(torch.nn.Module):
    """The radial basis of the first half of the edges."""

    def __init__(self, encoding: torch.nn.Module) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        key = self.encoding.norm_length_field
        lengths = data[key]
        data[key] = lengths[: lengths.shape[0] // 2]
        data = self.encoding(data)
        data[key] = lengths
        cutoff = data[AtomicDataDict.EDGE_CUTOFF_KEY]
        data[AtomicDataDict.EDGE_CUTOFF_KEY] = torch.cat((cutoff, cutoff))
        return data


class _BothWays(torch.nn.Module):
    """The radial network on half the edges, its weights for both halves."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        weights = self.network(embedding)
        return torch.cat((weights, weights))
