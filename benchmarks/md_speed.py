r"""Time of a molecular-dynamics step: EqCalculator against the stacks' own ASE calculators.

One model of each stack, the same structures (water: a cluster of 5, boxes of 64 and 343
molecules), the same trajectory. Every frame is given to all calculators in turn (A B C A B C ...),
so that a slow moment of the machine hits all alike; ratios are medians of per-frame ratios. Forces
of all calculators are compared on the last frame. Peak memory is that of a step above what the
process held before it (Linux); where it grows linearly, kB/atom stays what it is.

The first run compiles two files, minutes each, and keeps them.

    python benchmarks/md_speed.py                              # all of it
    python benchmarks/md_speed.py --systems 15 --systems 192 --steps 20 --no-mace
    python benchmarks/md_speed.py --systems 1029 --systems 5184 --systems 20577 --num-layers 2 \
        --feature-dim 32 --steps 24 --no-mace --out benchmarks/results/md_memory.json
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms
from nequip.nn.compile import DictInputOutputWrapper
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import set_global_state
from rich.console import Console
from rich.progress import track
from rich.table import Table

from eqplugin import EqCalculator
from eqplugin.calculator.cache import cache_directory, cached_file, compile_key
from eqplugin.measure.machine import commit, processor_name
from eqplugin.nequip import SteerableModel

ROOT = Path(__file__).resolve().parents[1]
TYPES = ["H", "C", "O"]
ENERGIES = {"H": -13.6, "C": -1029.0, "O": -2042.0}
MOLECULES = {15: None, 192: 4, 1029: 7, 5184: 12, 20577: 19}
# what is compared with what; the first of each is the baseline of the bar in the project's aims
BASELINES = {"NequIP": ("stock eager", "stock AOTInductor"), "MACE": ("stock",)}


def water(num_atoms, seed=0):
    """A box of molecules at the density of water, or a cluster of five of them."""
    rng, per_side = np.random.default_rng(seed), MOLECULES[num_atoms]
    periodic = per_side is not None
    per_side = per_side or 2
    length = per_side * 29.9 ** (1 / 3)
    atoms = Atoms(cell=[length] * 3, pbc=True) if periodic else Atoms()
    for place in np.ndindex(per_side, per_side, per_side):
        if len(atoms) < num_atoms:
            one = molecule("H2O")
            one.rotate(rng.uniform(0, 360), rng.normal(size=3))
            one.translate(np.array(place) * length / per_side)
            atoms += one
    return atoms


def nequip_model(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return SteerableModel(
            seed=0, model_dtype=options.dtype, r_max=options.r_max, type_names=TYPES,
            avg_num_neighbors=50.0, per_type_energy_shifts=ENERGIES, l_max=options.l_max,
            feature_dim=options.feature_dim, num_layers=options.num_layers,
        ).eval()  # fmt: skip


def mace_model(options):
    import eqplugin.mace  # isort: skip
    from e3nn.o3 import Irreps
    from mace import modules

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    torch.manual_seed(0)
    try:
        return eqplugin.mace.SteerableMACE(
            feature_dim=options.feature_dim, max_L=options.l_max, r_max=options.r_max,
            num_bessel=8, num_polynomial_cutoff=6, max_ell=2, num_interactions=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_elements=3, MLP_irreps=Irreps("16x0e"), avg_num_neighbors=50.0, correlation=2,
            atomic_energies=np.array([list(ENERGIES.values())]), atomic_numbers=[1, 6, 8],
            gate=torch.nn.functional.silu, atomic_inter_scale=1.0, atomic_inter_shift=0.0,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(before)


def stock_nequip(model, run):
    names = {name: name for name in TYPES}
    r_max = float(model.metadata["r_max"])
    transforms = basic_transforms(model.metadata, r_max, TYPES, names)
    return NequIPCalculator(run, "cpu", transforms=transforms)


def stock_compiled(model, options):
    """NequIP's ASE target, compiled as nequip-compile does, without a training set."""
    target = COMPILE_TARGET_DICT["ase"]
    data = target["data_settings"](stock_nequip(model, model).atoms_to_data(water(192)[:24]))

    def dim(name):
        return torch.export.dynamic_shapes.Dim(name, min=2, max=torch.inf)

    sizes = {name: dim(f"num_{name}s") for name in ("node", "edge")}

    def make(path):
        aot_export_model(
            model=nequip_model(options), device="cpu", output_path=str(path),
            input_fields=target["input"], output_fields=target["output"],
            data={key: data[key].detach() for key in target["input"]},
            batch_map=target["batch_map_settings"](sizes),
            inductor_configs={"aot_inductor.metadata": {}},
        )  # fmt: skip

    key = "stock-" + compile_key(model, torch.device("cpu"), ())
    path = cached_file(cache_directory(options.cache_dir), key, ".pt2", make)
    loaded = torch._inductor.aoti_load_package(str(path))
    return stock_nequip(
        model, DictInputOutputWrapper(loaded, target["input"], target["output"]).eval()
    )


def nequip_calculators(options):
    model = nequip_model(options)
    found = {"stock eager": stock_nequip(model, model)}
    if options.compile:
        found["stock AOTInductor"] = stock_compiled(model, options)
    found["EqCalculator eager"] = EqCalculator(model, skin=options.skin)
    if options.compile:
        given = {"compile": "aoti", "cache_dir": options.cache_dir}
        found["EqCalculator compiled, skin 0"] = EqCalculator(model, skin=0.0, **given)
        found["EqCalculator compiled"] = EqCalculator(model, skin=options.skin, **given)
    return found


def mace_calculators(options):
    model = mace_model(options)  # first: it repairs MACE
    from mace.calculators import MACECalculator

    return {
        "stock": MACECalculator(models=model, default_dtype=options.dtype),
        "EqCalculator, skin 0": EqCalculator(model, skin=0.0),
        "EqCalculator": EqCalculator(model, skin=options.skin),
    }


def trajectory(atoms, calculator, steps, timestep=0.5, temperature=300.0):
    """Positions of a run with random weights: small forces, thermal moves."""
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    frames = [atoms.positions.copy()]
    for _ in range(steps - 1):
        dynamics.run(1)
        frames.append(atoms.positions.copy())
    return frames


def memory(what):
    """VmRSS or VmHWM of this process in MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), np.nan)


def memory_total():
    """Memory of the machine in GB, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return float("nan")


def give_back():
    """Return freed memory to the system: a step that reuses it would seem to need none."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_of(call):
    """Peak memory of a call above what the process holds before it, MB."""
    give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError:
        call()
        return float("nan")
    before = memory("VmRSS")
    call()
    return max(0.0, memory("VmHWM") - before)


def measure(calculators, num_atoms, steps, warmup=3):
    atoms = water(num_atoms)
    driver = list(calculators.values())[-1]
    frames = trajectory(atoms.copy(), driver, steps + warmup)
    bodies = {}
    for name, calculator in calculators.items():
        bodies[name] = atoms.copy()
        bodies[name].calc = calculator
    times = {name: [] for name in calculators}
    searches = {}
    for turn, positions in enumerate(track(frames, description=f"{num_atoms} atoms")):
        for name, body in bodies.items():
            body.positions[:] = positions
            if turn == warmup and hasattr(body.calc, "neighbors"):
                searches[name] = body.calc.neighbors.searches
            start = time.perf_counter()
            body.get_forces()
            if turn >= warmup:
                times[name].append(1e3 * (time.perf_counter() - start))
    reference = next(iter(bodies.values())).get_forces()
    rows = {}
    for name, body in bodies.items():
        difference = float(np.abs(body.get_forces() - reference).max())
        body.positions[0, 0] += 1e-3
        rows[name] = {
            "ms": times[name],
            "max_force_difference": difference,
            "peak_MB": peak_of(body.get_forces),
        }
        if name in searches:
            rows[name]["steps_per_search"] = steps / max(
                1, body.calc.neighbors.searches - searches[name]
            )
    return rows


def show(console, stack, num_atoms, rows):
    baselines = [name for name in BASELINES[stack] if name in rows]
    table = Table(title=f"{stack}, {num_atoms} atoms: ms per step (median, best)")
    table.add_column("calculator")
    for column in (
        "median",
        "best",
        *(f"x {name}" for name in baselines),
        "peak MB",
        "kB/atom",
        "max |dF|",
    ):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        row["ratio"] = {
            other: float(np.median(np.array(rows[other]["ms"]) / np.array(row["ms"])))
            for other in baselines
        }
        table.add_row(
            name, f"{np.median(row['ms']):.2f}", f"{min(row['ms']):.2f}",
            *(f"{row['ratio'][other]:.2f}" for other in baselines),
            f"{row['peak_MB']:.0f}", f"{1024 * row['peak_MB'] / num_atoms:.0f}",
            f"{row['max_force_difference']:.1e}",
        )  # fmt: skip
    console.print(table)


def provenance():
    packages = ("eqplugin", "nequip", "mace-torch", "e3nn", "torch", "ase", "vesin", "matscipy")
    return {
        "commit": commit(),
        "versions": {package: version(package) for package in packages},
        "hardware": {
            "machine": platform.machine(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory GB": round(memory_total(), 1),
            "threads": torch.get_num_threads(),
            "vector instructions": torch.backends.cpu.get_cpu_capability(),
        },
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", type=int, action="append", choices=list(MOLECULES),
                        help="numbers of atoms; default 15, 192, 1029")  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=40, help="timed frames; fewer above 1000 atoms"
    )
    parser.add_argument("--feature-dim", type=int, default=128)
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--num-layers", type=int, default=3, help="of the NequIP model")
    parser.add_argument("--r-max", type=float, default=5.0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--skin", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache-dir", type=Path, help="of compiled models")
    parser.add_argument("--no-mace", dest="mace", action="store_false")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/md_speed.json")
    options = parser.parse_args()

    warnings.filterwarnings("ignore")
    set_global_state()
    torch.set_num_threads(options.threads)
    console = Console(width=120)
    stacks = {"NequIP": nequip_calculators(options)}
    if options.mace:
        stacks["MACE"] = mace_calculators(options)
    rows = []
    for num_atoms in options.systems or [15, 192, 1029]:
        steps = options.steps if num_atoms < 1000 else max(3, options.steps // 8)
        for stack, calculators in stacks.items():
            found = measure(calculators, num_atoms, steps)
            show(console, stack, num_atoms, found)
            rows += [
                {"stack": stack, "atoms": num_atoms, "calculator": name, **row}
                for name, row in found.items()
            ]
    given = {key: str(value) if isinstance(value, Path) else value
             for key, value in vars(options).items()}  # fmt: skip
    record = {"options": given, **provenance(), "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(options.out)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
