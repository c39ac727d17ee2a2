"""Error metrics over frames, elements and groups; what is not labelled is None, never zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from eqplugin.measure.forces import FrameResult

__all__ = ["ErrorMetrics", "error_metrics", "metrics_by_config_type", "metrics_by_element"]


@dataclass(frozen=True)
class ErrorMetrics:
    """Errors of a model on a set of frames; None where no frame has the label, or no prediction."""

    frames: int  # number of frames
    energy_mae: float | None = None  # per atom, meV; mean over frames
    energy_rmse: float | None = None  # per atom, meV
    energy_max: float | None = None  # the largest error of a frame, per atom, meV
    # per atom, meV, after the mean error of the frames of one composition is taken out: what
    # remains matters to dynamics, the rest only to formation energies. Over compositions of two
    # frames or more: of one frame alone nothing would remain
    relative_energy_mae: float | None = None
    force_mae: float | None = None  # over components, meV/A
    force_rmse: float | None = None  # over components, meV/A
    force_max: float | None = None  # the largest error of a component, meV/A
    # mean cosine between predicted and reference force on an atom
    force_cosine: float | None = None
    force_rms: float | None = None  # of the reference, meV/A: what an error has to be compared with
    # over the nine entries of the tensor, as NequIP and MACE count, meV/A^3
    stress_mae: float | None = None
    stress_rmse: float | None = None  # over the nine entries, meV/A^3
    stress_max: float | None = None  # the largest error of a component, meV/A^3


def error_metrics(results: Sequence[FrameResult]) -> ErrorMetrics:
    """All metrics over the frames."""
    vectors = _stacked((r.forces for r in results if r.forces is not None), (3, 2))
    return ErrorMetrics(
        len(results), **_energy_errors(results), **_force_errors(vectors), **_stress_errors(results)
    )


def metrics_by_config_type(results: Sequence[FrameResult]) -> dict[str, ErrorMetrics]:
    """The metrics for each ``config_type``, in the order of first appearance."""
    names = dict.fromkeys(result.config_type for result in results)
    return {name: error_metrics([r for r in results if r.config_type == name]) for name in names}


def metrics_by_element(results: Sequence[FrameResult]) -> dict[str, ErrorMetrics]:
    """The force metrics over the atoms of each element, by atomic number."""
    numbers = np.unique(np.concatenate([result.numbers for result in results]))
    table = {}
    for number in numbers:
        vectors = [r.forces[r.numbers == number] for r in results if r.forces is not None]
        frames = sum(number in result.numbers for result in results)
        metrics = _force_errors(_stacked(vectors, (3, 2)))
        table[chemical_symbols[number]] = ErrorMetrics(frames, **metrics)
    return table


def _stacked(arrays: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.empty((0, *shape)), *arrays])


def _energy_errors(results: Sequence[FrameResult]) -> dict[str, float | None]:
    labelled = [result for result in results if result.energy is not None]
    if not labelled:
        return {}
    pairs = np.array([result.energy for result in labelled])
    error = (pairs[:, 1] - pairs[:, 0]) / [len(result.numbers) for result in labelled]
    compositions = [tuple(np.sort(r.numbers).tolist()) for r in labelled]
    relative = np.full(len(error), np.nan)
    for composition in set(compositions):
        same = np.array([c == composition for c in compositions])
        if same.sum() > 1:
            relative[same] = error[same] - error[same].mean()
    comparable = relative[np.isfinite(relative)]
    mean = 1e3 * float(np.abs(comparable).mean()) if len(comparable) else None
    return {**_summary("energy", error), "relative_energy_mae": mean}


def _force_errors(vectors: np.ndarray) -> dict[str, float | None]:
    """Metrics of forces (num_atoms, 3, 2)."""
    if not len(vectors):
        return {}
    reference, predicted = vectors[..., 0], vectors[..., 1]
    return {
        **_summary("force", predicted - reference),
        "force_cosine": _mean_cosine(reference, predicted),
        "force_rms": 1e3 * _rms(reference),
    }


def _mean_cosine(one: np.ndarray, other: np.ndarray) -> float | None:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    defined = norms > 0  # a zero force has no direction
    if not defined.any():
        return None
    return float(((one * other).sum(axis=1)[defined] / norms[defined]).mean())


def _stress_errors(results: Sequence[FrameResult]) -> dict[str, float]:
    pairs = _stacked((r.stress for r in results if r.stress is not None), (2,))
    if not len(pairs):
        return {}
    voigt = np.diff(pairs.reshape(-1, 6, 2))[..., 0]
    error = np.concatenate([voigt, voigt[:, 3:]], axis=1)  # yz, xz, xy stand twice in the tensor
    return _summary("stress", error)


def _summary(label: str, error: np.ndarray) -> dict[str, float]:
    """Mean, root mean square and maximum of errors, in thousandths of their unit."""
    return {
        f"{label}_mae": 1e3 * float(np.abs(error).mean()),
        f"{label}_rmse": 1e3 * _rms(error),
        f"{label}_max": 1e3 * float(np.abs(error).max()),
    }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
