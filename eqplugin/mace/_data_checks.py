"""Look at the training data before MACE does: it gives absent labels the weight zero, silently."""

from __future__ import annotations

import argparse
import ast
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from mace.tools.scripts_utils import check_path_ase_read

from eqplugin.data import check_files, raise_on_errors, read_e0s
from eqplugin.errors import EqPluginError
from eqplugin.mace._hdf5_checks import check_hdf5, hdf5_files
from eqplugin.structures import read_frames

# keys that ASE moves into a calculator, where MACE looks for them as well
_IN_CALCULATOR = ("energy", "forces", "stress")
_NAMED_E0S = ("average", "foundation", "estimated")
# pretraining sets that MACE downloads by name
_NAMED_SETS = ("mp", "matpes_pbe", "matpes_r2scan", "omat")
# role -> atomic number -> the file that holds it first
_Seen = dict[str, dict[int, str]]


@dataclass(frozen=True)
class HeadData:
    """Files and keys of one head."""

    files: dict[str, list[str]]  # role (train, valid, test) -> paths that ASE can read
    prepared: list[str]  # HDF5 files or folders of them, written by MACE's own preprocessing
    keys: dict[str, str]  # label -> key in the file
    e0s: Any  # as given by the user
    elements: list[int] | None  # atomic numbers given by the user


def check_training_data(args: argparse.Namespace) -> None:
    """Refuse data that would train on nothing; write E0s in the form MACE reads.

    Args:
        args: options of ``mace-train``. ``E0s`` may also be JSON, chemical symbols or a file of
            isolated atoms; it is replaced by MACE's ``{1: -13.6, ...}``.

    Raises:
        EqPluginError: for missing files, absent or non-finite labels, unknown elements, absent
            E0s.
    """
    if args.heads is None:
        args.E0s = _check_head(_head("Default", vars(args), args), args)
        return
    heads = _heads(args.heads)
    for name, options in heads.items():
        if not isinstance(options, dict):
            raise EqPluginError(f"--heads: '{name}' must be a dictionary of files and E0s.")
        head = _head(name, {**vars(args), **options}, args)
        options["E0s"] = _check_head(head, args)
    args.heads = repr(heads)


def _literal(text: str, refusal: str) -> Any:
    """What a Python literal says."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise EqPluginError(refusal) from error


def _heads(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        given = _literal(str(given), "--heads cannot be read: write a Python dictionary.")
    if not isinstance(given, Mapping):
        raise EqPluginError("--heads must be a dictionary, such as {'name': {...}}.")
    return dict(given)


def _head(name: str, options: Mapping[str, Any], args: argparse.Namespace) -> HeadData:
    files, prepared = {}, []
    for role in ("train", "valid", "test"):
        given = options.get(f"{role}_file") or []
        paths = [given] if isinstance(given, str) else list(given)
        files[role] = [p for p in paths if p not in _NAMED_SETS and _readable_by_ase(p)]
        prepared += [p for p in paths if p not in _NAMED_SETS and hdf5_files(p)]
        if role == "train" and not paths:
            raise EqPluginError(f"No training data for head {name}: give --train_file.")
    keys = {
        label: options.get("info_keys", {}).get(label)
        or options.get("arrays_keys", {}).get(label)
        or options[f"{label}_key"]
        for label in ("energy", "forces", "stress", "virials")
    }
    elements = options.get("atomic_numbers")
    if isinstance(elements, str):
        refusal = f"--atomic_numbers {elements} cannot be read: write a list such as [1, 6, 8]."
        try:
            elements = [int(z) for z in _literal(elements, refusal)]
        except TypeError as error:
            raise EqPluginError(refusal) from error
    return HeadData(files, prepared, keys, options.get("E0s"), elements)


def _readable_by_ase(path: str) -> bool:
    if not Path(path).exists():
        raise EqPluginError(f"{path} does not exist: check the path.")
    return check_path_ase_read(path)


def _check_head(head: HeadData, args: argparse.Namespace) -> Any:
    """Check one head's data; return its E0s as MACE wants them."""
    paths = [path for paths in head.files.values() for path in paths]
    for path in head.prepared:
        check_hdf5(path, _needed(args), args.allow_missing_labels)
    if not paths:
        return _e0s_of_prepared(head, args)  # HDF5, or LMDB, whose labels are not looked at here
    labels = {key: label for label, key in head.keys.items() if label in _IN_CALCULATOR}
    report = check_files(
        paths,
        required=(),
        species=None if head.elements is None else [chemical_symbols[z] for z in head.elements],
        r_max=args.r_max,
        key_mapping=labels,
        exclude_keys=[key for key in _IN_CALCULATOR if key not in labels],
    )
    raise_on_errors(report)
    for warning in report.warnings:
        logging.warning(warning.message)
    present = {s.path: tuple(s.labels) for s in report.files}
    seen: _Seen = {role: {} for role in head.files}
    for role, files in head.files.items():
        for path in files:
            for z in _check_labels(path, head.keys, args, present[path]):
                seen[role].setdefault(z, path)
    _check_roles(head, seen)
    return _e0s(head, _needed_elements(head, seen), args)


def _needed(args: argparse.Namespace) -> list[str]:
    """Labels without which the loss of the training would be zero in part."""
    if "dipole" in args.loss:
        return []
    further = [args.loss] if args.loss in ("stress", "virials") else []
    labels = ["forces"] if args.loss == "forces_only" else ["energy", "forces", *further]
    weights = {"energy": args.energy_weight, "forces": args.forces_weight}
    return [label for label in labels if weights.get(label, 1.0) != 0.0]


def is_isolated_atom(atoms: Atoms) -> bool:
    """Whether MACE takes the frame for an E0 and not for training."""
    return len(atoms) == 1 and atoms.info.get("config_type") == "IsolatedAtom"


def _has(atoms: Atoms, key: str) -> bool:
    results = atoms.calc.results if atoms.calc and key in _IN_CALCULATOR else {}
    return key in results or key in atoms.info or key in atoms.arrays


def _check_labels(
    path: str, keys: Mapping[str, str], args: argparse.Namespace, present: tuple[str, ...]
) -> set[int]:
    """Check that every frame has what the loss needs; return the atomic numbers of the file."""
    frames = [(i, a) for i, a in enumerate(read_frames(path)) if not is_isolated_atom(a)]
    if not frames:
        raise EqPluginError(f"{path} holds only isolated atoms: give frames to train on.")
    for label in _needed(args):
        missing = [index for index, atoms in frames if not _has(atoms, keys[label])]
        if len(missing) == len(frames):
            raise EqPluginError(_no_label(path, label, keys[label], present))
        if missing and not args.allow_missing_labels:
            raise EqPluginError(
                f"{path}: {len(missing)} of {len(frames)} frames (first: {missing[0]}) have no "
                f"'{keys[label]}' and would get zero weight: label or remove them, or add "
                f"--allow_missing_labels."
            )
    return {z for _, atoms in frames for z in atoms.numbers.tolist()}


_LIKE = {"energy": "energ", "forces": "force", "stress": "stress", "virials": "virial"}


def _no_label(path: str, label: str, key: str, present: tuple[str, ...]) -> str:
    have = f"its label keys are {', '.join(present)}" if present else "it has no label at all"
    like = [k for k in present if _LIKE[label] in k.lower()]
    if like:
        advice = f"add --{label}_key {like[0]}"
    elif label == "forces" and any(_LIKE["energy"] in k.lower() for k in present):
        advice = "label the frames, or train on energies alone with --forces_weight 0"
    else:
        advice = f"name the right key with --{label}_key, or label the frames"
    return f"{path}: no frame has '{key}' ({have}): {advice}."


def _needed_elements(head: HeadData, seen: _Seen) -> list[int]:
    return sorted(head.elements or {**seen["train"], **seen["valid"]})


def _check_roles(head: HeadData, seen: _Seen) -> None:
    """Elements of test frames must be known; those of validation alone are never learnt."""
    known, train = _needed_elements(head, seen), seen["train"]
    for role, elements in seen.items():
        for z, path in sorted(elements.items()):
            if z not in known or (role != "train" and train and z not in train):
                names = ", ".join(chemical_symbols[k] for k in sorted(train))
                raise EqPluginError(
                    f"{path}: the {role} data contain {chemical_symbols[z]}, which no training "
                    f"frame contains (they have {names}): remove these frames or add training data."
                )


def _e0s(head: HeadData, elements: Sequence[int], args: argparse.Namespace) -> Any:
    """E0s in MACE's form, complete; None where MACE takes them from the training file."""
    given = head.e0s
    if _is_named(given):
        if given.lower() != "average" and args.foundation_model is None:
            raise EqPluginError(f"--E0s {given} needs a --foundation_model to take them from.")
        return given
    isolated = _isolated_atoms(head)
    if isolated:
        energies, source = isolated, f"the isolated atoms in {', '.join(head.files['train'])}"
        given_on = None  # MACE prefers those in the file
    elif given is None:
        if args.statistics_file is not None:
            return None
        raise EqPluginError(
            "E0s are missing and the training file contains no isolated atoms: give --E0s as a "
            "file of isolated atoms, a dictionary such as '{1: -13.6, 8: -2041.8}', or 'average'."
        )
    else:
        energies = _read_e0s(given)
        source = "--E0s"
        given_on = e0s_for_mace(energies)
    lacking = [chemical_symbols[z] for z in elements if chemical_symbols[z] not in energies]
    if lacking:
        raise EqPluginError(
            f"No E0 for {', '.join(lacking)} in {source} (given: {', '.join(energies)}): add the "
            f"isolated-atom energies, computed with the method of the data."
        )
    return given_on


def _e0s_of_prepared(head: HeadData, args: argparse.Namespace) -> Any:
    """E0s where the frames are not at hand: given, or in mace_prepare_data's statistics."""
    if args.statistics_file is not None or _is_named(head.e0s):
        return head.e0s
    if head.e0s is None:
        raise EqPluginError(
            "E0s are missing: give --statistics_file, which mace_prepare_data --compute_statistics "
            "writes, or --E0s."
        )
    return e0s_for_mace(_read_e0s(head.e0s))


def _is_named(given: Any) -> bool:
    return isinstance(given, str) and given.lower() in _NAMED_E0S


def e0s_for_mace(energies: Mapping[str, float]) -> str:
    """``--E0s`` in the form that MACE reads."""
    return repr({atomic_numbers[s]: e for s, e in energies.items()})


def _read_e0s(given: Any) -> dict[str, float]:
    if isinstance(given, str) and given.lstrip().startswith("{"):
        # MACE's form; JSON with plain numbers reads the same
        given = _literal(
            given,
            f"--E0s {given} cannot be read: write a dictionary such as {{1: -13.6, 8: -2041.8}}.",
        )
    return read_e0s(given)


def _isolated_atoms(head: HeadData) -> dict[str, float]:
    """Energies of the training files' isolated atoms, by chemical symbol."""
    energies: dict[str, float] = {}
    key = head.keys["energy"]
    for path in head.files["train"]:
        for index, atoms in enumerate(read_frames(path)):
            if not is_isolated_atom(atoms):
                continue
            symbol = atoms.get_chemical_symbols()[0]
            if not _has(atoms, key):
                raise EqPluginError(
                    f"{path}, frame {index}: the isolated {symbol} atom has no '{key}', so "
                    f"MACE would take its E0 to be zero: add it or remove the frame."
                )
            results = atoms.calc.results if atoms.calc else {}
            energies[symbol] = float(results.get(key, atoms.info.get(key)))
    return energies
