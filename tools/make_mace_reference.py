"""Regenerate the numbers that MACE must reproduce here: run this on a real e3nn 0.4.4.

    python -m venv /tmp/e3nn04
    grep -v "^e3nn" constraints.txt > /tmp/e3nn04/constraints.txt
    /tmp/e3nn04/bin/pip install -c /tmp/e3nn04/constraints.txt torch==2.13.0
    /tmp/e3nn04/bin/pip install -c /tmp/e3nn04/constraints.txt e3nn==0.4.4 mace-torch==0.3.16
    OMP_NUM_THREADS=1 /tmp/e3nn04/bin/python tools/make_mace_reference.py

Writes eqplugin/mace/reference.json and the models in tests/mace/reference/ (which the tests load).
With ``--evaluate FILE ...`` it prints energy, forces and stress of saved models as JSON instead:
tests/mace/test_convert.py asks an e3nn 0.4.4 this way whether it can read our files.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import json
import lzma
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "mace" / "reference"
# saved as files too: no coefficients with two signs, the sensitive ones, the newest blocks
SAVED = ("0e-corr1", "1o-corr2", "so3-1e-corr2")


def load_reference() -> ModuleType:
    """Load eqplugin/mace/reference.py by its path, without eqplugin."""
    path = ROOT / "eqplugin" / "mace" / "reference.py"
    spec = importlib.util.spec_from_file_location("mace_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(argv: list[str]) -> int:
    """Write the reference, or evaluate saved models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluate", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--no-models", action="store_true", help="write reference.json only")
    arguments = parser.parse_args(argv)

    import e3nn
    import mace  # first: it lets torch.load read what e3nn 0.4.4 loads at its import
    import torch

    if not e3nn.__version__.startswith("0.4."):
        print(f"e3nn {e3nn.__version__} is not 0.4: see the top of this file.", file=sys.stderr)
        return 1
    reference = load_reference()
    torch.set_default_dtype(torch.float64)

    if arguments.evaluate:
        results = {}
        for path in arguments.evaluate:
            model = torch.load(path, map_location="cpu", weights_only=False)
            results[str(path)] = _as_lists(reference.evaluate(model))
        print(json.dumps(results))
        return 0

    results = {}
    MODELS.mkdir(parents=True, exist_ok=True)
    for name in reference.CONFIGURATIONS:
        model = reference.build(name)
        results[name] = _as_lists(reference.evaluate(model))
        print(f"{name:30s} {results[name]['energy']:.12f} eV", flush=True)
        if name in SAVED and not arguments.no_models:
            buffer = io.BytesIO()
            torch.save(model, buffer)
            (MODELS / f"{name}.model.xz").write_bytes(lzma.compress(buffer.getvalue(), preset=9))
    coefficients = {
        ",".join(map(str, degrees)): project(e3nn.o3.wigner_3j(*degrees)) for degrees in triples()
    }
    versions = {"e3nn": e3nn.__version__, "mace": mace.__version__, "torch": torch.__version__}
    stored = {"made_with": versions, "configurations": reference.CONFIGURATIONS,
              "wigner_3j": coefficients, "results": results}  # fmt: skip
    reference.STORED.write_text(json.dumps(stored) + "\n")
    return 0


def triples(l_max: int = 6) -> list[tuple[int, int, int]]:
    """All degrees that couple, in every order, up to ``l_max``."""
    every = itertools.product(range(l_max + 1), repeat=3)
    return [(l1, l2, l3) for l1, l2, l3 in every if abs(l1 - l2) <= l3 <= l1 + l2]


def project(tensor: Any) -> float:
    """One number that stands for a tensor: its inner product with a fixed random one."""
    import numpy as np

    direction = np.random.default_rng(11).standard_normal(tuple(tensor.shape))
    return float((tensor.double().numpy() * direction).sum())


def _as_lists(results: dict) -> dict:
    return {key: value.tolist() for key, value in results.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
