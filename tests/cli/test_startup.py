"""The command line starts at once: what takes seconds to import waits for the command."""

import subprocess
import sys


def test_the_command_line_imports_nothing_heavy():
    code = "import sys, eqplugin.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "e3nn", "nequip", "mace", "ase", "scipy", "matplotlib", "pandas", "hydra"}
    assert not heavy & set(done.stdout.split())
