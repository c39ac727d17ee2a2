"""Opening a model leaves the process as it was, and threads may do it at the same time."""

import copy
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from old_models import MACE, NEQUIP, needs

from eqplugin import EqCalculator
from eqplugin.process import evaluating, loading

ROOT = Path(__file__).parents[2]


VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def run(code, *arguments, **variables):
    # tests before this one may have trained in this process
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE and k[:3] != "PL_"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


STATE = """
import os, sys, numpy as np, torch
from eqplugin import EqCalculator
torch.manual_seed(3), np.random.seed(3)
before = torch.rand(1).item(), np.random.rand()
torch.manual_seed(3), np.random.seed(3)
for path in sys.argv[1:]:
    EqCalculator(path)
print(before == (torch.rand(1).item(), np.random.rand()))
print(torch.get_default_dtype(), torch.nn.Linear(1, 1).weight.dtype)
print(sorted(k for k in os.environ if k.startswith("PL_") or "WEIGHTS_ONLY" in k))
"""


@pytest.mark.parametrize(
    "names", [NEQUIP[:1], MACE[:1], (MACE[0], NEQUIP[0]), (NEQUIP[0], MACE[0])]
)
def test_opening_a_model_leaves_the_process_as_it_was(folder, names):
    needs(*names)
    found = run(STATE, *(folder / name for name in names))
    assert found == ["True", "torch.float32", "torch.float32", "[]"]


def test_mace_opens_its_files_without_the_variable(folder):
    needs(*MACE)
    code = (
        "import sys, os, eqplugin.mace; from mace.calculators import MACECalculator\n"
        "MACECalculator(sys.argv[1], device='cpu')\n"
        "print('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' in os.environ)"
    )
    assert run(code, folder / MACE[0])[-1] == "False"


def test_the_users_own_variable_stays(folder):
    needs(*MACE)
    code = f"import os, eqplugin.mace; print(os.environ[{VARIABLE!r}])"
    assert run(code, **{VARIABLE: "1"})[-1] == "1"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_do_not_depend_on_the_default_dtype(folder, structures, dtype):
    before = torch.get_default_dtype()
    calculator = EqCalculator(folder / NEQUIP[0])
    expected = calculator.get_potential_energy(structures[0]), calculator.get_forces(structures[0])
    try:
        torch.set_default_dtype(dtype)
        calculator.reset()
        assert calculator.get_potential_energy(structures[0]) == expected[0]
        np.testing.assert_array_equal(calculator.get_forces(structures[0]), expected[1])
    finally:
        torch.set_default_dtype(before)


def test_threads_open_and_share_calculators(folder, structures):
    needs(*MACE)
    files = [folder / name for name in (*MACE, *NEQUIP)]
    shared = {file: EqCalculator(file) for file in files}
    expected = {
        (file, n): (calculator.get_potential_energy(atoms), calculator.get_forces(atoms))
        for file, calculator in shared.items()
        for n, atoms in enumerate(structures)
        if set(atoms.numbers) <= set(calculator.species)
    }
    wrong = []

    def work(seed):
        choose = random.Random(seed)
        for _ in range(6):
            file, n = choose.choice(sorted(expected))
            try:
                calculator = EqCalculator(file) if choose.random() < 0.3 else shared[file]
                atoms = structures[n].copy()
                atoms.calc = calculator
                energy, forces = expected[file, n]
                if atoms.get_potential_energy() != energy:
                    wrong.append((file.name, n))
                if not np.array_equal(atoms.get_forces(), forces):
                    wrong.append((file.name, n))
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_calculators_with_their_lock_are_copied(folder, structures):
    calculator = EqCalculator(folder / NEQUIP[0])
    expected = calculator.get_potential_energy(structures[0])
    assert copy.deepcopy(calculator).get_potential_energy(structures[0]) == expected
    lock = pickle.loads(pickle.dumps(calculator._lock))
    with lock, lock, calculator._lock:
        pass


def test_loading_waits_for_evaluation_and_may_happen_inside_it():
    order = []
    inside, leave = threading.Event(), threading.Event()

    def evaluate():
        with evaluating(), evaluating():
            inside.set()
            leave.wait(5)
            order.append("evaluated")
            with loading(), loading(), evaluating():
                order.append("loaded inside")

    def load():
        inside.wait(5)
        leave.set()
        with loading():
            order.append("loaded")

    threads = [threading.Thread(target=target) for target in (evaluate, load)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert order[0] == "evaluated"
    assert sorted(order[1:]) == ["loaded", "loaded inside"]
