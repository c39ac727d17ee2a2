"""All physical checks of several models: `eqplugin bench physics`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import reason_of
from eqplugin.md.health import temperature_limit
from eqplugin.md.nve import run_nve
from eqplugin.md.settings import MdSettings
from eqplugin.measure.physics.pairs import PairCurve, pair_checks, pair_curves
from eqplugin.measure.physics.scans import Scan, ScanCurve, scan_checks, scan_curve
from eqplugin.measure.physics.symmetry import Precision, symmetry_checks
from eqplugin.measure.physics.verdict import Check

__all__ = ["Physics", "dynamics_checks", "examine", "table_of"]


@dataclass(frozen=True)
class Physics:
    """What the checks of one model found."""

    checks: Sequence[Check]
    curves: Sequence[PairCurve]
    scans: Sequence[ScanCurve] = ()

    @property
    def failures(self) -> list[Check]:
        """Checks that did not pass."""
        return [check for check in self.checks if check.passed is False]


def examine(
    calculator: Calculator,
    atoms: Atoms,
    precision: Precision,
    md_steps: int = 0,
    say: Callable[[str], None] = lambda _: None,
    scans: Sequence[Scan] = (),
) -> Physics:
    """Run the checks on one model.

    Args:
        calculator: any ASE calculator.
        atoms: a structure the model is made for; its elements make the pairs.
        precision: what to put down to rounding.
        md_steps: steps of 0.5 fs of NVE at 300 K; 0 leaves the dynamics out. They cost most.
        say: told what comes next.
        scans: paths whose energies are compared.
    """
    say("symmetries")
    checks = symmetry_checks(calculator, atoms, precision)
    say("pairs")
    curves: list[PairCurve] = []
    try:
        curves = pair_curves(calculator, list(dict.fromkeys(sorted(atoms.get_chemical_symbols()))))
        checks += pair_checks(calculator, curves, precision)
    except Exception as error:
        checks.append(_failed("pairs", error))
    followed = []
    for scan in scans:
        say(f"scan {scan.name}")
        try:
            followed.append(scan_curve(calculator, scan))
            checks += scan_checks(followed[-1])
        except Exception as error:
            checks.append(_failed(f"{scan.name}: highest", error, "meV"))
    if md_steps:
        say("dynamics")
        checks += dynamics_checks(calculator, atoms, md_steps)
    return Physics(checks, curves, followed)


def _failed(name: str, error: Exception, unit: str = "") -> Check:
    """A calculator may raise anything far from its data: a violation, with its reason."""
    return Check(name, np.nan, 0.0, unit, reason_of(error))


def dynamics_checks(calculator: Calculator, atoms: Atoms, steps: int) -> list[Check]:
    """Energy drift of NVE at 300 K, and whether it survives: neither fails nor boils."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            log = Path(folder) / "nve.csv"
            every = min(10, max(1, steps // 10))  # enough samples for a straight line
            run = run_nve(atoms, calculator, log, steps=steps, timestep=0.5, every=every)
        except Exception as error:
            return [_failed("dynamics survive", error)]
    time = steps * 0.5e-3
    hottest = temperature_limit(MdSettings(temperature=300.0), max(1, 3 * len(atoms) - 3))
    return [
        Check("dynamics survive", 0.0, 0.0, "", f"NVE, {time:g} ps at 300 K"),
        Check("energy drift", abs(run.drift), None, "meV/atom/ps", "slope of a straight line"),
        Check(
            "highest temperature", float(run.temperature.max()), hottest, "K", "started at 300 K"
        ),
    ]


def table_of(results: Mapping[str, Physics]) -> tuple[list[str], list[list[str]]]:
    """Heads (models) and rows (checks) for a table."""
    names = list(dict.fromkeys(check.name for r in results.values() for check in r.checks))
    by_model = {model: {c.name: c for c in r.checks} for model, r in results.items()}
    rows = []
    for name in names:
        found = [checks.get(name) for checks in by_model.values()]
        first = next(check for check in found if check is not None)
        limit = "-" if first.threshold is None else f"{first.threshold:.0e}"
        rows.append([name, first.unit, limit, *(_cell(check) for check in found)])
    return list(results), rows


def _cell(check: Check | None) -> str:
    if check is None:
        return "-"
    value = "failed" if np.isnan(check.value) else f"{check.value:.1e}"
    if check.passed is None:
        return f"{check.value:.3g}"
    return value if check.passed else f"{value} ✗"
