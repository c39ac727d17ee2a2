"""Building the operators: cache, lock, damage, and machines where they cannot be built."""

import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eqplugin.nn.product import build as module
from eqplugin.nn.product.build import Unavailable, build, compiler
from eqplugin.nn.product.compiled import Status, status

try:
    BUILT = build()
except Unavailable as reason:
    pytest.skip(f"no compiled operators here: {reason}", allow_module_level=True)


def run(code, **environment):
    """Run `code` in a process of its own: a process can load the operators only once."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EQPLUGIN_CACHE_DIR", str(folder))
    monkeypatch.delenv("EQPLUGIN_NO_COMPILED", raising=False)
    return folder


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    """Use a compiler that notes its calls and, unless told otherwise, copies the real library."""

    def use(action='cp "$REAL" "$output"'):
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
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))

    use.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return use


def libraries(cache):
    return list(cache.rglob("*.so"))


def test_built_once_and_found_again(cache, fake_compiler, capfd):
    fake_compiler()
    assert status() == Status(True, "not built yet: compiled on first use, about half a minute")
    library = build()
    assert library.read_bytes() == BUILT.read_bytes()
    assert capfd.readouterr().err == (
        "eqplugin: compiling its C++ operators with fake c++ 1.0 (once, about half a minute)\n"
    )
    assert build() == library
    assert status() == Status(True, f"built: {library}")
    assert capfd.readouterr().err == ""
    assert len(fake_compiler.calls()) == 1


def test_those_who_start_together_build_once(cache, fake_compiler):
    fake_compiler('sleep 1; cp "$REAL" "$output"')
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: build(), range(4)))
    assert len(found) == 1
    assert len(fake_compiler.calls()) == 1


def test_damaged_library_is_built_again(cache, fake_compiler):
    fake_compiler()
    library = build()
    library.write_bytes(library.read_bytes()[:5000])
    assert build().read_bytes() == BUILT.read_bytes()
    assert len(fake_compiler.calls()) == 2


def test_interrupted_build_leaves_nothing_that_looks_whole(cache, fake_compiler):
    fake_compiler('head -c 5000 "$REAL" > "$output"; kill -9 $PPID')
    done = run("from eqplugin.nn.product.build import build; build()")
    assert done.returncode != 0
    fake_compiler()  # and no lock either
    assert build().read_bytes() == BUILT.read_bytes()


def test_falls_back_to_plainer_flags(cache, fake_compiler):
    fake_compiler('[ -e "$0.seen" ] || { touch "$0.seen"; exit 1; }; cp "$REAL" "$output"')
    build()
    first, second = fake_compiler.calls()
    assert "-march=native" in first
    assert "-march=native" not in second


def test_failing_compiler_is_one_sentence_with_the_log(cache, fake_compiler):
    fake_compiler('echo "no such header" >&2; exit 1')
    with pytest.raises(Unavailable, match="fails to compile") as caught:
        build()
    log = next(cache.rglob("*.log"))
    assert str(log) in str(caught.value)
    assert "no such header" in log.read_text()
    assert not libraries(cache)


def test_no_compiler_is_one_sentence(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no C\\+\\+ compiler was found"):
        build()
    found = status()
    assert not found.available
    assert "no C++ compiler" in found.found
    assert "torch" in found.advice


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("EQPLUGIN_CACHE_DIR", str(blocked))
    with pytest.raises(Unavailable, match=r"cannot be written .* set EQPLUGIN_CACHE_DIR"):
        build()


def test_switched_off(monkeypatch):
    monkeypatch.setenv("EQPLUGIN_NO_COMPILED", "1")
    with pytest.raises(Unavailable, match="switched off by EQPLUGIN_NO_COMPILED"):
        build()


def test_reason_reaches_who_loads_or_imports_them():
    done = run(
        """
        from eqplugin.nn.product.compiled import load_operators
        print(load_operators())
        import eqplugin.nn.product.operators
        """,
        EQPLUGIN_NO_COMPILED="1",
    )
    sentence = (
        "eqplugin's compiled operators cannot be used: they are switched off by "
        "EQPLUGIN_NO_COMPILED."
    )
    assert done.stdout.strip() == sentence
    assert done.stderr.splitlines()[-1] == f"eqplugin.errors.EqPluginError: {sentence}"


def test_key_changes_with_what_the_library_depends_on(tmp_path, monkeypatch):
    usual = module.library_path()
    sources = tmp_path / "csrc"
    shutil.copytree(module.SOURCES, sources)
    monkeypatch.setattr(module, "SOURCES", sources)
    assert module.library_path() == usual
    (sources / "simd.h").write_text("// changed")
    assert module.library_path() != usual
    monkeypatch.undo()
    monkeypatch.setattr(module.torch, "__version__", "99")
    assert module.library_path() != usual
    monkeypatch.undo()
    monkeypatch.setattr(module, "processor_features", lambda: "another processor")
    assert module.library_path() != usual


@pytest.mark.slow
def test_main_prints_the_library_for_programs_without_python():
    done = subprocess.run(
        [sys.executable, "-m", "eqplugin.nn.product.operators"], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(BUILT)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SSE", "AVX2", "without OpenMP", "old GCC"])
def test_other_builds_give_the_same_numbers(tmp_path, kind):
    """What other machines would build, made with the real compiler."""
    if os.uname().machine != "x86_64":
        pytest.skip("x86 only")
    change = {
        "SSE": '[ "$a" = -march=native ] && a=-march=x86-64',
        "AVX2": '[ "$a" = -march=native ] && a=-march=x86-64-v3',
        "without OpenMP": '[ "$a" = -fopenmp ] && exit 1',
        "old GCC": '[ "$a" = -O3 ] && a=-DEQPLUGIN_OLD_SHUFFLE',
    }[kind]
    wrapper = tmp_path / "c++"
    wrapper.write_text(
        f'#!/bin/sh\nfor a do shift; {change}; set -- "$@" "$a"; done\n'
        f'exec {compiler()[0]} -O3 "$@"\n'
    )
    wrapper.chmod(0o755)
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch; torch.set_default_dtype(torch.float64)
        from compiled_product_under_test import *
        from eqplugin.nn.product.compiled import CompiledProduct
        for features, l_max in (("5x0e + 3x1o + 9x2e", 2), (natural(4, (8, 1, 17, 2, 3)), 4)):
            case = Case(nequip_product(features, l_max))
            product = case.through(CompiledProduct(case.tp))
            print(largest_deviation(case.derivatives(product), case.derivatives(case.stock)))
    """
    done = run(code, EQPLUGIN_CACHE_DIR=str(tmp_path / "cache"), CXX=str(wrapper))
    deviations = done.stdout.split()
    assert len(deviations) == 2, done.stderr
    assert all(float(value) < 1e-12 for value in deviations)
