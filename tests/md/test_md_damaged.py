"""Files of a run that somebody edited: one sentence, and nothing is lost."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from eqplugin import EqPluginError, MdSettings, run_md
from eqplugin.md.observables import read_log


@pytest.fixture
def folder(tmp_path):
    run_md(bulk("Cu", cubic=True), EMT(), MdSettings("nve", steps=20, every=10), tmp_path)
    return tmp_path


def go_on(folder):
    run_md(bulk("Cu", cubic=True), EMT(), MdSettings("nve", steps=40, every=10), folder)


def move_an_atom(arrays):
    arrays["positions"][0, 0] += 0.1


def cut_atoms(arrays):
    arrays["momenta"] = arrays["momenta"][:2]


def forget_the_cell(arrays):
    del arrays["cell"]


def edit_the_step(arrays):
    arrays["meta"] = np.array(str(arrays["meta"]).replace('"step": 20', '"step": 10'))


def no_step(arrays):
    arrays["meta"] = np.array(str(arrays["meta"]).replace('"step"', '"stop"'))


@pytest.mark.parametrize("edit", [move_an_atom, cut_atoms, forget_the_cell, edit_the_step, no_step])
def test_an_edited_restart_file_is_refused(folder, edit):
    file, before = folder / "restart.npz", (folder / "log.csv").read_bytes()
    go = dict(np.load(file))
    edit(go)
    np.savez(file, **go)
    with pytest.raises(EqPluginError, match=r"restart\.npz"):
        go_on(folder)
    assert (folder / "log.csv").read_bytes() == before


def test_a_restart_file_without_a_hash_still_works(folder):
    import json

    file = folder / "restart.npz"
    arrays = dict(np.load(file))
    meta = json.loads(str(arrays["meta"]))
    del meta["sha256"]
    np.savez(file, **arrays | {"meta": np.array(json.dumps(meta))})
    go_on(folder)
    assert len(read_log(folder / "log.csv")) == 5


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b",", b",x", 20),
        lambda text: text.replace(b"\n0", b"\n0,0"),
        lambda text: text[: len(text) // 2] + b"\n" + text[len(text) // 2 :],
        lambda text: text.replace(b".", b"\xff", 1),
        lambda text: b"step\n1\n",
    ],
)
def test_a_damaged_log_is_named(folder, edit):
    log = folder / "log.csv"
    log.write_bytes(edit(log.read_bytes()))
    with pytest.raises(EqPluginError, match=r"log\.csv"):
        read_log(log)
