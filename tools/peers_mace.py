"""Run MACE's own tests on the installed MACE with eqplugin's repairs: `make peers-mace SRC=...`.

    python tools/peers_mace.py SRC [--files cg tools ...] [--without] [-- pytest arguments]

SRC is a MACE source tree (https://github.com/ACEsuit/mace), of which only ``tests/`` is used; what
is tested is the MACE installed here. Every Python that the tests start gets the repairs as well,
through a ``sitecustomize`` that applies them as soon as MACE is imported. ``--without`` leaves the
repairs out, for comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# the test files that need no network and no GPU, short ones first
FILES = (
    "cg",
    "tools",
    "data",
    "modules",
    "models",
    "lora",
    "mliap_exchange",
    "preprocess",
    "multifiles",
    "calculator",
    "run_train_allkeys",
    "run_train",
)

SITECUSTOMIZE = '''\
"""Apply eqplugin.mace.compat as soon as MACE has been imported."""
import importlib.abc
import importlib.machinery
import sys


class _Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        import eqplugin.mace  # noqa: F401


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "mace":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
'''


def main(argv: list[str]) -> int:
    """Run the tests; the exit status is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("src", type=Path, help="a MACE source tree")
    parser.add_argument("--files", nargs="+", default=list(FILES), metavar="NAME")
    parser.add_argument("--without", action="store_true", help="without the repairs")
    arguments, pytest_arguments = parser.parse_known_args(argv)

    tests = arguments.src / "tests"
    missing = [name for name in arguments.files if not (tests / f"test_{name}.py").is_file()]
    if missing:
        print(f"{tests} has no {', '.join(f'test_{name}.py' for name in missing)}: give SRC, a "
              "MACE source tree.", file=sys.stderr)  # fmt: skip
        return 2
    installed = importlib.util.find_spec("mace")
    if installed is None:
        print("MACE is not installed here.", file=sys.stderr)
        return 2

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(tests, root / "tests")
        # the tests start scripts by their path beside tests/: let these be the installed ones
        (root / "mace").symlink_to(Path(installed.origin).parent, target_is_directory=True)
        site = root / "site"
        site.mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if not arguments.without:
            (site / "sitecustomize.py").write_text(SITECUSTOMIZE)
            path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(path)
        command = [
            sys.executable,
            *("-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--rootdir", str(root)),
            *pytest_arguments,
            *(str(Path("tests") / f"test_{name}.py") for name in arguments.files),
        ]
        return subprocess.run(command, cwd=root, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main([argument for argument in sys.argv[1:] if argument != "--"]))
