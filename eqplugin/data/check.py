"""Check data files before hours are spent training on them: all problems at once, in sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from eqplugin.data._file_check import FileCheck
from eqplugin.data._labels import (
    LABELS,
    MACE_KEYS,
    Labels,
    is_valid_label,
    normalized_mapping,
)
from eqplugin.data._magnitudes import e0_warning, offset_between
from eqplugin.data.errors import DataError, Problem
from eqplugin.data.report import DataReport
from eqplugin.structures import ReadError, read_frames

StrPath = str | PathLike[str]


def check_files(
    paths: StrPath | Iterable[StrPath],
    *,
    required: Sequence[str] = ("energy", "forces"),
    r_max: float | None = None,
    species: Sequence[str] | None = None,
    isolated_atoms: Mapping[str, float] | StrPath | None = None,
    key_mapping: Mapping[str, str] | None = None,
    exclude_keys: Collection[str] = (),
    mace_keys: bool = False,
    ase_args: Mapping[str, Any] | None = None,
) -> DataReport:
    """Check data files and describe them.

    Labels are looked up as NequIP's ``ASEDataset`` does. Problems are collected, not raised; see
    :func:`eqplugin.data.raise_on_errors`.

    Args:
        paths: one file or several; overlap between files is looked for
        required: labels that every frame must have, of ``energy``, ``forces``, ``stress``
        r_max: cutoff (A), if known
        species: chemical symbols the model will know; others are errors
        isolated_atoms: energies E0 (eV) by symbol, or a file of them (see :func:`read_e0s`); every
            species in the data must be among them
        key_mapping: key in the file -> ``total_energy``/``energy``, ``forces`` or ``stress``
        exclude_keys: keys in the file that are to be ignored
        mace_keys: also look under ``REF_energy``, ``REF_forces`` and ``REF_stress``, as MACE does,
            where a frame has a label under no other key
        ase_args: for :func:`ase.io.iread`, without ``index`` and ``filename``

    Raises:
        DataError: an option that cannot be understood (unknown label, reversed key mapping,
            ``index`` in ``ase_args``, no files)
    """
    names = [str(paths)] if isinstance(paths, str | PathLike) else [str(path) for path in paths]
    if not names:
        raise DataError("No data file was given: name at least one.")
    for label in required:
        if label not in LABELS:
            raise DataError(
                f"'{label}' is not a label that can be required: choose {', '.join(LABELS)}."
            )
    options = dict(ase_args or {})
    for forbidden in ("index", "filename"):
        if forbidden in options:
            raise DataError(
                f"ase_args may not contain '{forbidden}': the whole file is read; split the file "
                "instead."
            )
    fallbacks = MACE_KEYS if mace_keys else {}
    labels = Labels(normalized_mapping(key_mapping), exclude_keys, fallbacks)
    problems = _option_problems(r_max, species)
    checks = [
        FileCheck(name, labels, tuple(required), options).run() for name in dict.fromkeys(names)
    ]
    for check in checks:
        problems += check.problems
        problems += [] if species is None else _unknown_species(check, species)
    if species is not None:
        problems += _unused_species(checks, species)
    if isolated_atoms is not None:
        problems += _e0_problems(checks, isolated_atoms, labels)
    for one, other in combinations(checks, 2):
        problems += [*_overlap(one, other), *_offset(one, other)]
    return DataReport([check.summary for check in checks], problems)


def _option_problems(r_max: float | None, species: Sequence[str] | None) -> list[Problem]:
    problems = []
    if r_max is not None and not (math.isfinite(r_max) and r_max > 0):
        text = f"r_max is {r_max:g} A: the cutoff must be positive, such as 5.0."
        problems.append(Problem("error", "r_max", text))
    for symbol in species or ():
        if atomic_numbers.get(symbol, 0) == 0:
            text = f"'{symbol}' in the list of species is not a chemical element: correct it."
            problems.append(Problem("error", "species_option", text))
    return problems


def _unknown_species(check: FileCheck, species: Sequence[str]) -> list[Problem]:
    return [
        Problem(
            "error",
            "unknown_species",
            f"{check.path}, frame {frame}: {symbol} is not among the species "
            f"{', '.join(species)}; add it to the list or remove these frames.",
            check.path,
            frame,
        )
        for symbol, frame in check.symbols.items()
        if symbol not in species and symbol != "X"
    ]


def _unused_species(checks: list[FileCheck], species: Sequence[str]) -> list[Problem]:
    present = {symbol for check in checks for symbol in check.symbols}
    unused = [symbol for symbol in species if symbol not in present and symbol in atomic_numbers]
    if not present or not unused:
        return []
    text = (
        f"Species listed but found in no file: {', '.join(unused)}; a model cannot learn them here."
    )
    return [Problem("note", "unused_species", text)]


def _e0_problems(
    checks: list[FileCheck], isolated_atoms: Mapping[str, float] | StrPath, labels: Labels
) -> list[Problem]:
    """E0s that are missing, or that are not of the method of the data."""
    try:
        energies = read_e0s(isolated_atoms, labels)
    except DataError as error:
        return [Problem("error", "e0s", str(error))]
    problems, known = [], ", ".join(energies) or "none"
    for check in checks:
        lacking = [s for s in check.summary.species if s not in energies and s != "X"]
        if lacking:
            text = (
                f"{check.path}: no isolated-atom energy (E0) for {', '.join(lacking)} (given: "
                f"{known}); add the missing energies, computed with the method of the data."
            )
            problems.append(Problem("error", "missing_e0", text, check.path))
        warning = e0_warning(check.energies, energies)
        if warning:
            text = f"{check.path}: {warning}."
            problems.append(Problem("warning", "e0s_of_another_method", text, check.path))
    return problems


def _offset(one: FileCheck, other: FileCheck) -> list[Problem]:
    offset = offset_between(one.energies, other.energies)
    if not offset:
        return []
    text = (
        f"{other.path}: the energies are {offset:+.1f} eV per atom from those of {one.path} at the "
        f"same composition; use one method and one unit."
    )
    return [Problem("warning", "energy_offset", text, other.path)]


def read_e0s(
    source: Mapping[str, float] | StrPath,
    labels: Labels | None = None,
    energy_keys: Sequence[str] = (),
) -> dict[str, float]:
    """Read isolated-atom energies: chemical symbol -> energy (eV).

    Args:
        source: a mapping symbol -> energy (eV), the same as JSON text, a ``.json`` file of it
            (atomic numbers as keys are understood), or a file of single atoms with energies
        labels: finds the energy in a frame; plain ``energy`` by default
        energy_keys: keys of the energy in the file, tried before that; ``REF_energy`` is tried last

    Raises:
        DataError: unreadable, not an element, or not a finite energy
    """
    name, text = "The isolated-atom energies", str(source)
    if isinstance(source, Mapping):
        return _checked_e0s(source, name)
    if text.lstrip().startswith("{"):
        return _checked_e0s(_json(text, name), name)
    path = Path(text)
    if not path.is_file():
        raise DataError(f"The file of isolated-atom energies {path} is missing: check the path.")
    if path.suffix == ".json":
        return _checked_e0s(_json(path.read_text(encoding="utf-8"), str(path)), str(path))
    return _e0s_from_frames(path, labels or Labels({}), energy_keys)


def _json(text: str, name: str) -> Mapping:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(
            f'{name}: this is not JSON ({error}); write it like {{"H": -13.6}}.'
        ) from error
    if not isinstance(content, dict):
        raise DataError(f'{name}: give a JSON object such as {{"H": -13.6}}.')
    return content


def _checked_e0s(energies: Mapping, name: str) -> dict[str, float]:
    checked = {}
    for key, energy in energies.items():
        number = int(key) if str(key).isdigit() else atomic_numbers.get(str(key), 0)
        if not 0 < number < len(chemical_symbols):
            raise DataError(f"{name}: '{key}' is not a chemical element; use symbols such as H.")
        symbol = chemical_symbols[number]
        if isinstance(energy, bool) or not is_valid_label("energy", energy, 1):
            raise DataError(f"{name}: the energy of {symbol} is {energy!r}; give a number in eV.")
        checked[symbol] = float(energy)
    return checked


def _e0s_from_frames(path: Path, labels: Labels, energy_keys: Sequence[str]) -> dict[str, float]:
    try:
        frames = list(read_frames(path))
    except ReadError as error:
        raise DataError(str(error)) from error
    energies: dict[str, float] = {}
    for index, atoms in enumerate(frames):
        if len(atoms) != 1:
            continue
        symbol, energy = atoms.get_chemical_symbols()[0], _energy_of(atoms, labels, energy_keys)
        if energy is None or not is_valid_label("energy", energy, 1):
            raise DataError(
                f"{path}, frame {index}: the isolated {symbol} atom has no usable energy; add one."
            )
        if energies.setdefault(symbol, float(energy)) != float(energy):
            raise DataError(
                f"{path}, frame {index}: a second, different energy for {symbol}; keep one."
            )
    if not energies:
        raise DataError(f"{path} contains no isolated atoms: give a file of single-atom frames.")
    return energies


def _energy_of(atoms: Atoms, labels: Labels, energy_keys: Sequence[str]) -> Any:
    results = atoms.calc.results if atoms.calc else {}
    for key in energy_keys:
        if key in atoms.info or key in results:
            return atoms.info.get(key, results.get(key))
    return labels.find(atoms)[0].get("energy", atoms.info.get(MACE_KEYS["energy"]))


def _overlap(one: FileCheck, other: FileCheck) -> list[Problem]:
    problems = []
    shared = one.digests.keys() & other.digests.keys()
    if shared:
        first = min(shared, key=lambda digest: one.digests[digest])
        frames = "frame" if len(shared) == 1 else "frames"
        text = (
            f"{one.path} and {other.path} share {len(shared)} {frames} (first: "
            f"{one.digests[first]} and {other.digests[first]}); training and test data "
            "must not overlap."
        )
        problems.append(Problem("warning", "overlap", text, one.path, one.digests[first]))
    runs = sorted(one.runs & other.runs)
    if runs:
        seeds = ", ".join(run[2] for run in runs)
        text = (
            f"{one.path} and {other.path} contain frames of the same trajectory (traj_seed "
            f"{seeds}); such test errors are too optimistic: test on an independent trajectory."
        )
        problems.append(Problem("warning", "same_trajectory", text, one.path))
    return problems
