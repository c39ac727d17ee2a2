"""Made-up lines of a study, whose answers are known."""

import json

import numpy as np

from eqplugin.report.models import study_results
from eqplugin.report.records import parse_record


def line(family="nequip", l_max=1, seed=1, mae=50.0, **changes):
    """A finished job's line; ``mae`` is the force MAE on the first test."""
    hops, contraction = changes.pop("hops", None), changes.pop("contraction", None)
    dim, match = changes.pop("feature_dim", 64), changes.pop("match", "dimension")
    step, call = changes.pop("step_ms", 100.0), changes.pop("force_ms", 30.0)
    parts = [family, f"L{l_max}", *([f"h{hops}"] if hops else []), f"D{dim}"]
    errors = {"frames": 100, "force_mae": mae, "force_rmse": 1.4 * mae, "energy_mae": mae / 40}
    errors |= {"energy_rmse": mae / 25, "stress_mae": None}
    return {
        "schema": "eqplugin.study/1",
        "kind": "job",
        "study": "made-up",
        "budget": "reduced",
        "job": f"{'-'.join(parts)}-s{seed}",
        "status": "done",
        "error": None,
        "family": family,
        "l_max": l_max,
        "hops": hops,
        "contraction": contraction,
        "feature_dim": dim,
        "seed": seed,
        "arms": {match: match},
        "steps": 900,
        "epochs": 10,
        "frames": {"train": 450, "val": 50, "test 300K": 100},
        "fingerprint": "x",
        "warnings": [],
        "errors": {"300K": errors, "600K": {**errors, "force_mae": 2 * mae}},
        "parameters": 60000 // (l_max + 1),
        "validation": [[n + 1, mae * (1 + 3 * np.exp(-2 * n))] for n in range(10)],
        "cost": {
            "train_s": 100.0,
            "epoch_s": 10.0,
            "train_peak_bytes": 500 * 2**20,
            "step_ms": [0.9 * step, step, 1.2 * step],
            "force_ms": [0.9 * call, call, 1.2 * call],
            "force_peak_bytes": None,
        },
        "model": "best.ckpt",
        "versions": {"torch": "2.13"},
        "hardware": {"processor": "a CPU", "cores": 2, "load": 0.5, "gpu": None},
        "commit": "abc",
        "time": "2026-11-23T00:00:00+00:00",
        "config": {},
    } | changes


def results_of(lines):
    """The study's results that these lines hold."""
    return study_results([parse_record(json.dumps(content), "made up") for content in lines])


def write_lines(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(content) + "\n" for content in lines)
    (folder / "results.jsonl").write_text(text)
    return folder


def degrees(errors, noise=((0.0, 0.1, -0.1),) * 9, **changes):
    """Lines for L = 0, 1, ... with these mean errors and a noise for each seed."""
    return [
        line(l_max=l_max, seed=seed + 1, mae=mean + noise[l_max][seed], **changes)
        for l_max, mean in enumerate(errors)
        for seed in range(len(noise[l_max]))
    ]
