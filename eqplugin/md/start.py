"""The structure a run starts from: read, checked, and given velocities."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.jsonio import encode
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta

from eqplugin.errors import EqPluginError
from eqplugin.md.health import close_pair
from eqplugin.md.settings import MdSettings
from eqplugin.structures import atom_name, check_structure, read_frames


def read_structures(path: str | Path) -> list[Atoms]:
    """Read every frame of a structure file and check that dynamics can start from it."""
    frames = list(read_frames(path, constraints=True))
    for index, atoms in enumerate(frames):
        _check_start(atoms, f"{path}, frame {index}: ")
        atoms.calc = None
    return frames


def _check_start(atoms: Atoms, where: str) -> None:
    check_structure(atoms, where, strict=True)
    bad = np.flatnonzero(~np.isfinite(atoms.get_momenta()).all(axis=1))
    if bad.size:
        raise EqPluginError(f"{where}{atom_name(atoms, bad[0])} has a NaN or infinite velocity.")
    massless = np.flatnonzero(~(atoms.get_masses() > 0))
    if massless.size:
        raise EqPluginError(f"{where}{atom_name(atoms, massless[0])} has no mass: give it one.")
    close = close_pair(atoms)
    if close is not None:
        raise EqPluginError(f"{where}{close}; relax the structure first.")


def fingerprint(frames: list[Atoms]) -> str:
    """Hash of what a run starts from: elements, masses, positions, cell, velocities."""
    digest = hashlib.sha256()
    for atoms in frames:
        arrays = (
            atoms.numbers.astype("<i8"),
            atoms.get_masses(),
            atoms.positions,
            atoms.cell.array,
            atoms.pbc.astype("u1"),
            atoms.get_momenta(),
        )
        for values in arrays:
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def start_options(frames: list[Atoms]) -> dict[str, str]:
    """What a run may not exchange when it is resumed: the structures, and what is fixed in them."""
    return {"structure": fingerprint(frames), "constraints": _constraint_fingerprint(frames)}


def _constraint_fingerprint(frames: list[Atoms]) -> str:
    if not any(atoms.constraints for atoms in frames):
        return "none"
    text = encode([[c.todict() for c in atoms.constraints] for atoms in frames])
    return hashlib.sha256(text.encode()).hexdigest()


def draw_momenta(atoms: Atoms, settings: MdSettings, rng: np.random.Generator) -> None:
    """Give the atoms, in place, their starting velocities.

    Where the dynamics conserve the momentum of the centre of mass (and, without periodicity, the
    angular momentum), these are removed: they would never exchange energy with the rest, and the
    temperature counts only the degrees of freedom that do.
    """
    if settings.velocities == "draw":
        thermalize_momenta(atoms, settings.temperature, rng=rng)
    elif not atoms.has("momenta"):
        raise EqPluginError(
            "--velocities file: the structure file has no velocities; leave this option out to "
            "draw them from --temperature."
        )
    if settings.conserves_momentum and not atoms.constraints and len(atoms) > 1:
        Stationary(atoms, preserve_temperature=False)
        if not atoms.pbc.any():
            with np.errstate(divide="ignore", invalid="ignore"):  # ASE, for atoms on a line
                ZeroRotation(atoms, preserve_temperature=False)
    if settings.ensemble == "nvt-bussi" and not atoms.get_kinetic_energy() > 0:
        raise EqPluginError(
            "--ensemble nvt-bussi rescales velocities, but all velocities are zero here: use "
            "nvt-langevin."
        )


def degrees_of_freedom(atoms: Atoms, settings: MdSettings) -> int:
    """Degrees of freedom that share the kinetic energy.

    3 per atom, less constraints; where the dynamics conserve them, less 3 for the centre of mass
    and, without periodicity, less 3 for rotation (2 for atoms on a line). ASE's own temperature
    counts all 3N: a molecule of 9 atoms then reads 22 % too cold.
    """
    number = int(atoms.get_number_of_degrees_of_freedom())
    if not settings.conserves_momentum or atoms.constraints or len(atoms) == 1:
        return max(number, 1)
    number -= 3
    if not atoms.pbc.any():
        moments = atoms.get_moments_of_inertia()
        number -= 2 if moments.min() < 1e-6 * moments.max() else 3
    return max(number, 1)
