"""Checks of the installation: what is here, whether it works, and what to do where it does not."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata

from packaging.requirements import Requirement

from eqplugin.errors import reason_of
from eqplugin.resources import installed_version

__all__ = ["Finding", "Verdict", "diagnose"]

MACE_TESTED = "0.3.16"
PARITY_TOLERANCE = 1e-12
INSTALL_MACE = f"pip install --no-deps mace-torch=={MACE_TESTED}"


class Verdict(StrEnum):
    """How bad a finding is: only a fault makes `eqplugin doctor` fail."""

    ok = "ok"
    note = "note"
    fault = "FAULT"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str  # what was looked at
    verdict: Verdict  # ok, note (something optional is absent) or fault (something will not work)
    found: str  # what is there
    advice: str = ""  # what to do about it; empty where nothing is to be done


def diagnose() -> Iterator[Finding]:
    """Look at everything, one finding after the other; takes some seconds, and never raises."""
    checks = (
        _python, _requirements, _extension, _mace, _parity, _cuda, _kernels, _compiler,
        _compiled_product,
    )  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(
                check.__name__.strip("_"),
                Verdict.fault,
                f"the check itself failed: {reason_of(error, named=True)}",
                "Please report this with the output of `pip freeze`.",
            )


def _required(distribution: str) -> dict[str, Requirement]:
    """Requirements of an installed distribution that apply here, without extras."""
    requirements = map(Requirement, metadata.requires(distribution) or [])
    return {
        requirement.name.lower(): requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def _judged(
    check: str, good: bool, found: str, advice: str, otherwise: Verdict = Verdict.fault
) -> Finding:
    """A finding with advice only where something is amiss."""
    return Finding(check, Verdict.ok if good else otherwise, found, "" if good else advice)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield _judged("python", good, version, "Use Python 3.11 or newer.")


def _requirements() -> Iterator[Finding]:
    """Required packages; torch is imported too, since a broken CUDA library shows there."""
    for name, requirement in _required("eqplugin").items():
        version = installed_version(name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            if name in ("torch", "e3nn", "nequip", "ase"):
                yield _importable(name, version)
            continue
        advice = f'pip install "{name}{requirement.specifier}"'
        if name in ("nequip", "e3nn") and version is not None and installed_version("mace-torch"):
            advice = (
                "MACE's pin on e3nn 0.4.4 made pip choose an old version: "
                f"pip uninstall mace-torch; {advice}; {INSTALL_MACE}"
            )
        found = "not installed" if version is None else f"{version}, needs {requirement.specifier}"
        yield Finding(name, Verdict.fault, found, advice)


def _importable(name: str, version: str) -> Finding:
    try:
        importlib.import_module(name)
    except Exception as error:
        found = f"{version}, but importing it fails: {reason_of(error)}"
        advice = f"pip install --force-reinstall {name}=={version}"
        return Finding(name, Verdict.fault, found, advice)
    return Finding(name, Verdict.ok, version)


def _extension() -> Iterator[Finding]:
    names = {point.value for point in metadata.entry_points(group="nequip.extension")}
    good = "eqplugin" in names
    found = "yes" if good else "no entry point nequip.extension"
    advice = "Install eqplugin with pip instead of setting PYTHONPATH."
    yield _judged("nequip sees eqplugin", good, found, advice)


def _mace() -> Iterator[Finding]:
    version = installed_version("mace-torch")
    if version is None:
        yield Finding("mace", Verdict.note, "not installed", f"For MACE: {INSTALL_MACE}")
        return
    advice = f"Tested with {MACE_TESTED}: watch the line on parity."
    yield _judged("mace", version == MACE_TESTED, version, advice, Verdict.note)
    missing = [
        f"{name}{requirement.specifier}"
        for name, requirement in _required("mace-torch").items()
        if name != "e3nn" and installed_version(name) is None
    ]
    if missing:
        yield Finding(
            "what mace needs",
            Verdict.fault,
            f"absent: {', '.join(missing)}",
            "pip install " + " ".join(f'"{name}"' for name in missing),
        )


def _parity() -> Iterator[Finding]:
    """Two small MACE models against numbers from e3nn 0.4.4."""
    if installed_version("mace-torch") is None:
        return
    check = "mace as on e3nn 0.4.4"
    try:
        from eqplugin.mace import reference
        from eqplugin.mace.compat import is_active, reason_for_no_repair

        stored = reference.stored_results()
        worst = 0.0
        for name in reference.SENSITIVE:
            found = reference.evaluate(reference.build(name))
            worst = max(worst, *reference.deviations(found, stored[name]).values())
    except Exception as error:
        yield Finding(
            check,
            Verdict.fault,
            f"a small model fails: {reason_of(error, named=True)}",
            f"Reinstall MACE: {INSTALL_MACE}",
        )
        return
    how = "repaired" if is_active() else f"not repaired ({reason_for_no_repair()})"
    yield _judged(
        check,
        worst <= PARITY_TOLERANCE,
        f"{how}, largest difference {worst:.1e} (eV, eV/Å, eV/Å³)",
        f"MACE does not reproduce its published numbers: use e3nn 0.6.0 and {INSTALL_MACE}",
    )


def _cuda() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        yield Finding("CUDA", Verdict.ok, f"{torch.version.cuda}: {', '.join(sorted(names))}")
        return
    if shutil.which("nvidia-smi") and _succeeds(["nvidia-smi", "-L"]):
        build = torch.version.cuda or "none, a CPU build"
        yield Finding(
            "CUDA",
            Verdict.fault,
            f"there is a GPU, but torch cannot use it (built for CUDA: {build})",
            "Install the torch build for your driver: https://pytorch.org/get-started/locally",
        )
        return
    yield Finding("CUDA", Verdict.note, "no GPU found; everything runs on the CPU")


def _kernels() -> Iterator[Finding]:
    for name, purpose in (
        ("openequivariance", "faster NequIP and MACE on GPUs"),
        ("cuequivariance-torch", "faster MACE on NVIDIA GPUs"),
    ):
        version = installed_version(name)
        found, advice = version or "not installed (optional)", f"For {purpose}: pip install {name}"
        yield _judged(name, version is not None, found, advice, Verdict.note)


def _compiler() -> Iterator[Finding]:
    """nequip-compile and torch.compile call a C++ compiler."""
    candidates = [os.environ.get("CXX"), "g++", "clang++"]
    for compiler in filter(None, candidates):
        path = shutil.which(compiler)
        if path and _succeeds([path, "--version"]):
            yield Finding("C++ compiler", Verdict.ok, path)
            return
    advice = "nequip-compile needs one: apt install g++, or conda install gxx"
    yield Finding("C++ compiler", Verdict.note, "none found", advice)


def _compiled_product() -> Iterator[Finding]:
    """The C++ operator of enable_CompiledTP, which is compiled on first use."""
    from eqplugin.nn.product.compiled import status

    found = status()
    verdict = Verdict.ok if found.available else Verdict.note
    yield Finding("compiled product", verdict, found.found, found.advice)


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
