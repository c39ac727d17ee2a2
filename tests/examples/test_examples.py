"""The examples run as they stand and show what they say."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


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
