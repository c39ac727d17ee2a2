"""Write the reference pages that follow from the code: commands, Python API, config keys.

They land in docs/reference/generated (ignored by git) at the start of every build, so a renamed
option or function cannot leave an old page behind.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

from repository_links import COPIES, site_text
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
OUT = DOCS / "reference" / "generated"

# A package whose __init__ has an __all__ is documented by that; of the others, these modules.
PACKAGES: dict[str, list[str]] = {
    "eqplugin": [],
    "eqplugin.nequip": [],
    "eqplugin.mace": [],
    "eqplugin.data": [],
    "eqplugin.theory": ["sites", "stabilizer", "canonical", "capture", "congruence", "structures"],
    "eqplugin.md": ["run", "settings"],
    "eqplugin.lammps": ["driver"],
    "eqplugin.measure": ["forces", "comparison", "models", "speed"],
    "eqplugin.study": ["config", "run"],
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages as soon as Sphinx starts."""
    app.connect("builder-inited", lambda _: write_pages())
    return {"parallel_read_safe": True}


def write_pages() -> None:
    """Write every generated page; an unchanged one keeps its time, so Sphinx need not read it."""
    OUT.mkdir(parents=True, exist_ok=True)
    pages = {"cli.md": _commands(), "configs.md": _configs()}
    pages |= {Path(copy).name: site_text(path) for path, copy in COPIES.items()}
    known: dict[int, str] = {}
    for name, modules in PACKAGES.items():
        # dots would make Markdown of eqplugin.md
        pages[f"api-{name.replace('.', '-')}.rst"] = _package(name, modules, known)
    for old in OUT.iterdir():
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = OUT / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _package(name: str, modules: list[str], known: dict[int, str]) -> str:
    package = importlib.import_module(name)
    public = [entry for entry in getattr(package, "__all__", []) if not entry.startswith("__")]
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    if public:
        return "\n".join(lines + _entries(name, public, known))
    for module in modules:
        full = f"{name}.{module}"
        lines += [full, "-" * len(full), "", f".. automodule:: {full}", "   :no-members:", ""]
        lines += _entries(full, importlib.import_module(full).__all__, known)
    return "\n".join(lines)


def _entries(module: str, names: list[str], known: dict[int, str]) -> list[str]:
    """Directives for autodoc; what an earlier page describes (``known``) is only pointed to."""
    lines = []
    for name in names:
        entry = getattr(importlib.import_module(module), name)
        if not callable(entry):
            continue
        if (full := known.setdefault(id(entry), f"{module}.{name}")) != f"{module}.{name}":
            lines += [f"* ``{name}``: :py:obj:`{full}`", ""]
        elif inspect.isclass(entry):
            lines += [f".. autoclass:: {module}.{name}", ""]
        else:
            lines += [f".. autofunction:: {module}.{name}", ""]
    return lines


def _configs() -> str:
    lines = ["# Config keys", ""]
    for stack, program in (("nequip", "nequip-train"), ("mace", "eqplugin mace-train")):
        lines += [f"## {stack}: the keys of `{program}`", ""]
        for path in sorted((ROOT / "configs" / stack).glob("*everything.yaml")):
            lines += _listing(path, "yaml")
    lines += ["## Studies: the keys of `eqplugin study`", ""]
    return "\n".join(lines + _listing(_schema_file(), "python"))


def _schema_file() -> Path:
    return Path(importlib.import_module("eqplugin.study.schema").__file__)


def _listing(path: Path, language: str) -> list[str]:
    shown = path.relative_to(ROOT)
    return [f"`{shown}`", "", f"```{language}", path.read_text(encoding="utf-8").strip(), "```", ""]


def _commands() -> str:
    program = [sys.executable, "-m", "typer", "eqplugin.cli", "utils", "docs"]
    pages = subprocess.run([*program, "--name", "eqplugin"], capture_output=True, text=True)
    if pages.returncode:
        raise RuntimeError(f"typer could not describe the commands: {pages.stderr}")
    text = pages.stdout.replace("# `eqplugin`", "# Commands", 1)
    # outside of code an option would be set as a dash
    return re.sub(r"(`[^`]*`)|(--[a-z][\w-]*)", lambda m: m[1] or f"`{m[2]}`", text)
