"""NequIP models compiled by NequIP with AOTInductor: ours (``compile="aoti"``), or a given file.

Ours take edge vectors and return their gradients: no strain, no second way through positions and
cell. A given ``.nequip.pt2`` takes what NequIP's ASE target takes.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from nequip.data import AtomicDataDict
from nequip.model.inference_models import load_compiled_model
from nequip.nn import graph_model
from nequip.nn.compile import DictInputOutputWrapper
from nequip.scripts._compile_utils import AOTI_ASE_TARGET, COMPILE_TARGET_DICT
from nequip.utils import aoti_metadata, global_state
from nequip.utils.aot import aot_export_model
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from eqplugin.calculator.cache import cache_directory, cached_file, compile_key
from eqplugin.calculator.cuda_graph import CudaGraphRun
from eqplugin.calculator.graph import Graph
from eqplugin.calculator.nequip_backend import (
    NequIPBackend,
    SpeciesMap,
    edge_cutoffs,
    from_gradient,
    positions_input,
    pruned,
)
from eqplugin.calculator.paired import PairedModel, can_be_paired
from eqplugin.errors import EqPluginError, reason_of
from eqplugin.modelfile.archive import check_archive
from eqplugin.modelfile.trust import check_code_file
from eqplugin.nequip.loading import prepare_session

_INPUTS = [
    AtomicDataDict.POSITIONS_KEY,  # not used by the model; NequIP's tracing counts atoms with it
    AtomicDataDict.EDGE_VECTORS_KEY,
    AtomicDataDict.EDGE_INDEX_KEY,
    AtomicDataDict.ATOM_TYPE_KEY,
]
_OUTPUTS = [AtomicDataDict.PER_ATOM_ENERGY_KEY, AtomicDataDict.EDGE_FORCE_KEY]
_SUFFIX = ".nequip.pt2"
# compiled code is made for two of each and more
_AT_LEAST = 2
log = logging.getLogger(__name__)


class CompiledBackend:
    """A model compiled by :func:`compile_backend`; it takes pairs if it is paired, else edges."""

    def __init__(self, run: torch.nn.Module, eager: NequIPBackend, paired: bool) -> None:
        self._run = run
        self._eager = eager
        self._paired = paired
        self.name, self.r_max = eager.name, eager.r_max
        self.species, self.dtype = eager.species, eager.dtype
        self.types_of, self.cutoffs = eager.types_of, eager.cutoffs

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """See :class:`eqplugin.calculator.graph.Backend`."""
        types = self.types_of(graph.numbers)
        if self._paired:
            index, vectors = graph.index, graph.vectors
        else:
            index, vectors, _ = pruned(graph.edges, types, self.cutoffs)
        inputs = {
            AtomicDataDict.POSITIONS_KEY: graph.positions,
            AtomicDataDict.EDGE_VECTORS_KEY: vectors,
            AtomicDataDict.EDGE_INDEX_KEY: index,
            AtomicDataDict.ATOM_TYPE_KEY: types,
        }
        out = self._run(_padded(inputs, self.r_max))
        gradient = out[AtomicDataDict.EDGE_FORCE_KEY][: len(vectors)]
        energies = out[AtomicDataDict.PER_ATOM_ENERGY_KEY].view(-1)[: graph.num_atoms].double()
        found = {"energy": energies.sum(), "energies": energies}
        return found | from_gradient(gradient, index, vectors, graph, want_stress)

    def descriptors(self, graph: Graph) -> NDArray:
        """See :class:`eqplugin.calculator.graph.Backend`; compiled code returns no features."""
        return self._eager.descriptors(graph)


class CompiledFile:
    """A ``.nequip.pt2`` made by ``nequip-compile --mode aotinductor --target ase``.

    Nothing is left of the model that it was compiled from: it cannot be checked here.

    Raises:
        EqPluginError: for a damaged file, another target or another device.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        species_to_type: Mapping[str, str] | None,
        trust: bool | None = None,
    ) -> None:
        prepare_session()
        check_archive(path, "not a compiled NequIP model")
        check_code_file(path, trust)
        self.name = str(path)
        target = COMPILE_TARGET_DICT[AOTI_ASE_TARGET]
        first = _first_of(device)
        try:
            self._run, metadata = load_compiled_model(
                str(path), first, list(target["input"]), list(target["output"])
            )
        except Exception as error:  # a damaged file fails in many ways
            raise EqPluginError(_loading_advice(path, device, error)) from error
        names = metadata[graph_model.TYPE_NAMES_KEY]
        self.types_of = SpeciesMap(names, species_to_type, self.name, device)
        self.species = self.types_of.species
        self.r_max = metadata[graph_model.R_MAX_KEY]
        self.dtype = getattr(torch, metadata[graph_model.MODEL_DTYPE_KEY])
        self.cutoffs = edge_cutoffs(metadata, names, device)

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """See :class:`eqplugin.calculator.graph.Backend`."""
        types = self.types_of(graph.numbers)
        inputs = positions_input(graph, pruned(graph.edges, types, self.cutoffs), types)
        out = self._run(_padded(inputs, self.r_max))
        energies = out[AtomicDataDict.PER_ATOM_ENERGY_KEY].view(-1)[: graph.num_atoms].double()
        forces = out[AtomicDataDict.FORCE_KEY][: graph.num_atoms]
        found = {"energy": energies.sum(), "energies": energies, "forces": forces}
        if want_stress:
            found["stress"] = out[AtomicDataDict.STRESS_KEY].view(3, 3)
        return found

    def descriptors(self, graph: Graph) -> NDArray:
        """Compiled code returns no features."""
        raise EqPluginError(
            f"the compiled file {self.name} returns no features: give the checkpoint or package."
        )


def compile_backend(
    eager: NequIPBackend, cache_dir: Path | None = None, cuda_graphs: bool = False
) -> CompiledBackend:
    """Compile a model for its device, or find it compiled already.

    The first time takes minutes, later ones a second.

    Args:
        eager: the model to compile.
        cache_dir: see :func:`eqplugin.calculator.cache.cache_directory`.
        cuda_graphs: run small systems as CUDA graphs, see :mod:`eqplugin.calculator.cuda_graph`.

    Raises:
        EqPluginError: when the model cannot be compiled.
    """
    if not eager.takes_vectors:
        raise EqPluginError(
            f"the model {eager.name} was made by a NequIP version too old to compile here: compile "
            f"it with nequip-compile and give the .nequip.pt2 file."
        )
    device = _first_of(eager.device)
    directory = cache_directory(cache_dir)
    paired = can_be_paired(eager.model)
    key = compile_key(eager.model, eager.device, (*eager.modifiers, paired))

    def load() -> CompiledBackend:
        path = cached_file(directory, key, _SUFFIX, lambda to: _compile(eager, paired, to))
        try:
            check_archive(path)
            run, _ = load_compiled_model(str(path), device, _INPUTS, _OUTPUTS)
        except Exception as error:
            path.unlink(missing_ok=True)
            raise EqPluginError(
                f"the compiled model {eager.name} cannot be loaded "
                f"({reason_of(error, named=True)[:200]}): run it without compile."
            ) from error
        if cuda_graphs:
            run = CudaGraphRun(_without_locks(path), eager.r_max)
        return CompiledBackend(run, eager, paired)

    known = (directory / f"{key}{_SUFFIX}").is_file()
    try:
        return load()
    except EqPluginError:
        if not known:
            raise
        return load()  # the file was damaged by something else: make it once more


def _without_locks(path: Path) -> torch.nn.Module:
    """The compiled model, loaded without what lets threads share it: that asks the device how far
    it is, which cannot be captured."""
    alone = torch._inductor.aoti_load_package(str(path), run_single_threaded=True)
    return DictInputOutputWrapper(alone, _INPUTS, _OUTPUTS)


def _compile(eager: NequIPBackend, paired: bool, path: Path) -> None:
    metadata = {
        **eager.model.metadata,
        **global_state.get_latest_global_state(only_metadata_related=True),
        aoti_metadata.NEQUIP_AOTI_INPUTS_KEY: aoti_metadata.serialize_aoti_keys(_INPUTS),
        aoti_metadata.NEQUIP_AOTI_OUTPUTS_KEY: aoti_metadata.serialize_aoti_keys(_OUTPUTS),
    }
    # as nequip-compile writes it: text only
    text = {k: str(int(v)) if isinstance(v, bool) else str(v) for k, v in metadata.items()}
    dim = torch.export.dynamic_shapes.Dim
    shapes = {
        "graph": torch.export.Dim.STATIC,
        "node": dim("num_nodes", min=_AT_LEAST, max=torch.inf),
        "edge": dim("num_pairs" if paired else "num_edges", min=_AT_LEAST, max=torch.inf),
    }
    model = copy.deepcopy(eager.model)
    what = f"compiling {eager.name} for {eager.device}: minutes, once"
    log.info(what)
    with Console(stderr=True, markup=False).status(Text(what)):
        try:
            aot_export_model(
                model=PairedModel(model) if paired else model,
                device=eager.device,
                input_fields=_INPUTS,
                output_fields=_OUTPUTS,
                data=_example(eager, paired),
                batch_map=shapes,
                output_path=str(path),
                inductor_configs={"aot_inductor.metadata": text},
            )
        except Exception as error:  # a missing compiler, a module that cannot be traced, ...
            raise EqPluginError(
                f"the model {eager.name} could not be compiled "
                f"({reason_of(error, named=True)[:200]}): check that a C++ compiler is installed, "
                f"or run it without compile."
            ) from error
    libraries = text.get(aoti_metadata.NEQUIP_CUSTOM_OPS_LIBS_KEY)
    if libraries:
        aoti_metadata.embed_custom_ops_libs(str(path), set(libraries.split()))


def _example(eager: NequIPBackend, paired: bool) -> dict[str, torch.Tensor]:
    """A structure to trace the model with: 24 atoms of all types, all pairs.

    No dimension of a weight should happen to equal a number of atoms or edges; NequIP traces with
    a second, smaller structure to be sure.
    """
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(torch.arange(2.0), torch.arange(3.0), torch.arange(4.0)).double()
    noise = torch.rand(grid.shape, generator=generator, dtype=torch.float64)
    positions = (grid + 0.2 * noise) * min(1.6, 0.25 * eager.r_max)
    index = torch.cartesian_prod(torch.arange(len(grid)), torch.arange(len(grid)))
    index = index[index[:, 0] < index[:, 1]].T.contiguous()
    if not paired:
        index = torch.cat((index, index.flip(0)), 1)
    data = {
        AtomicDataDict.POSITIONS_KEY: positions,
        AtomicDataDict.EDGE_INDEX_KEY: index,
        AtomicDataDict.EDGE_VECTORS_KEY: positions[index[1]] - positions[index[0]],
        AtomicDataDict.ATOM_TYPE_KEY: torch.arange(len(grid)) % len(eager.type_names),
    }
    return {key: value.to(eager.device) for key, value in data.items()}


def _padded(inputs: dict[str, torch.Tensor], r_max: float) -> dict[str, torch.Tensor]:
    """Add two atoms far away, and edges between them longer than the cutoff, where it takes them.

    Compiled code wants at least two atoms and two edges. The added edges carry nothing: the
    cutoff function is zero there, and so is its slope.
    """
    index = inputs[AtomicDataDict.EDGE_INDEX_KEY]
    positions = inputs[AtomicDataDict.POSITIONS_KEY]
    atoms = len(positions)
    if atoms >= _AT_LEAST and index.shape[1] >= _AT_LEAST:
        return inputs
    padded = dict(inputs)
    far = positions.new_tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]) * r_max + positions.amax(0)
    link = index.new_tensor([[atoms, atoms + 1], [atoms + 1, atoms]])
    types = inputs[AtomicDataDict.ATOM_TYPE_KEY]
    padded[AtomicDataDict.POSITIONS_KEY] = torch.cat((positions, far))
    padded[AtomicDataDict.EDGE_INDEX_KEY] = torch.cat((index, link), 1)
    padded[AtomicDataDict.ATOM_TYPE_KEY] = torch.cat((types, types[:1].expand(2)))
    step = far[1] - far[0]
    for key, rows in (
        (AtomicDataDict.EDGE_VECTORS_KEY, torch.stack((step, -step))),
        (AtomicDataDict.EDGE_CELL_SHIFT_KEY, torch.zeros_like(far)),
    ):
        if key in inputs:
            padded[key] = torch.cat((inputs[key], rows))
    return padded


def _first_of(device: torch.device) -> torch.device:
    """The device without its index, as NequIP writes it into compiled files."""
    if device.index:
        raise EqPluginError(
            f"compiled models run on the first device: set CUDA_VISIBLE_DEVICES={device.index} "
            f"and device='{device.type}'."
        )
    return torch.device(device.type)


def _loading_advice(path: Path, device: torch.device, error: Exception) -> str:
    if "was compiled for" in str(error):
        made_for = str(error).split("was compiled for `")[-1].split("`")[0]
        return f"{path} was compiled for {made_for} and cannot run on device={device}."
    if "do not match metadata" in str(error):
        return (
            f"{path} was compiled for another target: compile it with nequip-compile --target ase."
        )
    reason = reason_of(error, named=True)[:200]
    return f"{path} is damaged or not a compiled NequIP model ({reason})."
