"""Sizes, ratios and memory of `bench speed`; no test asserts a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.io import write
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.measure.scaling import SizeTiming, enlarged, peak_memory

EMT = "ase.calculators.emt:EMT"


def test_crystals_grow_along_their_periodic_directions():
    copper = bulk("Cu", cubic=True)
    assert len(enlarged(copper, 3)) == 27 * 4
    slab = fcc111("Cu", size=(1, 1, 3), vacuum=5.0)
    larger = enlarged(slab, 2)
    assert len(larger) == 4 * 3
    assert larger.pbc.tolist() == slab.pbc.tolist()


def test_molecules_become_neighbours_but_do_not_touch():
    water = molecule("H2O")
    larger = enlarged(water, 3)
    assert len(larger) == 81
    assert not larger.pbc.any()
    distances = larger.get_all_distances()
    apart = distances[np.arange(81)[:, None] // 3 != np.arange(81)[None, :] // 3]
    assert 2.8 < apart.min() < 3.2


def test_less_than_one_is_refused():
    with pytest.raises(EqPluginError, match="--repeat 0"):
        enlarged(molecule("H2O"), 0)


def test_medians_by_hand():
    timing = SizeTiming(atoms=10, times_ms=(1.0, 2.0, 9.0))
    assert timing.median_ms == 2.0
    assert timing.us_per_atom == 200.0


def test_memory_is_that_of_the_call():
    small, large = (peak_memory(EMT, enlarged(bulk("Cu"), n), "cpu", None) for n in (1, 14))
    assert large > small  # 2744 atoms have neighbour lists of several MiB


def test_command(tmp_path):
    write(tmp_path / "cu.xyz", bulk("Cu", cubic=True))
    result = CliRunner().invoke(
        app,
        ["bench", "speed", EMT, "ase.calculators.lj:LennardJones", "--structure",
         str(tmp_path / "cu.xyz"), "--repeat", "1,2", "--calls", "3", "--no-memory", "--out",
         str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == 0, result.stdout + result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.strip().startswith("EMT")]
    assert [row[1] for row in rows] == ["4", "32"]
    assert {row[5] for row in rows} == {"1.00"}  # ratios are against the first model
    stored = json.loads((tmp_path / "out/speed.json").read_text())
    assert [t["atoms"] for t in stored["timings"]["LennardJones"]] == [4, 32]
    assert stored["hardware"]["processor"]
    assert (tmp_path / "out/speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("options, culprit", [(("--calls", "1"), "--calls 1"),
                                              (("--repeat", "x"), "--repeat=x"),
                                              (("--repeat", "0"), "--repeat 0")])  # fmt: skip
def test_mistakes_are_one_sentence(options, culprit, tmp_path):
    write(tmp_path / "cu.xyz", bulk("Cu"))
    line = ["bench", "speed", EMT, "--structure", str(tmp_path / "cu.xyz"), *options]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 1
    assert culprit in result.stderr
