"""CUDA graphs: small systems spend their step launching kernels; a graph launches them all at once.

A graph repeats the same kernels on the same memory, and the number of pairs changes from step to
step. The model is therefore given buffers with room for more; what is left over points from one of
two extra atoms to the other, beyond the cutoff, where the cutoff function and its slope are exactly
zero. A graph is captured anew when pairs or atoms no longer suit the buffers.

No GPU has run this: what is tested, on a CPU, are the buffers, with a stand-in for the capture that
reads and writes the same memory, as a graph does. The speed has not been measured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from nequip.data import AtomicDataDict

from eqplugin.errors import EqPluginError, reason_of

Tensors = dict[str, torch.Tensor]
Run = Callable[[Tensors], Tensors]
# (run, inputs) -> what repeats the run on these very tensors, and where it leaves the outputs
Capture = Callable[[Run, Tensors], tuple[Callable[[], None], Tensors]]

_POSITIONS = AtomicDataDict.POSITIONS_KEY
_VECTORS = AtomicDataDict.EDGE_VECTORS_KEY
_INDEX = AtomicDataDict.EDGE_INDEX_KEY
_TYPES = AtomicDataDict.ATOM_TYPE_KEY

# room for this many times the pairs at hand, in whole blocks
_ROOM = 1.15
_BLOCK = 64
# above this many atoms kernels run longer than their launch: padding would only cost
MAX_ATOMS = 2000
_EXTRA_ATOMS = 2


class PaddedInput:
    """Tensors of fixed shape and place, filled with a structure's pairs step by step.

    Args:
        num_atoms: of the structure.
        num_pairs: there is room, ``capacity``, for these and some more.
        r_max: cutoff, A.
        like: input to take devices and dtypes from.

    Attributes:
        inputs: positions (num_atoms + 2, 3), edge vectors (capacity, 3), edge index (2, capacity)
            and atom types (num_atoms + 2,), under NequIP's names.
    """

    def __init__(self, num_atoms: int, num_pairs: int, r_max: float, like: Tensors) -> None:
        self.num_atoms = num_atoms
        self.capacity = _BLOCK * (int(_ROOM * num_pairs) // _BLOCK + 1)
        self._used = 0
        vectors, index = (like[key] for key in (_VECTORS, _INDEX))
        self._step = vectors.new_tensor([2.0 * r_max, 0.0, 0.0])
        self._link = index.new_tensor([[num_atoms], [num_atoms + 1]])
        rows = num_atoms + _EXTRA_ATOMS
        self.inputs = {
            # the model takes vectors; positions only tell it how many atoms there are
            _POSITIONS: like[_POSITIONS].new_zeros((rows, 3)),
            _VECTORS: self._step.expand(self.capacity, 3).clone(),
            _INDEX: self._link.expand(2, self.capacity).clone(),
            _TYPES: like[_TYPES].new_zeros(rows),
        }

    def suits(self, num_atoms: int, num_pairs: int) -> bool:
        """Tell whether a structure fits, and does not leave most of the room empty."""
        enough = num_pairs <= self.capacity
        wasted = self.capacity > 2 * _BLOCK and 2 * num_pairs < self.capacity
        return num_atoms == self.num_atoms and enough and not wasted

    def fill(self, inputs: Tensors) -> None:
        """Copy a structure in, and turn rows that the one before used into padding again."""
        pairs = inputs[_INDEX].shape[1]
        self.inputs[_POSITIONS][: self.num_atoms].copy_(inputs[_POSITIONS])
        self.inputs[_TYPES][: self.num_atoms].copy_(inputs[_TYPES])
        self.inputs[_VECTORS][:pairs].copy_(inputs[_VECTORS])
        self.inputs[_INDEX][:, :pairs].copy_(inputs[_INDEX])
        if pairs < self._used:
            self.inputs[_VECTORS][pairs : self._used] = self._step
            self.inputs[_INDEX][:, pairs : self._used] = self._link
        self._used = pairs


class CudaGraphRun:
    """A compiled model that is captured once and repeated, in place of the model.

    Args:
        run: the model, a dictionary to a dictionary; takes pair vectors, see
            :class:`eqplugin.calculator.compiled.CompiledBackend`.
        r_max: cutoff, A.
        capture: tests put a stand-in here; ``captures`` counts its calls.
    """

    def __init__(self, run: Run, r_max: float, capture: Capture | None = None) -> None:
        self._run, self._r_max = run, r_max
        self._capture = capture or capture_on_cuda
        self._buffers: PaddedInput | None = None
        self.captures = 0

    def __call__(self, inputs: Tensors) -> Tensors:
        """Return the model's outputs, with rows for the padding at their end.

        Raises:
            EqPluginError: when the model cannot be captured.
        """
        atoms, pairs = len(inputs[_POSITIONS]), inputs[_INDEX].shape[1]
        if atoms > MAX_ATOMS:
            return self._run(inputs)
        if self._buffers is None or not self._buffers.suits(atoms, pairs):
            self._renew(inputs, atoms, pairs)
        else:
            self._buffers.fill(inputs)
        self._replay()
        # the next step writes over them
        return {key: value.clone() for key, value in self._outputs.items()}

    def _renew(self, inputs: Tensors, atoms: int, pairs: int) -> None:
        self._buffers = None  # a failed capture leaves nothing behind
        buffers = PaddedInput(atoms, pairs, self._r_max, inputs)
        buffers.fill(inputs)
        try:
            self._replay, self._outputs = self._capture(self._run, buffers.inputs)
        except RuntimeError as error:
            raise EqPluginError(
                f"the compiled model could not be captured as a CUDA graph "
                f"({reason_of(error)[:200]}): use compile='aoti'."
            ) from error
        self._buffers = buffers
        self.captures += 1


def capture_on_cuda(run: Run, inputs: Tensors) -> tuple[Callable[[], None], Tensors]:
    """Capture a run, which must not wait for the device, as a CUDA graph where its inputs are.

    Returns:
        What launches the graph, and the memory that it writes; it reads that of the inputs.

    Source: torch.cuda.graph's recipe: warm up on a stream of its own, then capture.
    """
    device = inputs[_VECTORS].device
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run(inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = run(inputs)
    return graph.replay, outputs
