"""EqCalculator: any NequIP or MACE model in ASE."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from eqplugin.calculator.checks import (
    check_committee,
    check_outputs,
    check_species,
    parse_dtype,
)
from eqplugin.calculator.graph import Graph
from eqplugin.calculator.loading import Options, load_backend
from eqplugin.calculator.neighbors import choose_search
from eqplugin.calculator.results import COMMITTEE_PROPERTIES, PROPERTIES, as_results
from eqplugin.calculator.skin import SkinList
from eqplugin.errors import EqPluginError
from eqplugin.modelfile.trust import trusted
from eqplugin.process import evaluating
from eqplugin.stacks import parse_device
from eqplugin.structures import check_structure

# once the stress has been asked for, this many further calls compute it with the forces: dynamics
# at constant pressure asks for forces first and would otherwise evaluate the model twice a step
_STRESS_MEMORY = 8
_ASE_OPTIONS = ("label", "directory", "atoms")
Model: TypeAlias = str | Path | torch.nn.Module


class StressError(EqPluginError, PropertyNotImplementedError):
    """The stress of a structure without a volume."""


class _Lock:
    """A lock that a thread may take again; copies of a calculator have one each."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[_Lock], tuple[()]]:
        return _Lock, ()


class EqCalculator(Calculator):
    """ASE calculator for NequIP and MACE models, ours and theirs.

    Results: ``energy``, ``free_energy``, ``energies``, ``forces`` and, when asked for, ``stress``
    (Voigt, ASE's sign); eV, eV/A, eV/A^3. Several models make a committee, whose results are means
    and which also has ``energy_comm``, ``energy_var``, ``forces_comm``, ``forces_var``,
    ``stress_comm`` and ``stress_var`` in :attr:`results`.

    Numbers are those of the stacks' own calculators. Edges are searched by a library, within a
    skin, and are those of a search without one, in the same order: on a CPU a trajectory is the
    same to the last bit whatever the skin. Threads may share a calculator; each waits for its turn.

    Args:
        model: a file (NequIP checkpoint .ckpt, package .nequip.zip or compiled .nequip.pt2; MACE
            .model; .eqm of either), a live NequIP GraphModel or MACE model (a copy runs), or a
            list of them.
        device: ``"cpu"`` or ``"cuda"``.
        dtype: ``"float32"`` or ``"float64"``; None: the model's own. float64 costs about twice as
            much; it is for relaxations, phonons and finite differences.
        skin: A, of the neighbour list. 0.5 suits MD; a wider one is searched less often and sorts
            out more edges per step; 0 searches at every step. No number depends on it.
        neighbors: library that searches: ``"vesin"``, ``"matscipy"`` (CPU), ``"nvalchemi"`` (GPU),
            or ``"auto"``, the fastest that is installed.
        compile: ``"aoti"`` compiles a NequIP model with AOTInductor: minutes the first time, kept
            in ``cache_dir`` for later; 2 to 10 times as fast as eager on a CPU, most for small
            systems. Before its numbers are used they are compared with the plain model in float64
            on the structure at hand. ``"aoti-cudagraphs"``, on CUDA: systems of up to 2000 atoms
            also run as CUDA graphs, with about 15 % of pairs as padding; not measured yet. MACE
            models run eagerly.
        modifiers: names of NequIP model modifiers, such as ``enable_OpenEquivariance`` or
            ``enable_CuEquivariance`` on CUDA; checked like compiled models.
        species_to_type: chemical symbol to atom type of a NequIP model whose types are not
            symbols.
        head: of a MACE model with several.
        cache_dir: of compiled models; None: ``$EQPLUGIN_CACHE_DIR`` or ``~/.cache/eqplugin``.
        trust: None: a pickle (.ckpt, .model) is walked before it is opened, and refused where it
            would run what no honest file does; files that are code (.nequip.zip, .nequip.pt2) are
            opened silently where only you can have written them, else with a warning. True opens
            everything, False refuses code. None follows EQPLUGIN_TRUST_MODELS, 1 or 0.
        **kwargs: ASE's own: ``label``, ``directory``, ``atoms``.

    Raises:
        EqPluginError: for models, options and structures that cannot give a right answer; the
            sentence names the file, option, element or atom.
    """

    implemented_properties: list[str] = PROPERTIES

    def __init__(
        self,
        model: Model | Sequence[Model],
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        neighbors: str = "auto",
        compile: str | None = None,
        modifiers: Sequence[str] = (),
        species_to_type: Mapping[str, str] | None = None,
        head: str | None = None,
        cache_dir: str | Path | None = None,
        trust: bool | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            if name not in _ASE_OPTIONS:  # ASE takes any and says nothing
                raise EqPluginError(f"EqCalculator has no option {name!r}: see its documentation.")
        members = list(model) if isinstance(model, list | tuple) else [model]
        if not members:
            raise EqPluginError("the list of models is empty: give at least one model.")
        if isinstance(skin, bool) or not isinstance(skin, int | float) or not 0 <= skin < 100:
            raise EqPluginError(f"skin={skin!r} is not valid: give a width >= 0 in A.")
        self.device = parse_device(device)
        options = Options(
            device=self.device,
            dtype=parse_dtype(dtype),
            compile=compile,
            modifiers=(modifiers,) if isinstance(modifiers, str) else tuple(modifiers),
            species_to_type=species_to_type,
            head=head,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            trust=trusted(trust),
        )
        search = choose_search(neighbors, self.device)
        self.backends = [load_backend(member, options) for member in members]
        check_committee(self.backends)
        self.r_max = self.backends[0].r_max
        self.neighbors = SkinList(self.r_max, float(skin), search, self.device)
        self._lock = _Lock()
        self._name = ", ".join(backend.name for backend in self.backends)
        self._stress_calls = 0
        super().__init__(**kwargs)
        if len(members) > 1:
            self.implemented_properties = PROPERTIES + COMMITTEE_PROPERTIES

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows."""
        return self.backends[0].species

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """See ASE; threads that share a calculator wait for one another."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the models; ASE calls this, users call ``atoms.get_forces()`` and the like.

        Raises:
            EqPluginError: for structures and results that are not usable.
            StressError: when the stress is asked for and the cell has no volume.
        """
        with self._lock, evaluating():
            super().calculate(atoms, properties, system_changes)
            self.results = {}
            self.results = self._evaluate(properties)

    def _evaluate(self, properties: Sequence[str]) -> dict[str, Any]:
        asked = any(name.startswith("stress") for name in properties)
        graph = self._graph(self.atoms)
        if asked and not graph.volume > 0:
            raise StressError(
                "the stress needs a cell with a volume: set one, or do not ask for the stress."
            )
        self._stress_calls = _STRESS_MEMORY if asked else max(self._stress_calls - 1, 0)
        want_stress = self._stress_calls > 0 and graph.volume > 0
        outputs = []
        for backend in self.backends:
            out = backend.evaluate(graph, want_stress)
            check_outputs(out, graph, backend.name)
            outputs.append(out)
        return as_results(outputs)

    def get_descriptors(self, atoms: Atoms | None = None) -> NDArray | list[NDArray]:
        """Invariant features of each atom, for similarity and active learning.

        NequIP: the scalars (0e) after the last convolution. MACE: those after every layer, side by
        side.

        Args:
            atoms: the structure; None: the one of the last calculation.

        Returns:
            (num_atoms, num_features) of the model's dtype; for a committee a list.

        Raises:
            EqPluginError: without a structure, and for compiled files, which return no features.
        """
        with self._lock, evaluating():
            atoms = self.atoms if atoms is None else atoms
            if atoms is None:
                raise EqPluginError("get_descriptors needs a structure: give atoms.")
            graph = self._graph(atoms)
            found = [backend.descriptors(graph) for backend in self.backends]
        for features, backend in zip(found, self.backends, strict=True):
            if not np.isfinite(features).all():
                raise EqPluginError(
                    f"the model {backend.name} returned features that are not finite."
                )
        return found[0] if len(found) == 1 else found

    def _graph(self, atoms: Atoms) -> Graph:
        check_species(atoms, self.species, self._name)
        check_structure(atoms)
        return self.neighbors.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
