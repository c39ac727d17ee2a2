"""Time of a training step and of an inference call at constant feature dimension.

All models are built once and timed in turn (A B C A B C ...), so that a slow moment of the machine
hits all alike; ratios are medians of per-round ratios to the baseline, the steerable model with
L = 1, measured in the same run.

    python benchmarks/model_cost.py                   # D = 512, four layers, one thread
    python benchmarks/model_cost.py --feature-dim 128 --rounds 10 --threads 2
"""

import argparse
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.utils.global_state import set_global_state
from rich.console import Console
from rich.progress import track
from rich.table import Table

from eqplugin.files import write_json
from eqplugin.measure.machine import commit, processor_name
from eqplugin.nequip import KHopInvariantModel, SteerableModel

ROOT = Path(__file__).resolve().parents[1]
R_MAX = 5.0
TYPES = ["H", "C", "O"]


def models(feature_dim, num_layers):
    common = {
        "seed": 0,
        "model_dtype": "float32",
        "type_names": TYPES,
        "r_max": R_MAX,
        "avg_num_neighbors": 8.0,
        "feature_dim": feature_dim,
        "num_layers": num_layers,
    }
    scalars = feature_dim // 4
    built = {"steerable L=1": SteerableModel(l_max=1, **common)}
    for l_max in (0, 2, 3, 4):
        built[f"steerable L={l_max}"] = SteerableModel(l_max=l_max, **common)
    for hops in (2, 1):
        for width in (scalars, feature_dim):
            built[f"{hops}-hop L=1, reset keeps {width}"] = KHopInvariantModel(
                l_max=1, hops=hops, reset_width=width, **common
            )
    return built


def batch(num_frames):
    frames = read(ROOT / "examples" / "data" / "ethanol_xtb" / "train_300K.xyz", f":{num_frames}")
    mapper = ChemicalSpeciesToAtomTypeMapper(TYPES, {t: t for t in TYPES})
    neighbours = NeighborListTransform(r_max=R_MAX)
    return AtomicDataDict.batched_from_list([neighbours(mapper(from_ase(a))) for a in frames])


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def training_step(model, data):
    def step():
        out = model({key: value.clone() for key, value in data.items()})
        loss = out["forces"].square().mean() + out["total_energy"].square().mean()
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def inference(model, data):
    return lambda: model({key: value.clone() for key, value in data.items()})["forces"].detach()


def measure(built, data, rounds):
    times = {kind: {name: [] for name in built} for kind in ("train", "inference")}
    for turn in track(range(rounds + 1), description="rounds"):
        for name, model in built.items():
            for kind, make in (("train", training_step), ("inference", inference)):
                seconds = timed(make(model, data))
                if turn > 0:  # the first round warms up
                    times[kind][name].append(seconds)
    return times


def ratios(times, baseline):
    return {name: np.array(values) / np.array(times[baseline]) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--feature-dim", type=int, default=512)
    parser.add_argument("--num-layers", type=int, default=4)
    parser.add_argument("--frames", type=int, default=12, help="ethanol frames in the batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/model_cost.json")
    options = parser.parse_args()

    warnings.filterwarnings("ignore")
    torch.set_default_dtype(torch.float64)
    set_global_state()
    torch.set_num_threads(options.threads)
    data = batch(options.frames)
    built = models(options.feature_dim, options.num_layers)
    baseline = next(iter(built))
    times = measure(built, data, options.rounds)

    edges = data["edge_index"].shape[1]
    table = Table(
        title=f"D={options.feature_dim}, {options.num_layers} layers, {edges} edges, float32, "
        f"{options.threads} thread(s); ratio to {baseline}: median (min-max)"
    )
    for column in ("model", "parameters", "train s", "ratio", "inference s", "ratio"):
        table.add_column(column, justify="left" if column == "model" else "right")
    rows = []
    relative = {kind: ratios(values, baseline) for kind, values in times.items()}
    for name, model in built.items():
        row = {"model": name, "parameters": sum(p.numel() for p in model.parameters())}
        for kind in times:
            row[f"{kind}_s"] = times[kind][name]
            row[f"{kind}_ratio"] = list(relative[kind][name])
        rows.append(row)
        cells = []
        for kind in times:
            r = relative[kind][name]
            cells += [
                f"{np.median(times[kind][name]):.3f}",
                f"{np.median(r):.2f} ({r.min():.2f}-{r.max():.2f})",
            ]
        table.add_row(name, f"{row['parameters']:,}", *cells)
    Console(width=110).print(table)

    record = {
        "options": {**vars(options), "out": None, "edges": edges},
        "commit": commit(),
        "versions": {p: version(p) for p in ("eqplugin", "nequip", "e3nn", "torch")},
        "hardware": {"machine": platform.machine(), "processor": processor_name()},
        "rows": rows,
    }
    write_json(options.out, record)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
