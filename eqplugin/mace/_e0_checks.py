"""Energies of isolated atoms for MACE's trainer: complete, in its form, for its elements."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ase.data import atomic_numbers, chemical_symbols

from eqplugin.data import read_e0s
from eqplugin.errors import EqPluginError
from eqplugin.mace._heads import HeadData, is_isolated_atom, literal
from eqplugin.mace._label_checks import value_of
from eqplugin.structures import read_frames

_NAMED_E0S = ("average", "foundation", "estimated")


def is_named(given: Any) -> bool:
    """Whether E0s are a word that MACE knows."""
    return isinstance(given, str) and given.lower() in _NAMED_E0S


def e0s_for_mace(energies: Mapping[str, float]) -> str:
    """``--E0s`` in the form that MACE reads."""
    return repr({atomic_numbers[s]: e for s, e in energies.items()})


def known_e0s(head: HeadData) -> tuple[dict[str, float], str]:
    """Energies by chemical symbol and where they are from; none where MACE finds them.

    Raises:
        EqPluginError: for energies that cannot be read, and two of one element that differ.
    """
    isolated = _isolated_atoms(head)
    if isolated:  # MACE prefers them
        return isolated, f"the isolated atoms in {', '.join(head.files['train'])}"
    if head.e0s is None or is_named(head.e0s):
        return {}, ""
    return _read_e0s(head.e0s, head.keys["energy"]), "--E0s"


def e0s_of_frames(
    head: HeadData,
    energies: Mapping[str, float],
    source: str,
    elements: Sequence[int],
    args: argparse.Namespace,
) -> Any:
    """E0s in MACE's form, complete; None where MACE takes them from the training file.

    Args:
        head: whose data they are for.
        energies: by chemical symbol, and
        source: where they are from, both from :func:`known_e0s`.
        elements: atomic numbers that the model will know.
        args: options of ``mace-train``.

    Raises:
        EqPluginError: naming the elements without an energy.
    """
    if is_named(head.e0s):
        if head.e0s.lower() != "average" and args.foundation_model is None:
            raise EqPluginError(f"--E0s {head.e0s} needs a --foundation_model to take them from.")
        return head.e0s
    if not energies:
        if args.statistics_file is not None:
            return None
        raise EqPluginError(
            "E0s are missing and the training file contains no isolated atoms: give --E0s as a "
            "file of isolated atoms, a dictionary such as '{1: -13.6, 8: -2041.8}', or 'average'."
        )
    symbols = [chemical_symbols[z] for z in elements]
    lacking = [symbol for symbol in symbols if symbol not in energies]
    if lacking:
        raise EqPluginError(
            f"No E0 for {', '.join(lacking)} in {source} (given: {', '.join(energies)}): add the "
            f"isolated-atom energies, computed with the method of the data."
        )
    if source != "--E0s":
        return None
    # MACE fails over the energy of an element that the model does not know
    kept = energies if args.foundation_model_elements else {s: energies[s] for s in symbols}
    return e0s_for_mace(kept)


def e0s_of_prepared(head: HeadData, args: argparse.Namespace) -> Any:
    """E0s where the frames are not at hand: given, or in mace_prepare_data's statistics."""
    if args.statistics_file is not None or is_named(head.e0s):
        return head.e0s
    if head.e0s is None:
        raise EqPluginError(
            "E0s are missing: give --statistics_file, which mace_prepare_data --compute_statistics "
            "writes, or --E0s."
        )
    energies = _read_e0s(head.e0s, head.keys["energy"])
    if head.elements is not None and not args.foundation_model_elements:
        known = [chemical_symbols[z] for z in head.elements]
        energies = {symbol: e for symbol, e in energies.items() if symbol in known}
    return e0s_for_mace(energies)


def _read_e0s(given: Any, energy_key: str) -> dict[str, float]:
    if isinstance(given, str) and given.lstrip().startswith("{"):
        # MACE's form; JSON with plain numbers reads the same
        refusal = f"--E0s {given} cannot be read: write a dictionary such as {{1: -13.6}}."
        given = literal(given, refusal)
    return read_e0s(given, energy_keys=(energy_key,))


def _isolated_atoms(head: HeadData) -> dict[str, float]:
    """Energies of the training files' isolated atoms, by chemical symbol."""
    energies: dict[str, float] = {}
    key = head.keys["energy"]
    for path in head.files["train"]:
        for index, atoms in enumerate(read_frames(path)):
            if not is_isolated_atom(atoms):
                continue
            symbol = atoms.get_chemical_symbols()[0]
            value = value_of(atoms, "energy", key)
            if value is None:
                raise EqPluginError(
                    f"{path}, frame {index}: the isolated {symbol} atom has no '{key}', so "
                    f"MACE would take its E0 to be zero: add it or remove the frame."
                )
            if energies.setdefault(symbol, float(value)) != float(value):
                raise EqPluginError(
                    f"{path}, frame {index}: a second isolated {symbol} atom with another energy "
                    f"({float(value):g} instead of {energies[symbol]:g} eV): keep one of them."
                )
    return energies
