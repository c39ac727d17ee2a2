"""An accelerated model that has to agree with its float64 eager twin before it is used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.typing import NDArray

from eqplugin.calculator.graph import Backend, Graph
from eqplugin.errors import EqPluginError

# allowed difference of energies per atom (eV), forces (eV/A) and virial per atom (eV), relative to
# 1 + the largest force: an atom's energy is mostly its constant shift and would excuse anything.
# NequIP's own for float32; float64 leaves room for the order of summation.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 5e-5}
# units in the last place of the largest entry: what rounding alone may do to it
_ROUNDING = 16


class Checked:
    """A fast backend, compared with the plain model in float64 on the structures it is used for.

    The comparison runs on the first structure, and on the first that brings in a species not
    compared before: one eager float64 evaluation each time, seconds for thousands of atoms. The
    twin is built for it and dropped.

    Args:
        fast: the accelerated backend.
        reference: builds the twin.
    """

    def __init__(self, fast: Backend, reference: Callable[[], Backend]) -> None:
        self.fast = fast
        self.name, self.r_max = fast.name, fast.r_max
        self.species, self.dtype = fast.species, fast.dtype
        self.worst: dict[str, float] = {}
        self._reference = reference
        self._agreed: set[int] = set()

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """See :class:`eqplugin.calculator.graph.Backend`.

        Raises:
            EqPluginError: when the fast model disagrees.
        """
        present = set(graph.numbers.tolist())
        if present <= self._agreed:
            return self.fast.evaluate(graph, want_stress)
        stress = graph.volume > 0
        found = self.fast.evaluate(graph, stress)
        self._compare(found, self._reference().evaluate(graph, stress), graph)
        self._agreed |= present
        return found

    def descriptors(self, graph: Graph) -> NDArray:
        """See :class:`eqplugin.calculator.graph.Backend`."""
        return self.fast.descriptors(graph)

    def _compare(
        self, found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], graph: Graph
    ) -> None:
        scales = {"energies": 1.0, "forces": 1.0, "stress": graph.volume / graph.num_atoms}
        largest_force = float(wanted["forces"].abs().max())
        units = {"energies": "eV per atom", "forces": "eV/A", "stress": "eV per atom"}
        for key in wanted.keys() & scales.keys():
            reference = wanted[key] * scales[key]
            difference = float((found[key] * scales[key] - reference).abs().max())
            rounding = _ROUNDING * torch.finfo(self.dtype).eps * float(reference.abs().max())
            allowed = TOLERANCES[self.dtype] * (1.0 + largest_force) + rounding
            self.worst[key] = max(difference, self.worst.get(key, 0.0))
            if not difference <= allowed:  # NaN is refused, too
                raise EqPluginError(
                    f"the accelerated model {self.name} is refused: its {key} differ by "
                    f"{difference:.1e} {units[key]} from the plain model in float64, more than the "
                    f"{allowed:.1e} allowed; run it without compile and modifiers."
                )
