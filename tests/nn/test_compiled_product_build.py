"""Building the operators: cache, lock, damage, and machines where they cannot be built."""

import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eqplugin.nn.compiled_product_build import Unavailable, build, compiler

try:
    BUILT = build()
except Unavailable as reason:
    pytest.skip(f"no compiled operators here: {reason}", allow_module_level=True)

USE = """
    import torch
    from eqplugin.nn.compiled_product import load_operators, status
    print("STATUS", status().available, status().found, "|", status().advice)
    print("REASON", load_operators())
    print("LOADED", hasattr(torch.ops.eqplugin, "uvu_scatter"))
"""


def script(code, cache, wait=True, **environment):
    """Run `code` in a process with its own cache of operators."""
    environment = {**os.environ, "EQPLUGIN_CACHE": str(cache), **environment}
    arguments = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.Popen(
        arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return process.communicate(timeout=300) if wait else process


@pytest.fixture
def fake_compiler(tmp_path):
    """Make a compiler that says what it is asked, counts its calls and copies the real library."""

    def make(action='cp "$REAL" "$output"'):
        path = tmp_path / "fake-c++"
        path.write_text(
            textwrap.dedent(f"""\
            #!/bin/sh
            if [ "$1" = --version ]; then echo "fake c++ 1.0"; exit 0; fi
            echo "$*" >> {tmp_path}/calls
            while [ $# -gt 0 ]; do if [ "$1" = -o ]; then output=$2; fi; shift; done
            REAL={BUILT}
            {action}
            """)
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return {"CXX": str(path)}

    make.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return make


def libraries(cache):
    return list(Path(cache).rglob("*.so"))


def test_second_process_finds_the_library_of_the_first(tmp_path, fake_compiler):
    cache, environment = tmp_path / "cache", fake_compiler()
    out, err = script(USE, cache, **environment)
    assert "REASON None" in out
    assert "LOADED True" in out
    assert err.count("eqplugin: compiling its C++ operators with fake c++ 1.0") == 1
    assert len(err.strip().splitlines()) == 1
    out, err = script(USE, cache, **environment)
    assert f"STATUS True built: {libraries(cache)[0]}" in out
    assert "LOADED True" in out
    assert err == ""
    assert len(fake_compiler.calls()) == 1


def test_processes_that_start_together_build_once(tmp_path, fake_compiler):
    environment = fake_compiler('sleep 3; cp "$REAL" "$output"')
    running = [script(USE, tmp_path / "cache", wait=False, **environment) for _ in range(3)]
    for process in running:
        out, _ = process.communicate(timeout=300)
        assert "LOADED True" in out
    assert len(fake_compiler.calls()) == 1


def test_damaged_library_is_built_again(tmp_path, fake_compiler):
    cache, environment = tmp_path / "cache", fake_compiler()
    script(USE, cache, **environment)
    library = libraries(cache)[0]
    library.write_bytes(library.read_bytes()[:5000])
    out, _ = script(USE, cache, **environment)
    assert "LOADED True" in out
    assert library.stat().st_size == BUILT.stat().st_size


def test_interrupted_build_leaves_nothing_that_looks_whole(tmp_path, fake_compiler):
    cache = tmp_path / "cache"
    environment = fake_compiler('head -c 5000 "$REAL" > "$output"; kill -9 $PPID')
    process = script(USE, cache, wait=False, **environment)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert all("tmp" in str(path.parent) for path in libraries(cache))  # not under its own name
    out, _ = script(USE, cache, **fake_compiler())
    assert "LOADED True" in out


def test_no_compiler_is_one_sentence(tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    out, err = script(USE, tmp_path / "cache", CXX="", PATH=str(empty))
    assert "STATUS False no C++ compiler was found" in out
    assert "| Products run in torch" in out
    assert "REASON eqplugin's compiled operators cannot be used: no C++ compiler was found" in out
    assert "LOADED False" in out
    assert err == ""


def test_failing_compiler_is_one_sentence_with_the_log(tmp_path, fake_compiler):
    cache = tmp_path / "cache"
    out, err = script(USE, cache, **fake_compiler('echo "no such header" >&2; exit 1'))
    assert "REASON eqplugin's compiled operators cannot be used:" in out
    assert "Traceback" not in err
    log = next(cache.rglob("*.log"))
    assert str(log) in out
    assert "no such header" in log.read_text()
    assert not libraries(cache)


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    out, err = script(USE, blocked)
    assert "cannot be written" in out
    assert "EQPLUGIN_CACHE" in out
    assert "Traceback" not in err


def test_switched_off(tmp_path):
    out, _ = script(USE, tmp_path, EQPLUGIN_NO_COMPILED="1")
    assert "switched off by EQPLUGIN_NO_COMPILED" in out
    assert "LOADED False" in out


def test_import_by_a_compiled_package_is_one_sentence_too(tmp_path):
    _, err = script(
        "import eqplugin.nn.compiled_product_ops", tmp_path, EQPLUGIN_NO_COMPILED="1"
    )
    assert err.strip().splitlines()[-1].startswith("eqplugin.errors.EqPluginError: eqplugin's comp")


def test_key_changes_with_what_the_library_depends_on(tmp_path, monkeypatch):
    from eqplugin.nn import compiled_product_build as module

    def path():
        return module.library_path()

    usual = path()
    sources = tmp_path / "csrc"
    shutil.copytree(module.SOURCES, sources)
    monkeypatch.setattr(module, "SOURCES", sources)
    assert path() == usual
    (sources / "simd.h").write_text("// changed")
    assert path() != usual
    monkeypatch.undo()
    monkeypatch.setattr(module.torch, "__version__", "99")
    assert path() != usual
    monkeypatch.undo()
    monkeypatch.setattr(module, "_processor", lambda: "another processor")
    assert path() != usual


def test_main_prints_the_library_for_programs_without_python():
    done = subprocess.run(
        [sys.executable, "-m", "eqplugin.nn.compiled_product_ops"], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(BUILT)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["-march=x86-64", "-march=x86-64-v3"])
def test_narrower_vectors_give_the_same_numbers(tmp_path, tuning):
    """The SSE and AVX2 builds, made with the real compiler."""
    if os.uname().machine != "x86_64":
        pytest.skip("x86 only")
    wrapper = tmp_path / "c++"
    wrapper.write_text(
        f'#!/bin/sh\nfor a do shift; [ "$a" = -march=native ] && a={tuning}; set -- "$@" "$a"; '
        f'done\nexec {compiler()[0]} "$@"\n'
    )
    wrapper.chmod(0o755)
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch; torch.set_default_dtype(torch.float64)
        from compiled_product_under_test import *
        from eqplugin.nn.compiled_product import CompiledProduct
        for features, l_max in (("5x0e + 3x1o + 9x2e", 2), (natural(4, (8, 1, 17, 2, 3)), 4)):
            case = Case(nequip_product(features, l_max))
            product = case.through(CompiledProduct(case.tp))
            print(largest_deviation(case.derivatives(product), case.derivatives(case.stock)))
    """
    out, err = script(code, tmp_path / "cache", CXX=str(wrapper))
    assert len(out.split()) == 2, err
    assert all(float(value) < 1e-12 for value in out.split())
