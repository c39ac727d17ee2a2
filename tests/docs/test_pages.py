"""Code blocks of README and docs run as they stand, page by page, in a folder like a clone.

An HTML comment before a block, which no reader sees, says what it is:
``<!-- slow -->`` runs with the long tests, ``<!-- not run: reason -->`` does not run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import read, write
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md")]
    if not {"_build", "generated"} & set(page.parts)
)
MARK = re.compile(r"<!-- (slow|not run)[^\n]*-->\n\Z")
SEEN = set()
# the same commands for less time: a test is about the command, not about the model
SHORTER = (
    (r"^(nequip-train (?!.*-h).*)$", r"\1 max_epochs=1"),
    (r"^(eqplugin mace-train .*--config.*)$", r"\1 --max_num_epochs 1"),
    (r"--steps \d+", "--steps 200"),
)


def kind(example):
    """``fast``, ``slow`` or ``not run``, by the comment before the block."""
    found = MARK.search(example.document.text[: example.region.start])
    return found[1] if found else "fast"


def shell(example):
    """Run a bash block; its first failing command fails the page."""
    script = re.sub(r"\\\n *", "", example.parsed)
    for pattern, shorter in SHORTER:
        script = re.sub(pattern, shorter, script, flags=re.MULTILINE)
    run(script)


def run(script):
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True
    )
    assert result.returncode == 0, f"{script}\n{result.stdout[-1000:]}\n{result.stderr[-2000:]}"


def blocks(page):
    parsers = [CodeBlockParser("bash", shell), PythonCodeBlockParser()]
    return list(Document.parse(str(ROOT / page), *parsers).examples())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the pages assume: a clone, some files of the user's, and the commands on the path."""
    for name in ("configs", "examples", "benchmarks", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    write(tmp_path / "train.xyz", read(ETHANOL / "train_300K.xyz", ":40"))
    write(tmp_path / "test.xyz", read(ETHANOL / "test_300K.xyz", ":20"))
    for name in ("start", "molecule"):
        write(
            tmp_path / f"{name}.xyz",
            read(ETHANOL / "test_300K.xyz"),
            columns=["symbols", "positions"],
        )
    shutil.copy(ETHANOL / "isolated_atoms.xyz", tmp_path / "atoms.xyz")
    monkeypatch.chdir(tmp_path)
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A NequIP checkpoint and a MACE model, small and hardly trained."""
    folder = tmp_path_factory.mktemp("models")
    nequip = f"nequip-train -cp {ROOT}/configs/nequip -cn minimal feature_dim=16 num_layers=2"
    mace = f"eqplugin mace-train --config {ROOT}/configs/mace/minimal.yaml --feature_dim 16"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run(f"{nequip} max_epochs=1 hydra.run.dir={folder}/nequip")
        run(f"{mace} --max_num_epochs 1 --name a --work_dir {folder}/mace")
    return folder / "nequip" / "best.ckpt", folder / "mace" / "a.model"


def test_blocks_are_found_and_marked():
    kinds = [kind(example) for page in PAGES for example in blocks(page)]
    assert min(kinds.count(mark) for mark in ("fast", "slow", "not run")) > 5


@pytest.mark.parametrize("page", [p for p in PAGES if "fast" in map(kind, blocks(p))])
def test_short_blocks_run(page, folder):
    """Those that need nothing from the blocks before them; what several pages say, once."""
    for example in blocks(page):
        if kind(example) == "fast" and str(example.parsed) not in SEEN:
            example.evaluate()
            SEEN.add(str(example.parsed))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if "slow" in map(kind, blocks(p))])
def test_all_blocks_run(page, folder, models):
    for name, model in zip(("best.ckpt", "a.model"), models, strict=True):
        shutil.copy(model, folder / name)
    for name in ("b.model", "c.model", "water.model", "two_hops.model", "my.model"):
        shutil.copy(models[1], folder / name)
    for name in ("demo/steerable-L1", "demo/steerable-L2"):
        (folder / name).mkdir(parents=True)
        shutil.copy(models[0], folder / name / "best.ckpt")
    for example in blocks(page):
        if kind(example) != "not run":
            example.evaluate()
