"""Where and in which order products are measured, tables and plot; for products.py."""

import json
import math
import os
import platform
import random
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from eqplugin.files import whole_file
from eqplugin.measure.machine import commit, gpu_name, processor_name
from eqplugin.nn.product.build import compiler
from eqplugin.style import COLOURS, MARKERS, STYLE, plt, save_figure

ROOT = Path(__file__).resolve().parents[1]
STOCK = "stock"
KINDS = ("model train", "model inference", "product train", "product inference")
TRAIN, MEMORY = KINDS[0], "memory MB"
# what has to be reached at D = 512, whole model, training step, one thread: stock / variant
BARS = {
    "factorised + folded": {1: 1.3, 2: 1.5, 3: 1.6, 4: 2.3, 6: 3.5},
    "compiled + folded": {1: 1.6, 2: 2.5, 3: 3.0, 4: 4.0, 6: 4.5},
}
TWO_THREADS = 1.6


def provenance(packages=("eqplugin", "nequip", "e3nn", "torch")):
    """Commit, versions and hardware of a measurement."""
    found = compiler()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        memory = None
    return {
        "commit": commit(),
        "versions": {package: version(package) for package in packages}
        | {"python": platform.python_version(), "compiler": found[1] if found else None},
        "hardware": {
            "machine": platform.machine(),
            "processor": processor_name(),
            "gpu": gpu_name(),
            "cores": os.cpu_count(),
            "memory GiB": memory and round(memory, 1),
        },
    }


def shuffled(names, turn):
    """Another order in each round: what ran before a call decides which memory it finds."""
    return random.Random(turn).sample(names, len(names))


def save(record, path):
    with whole_file(path) as partial:
        partial.write_text(json.dumps(record, indent=1))


def ratio(rows, name, kind):
    """Median over rounds of stock / variant: above 1 is faster; not a number where it cannot."""
    if not rows[name][kind]:
        return math.nan
    return float(np.median(np.array(rows[STOCK][kind]) / np.array(rows[name][kind])))


def memory_ratio(rows, name):
    used = rows[name][MEMORY]
    return math.nan if used is None else used / rows[STOCK][MEMORY]


def of_dim(cases, dim):
    return sorted((case for case in cases if case["dim"] == dim), key=lambda case: case["degree"])


def print_tables(cases, console):
    for dim in sorted({case["dim"] for case in cases}):
        table = Table(
            title=f"D = {dim}: stock in s, variants as stock / variant (above 1 is faster)",
            box=SIMPLE_HEAD,
        )
        for column in ("L", "variant", *KINDS, MEMORY, "max |dF| eV/Å"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        for case in of_dim(cases, dim):
            for name, row in case["rows"].items():
                if name == STOCK:
                    cells = [f"{np.median(row[kind]):.4f}" for kind in KINDS]
                else:
                    ratios = [ratio(case["rows"], name, kind) for kind in KINDS]
                    cells = ["-" if math.isnan(value) else f"{value:.2f}x" for value in ratios]
                cells += [
                    f"{row[MEMORY]:.0f}" if row[MEMORY] else "-",
                    f"{row['force difference']:.0e}",
                ]
                table.add_row(str(case["degree"]), name, *cells)
            table.add_section()
        console.print(table)
    print_scaling(cases, console)
    print_bars(cases, console)


def print_scaling(cases, console):
    scaled = [case for case in cases if case.get("scaling")]
    if not scaled:
        return
    kinds = list(scaled[0]["scaling"]["kinds"])
    threads = scaled[0]["scaling"]["threads"]
    table = Table(
        title=f"C++ operator, wall clock: time on 1 thread / on {threads} threads", box=SIMPLE_HEAD
    )
    for column in ("D", "L", *kinds):
        table.add_column(column, justify="right")
    for case in sorted(scaled, key=lambda case: (case["dim"], case["degree"])):
        values = [f"{scaling(case, kind):.2f}x" for kind in kinds]
        table.add_row(str(case["dim"]), str(case["degree"]), *values)
    console.print(table)


def scaling(case, kind):
    one, several = (np.array(case["scaling"]["kinds"][kind][key]) for key in ("one", "several"))
    return float(np.median(one / several))


def print_bars(cases, console):
    """Demanded against measured, D = 512."""
    table = Table(title="D = 512, training step of the whole model", box=SIMPLE_HEAD)
    for column in ("L", "variant", "demanded", "measured", "memory / stock"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for case in of_dim(cases, 512):
        for name, bars in BARS.items():
            if case["degree"] in bars and name in case["rows"]:
                bar, value = bars[case["degree"]], ratio(case["rows"], name, TRAIN)
                look = "green" if value >= bar else "bold red"
                memory = f"{memory_ratio(case['rows'], name):.2f}"
                table.add_row(
                    str(case["degree"]), name, f"{bar:.1f}x", f"[{look}]{value:.2f}x[/]", memory
                )
    if table.row_count:
        console.print(table)


def plot(cases, names, path, title):
    """A row of panels for each D: training, inference, product, memory, against L."""
    dims = sorted({case["dim"] for case in cases})
    names = [n for n in names if n != STOCK and any(n in case["rows"] for case in cases)]
    panels = (*KINDS[:3], MEMORY)
    size = (12, 2.7 * len(dims) + 0.9)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(dims), len(panels), figsize=size, squeeze=False, layout="constrained"
        )
        for row, dim in zip(axes, dims, strict=True):
            for axis, kind in zip(row, panels, strict=True):
                _panel(axis, of_dim(cases, dim), names, kind, dim)
        handles, labels = {}, []
        for axis in axes.flat:
            handles |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        labels = list(handles)
        figure.legend(
            handles.values(), labels, loc="outside lower center", ncols=min(len(labels), 4)
        )
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)


def _panel(axis, cases, names, kind, dim):
    axis.axhline(1, color="0.5", lw=1, ls=":")
    highest = 1.0
    for i, name in enumerate(names):
        points = [case for case in cases if name in case["rows"]]
        degrees = [case["degree"] for case in points]
        if kind == MEMORY:
            values = [memory_ratio(case["rows"], name) for case in points]
        else:
            values = [ratio(case["rows"], name, kind) for case in points]
        highest = max([highest, *(value for value in values if not math.isnan(value))])
        look = {"color": COLOURS[i % 6], "marker": MARKERS[i % 6], "ms": 4.5, "lw": 1.3}
        axis.plot(degrees, values, label=name, **look)
        if dim == 512 and kind == TRAIN and name in BARS:
            shown = [d for d in BARS[name] if d in degrees]
            axis.plot(
                shown, [BARS[name][d] for d in shown], ls="none", marker="_", ms=14, mew=1.6,
                color=COLOURS[i % 6], label=f"demanded of {name}",
            )  # fmt: skip
            highest = max([highest, *(BARS[name][d] for d in shown)])
    what = kind.removesuffix(" MB").replace("train", "training step")
    unit = "memory / stock" if kind == MEMORY else "times faster than stock"
    axis.set(title=f"D = {dim}: {what}", ylabel=unit, xlabel="highest degree L")
    axis.set(ylim=(0, 1.1 * highest))
    axis.set_xticks(sorted({case["degree"] for case in cases}))
    axis.margins(x=0.06)
