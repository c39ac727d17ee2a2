"""What `eqplugin products` gains in MACE models, and what share the symmetric contraction has.

For each max_ell and correlation one MACE model of two layers in four forms, timed in turn: MACE's
own; with the C++ product alone; with the contractions over monomials as well; and, to see their
share, MACE's own with next to nothing in the place of the contractions. Times are medians over
rounds, shares and ratios those of the medians.

    python benchmarks/mace_products.py                             # minutes on a quiet machine
    python benchmarks/mace_products.py --irreps 128x0e+128x1o --max-ell 3 --correlation 3

Finished cases are kept in the JSON file and not measured again.
"""

import argparse
import copy
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _products_report import ROOT, provenance, save, shuffled
from ase.io import read
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import eqplugin.mace  # noqa: F401 - MACE on e3nn 0.6
from eqplugin.mace.products import compile_products
from eqplugin.mace.products_contraction import restore_contractions

# isort: split
from e3nn.o3 import Irreps
from mace import data, modules
from mace.tools import torch_geometric
from mace.tools.utils import AtomicNumberTable

ACAC = ROOT.parent / "shared" / "data" / "acac" / "train_300K.xyz"
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb" / "train_300K.xyz"
NUMBERS = [1, 6, 8]
R_MAX = 5.0
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FORMS = ("MACE", "conv_tp", "both", "no contraction")


class Nothing(torch.nn.Module):
    """In the place of a contraction: the same shapes for next to no work."""

    def __init__(self, contraction):
        super().__init__()
        self.dims = [ir.dim for _, ir in contraction.irreps_out]

    def forward(self, x, y):
        summed = x.sum(-1, keepdim=True)
        return torch.cat([summed.expand(-1, -1, dim).flatten(1) for dim in self.dims], dim=-1)


def build(irreps, max_ell, correlation):
    torch.manual_seed(0)
    return modules.ScaleShiftMACE(
        hidden_irreps=Irreps(irreps), max_ell=max_ell, correlation=correlation, r_max=R_MAX,
        num_bessel=8, num_polynomial_cutoff=5, num_interactions=2, num_elements=len(NUMBERS),
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        MLP_irreps=Irreps("16x0e"), atomic_energies=np.zeros((1, len(NUMBERS))),
        avg_num_neighbors=12.0, atomic_numbers=NUMBERS, gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0, atomic_inter_shift=0.0, radial_MLP=[64, 64, 64], heads=["Default"],
    )  # fmt: skip


def forms(irreps, max_ell, correlation):
    model = build(irreps, max_ell, correlation)
    empty = copy.deepcopy(model)
    for block in empty.products:
        block.symmetric_contractions = Nothing(block.symmetric_contractions)
    alone = compile_products(copy.deepcopy(model))
    restore_contractions(alone)
    both = compile_products(copy.deepcopy(model))
    return dict(zip(FORMS, (model, alone, both, empty), strict=True))


def batch(path, num_frames):
    keys = data.KeySpecification({}, {})
    items = [
        data.AtomicData.from_config(
            data.config_from_atoms(frame, key_specification=keys),
            z_table=AtomicNumberTable(NUMBERS), cutoff=R_MAX, heads=["Default"],
        )
        for frame in read(path, f":{num_frames}")
    ]  # fmt: skip
    loader = torch_geometric.dataloader.DataLoader(items, batch_size=num_frames, shuffle=False)
    return next(iter(loader)).to_dict()


def inference(model, graph):
    return model(dict(graph), training=False)["forces"]


def train(model, graph):
    out = model(dict(graph), training=True)
    (out["forces"].square().mean() + out["energy"].square().mean()).backward()
    model.zero_grad()


def measure(models, graph, options):
    clock = CLOCKS[options.clock]
    times = {form: {"inference": [], "train": []} for form in models}
    for turn in range(options.repeats + 1):  # the first warms up
        for kind, call in (("inference", inference), ("train", train)):
            for form in shuffled(list(models), turn):
                start = clock()
                call(models[form], graph)
                seconds = clock() - start
                if turn > 0:
                    times[form][kind].append(seconds)
    own, ours = inference(models["MACE"], graph), inference(models["both"], graph)
    return {"times": times, "force difference": float((own - ours).abs().max())}


def print_table(cases, console):
    table = Table(title="MACE s, share of the contraction, own / converted", box=SIMPLE_HEAD)
    heads = (
        "irreps",
        "max_ell",
        "corr.",
        "step",
        "MACE ms",
        "contraction",
        "conv_tp",
        "both",
        "dF",
    )
    for head in heads:
        table.add_column(head, justify="left" if head in ("irreps", "step") else "right")
    for case in cases:
        for kind in ("inference", "train"):
            own, alone, both, empty = (np.median(case["times"][form][kind]) for form in FORMS)
            table.add_row(
                case["irreps"], str(case["max_ell"]), str(case["correlation"]), kind,
                f"{1e3 * own:.0f}", f"{100 * (1 - empty / own):.0f} %", f"{own / alone:.2f}x",
                f"{own / both:.2f}x", f"{case['force difference']:.0e}",
            )  # fmt: skip
    console.print(table)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    irreps = ["64x0e+64x1o", "128x0e", "128x0e+128x1o"]
    add("--irreps", nargs="+", default=irreps, help="hidden irreps")
    add("--max-ell", type=int, nargs="+", default=[1, 2, 3], help="degrees of the harmonics")
    add("--correlation", type=int, nargs="+", default=[2, 3])
    add("--frames", type=int, default=5, help="frames in the batch")
    add("--repeats", type=int, default=7, help="timed rounds of each case")
    add("--threads", type=int, default=1, help="torch threads")
    add("--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine (default: wall)")
    add("--structures", type=Path, default=ACAC if ACAC.exists() else ETHANOL, help="frames")
    out = ROOT / "benchmarks" / "results" / "mace_products.json"
    add("--out", type=Path, default=out, help=f"results (default: {out})")
    return parser.parse_args()


def main():
    warnings.filterwarnings("ignore")
    options = parse()
    console = Console(width=110)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(options.threads)
    graph = batch(options.structures, options.frames)
    settings = {
        "structures": options.structures.name, "frames": options.frames,
        "atoms": graph["positions"].shape[0], "edges": graph["edge_index"].shape[1],
        "repeats": options.repeats, "threads": options.threads, "clock": options.clock,
    }  # fmt: skip
    versions = ("eqplugin", "mace-torch", "e3nn", "torch")
    record = {"options": settings, **provenance(versions), "cases": []}
    if options.out.exists():
        before = json.loads(options.out.read_text())
        other = [key for key in record if key != "cases" and before.get(key) != record[key]]
        if other:
            sys.exit(f"{options.out} was measured with other {' and '.join(other)}: name another "
                     "--out, or move it away.")  # fmt: skip
        record["cases"] = before["cases"]
    done = {(case["irreps"], case["max_ell"], case["correlation"]) for case in record["cases"]}
    wanted = [
        (i, ell, c) for i in options.irreps for ell in options.max_ell for c in options.correlation
    ]
    with Progress(console=console) as bar:
        for case in bar.track([case for case in wanted if case not in done], description=""):
            found = measure(forms(*case), graph, options)
            named = dict(zip(("irreps", "max_ell", "correlation"), case, strict=True))
            record["cases"].append({**named, **found})
            save(record, options.out)
    print_table(record["cases"], console)
    console.print(f"written: {options.out}")


if __name__ == "__main__":
    main()
