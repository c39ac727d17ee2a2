"""What the model modifiers gain: products and whole models at constant feature dimension.

For each feature dimension D and degree L one steerable model is built; its variants share the
weights and differ in the modifiers alone. All variants are timed in turn, in a new order each
round, so that a slow moment of the machine hits all alike; ratios are medians over rounds of
stock / variant: above 1 is faster. Memory is the peak of what torch allocates in a training step.
The C++ operator is timed on one and on several threads as well, always by wall clock.

    python benchmarks/products.py --out all.json                 # an hour: D up to 1024, L up to 6
    python benchmarks/products.py --out some.json --cases 512:0,1,2,3,4,5,6 256:1,3,6 # 25 minutes
    python benchmarks/products.py --cases 64:1 --repeats 3 --out /tmp/products.json   # a try
    python benchmarks/products.py --out gpu.json --device cuda   # beside the GPU's own kernels
    python benchmarks/products.py --structures H2O --frames 1    # where there is least to gain
    python benchmarks/products.py --cases 512:2 --compile-mode compile --out compiled.json

Finished cases are kept in the JSON file and not measured again: start it once more to go on, or to
add cases. A file from other options or another commit is refused, not overwritten.
"""

import argparse
import copy
import json
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from _products_calls import model_calls, operator_calls, peak_memory, product_calls, waiting
from _products_report import (
    KINDS,
    MEMORY,
    ROOT,
    STOCK,
    plot,
    print_tables,
    provenance,
    save,
    shuffled,
)
from ase.build import molecule
from ase.collections import g2
from ase.io import read
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import modify
from nequip.model.modify_utils import get_all_modifiers
from nequip.nn.model_modifier_utils import get_model_modifier_unsupported_devices
from nequip.utils.global_state import set_global_state
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eqplugin.errors import reason_of
from eqplugin.nequip import SteerableModel

ACAC = ROOT.parent / "shared" / "data" / "acac" / "train_300K.xyz"  # 5 frames: 75 atoms, 914 edges
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb" / "train_300K.xyz"
R_MAX = 5.0

# name -> modifiers, in the order of tables and plots; a variant whose modifiers this installation
# does not offer is left out, so a new modifier needs one line here
VARIANTS = {
    STOCK: (),
    "factorised": ("enable_FactorizedTP",),
    "folded": ("enable_FoldedSelfConnection",),
    "factorised + folded": ("enable_FactorizedTP", "enable_FoldedSelfConnection"),
    "compiled": ("enable_CompiledTP",),
    "compiled + folded": ("enable_CompiledTP", "enable_FoldedSelfConnection"),
    "OpenEquivariance": ("enable_OpenEquivariance",),
    "OpenEquivariance + folded": ("enable_OpenEquivariance", "enable_FoldedSelfConnection"),
    "cuEquivariance": ("enable_CuEquivariance",),
    "cuEquivariance + folded": ("enable_CuEquivariance", "enable_FoldedSelfConnection"),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LEAST_ROUNDS = 3
# whose threads are counted
PRODUCT, MODEL = "compiled", "compiled + folded"


def batch(path, num_frames):
    # a name that is no file: a molecule of ASE's collection
    frames = read(path, f":{num_frames}") if path.exists() else [molecule(str(path))]
    types = sorted({symbol for frame in frames for symbol in frame.symbols})
    mapper = ChemicalSpeciesToAtomTypeMapper(types, {t: t for t in types})
    neighbours = NeighborListTransform(r_max=R_MAX)
    data = [neighbours(mapper(from_ase(frame))) for frame in frames]
    return types, AtomicDataDict.batched_from_list(data)


def variants(feature_dim, l_max, types, options):
    """The stock model and its variants for a device, all with the same weights in memory."""
    device = options.device
    model = SteerableModel(
        feature_dim=feature_dim,
        l_max=l_max,
        num_layers=options.layers,
        seed=0,
        model_dtype="float32",
        type_names=types,
        r_max=R_MAX,
        avg_num_neighbors=12.0,
        compile_mode=options.compile_mode,
    ).to(device)
    offered = {
        name
        for name, modifier in get_all_modifiers(model).items()
        if device not in get_model_modifier_unsupported_devices(modifier)
    }
    built = {}
    for name, modifiers in VARIANTS.items():
        if name not in (STOCK, *options.variants) or not offered.issuperset(modifiers):
            continue
        twin = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
        try:
            twin = modify(twin, [{"modifier": modifier} for modifier in modifiers])
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            built[name] = twin.to(device)
    return built


def measure(dim, degree, options):
    """One case, in a process of its own: what ran before changes how memory is handed out."""
    warnings.filterwarnings("ignore")
    torch.set_default_dtype(torch.float64)
    set_global_state()
    torch.set_num_threads(options.threads)
    clock = CLOCKS[options.clock]
    types, data = batch(options.structures, options.frames)
    data = AtomicDataDict.to_(data, torch.device(options.device))
    built = variants(dim, degree, types, options)
    calls = {name: model_calls(m, data) | product_calls(m, data) for name, m in built.items()}
    if options.device == "cuda":
        calls = {name: {k: waiting(c) for k, c in kinds.items()} for name, kinds in calls.items()}
    calls = {name: working(kinds, name) for name, kinds in calls.items()}
    rows = {name: {kind: [] for kind in KINDS} for name in built}
    started = time.perf_counter()
    for turn in range(options.repeats):
        if turn >= LEAST_ROUNDS and time.perf_counter() - started > options.seconds:
            break
        for kind in KINDS:
            for name in shuffled([name for name in built if kind in calls[name]], turn):
                start = clock()
                calls[name][kind]()
                rows[name][kind].append(clock() - start)
    reference = built[STOCK]({k: v.clone() for k, v in data.items()})["forces"].detach()
    for name in built:
        forces = calls[name]["model inference"]()
        rows[name]["force difference"] = float((forces - reference).abs().max())
        trains = "model train" in calls[name]
        rows[name][MEMORY] = (
            peak_memory(calls[name]["model train"], options.device) if trains else None
        )
    scaled = options.device == "cpu" and options.scaling > 1 and {PRODUCT, MODEL} <= calls.keys()
    threads = scaling(calls, operator_calls(built[PRODUCT], data), options) if scaled else None
    return {"rows": rows, "scaling": threads, "load": os.getloadavg()[0]}


def working(calls, name):
    """The calls that work, warmed up: kernels of others may lack the derivatives of training."""
    found = {}
    for kind, call in calls.items():
        try:
            call()
        except Exception as error:  # whatever a kernel raises
            if name == STOCK:
                raise
            print(f"{name} has no {kind}: {reason_of(error)}", file=sys.stderr)
        else:
            found[kind] = call
    return found


def scaling(calls, operators, options):
    """Times of the C++ operators, and of the model around them, on one and on several threads."""
    timed = dict(operators)
    timed |= {kind: calls[PRODUCT][kind] for kind in ("product inference", "product train")}
    timed |= {kind: calls[MODEL][kind] for kind in ("model inference", "model train")}
    found = {}
    for kind, call in timed.items():
        found[kind] = {"one": [], "several": []}
        for turn in range(options.repeats + 1):
            for key, threads in (("one", 1), ("several", options.scaling)):
                torch.set_num_threads(threads)
                call()  # the threads have to be there
                start = time.perf_counter()
                call()
                if turn > 0:
                    found[kind][key].append(time.perf_counter() - start)
    torch.set_num_threads(options.threads)
    return {"threads": options.scaling, "kinds": found}


def case_list(text):
    try:
        dim, degrees = text.split(":")
        return [(int(dim), int(degree)) for degree in degrees.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write D:L,L,... as in 512:0,1,2") from None


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dims", type=int, nargs="+", default=[256, 512, 1024], help="feature dimensions D")
    add("--degrees", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5, 6], help="degrees L")
    add("--cases", type=case_list, nargs="+", metavar="D:L,L,...",
        help="instead of --dims and --degrees: 512:0,1,2 1024:1")  # fmt: skip
    add("--repeats", type=int, default=7, help="timed rounds of each case")
    add("--seconds", type=float, default=60.0,
        help=f"no further round of a case after this time, at least {LEAST_ROUNDS}")  # fmt: skip
    add("--scaling", type=int, default=2,
        help="also time the C++ operator on this many threads; 1: do not")  # fmt: skip
    add("--threads", type=int, default=1, help="torch threads")
    add("--clock", choices=CLOCKS, default="wall",
        help="cpu: processor time, for ratios on a busy machine (default: wall)")  # fmt: skip
    add("--device", choices=("cpu", "cuda"), default="cpu",
        help="cuda: beside the kernels of OpenEquivariance and cuEquivariance")  # fmt: skip
    add("--compile-mode", choices=("eager", "compile"), default="eager",
        help="compile: NequIP's train-time compilation, a minute or more per model")  # fmt: skip
    names = [name for name in VARIANTS if name != STOCK]
    add("--variants", nargs="+", choices=names, default=names, metavar="NAME",
        help=f"what to compare with stock, of: {', '.join(names)}")  # fmt: skip
    add("--layers", type=int, default=4, help="convolutions")
    default = ACAC if ACAC.exists() else ETHANOL
    add("--structures", type=Path, default=default,
        help=f"frames, or a molecule that ASE knows, as H2O (default: {default})")  # fmt: skip
    add("--frames", type=int, default=5, help="frames in the batch")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results" / "products.json",
        help="results; the plot gets the same name")  # fmt: skip
    return parser.parse_args()


def settings_of(options):
    """What a record may not mix."""
    _, data = batch(options.structures, options.frames)
    kept = ("frames", "variants", "layers", "threads", "repeats", "seconds", "scaling", "clock")
    kept += ("device", "compile_mode")
    return {
        "structures": options.structures.name,
        "atoms": data["pos"].shape[0],
        "edges": data["edge_index"].shape[1],
        "dtype": "float32",
    } | {name: getattr(options, name) for name in kept}


def opened(options):
    """The record of --out to go on with, or a new one."""
    record = {"options": settings_of(options), **provenance(), "cases": []}
    if options.out.exists():
        before = json.loads(options.out.read_text())
        other = [key for key in record if key != "cases" and before.get(key) != record[key]]
        if other:
            sys.exit(f"{options.out} was measured with other {' and '.join(other)}: name another "
                     "--out, or move it away.")  # fmt: skip
        record["cases"] = before["cases"]
    return record


def measure_all(todo, options, record, console):
    """Each case in a process of its own, saved as soon as it is there."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=console,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=len(todo))
        for dim, degree in todo:
            bar.update(task, description=f"D = {dim}, L = {degree}")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                found = alone.submit(measure, dim, degree, options).result()
            bar.advance(task)
            record["cases"].append({"dim": dim, "degree": degree, **found})
            save(record, options.out)


def main():
    options = parse()
    if not options.structures.exists() and str(options.structures) not in g2.names:
        sys.exit(f"--structures {options.structures}: neither a file nor a molecule of ASE's.")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no GPU here.")
    console = Console(width=130)
    torch.set_default_dtype(torch.float64)
    record = opened(options)
    done = {(case["dim"], case["degree"]) for case in record["cases"]}
    wanted = [(d, degree) for d in options.dims for degree in options.degrees]
    if options.cases:
        wanted = [case for cases in options.cases for case in cases]
    measure_all([case for case in wanted if case not in done], options, record, console)
    print_tables(record["cases"], console)
    image = options.out.with_suffix(".png")
    title = (
        f"{record['options']['atoms']} atoms, {record['options']['edges']} edges, "
        f"{options.layers} layers, float32, {options.compile_mode}, {options.threads} thread(s), "
        f"{record['hardware']['gpu'] or record['hardware']['processor']}"
    )
    plot(record["cases"], VARIANTS, image, title)
    console.print(f"written: {options.out} and {image.name}")


if __name__ == "__main__":
    main()
