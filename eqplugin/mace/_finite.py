"""A loss that stops a training at its first value that is not finite, and says which frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.structures import read_frames

_PREDICTED = ("energy", "forces", "stress", "virials", "dipole", "polarizability")
_SAME_PLACE = 1e-3  # A; float32 keeps positions of 1000 A to 1e-4


class NotFinite(EqPluginError):
    """A loss or weights that are NaN or infinite."""


class FiniteLoss(torch.nn.Module):
    """One of MACE's losses; NaN and infinity are raised before they reach the weights.

    Args:
        loss: MACE's.
        when: says what is going on, such as ``"epoch 3"``.
        name_frame: gives the name of a frame by its positions, (num_atoms, 3).
    """

    def __init__(
        self, loss: torch.nn.Module, when: Callable[[], str], name_frame: Callable[[NDArray], str]
    ) -> None:
        super().__init__()
        self.loss, self.when, self.name_frame = loss, when, name_frame

    def forward(self, ref: Any, pred: Mapping[str, Any], ddp: bool | None = None) -> torch.Tensor:
        """The loss of a batch.

        Raises:
            NotFinite: naming the first frame of the batch that is to blame.
        """
        value = self.loss(ref=ref, pred=pred, ddp=ddp)
        if not bool(torch.isfinite(value)):
            graph = _first_bad(ref, pred)
            positions = ref["positions"][ref.batch == graph].detach().cpu().numpy()
            raise NotFinite(
                f"The loss is not finite in {self.when()}, first for {self.name_frame(positions)}: "
                f"lower --lr, or correct the frame; the checkpoints are those of the last finite "
                f"epoch."
            )
        return value


def _first_bad(ref: Any, pred: Mapping[str, Any]) -> int:
    """Place in the batch of the first frame with a label or a prediction that is not finite."""
    size = int(ref.num_graphs)
    bad = torch.zeros(size, dtype=torch.bool)
    for name in _PREDICTED:
        found = pred.get(name)
        for values in (found, None if found is None else ref[name]):
            if values is None or values.numel() == 0:
                continue
            rows = values.detach().cpu().reshape(len(values), -1)
            rows_bad = ~torch.isfinite(rows).all(dim=1)
            if name == "forces":
                bad[ref.batch.cpu()[rows_bad]] = True
            elif len(rows) == size:
                bad |= rows_bad
    return int(bad.int().argmax())  # the first of all, where squares or sums alone overflow


def require_finite(parameters: Iterable[torch.Tensor], what: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        NotFinite: beginning with ``what``.
    """
    if not all(bool(torch.isfinite(values).all()) for values in parameters):
        raise NotFinite(
            f"{what} are not finite: lower --lr; the checkpoints are those of the last finite "
            f"epoch."
        )


def frame_namer(files: Sequence[str]) -> Callable[[NDArray], str]:
    """What names a frame by its positions: the file and the place in it, where it is in a file.

    MACE shuffles frames and forgets where they are from, so they are looked for when need be.
    """

    def name(positions: NDArray) -> str:
        for path in files:
            for index, atoms in enumerate(read_frames(path)):
                if len(atoms) == len(positions) and np.allclose(
                    atoms.positions, positions, atol=_SAME_PLACE
                ):
                    return f"{path}, frame {index}"
        return f"a frame of {len(positions)} atoms"

    return name
