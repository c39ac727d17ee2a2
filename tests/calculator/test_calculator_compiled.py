"""Compiled models: the pairing they are built on, the check, the cache; slow: the real thing."""

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from calculators_under_test import (
    STRUCTURES,
    TOLERANCE,
    TORCH,
    assert_same,
    build,
    evaluate,
    khop,
    pretend_capture,
    shared,
    stock,
    structure,
    uncompiled,
    walk,
)
from nequip.data import AtomicDataDict

from eqplugin import EqCalculator
from eqplugin.calculator.cache import cache_directory, cached_file, compile_key
from eqplugin.calculator.checked import Checked
from eqplugin.calculator.compiled import CompiledBackend, _without_locks
from eqplugin.calculator.cuda_graph import CudaGraphRun
from eqplugin.calculator.loading import Options, load_backend
from eqplugin.calculator.nequip_backend import NequIPBackend
from eqplugin.calculator.paired import PairedModel, can_be_paired
from eqplugin.errors import EqPluginError

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_half_the_radial_network_is_the_same_function(name, dtype):
    # few atoms and pairs, which compiled code does not take, are padded: the same numbers again
    model, atoms = shared(dtype), structure(name)
    calculator = uncompiled(model)
    assert can_be_paired(model)
    assert_same(evaluate(atoms, calculator), evaluate(atoms, EqCalculator(model)), TOLERANCE[dtype])


@pytest.mark.parametrize(
    "hops, contraction",
    [(1, "bispectrum"), (2, "bispectrum"), (1, "power"), (None, "power"), (1, "drop")],
)
def test_half_the_radial_network_of_khop_models(hops, contraction):
    model = khop(hops=hops, contraction=contraction)
    assert can_be_paired(model)
    for name in ("molecule", "slab", "cell smaller than the cutoff"):
        atoms = structure(name)
        found = evaluate(atoms, uncompiled(model))
        assert_same(found, evaluate(atoms, EqCalculator(model)), 1e-10)
        assert np.abs(found["forces"]).max() > 1e-3  # not a comparison of zeros


@pytest.mark.parametrize("make", [shared, khop], ids=["steerable", "k-hop"])
def test_the_radial_network_sees_each_pair_once(make):
    model = make()
    atoms, seen = structure("bulk"), []
    twin = NequIPBackend(model, "twin", CPU).model
    paired = PairedModel(twin)
    convolutions = [m for m in twin.modules() if type(m).__name__ == "InteractionBlock"]
    for convolution in convolutions:
        # inside the module that repeats the weights for the reverse edges
        convolution.edge_mlp.network.register_forward_hook(
            lambda _m, _i, out: seen.append(len(out))
        )
    calculator = EqCalculator(model)
    graph = calculator._graph(atoms)
    types = calculator.backends[0].types_of(graph.numbers)
    paired(
        {
            AtomicDataDict.EDGE_VECTORS_KEY: graph.vectors.clone(),
            AtomicDataDict.EDGE_INDEX_KEY: graph.index,
            AtomicDataDict.ATOM_TYPE_KEY: types,
        }
    )
    assert len(convolutions) == 2
    assert seen == [len(graph.vectors)] * 2


def test_models_that_must_not_be_paired():
    cutoffs = {"H": 2.0, "C": {"H": 2.5, "C": 3.5, "O": 3.0}, "O": 4.0}
    model = build(per_edge_type_cutoff=cutoffs)
    assert not can_be_paired(model)
    atoms = structure("molecule in a periodic box")
    assert_same(evaluate(atoms, uncompiled(model)), evaluate(atoms, stock(model)), 1e-10)
    unknown = build()
    factor = unknown.model.func.factor
    factor.__class__ = type("Unknown", (type(factor),), {})
    assert not can_be_paired(unknown)


def spoiled(backend, key, by):
    plain = backend.evaluate

    def evaluate_wrongly(graph, stress):
        out = plain(graph, stress)
        if key in out:
            out[key] = out[key].clone()
            out[key].view(-1)[0] += by
        return out

    backend.evaluate = evaluate_wrongly
    return backend


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("key", ["energies", "forces", "stress"])
def test_a_fast_model_that_disagrees_is_refused(key, dtype):
    model, atoms = shared(dtype), structure("bulk")
    for by, refused in ((1e-2, True), (1e-12, False)):
        fast = spoiled(NequIPBackend(model, "fast", CPU), key, by)
        calculator = EqCalculator(model)
        calculator.backends = [
            Checked(fast, lambda: NequIPBackend(model, "plain", CPU, dtype=torch.float64))
        ]
        atoms.calc = calculator
        if refused:
            with pytest.raises(EqPluginError, match=f"fast is refused: its {key} differ by"):
                atoms.get_forces()
            with pytest.raises(EqPluginError, match="is refused"):  # and again
                atoms.get_forces()
        else:
            atoms.get_forces()


def test_the_check_runs_once_per_species():
    model, built = shared("float32"), []

    def reference():
        built.append(1)
        return NequIPBackend(model, "plain", CPU, dtype=torch.float64)

    calculator = EqCalculator(model)
    calculator.backends = [Checked(NequIPBackend(model, "fast", CPU), reference)]
    for atoms in (*walk(structure("bulk"), steps=3), structure("one atom")):
        evaluate(atoms, calculator)
    assert len(built) == 1  # C and O
    evaluate(structure("molecule"), calculator)
    assert len(built) == 2  # H
    assert set(calculator.backends[0].worst) == {"energies", "forces", "stress"}
    assert calculator.get_descriptors(atoms).shape == (1, 4)


def test_modifiers_are_checked():
    backend = load_backend(shared(), Options(CPU, modifiers=["enable_ForceStressOutput"]))
    assert isinstance(backend, Checked)
    atoms = structure("bulk")
    found = EqCalculator(shared(), modifiers=["enable_ForceStressOutput"])
    assert_same(evaluate(atoms, found), evaluate(atoms, EqCalculator(shared())), 1e-12)


def test_the_key_tells_models_and_options_apart():
    keys = [compile_key(build(), CPU, ()), compile_key(build(), CPU, ())]
    assert keys[0] == keys[1]
    keys.append(compile_key(build(seed=1), CPU, ()))
    keys.append(compile_key(build("float32"), CPU, ()))
    keys.append(compile_key(build(r_max=3.9), CPU, ()))
    keys.append(compile_key(build(), CPU, ("enable_OpenEquivariance",)))
    changed = build()
    with torch.no_grad():
        list(changed.parameters())[-1].view(-1)[0] += 1e-12
    keys.append(compile_key(changed, CPU, ()))
    torch.set_num_threads(torch.get_num_threads() + 1)
    try:
        keys.append(compile_key(build(), CPU, ()))
    finally:
        torch.set_num_threads(torch.get_num_threads() - 1)
    assert len(set(keys)) == len(keys) - 1


def test_the_cache_directory(monkeypatch, tmp_path):
    assert cache_directory(tmp_path) == tmp_path
    monkeypatch.setenv("EQPLUGIN_CACHE_DIR", str(tmp_path / "chosen"))
    assert cache_directory() == tmp_path / "chosen"
    monkeypatch.delenv("EQPLUGIN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "eqplugin"


def test_a_file_is_made_once_and_never_half(tmp_path):
    made = []

    def make(path):
        made.append(path)
        path.write_text("whole")

    def fail(path):
        path.write_text("half")
        raise EqPluginError("no")

    with pytest.raises(EqPluginError):
        cached_file(tmp_path, "key", ".pt2", fail)
    assert not list(tmp_path.glob("*.pt2"))
    assert not list(tmp_path.glob(".*.pt2"))
    for _ in range(2):
        assert cached_file(tmp_path, "key", ".pt2", make).read_text() == "whole"
    assert len(made) == 1
    (tmp_path / "file").touch()
    with pytest.raises(EqPluginError, match="set EQPLUGIN_CACHE_DIR"):
        cached_file(tmp_path / "file", "key", ".pt2", make)


def _slowly(path):
    with (path.parent / "log").open("a") as log:
        log.write("made\n")
    time.sleep(0.5)
    path.write_text("whole")


def _take(directory):
    assert cached_file(Path(directory), "key", ".pt2", _slowly).read_text() == "whole"


def test_processes_wait_for_each_other(tmp_path):
    tmp_path.joinpath("log").touch()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_take, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compiled_in_and_out_of_the_cache(dtype, tmp_path, monkeypatch):
    model = build(dtype, pair_potential=None)
    calculator = EqCalculator(model, compile="aoti", cache_dir=tmp_path)
    reference = stock(model)
    for name in STRUCTURES:
        for atoms in walk(structure(name), steps=2):
            assert_same(evaluate(atoms, calculator), evaluate(atoms, reference), TOLERANCE[dtype])
    assert calculator.backends[0].dtype == TORCH[dtype]
    (compiled,) = tmp_path.glob("*.nequip.pt2")
    # the same file on padded buffers of fixed shapes, as for a CUDA graph
    padded = EqCalculator(model)
    run = CudaGraphRun(_without_locks(compiled), padded.r_max, pretend_capture)
    padded.backends = [CompiledBackend(run, padded.backends[0], paired=True)]
    for atoms in walk(structure("bulk"), steps=5):
        assert_same(evaluate(atoms, padded), evaluate(atoms, calculator), TOLERANCE[dtype])

    def never(*_arguments):
        raise AssertionError("it is in the cache")

    monkeypatch.setattr("eqplugin.calculator.compiled._compile", never)
    again = EqCalculator(model, compile="aoti", cache_dir=tmp_path)
    atoms = structure("bulk")
    for key, value in evaluate(atoms, calculator).items():
        np.testing.assert_array_equal(evaluate(atoms, again)[key], value)
    # a file damaged by something else is made again
    compiled.write_bytes(compiled.read_bytes()[:1000])
    with pytest.raises(AssertionError, match="it is in the cache"):
        EqCalculator(model, compile="aoti", cache_dir=tmp_path)
    assert not list(tmp_path.glob("*.nequip.pt2"))


def test_a_model_that_cannot_be_compiled(tmp_path, monkeypatch):
    def fail(**_options):
        raise RuntimeError("no C++ compiler\nand a page of output")

    monkeypatch.setattr("eqplugin.calculator.compiled.aot_export_model", fail)
    with pytest.raises(EqPluginError, match=r"could not be compiled .*no C\+\+ compiler") as caught:
        EqCalculator(shared(), compile="aoti", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.pt2"))
