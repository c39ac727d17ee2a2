"""What the demo measures of a trained model: force errors, then NVE dynamics."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
from ase.io import read

from eqplugin.files import whole_file, write_json
from eqplugin.md.nve import NveRun, run_nve
from eqplugin.measure.forces import ForceErrors, Predictions, predict

__all__ = ["MD_STEPS", "TEMPERATURES", "load_errors", "load_nve", "load_parity", "measure"]

TEMPERATURES = (300, 600, 1200)
MD_STEPS = 4000  # of 0.5 fs: 2 ps
NUM_ATOMS = 9


def measure(model: Path, data: Path, fingerprint: str) -> None:
    """Write errors.json, parity.npz and nve.csv beside the model; skip what is there already.

    Runs in a process of its own, so it takes and leaves plain files.
    """
    warnings.filterwarnings("ignore")
    import torch

    from eqplugin.calculator import EqCalculator

    torch.set_num_threads(1)
    folder = model.parent
    stamp = folder / "measured.txt"
    if not stamp.is_file() or stamp.read_text() != fingerprint:
        for name in ("errors.json", "parity.npz", "nve.csv"):
            (folder / name).unlink(missing_ok=True)
        stamp.write_text(fingerprint)
    if (folder / "errors.json").is_file() and (folder / "nve.csv").is_file():
        return
    calculator = EqCalculator(str(model))
    if not (folder / "errors.json").is_file():
        _measure_errors(calculator, folder, data)
    if not (folder / "nve.csv").is_file():
        start = read(data / "test_300K.xyz", index=0)
        run_nve(start, calculator, folder / "nve.csv", steps=MD_STEPS, timestep=0.5)


def _measure_errors(calculator: object, folder: Path, data: Path) -> None:
    errors, parity = {}, {}
    for temperature in TEMPERATURES:
        predictions = predict(calculator, read(data / f"test_{temperature}K.xyz", index=":"))
        errors[temperature] = asdict(predictions.errors())
        parity[f"forces_{temperature}"] = predictions.forces
        parity[f"energies_{temperature}"] = predictions.energies
    with whole_file(folder / "parity.npz") as unfinished:
        np.savez_compressed(unfinished, **parity)
    write_json(folder / "errors.json", errors)


def load_errors(folder: Path) -> dict[int, ForceErrors]:
    """Errors by test temperature in K."""
    stored = json.loads((folder / "errors.json").read_text())
    return {int(temperature): ForceErrors(**values) for temperature, values in stored.items()}


def load_parity(folder: Path) -> dict[int, Predictions]:
    """Reference and predicted labels by test temperature in K."""
    with np.load(folder / "parity.npz") as stored:
        return {
            t: Predictions(stored[f"energies_{t}"], stored[f"forces_{t}"]) for t in TEMPERATURES
        }


def load_nve(folder: Path) -> NveRun:
    """The NVE run."""
    return NveRun.read(folder / "nve.csv", NUM_ATOMS)
