"""CUDA graphs without a GPU: buffers of fixed shapes and places, and when they are made anew.

The capture is a stand-in that reads and writes the same memory each time, as a graph does.
"""

import zipfile

import numpy as np
import pytest
import torch
from ase import Atoms
from calculators_under_test import (
    STRUCTURES,
    TOLERANCE,
    assert_same,
    build,
    evaluate,
    khop,
    pretend_capture,
    shared,
    structure,
    uncompiled,
    walk,
)
from nequip.data import AtomicDataDict

from eqplugin import EqCalculator
from eqplugin.calculator import compiled, cuda_graph
from eqplugin.calculator.cuda_graph import CudaGraphRun, PaddedInput
from eqplugin.calculator.nequip_backend import NequIPBackend
from eqplugin.errors import EqPluginError

R_MAX = 4.0
VECTORS, INDEX = AtomicDataDict.EDGE_VECTORS_KEY, AtomicDataDict.EDGE_INDEX_KEY
POSITIONS, TYPES = AtomicDataDict.POSITIONS_KEY, AtomicDataDict.ATOM_TYPE_KEY


def graphed(model):
    """Return a calculator on padded buffers, and what counts its captures."""
    runs = []

    def wrap(run):
        runs.append(CudaGraphRun(run, R_MAX, pretend_capture))
        return runs[0]

    return uncompiled(model, wrap), runs[0]


@pytest.mark.parametrize(
    "name, dtype", [(name, "float64") for name in STRUCTURES] + [("bulk", "float32")]
)
def test_padding_changes_no_number(name, dtype):
    model = shared(dtype)
    calculator, run = graphed(model)
    for atoms in walk(structure(name), steps=2, size=0.3):
        expected = evaluate(atoms, EqCalculator(model))
        assert_same(evaluate(atoms, calculator), expected, TOLERANCE[dtype])
    assert run.captures <= 2


ZBL = {
    "_target_": "nequip.nn.pair_potential.ZBL",
    "chemical_species": ["H", "C", "O"],
    "units": "metal",
}


@pytest.mark.parametrize(
    "make",
    [
        khop,
        lambda: build(pair_potential=ZBL),
        lambda: build(per_edge_type_cutoff={"H": 2.0, "C": 3.0, "O": 4.0}),  # edges, not pairs
    ],
    ids=["k-hop", "pair potential", "cutoffs of types"],
)
def test_padding_changes_no_number_of_other_models(make):
    model = make()
    calculator, _ = graphed(model)
    for atoms in walk(structure("molecule in a periodic box"), steps=3, size=0.1):
        assert_same(evaluate(atoms, calculator), evaluate(atoms, EqCalculator(model)), 1e-10)


def test_pairs_left_from_the_step_before_would_show(monkeypatch):
    model = shared()
    near = structure("molecule")
    far = near.copy()
    far.positions[:3] += (9.0, 0.0, 0.0)  # fewer pairs
    calculator, run = graphed(model)
    expected = evaluate(far, EqCalculator(model))
    evaluate(near, calculator)
    assert_same(evaluate(far, calculator), expected, 1e-10)
    evaluate(near, calculator)
    run._buffers._used = 0  # forgets that there is something to clear
    assert run.captures == 1
    assert np.abs(evaluate(far, calculator)["energies"] - expected["energies"]).max() > 1e-3


def test_captured_anew_when_it_has_to_be():
    rng = np.random.default_rng(0)
    calculator, run = graphed(shared())

    def captures_of(atoms):
        evaluate(atoms, calculator)
        return run.captures

    atoms = Atoms("C40", rng.uniform(0, 9, (40, 3)), cell=[9, 9, 9], pbc=True)
    assert captures_of(atoms) == 1
    for moved in walk(atoms, steps=4, size=0.02):
        assert captures_of(moved) == 1  # a pair more or less finds room
    atoms.numbers[::2] = 8
    assert captures_of(atoms) == 1  # types are filled in
    denser = atoms.copy()
    denser.set_cell([7, 7, 7], scale_atoms=True)
    assert captures_of(denser) == 2  # no room
    sparse = atoms.copy()
    sparse.set_cell([14, 14, 14], scale_atoms=True)
    assert captures_of(sparse) == 3  # more padding than pairs
    assert captures_of(sparse[:-1]) == 4  # another number of atoms
    assert captures_of(sparse[:-1]) == 4


def inputs(num_atoms, num_pairs):
    rng = torch.Generator().manual_seed(num_pairs)
    return {
        POSITIONS: torch.randn(num_atoms, 3, generator=rng, dtype=torch.float64),
        VECTORS: torch.randn(num_pairs, 3, generator=rng, dtype=torch.float64),
        INDEX: torch.randint(num_atoms, (2, num_pairs), generator=rng),
        TYPES: torch.randint(3, (num_atoms,), generator=rng),
    }


def test_buffers_stay_where_they_are_and_hold_nothing_old():
    first = inputs(5, 300)
    buffers = PaddedInput(5, 300, R_MAX, first)
    places = {key: value.data_ptr() for key, value in buffers.inputs.items()}
    assert buffers.capacity >= 300
    for pairs in (300, 260, 290, 200):
        given = inputs(5, pairs)
        assert buffers.suits(5, pairs)
        buffers.fill(given)
        held = buffers.inputs
        assert torch.equal(held[VECTORS][:pairs], given[VECTORS])
        assert torch.equal(held[INDEX][:, :pairs], given[INDEX])
        assert torch.equal(held[TYPES][:5], given[TYPES])
        assert torch.equal(held[POSITIONS][:5], given[POSITIONS])
        # the rest joins the two extra atoms, beyond the cutoff
        assert (held[VECTORS][pairs:].norm(dim=1) == 2 * R_MAX).all()
        assert (held[INDEX][0, pairs:] == 5).all()
        assert (held[INDEX][1, pairs:] == 6).all()
    assert places == {key: value.data_ptr() for key, value in buffers.inputs.items()}


@pytest.mark.parametrize("num_pairs", [1, 2, 55, 56, 57, 111, 112, 113, 5000, 10**6])
def test_new_buffers_suit_what_they_were_made_for(num_pairs):
    # or every step would capture anew
    buffers = PaddedInput(3, num_pairs, R_MAX, inputs(3, 2))
    assert buffers.suits(3, num_pairs)
    assert buffers.suits(3, num_pairs + num_pairs // 10)
    assert not buffers.suits(4, num_pairs)
    assert not buffers.suits(3, 2 * num_pairs + 64)
    assert buffers.capacity <= 1.15 * num_pairs + 64


def test_large_systems_are_not_captured(monkeypatch):
    monkeypatch.setattr(cuda_graph, "MAX_ATOMS", 4)
    calculator, run = graphed(shared())
    atoms = structure("molecule")
    assert_same(evaluate(atoms, calculator), evaluate(atoms, EqCalculator(shared())), 1e-10)
    assert run.captures == 0


def test_a_model_that_cannot_be_captured_is_said():
    def refuse(_run, _inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nand a page of help")

    calculator = uncompiled(shared(), lambda run: CudaGraphRun(run, R_MAX, refuse))
    atoms = structure("molecule")
    for _ in range(2):
        with pytest.raises(EqPluginError, match=r"not permitted .*: use compile='aoti'") as caught:
            evaluate(atoms, calculator)
        assert "\n" not in str(caught.value)
        assert calculator.results == {}


def test_the_option_wants_a_gpu():
    with pytest.raises(EqPluginError, match="'aoti-cudagraphs' is for device='cuda', not cpu"):
        EqCalculator(shared(), compile="aoti-cudagraphs")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_option_reaches_the_compiled_model(wanted, monkeypatch, tmp_path):
    eager = NequIPBackend(shared(), "model", torch.device("cpu"))
    plain, alone = object(), object()

    def compile_nothing(_eager, _paired, path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("empty", "")

    monkeypatch.setattr(compiled, "_compile", compile_nothing)
    monkeypatch.setattr(compiled, "load_compiled_model", lambda *_: (plain, {}))
    monkeypatch.setattr(compiled, "_without_locks", lambda path: alone)
    run = compiled.compile_backend(eager, tmp_path, cuda_graphs=wanted)._run
    if wanted:
        assert isinstance(run, CudaGraphRun)
        assert run._run is alone  # loaded without what cannot be captured
    else:
        assert run is plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_real_graphs_give_the_same_numbers(tmp_path):
    model = build("float32")
    calculator = EqCalculator(model, device="cuda", compile="aoti-cudagraphs", cache_dir=tmp_path)
    for name in STRUCTURES:
        for atoms in walk(structure(name), steps=4, size=0.15):
            expected = evaluate(atoms, EqCalculator(model, device="cuda"))
            assert_same(evaluate(atoms, calculator), expected, TOLERANCE["float32"])
