"""All physical checks of several models: `eqplugin bench physics`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.files import write_json
from eqplugin.md.health import temperature_limit
from eqplugin.md.nve import run_nve
from eqplugin.md.settings import MdSettings
from eqplugin.measure.physics.check import Check
from eqplugin.measure.physics.pairs import PairCurve, pair_checks, pair_curves
from eqplugin.measure.physics.plots import plot_pairs, plot_scans
from eqplugin.measure.physics.scans import Scan, ScanCurve, scan_checks, scan_curve
from eqplugin.measure.physics.symmetry import Precision, symmetry_checks
from eqplugin.measure.tables import Table, cell

__all__ = ["PhysicsResult", "check_physics", "check_table", "dynamics_checks", "write_physics"]


@dataclass(frozen=True)
class PhysicsResult:
    """What the checks of one model found, and the curves of its pairs and scans."""

    checks: Sequence[Check]
    pairs: Sequence[PairCurve]
    scans: Sequence[ScanCurve] = ()

    @property
    def failures(self) -> list[Check]:
        """Checks that did not pass."""
        return [check for check in self.checks if check.passed is False]


def check_physics(
    calculator: Calculator,
    atoms: Atoms,
    dtype: str,
    md_steps: int = 0,
    say: Callable[[str], None] = lambda _: None,
    scans: Sequence[Scan] = (),
) -> PhysicsResult:
    """Run the checks on one model.

    Args:
        calculator: any ASE calculator.
        atoms: a structure the model is made for; its elements make the pairs.
        dtype: ``float32`` or ``float64``, in which the calculator runs: what rounding explains.
        md_steps: steps of 0.5 fs of NVE at 300 K; 0 leaves the dynamics out. They cost most.
        say: told what comes next.
        scans: paths whose energies are compared.
    """
    precision = Precision.of(dtype)
    atoms = atoms.copy()
    atoms.set_constraint()  # fixed atoms would not follow rotations and displacements
    say("symmetries")
    checks = symmetry_checks(calculator, atoms, precision)
    say("pairs")
    curves: list[PairCurve] = []
    try:
        curves = pair_curves(calculator, list(dict.fromkeys(sorted(atoms.get_chemical_symbols()))))
        checks += pair_checks(calculator, curves, precision)
    except Exception as error:
        checks.append(Check.failed("pairs", error))
    followed = []
    for scan in scans:
        say(f"scan {scan.name}")
        try:
            followed.append(scan_curve(calculator, scan))
            checks += scan_checks(followed[-1])
        except Exception as error:
            checks.append(Check.failed(f"{scan.name}: highest", error, unit="meV"))
    if md_steps:
        say("dynamics")
        checks += dynamics_checks(calculator, atoms, md_steps)
    return PhysicsResult(checks, curves, followed)


def dynamics_checks(calculator: Calculator, atoms: Atoms, steps: int) -> list[Check]:
    """Energy drift of NVE at 300 K, and whether it survives: neither fails nor boils."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            log = Path(folder) / "nve.csv"
            every = min(10, max(1, steps // 10))  # enough samples for a straight line
            run = run_nve(atoms, calculator, log, steps=steps, timestep=0.5, every=every)
        except Exception as error:
            return [Check.failed("dynamics survive", error)]
    time = steps * 0.5e-3
    hottest = temperature_limit(MdSettings(temperature=300.0), max(1, 3 * len(atoms) - 3))
    return [
        Check("dynamics survive", 0.0, 0.0, "", f"NVE, {time:g} ps at 300 K"),
        Check("energy drift", abs(run.drift), None, "meV/atom/ps", "slope of a straight line"),
        Check(
            "highest temperature", float(run.temperature.max()), hottest, "K", "started at 300 K"
        ),
    ]


def check_table(results: Mapping[str, PhysicsResult]) -> Table:
    """A row for every check, a column for every model."""
    by_model = [{check.name: check for check in result.checks} for result in results.values()]
    rows = []
    for name in dict.fromkeys(name for checks in by_model for name in checks):
        found = [checks.get(name) for checks in by_model]
        first = next(check for check in found if check is not None)
        texts = ("-" if check is None else check.text for check in found)
        rows.append([name, first.unit, cell(first.threshold, ".0e"), *texts])
    return Table(("check", "unit", "limit"), list(results), rows)


def write_physics(results: Mapping[str, PhysicsResult], out: Path) -> None:
    """Write physics.json, and pairs.png and scans.png where there are such curves."""
    pairs = {model: result.pairs for model, result in results.items() if result.pairs}
    scans = {model: result.scans for model, result in results.items() if result.scans}
    content = {
        "schema": "eqplugin.measure.physics/1",
        "models": {model: [_as_json(c) for c in r.checks] for model, r in results.items()},
        "scans": {model: [curve.to_json() for curve in curves] for model, curves in scans.items()},
    }
    write_json(out / "physics.json", content)
    if pairs:
        plot_pairs(pairs, out / "pairs.png")
    if scans:
        plot_scans(scans, out / "scans.png")


def _as_json(check: Check) -> dict[str, object]:
    # JSON has no NaN: a check that could not be measured has no value
    value = None if np.isnan(check.value) else check.value
    return {**asdict(check), "value": value, "passed": check.passed}
