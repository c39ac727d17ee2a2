"""The examples run as they stand and show what they say."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name, folder):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, cwd=folder
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_key_lemma(tmp_path):
    lines = run("key_lemma.py", tmp_path).splitlines()
    features, invariants, back = (float(line.split()[-1]) for line in lines[1:4])
    assert features > 0.1
    assert max(invariants, back) < 1e-12
    assert "symmetry Td" in lines[-1]


def test_why_butyne_needs_l3(tmp_path):
    output = run("why_butyne_needs_l3.py", tmp_path)
    assert "methyl carbon: C3v, dim V_l^Stab for l = 0..4: 1 1 1 2 2" in output
    assert "smallest l_max that fixes how it is turned: 3" in output
    changes = {
        int(degree): max(map(float, values.split()))
        for degree, values in re.findall(r"l_max (\d), D = \d+ (.*)", output)
    }
    assert max(changes[1], changes[2]) < 1e-13
    assert min(changes[3], changes[4]) > 5e-11


@pytest.mark.skipif(find_spec("tblite") is None, reason="needs tblite")
def test_torsion_scan(tmp_path):
    output = run("torsion_scan.py", tmp_path)
    rows = {
        line[:24].strip(): [float(value) for value in line[24:].split()]
        for line in output.splitlines()
        if "l_max" in line[:24]
    }
    blind = (rows["1 hop, l_max = 2"], rows["never reset, l_max = 1"])
    assert all(change < 1e-13 and error > 30 for change, error in blind)
    change, error = rows["2 hops, l_max = 2"]
    assert change > 1e-4
    assert error < 5
    assert (tmp_path / "torsion_scan.png").stat().st_size > 10_000


def test_what_hops_cannot_see():
    result = subprocess.run(
        [sys.executable, EXAMPLES / "what_hops_cannot_see.py"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = {
        line[:22].strip(): [float(value) for value in line[22:].split()]
        for line in result.stdout.splitlines()
        if "reset" in line[:22]
    }
    assert rows["reset every 1 hop"] == [0.0, 0.0, 0.0]
    two = rows["reset every 2 hops"]
    assert two[2] == 0.0
    assert min(two[:2]) > 1e-10
    assert min(rows["never reset"]) > 1e-12
