"""What users may import, and the promises of the package about its own names."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import eqplugin
from eqplugin.errors import EqPluginError

PACKAGE = Path(eqplugin.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
STUBS = sorted(PACKAGE.rglob("*.pyi"))
MOST_PUBLIC_NAMES = 250


def names_in_all(source):
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def module_at(path):
    parts = ["eqplugin", *path.relative_to(PACKAGE).with_suffix("").parts]
    return import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


# packages that import on first use have their names in a stub
LISTED = {
    path: names
    for path in sorted([*PACKAGE.rglob("*.py"), *STUBS])
    if (names := names_in_all(path.read_text()))
}


@pytest.mark.parametrize("name", [name for name in eqplugin.__all__ if name != "__version__"])
def test_public_names_are_there_and_documented(name):
    assert getattr(eqplugin, name).__doc__.strip()


def test_public_names_are_few():
    assert sum(map(len, LISTED.values())) <= MOST_PUBLIC_NAMES
    assert 20 <= len(eqplugin.__all__) <= 30


@pytest.mark.parametrize("path", LISTED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_listed_name_exists(path):
    module = module_at(path)
    assert not [name for name in LISTED[path] if not hasattr(module, name)]


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.parent.name)
def test_type_checkers_see_the_same_names(stub):
    package = module_at(stub)
    assert names_in_all(stub.read_text()) == package.__all__
    for node in ast.parse(stub.read_text()).body:
        for alias in getattr(node, "names", ()):
            home = import_module(node.module)
            assert getattr(home, alias.name) is getattr(package, alias.name)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Desing'"):
        eqplugin.Desing  # noqa: B018
    assert set(eqplugin.__all__) <= set(dir(eqplugin))


def test_importing_is_light():
    code = "import sys, eqplugin; print([m for m in ('torch', 'ase', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["eqplugin", "eqplugin.nequip"])
def test_packaging_traces_nothing_heavy(package):
    from torch.package.find_file_dependencies import find_files_source_depends_on

    source = Path(import_module(package).__file__).read_text()
    modules = {module for module, _ in find_files_source_depends_on(source, package)}
    assert modules <= {"eqplugin._extension", "eqplugin._lazy", "eqplugin._version"}


@pytest.mark.parametrize(
    ("pattern", "homes"),
    [
        (r"\bfamily [!=]= ", {"nequip/stack.py", "mace/stack.py"}),
        (r"\bdef load_model\b", {"stacks.py"}),
        (r"mock\.patch|unittest\.mock", set()),
        # brackets in a user's path are no markup
        (r"\b(Console|TextColumn)\((?![^()]*markup=False)", set()),
        (r"\bstatus\(f?\"\{|status\.update\(f\"[^)]*\{(path|label|name|file)", set()),
    ],
)
def test_what_is_said_in_one_place(pattern, homes):
    assert {path for path, source in SOURCES.items() if re.search(pattern, source)} <= homes


# ---- load_model: the models of either stack are loaded in tests/nequip and tests/mace


def test_files_that_cannot_be_loaded(tmp_path):
    for name, message in (
        ("gone.ckpt", "is missing"),
        ("model.pth", "none of the endings"),
        ("fast.nequip.pt2", "is compiled"),
        ("broken.ckpt", "not a NequIP checkpoint"),
        ("broken.nequip.zip", "not a NequIP package"),
        ("broken.model", "cannot be read as a MACE model"),
    ):
        if name != "gone.ckpt":
            (tmp_path / name).write_bytes(b"PK not really")
        with pytest.raises(EqPluginError, match=f"{name} .*{message}"):
            eqplugin.load_model(tmp_path / name)
    with pytest.raises(EqPluginError, match="device='gpu' is not known"):
        eqplugin.load_model(tmp_path / "broken.ckpt", device="gpu")
