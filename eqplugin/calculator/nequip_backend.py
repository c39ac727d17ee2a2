"""NequIP models, eager: fed with edge vectors, so that forces and stress come from one gradient.

NequIP's models take edge vectors as well as positions (it is how LAMMPS calls them). With g_e the
gradient of the energy for the vector of edge e = (i, j), the force on an atom is the sum of g_e
over edges that leave it minus those that reach it, and the strain derivative is sum_e r_e g_e^T.
No strain has to enter the model, and the vectors are at hand from sorting out the edges.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase.data import atomic_numbers
from e3nn.o3 import Irreps
from nequip.data import AtomicDataDict
from nequip.nn import graph_model
from nequip.nn.embedding.utils import cutoff_str_to_fulldict
from numpy.typing import NDArray

from eqplugin.calculator.graph import Edges, Graph
from eqplugin.calculator.results import scalars_of
from eqplugin.errors import EqPluginError
from eqplugin.nequip.loading import prepare_session
from eqplugin.nequip.modify import modify_model

# these keep float64 buffers in a float32 model, as NequIP builds them
_ALWAYS_FLOAT64 = ("PerTypeScaleShift", "EdgeLengthNormalizer", "BesselEdgeLengthEncoding")


class SpeciesMap:
    """Atomic numbers to the model's atom types.

    Args:
        type_names: the model's, in its order.
        species_to_type: chemical symbol to type name; None: type names are chemical symbols.
        name: of the model, for messages.
        device: of the result.

    Raises:
        EqPluginError: for a name that is no type, or no symbol.
    """

    def __init__(
        self,
        type_names: Sequence[str],
        species_to_type: Mapping[str, str] | None,
        name: str,
        device: torch.device,
    ) -> None:
        names = list(type_names)
        chosen = species_to_type or {t: t for t in names}
        table = np.full(max(atomic_numbers.values()) + 1, -1, dtype=np.int64)
        for symbol, type_name in chosen.items():
            if symbol not in atomic_numbers:
                raise EqPluginError(
                    f"the model {name} has the atom type {type_name!r}, and {symbol!r} is not "
                    f"a chemical symbol: give species_to_type, e.g. {{'Cu': {type_name!r}}}."
                )
            if type_name not in names:
                raise EqPluginError(
                    f"species_to_type names the atom type {type_name!r}, which the model {name} "
                    f"does not have: its atom types are {', '.join(names)}."
                )
            table[atomic_numbers[symbol]] = names.index(type_name)
        self.species = tuple(int(z) for z in np.flatnonzero(table >= 0))
        self._table = table
        self._device = device
        self._known: tuple[NDArray, torch.Tensor] | None = None

    def __call__(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """Atom types, (num_atoms,); kept as long as the numbers are the same array."""
        if self._known is None or self._known[0] is not numbers:
            self._known = (numbers, torch.from_numpy(self._table[numbers]).to(self._device))
        return self._known[1]


def from_gradient(
    gradient: torch.Tensor,
    index: torch.Tensor,
    vectors: torch.Tensor,
    graph: Graph,
    want_stress: bool,
) -> dict[str, torch.Tensor]:
    """Forces, and stress if wanted, from the energy's gradient for edge (or pair) vectors."""
    forces = torch.zeros_like(graph.positions)
    forces.index_add_(0, index[0], gradient).index_add_(0, index[1], gradient, alpha=-1)
    found = {"forces": forces}
    if want_stress:
        strain = vectors.T @ gradient
        found["stress"] = 0.5 * (strain + strain.T) / graph.volume
    return found


def vectors_input(edges: Edges, types: torch.Tensor) -> dict[str, torch.Tensor]:
    """Input of models that take edge vectors."""
    return {
        # not the graph's own tensor: the model makes it require a gradient
        AtomicDataDict.EDGE_VECTORS_KEY: edges.vectors.clone(),
        AtomicDataDict.EDGE_INDEX_KEY: edges.index,
        AtomicDataDict.ATOM_TYPE_KEY: types,
    }


def positions_input(graph: Graph, edges: Edges, types: torch.Tensor) -> dict[str, torch.Tensor]:
    """Input of models that want positions, cell and shifts, as NequIP's ASE calculator gives it."""
    return {
        AtomicDataDict.POSITIONS_KEY: graph.positions.clone(),
        AtomicDataDict.EDGE_INDEX_KEY: edges.index,
        AtomicDataDict.ATOM_TYPE_KEY: types,
        AtomicDataDict.CELL_KEY: graph.cell.unsqueeze(0),
        AtomicDataDict.EDGE_CELL_SHIFT_KEY: edges.shifts,
    }


class NequIPBackend:
    """A NequIP GraphModel, run eagerly.

    Args:
        model: the GraphModel.
        name: what messages call it.
        device: where it runs.
        dtype: float32 or float64; None: the model's own. float64 costs about twice as much.
        modifiers: names of NequIP's model modifiers, e.g. ``enable_OpenEquivariance``.
        species_to_type: chemical symbol to type name; None: the names are symbols.
        owned: the model may be changed; otherwise a copy runs.

    Raises:
        EqPluginError: for a model without forces, unknown types, unknown or unsuitable modifiers.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        device: torch.device,
        dtype: torch.dtype | None = None,
        modifiers: Sequence[str] = (),
        species_to_type: Mapping[str, str] | None = None,
        owned: bool = False,
    ) -> None:
        prepare_session()
        self.name = name
        self.device = device
        self.modifiers = tuple(modifiers)
        model = _in_dtype(model if owned else copy.deepcopy(model), dtype)
        self.model = modify_model(model, self.modifiers, f"the model {name}", device)
        metadata = self.model.metadata
        self.type_names = metadata[graph_model.TYPE_NAMES_KEY].split(" ")
        self.types_of = SpeciesMap(self.type_names, species_to_type, name, device)
        self.species = self.types_of.species
        self.r_max = float(metadata[graph_model.R_MAX_KEY])
        self.dtype = self.model.model_dtype
        self.cutoffs = edge_cutoffs(metadata, self.type_names, device)
        outputs = self.model.irreps_out
        switches = (getattr(m, "do_derivatives", True) for m in self.model.modules())
        if AtomicDataDict.FORCE_KEY not in outputs or not all(switches):
            raise EqPluginError(
                f"the model {name} has no forces: build it with its force output "
                f"(do_derivatives: true)."
            )
        # models of earlier NequIP versions know positions only
        self.takes_vectors = AtomicDataDict.EDGE_FORCE_KEY in outputs

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """See :class:`eqplugin.calculator.graph.Backend`."""
        out, edges = self._run(graph)
        energies = out[AtomicDataDict.PER_ATOM_ENERGY_KEY].detach().view(-1).double()
        found = {
            "energy": out[AtomicDataDict.TOTAL_ENERGY_KEY].detach().view(()).double(),
            "energies": energies,
        }
        if self.takes_vectors:
            gradient = out[AtomicDataDict.EDGE_FORCE_KEY].detach()
            return found | from_gradient(gradient, edges.index, edges.vectors, graph, want_stress)
        found["forces"] = out[AtomicDataDict.FORCE_KEY].detach()
        if want_stress:
            found["stress"] = out[AtomicDataDict.STRESS_KEY].detach().view(3, 3)
        return found

    def descriptors(self, graph: Graph) -> NDArray:
        """Scalars (0e) of the last convolution: what the readout reads, (num_atoms, n)."""
        out, _ = self._run(graph)
        key = AtomicDataDict.NODE_FEATURES_KEY
        if key not in out or key not in self.model.irreps_out:
            raise EqPluginError(f"the model {self.name} returns no node features.")
        irreps = Irreps(str(self.model.irreps_out[key]))
        return scalars_of(out[key].detach().cpu().numpy(), irreps)

    def _run(self, graph: Graph) -> tuple[dict[str, torch.Tensor], Edges]:
        types = self.types_of(graph.numbers)
        edges = pruned(graph.edges, types, self.cutoffs)
        with torch.enable_grad():  # the caller may have switched gradients off
            if self.takes_vectors:
                return self.model(vectors_input(edges, types)), edges
            return self.model(positions_input(graph, edges, types)), edges


def edge_cutoffs(
    metadata: Mapping[str, object], type_names: Sequence[str], device: torch.device
) -> torch.Tensor | None:
    """Squared cutoffs per pair of types, A^2, (num_types, num_types); None: r_max for all."""
    given = metadata.get(graph_model.PER_EDGE_TYPE_CUTOFF_KEY)
    if given is None:
        return None
    table = cutoff_str_to_fulldict(given, type_names) if isinstance(given, str) else given
    rows = [[float(table[a][b]) for b in type_names] for a in type_names]
    return torch.tensor(rows, dtype=torch.float64, device=device).square()


def pruned(edges: Edges, types: torch.Tensor, cutoffs: torch.Tensor | None) -> Edges:
    """Leave out the edges beyond the cutoff of their pair of types."""
    if cutoffs is None:
        return edges
    ends = types.index_select(0, edges.index.reshape(-1)).view(2, -1)
    inside = edges.vectors.square().sum(1) <= cutoffs[ends[0], ends[1]]
    kept = inside.nonzero().view(-1)
    return Edges(
        edges.index.index_select(1, kept),
        edges.vectors.index_select(0, kept),
        edges.shifts.index_select(0, kept),
    )


def _in_dtype(model: torch.nn.Module, dtype: torch.dtype | None) -> torch.nn.Module:
    model = model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model if dtype in (None, model.model_dtype) else _converted(model, dtype)


def _converted(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Change a model's precision, and the dtypes that its modules noted when they were built."""
    before = model.model_dtype
    for module in model.modules():
        if type(module).__name__ not in _ALWAYS_FLOAT64 or dtype == torch.float64:
            for holder in (module._parameters, module._buffers):
                for key, tensor in holder.items():
                    if tensor is not None and tensor.dtype == before:
                        holder[key] = (
                            torch.nn.Parameter(tensor.to(dtype), requires_grad=False)
                            if isinstance(tensor, torch.nn.Parameter)
                            else tensor.to(dtype)
                        )
        for attribute in ("_output_dtype", "model_dtype"):
            if getattr(module, attribute, None) == before:
                setattr(module, attribute, dtype)
    model._metadata[graph_model.MODEL_DTYPE_KEY] = str(dtype).removeprefix("torch.")
    return model
