"""The plot of a run: temperature, energy drift, and structure: g(r) or bond lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import find_mic
from ase.io import read
from ase.neighborlist import natural_cutoffs, neighbor_list
from matscipy.neighbours import neighbour_list as periodic_neighbours
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import chi2

from eqplugin.md.observables import drift, read_log, second_half
from eqplugin.md.settings import MdSettings
from eqplugin.style import colour, panels, plt

_GREY = "0.45"


def plot_run(
    trajectory: Path, log: Path, path: Path, settings: MdSettings, degrees: int, title: str
) -> None:
    """Draw temperature, energy, structure and, where there is one, pressure of a run.

    Args:
        trajectory: extended XYZ.
        log: CSV.
        path: PNG to write.
        settings: of the run.
        degrees: degrees of freedom, for the spread that a thermostat should give.
        title: above the panels.
    """
    table = read_log(log)
    atoms = read(trajectory, index=0)
    pressure = not table["pressure_GPa"].isna().all()
    with panels(path, 2, 2, figsize=(8.2, 5.2)) as (figure, axes):
        _temperature(axes[0, 0], table, settings, degrees)
        _energy(axes[0, 1], table, len(atoms), settings)
        _structure(axes[1, 0], last_frames(trajectory, len(table)))
        if pressure:
            _pressure(axes[1, 1], table, settings)
        else:
            _exchange(axes[1, 1], table, len(atoms))
        for axis in (axes[0, 0], axes[0, 1], axes[1, 1]):
            axis.set_xlabel("time (ps)")
            axis.set_xlim(0, max(table["time_ps"].iloc[-1], 1e-9))
        figure.suptitle(title, fontsize=10)


def _running(values: NDArray) -> NDArray:
    return gaussian_filter1d(values, max(1.0, len(values) / 60), mode="nearest")


def _trace(axis: plt.Axes, table: pd.DataFrame, column: str, number: int) -> None:
    """Draw a quantity that fluctuates: thin as it is, thick as it runs."""
    time, values = table["time_ps"], table[column].to_numpy()
    axis.plot(time, values, color=colour(number), lw=0.6, alpha=0.4)
    axis.plot(time, _running(values), color=colour(number), lw=1.6)


def _temperature(axis: plt.Axes, table: pd.DataFrame, settings: MdSettings, degrees: int) -> None:
    _trace(axis, table, "temperature_K", 1)
    if settings.ensemble != "nve":
        target = settings.temperature
        low, high = target * chi2.ppf([0.025, 0.975], degrees) / degrees
        axis.axhspan(low, high, color=_GREY, alpha=0.12, lw=0)
        axis.axhline(target, color=_GREY, lw=0.9, ls="--")
        note = f"target {target:g} K, 95 % of a canonical ensemble"
    else:
        note = "constant energy"
    half = second_half(table)["temperature_K"]
    axis.set_title(f"second half: {half.mean():.0f} ± {half.std(ddof=0):.0f} K", fontsize=9)
    axis.set_ylabel("temperature (K)")
    axis.set_ylim(bottom=0)
    _note(axis, note)


def _note(axis: plt.Axes, text: str) -> None:
    axis.annotate(
        text, (0.98, 0.03), xycoords="axes fraction", ha="right", fontsize=7.5, color=_GREY
    )


def _energy(axis: plt.Axes, table: pd.DataFrame, num_atoms: int, settings: MdSettings) -> None:
    slope = drift(table["time_ps"], table["conserved_eV"], num_atoms)
    if np.isnan(slope):
        column, label = "total_eV", "total energy"
        axis.set_title("exchanged with the thermostat: no drift to measure", fontsize=9)
    else:
        column = "conserved_eV"
        label = "total energy" if settings.ensemble == "nve" else "conserved energy"
        axis.set_title(f"drift {slope:+.3g} meV/atom/ps", fontsize=9)
    values = 1e3 * (table[column] - table[column].iloc[0]) / num_atoms
    axis.plot(table["time_ps"], values, color=colour(0), lw=0.9)
    if not np.isnan(slope):
        line = np.polyval(np.polyfit(table["time_ps"], values, 1), table["time_ps"])
        axis.plot(table["time_ps"], line, color=_GREY, lw=0.9, ls="--")
    axis.set_ylabel(f"{label}\nchange (meV/atom)")


def _structure(axis: plt.Axes, frames: list[Atoms]) -> None:
    periodic = bool(frames[0].pbc.all())
    (_radial if periodic else _bonds)(axis, frames)
    name = "radial distribution" if periodic else "bond lengths"
    axis.set_title(f"{name}, {len(frames)} frames of the second half", fontsize=9)


def _radial(axis: plt.Axes, frames: list[Atoms]) -> None:
    distance, functions = radial_distribution(frames)
    for index, (pair, values) in enumerate(functions.items()):
        axis.plot(distance, values, color=colour(index), lw=1.2, label=pair)
    axis.axhline(1, color=_GREY, lw=0.8, ls="--")
    axis.set(xlabel="distance (Å)", ylabel="g(r)", xlim=(0, distance[-1]))
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, ncols=1 + (len(functions) > 6))


def _bonds(axis: plt.Axes, frames: list[Atoms]) -> None:
    bonds = bond_lengths(frames)
    if not bonds:
        axis.text(0.5, 0.5, "no bonds", ha="center", transform=axis.transAxes, color=_GREY)
    for index, (kind, lengths) in enumerate(bonds.items()):
        low, high = lengths.min() - 0.02, lengths.max() + 0.02
        counts, edges = np.histogram(
            lengths, bins=max(8, round((high - low) / 0.01)), range=(low, high), density=True
        )
        label = f"{kind}  {lengths.mean():.3f} ± {lengths.std():.3f} Å"
        axis.stairs(counts, edges, color=colour(index), lw=1.2, label=label)
        axis.stairs(counts, edges, color=colour(index), fill=True, alpha=0.12)
    axis.set(xlabel="bond length (Å)", ylabel="probability (1/Å)")
    axis.set_ylim(0, (1.35 if len(bonds) < 3 else 1.5) * axis.get_ylim()[1])  # for the legend
    if bonds:
        axis.legend(fontsize=7.5, ncols=2, loc="upper center", columnspacing=1.2)


def _pressure(axis: plt.Axes, table: pd.DataFrame, settings: MdSettings) -> None:
    if settings.ensemble == "npt":
        _trace(axis, table, "density_g_cm3", 2)
        axis.set_ylabel("density (g/cm³)")
        half = second_half(table).mean()
        axis.set_title(
            f"second half: {half['density_g_cm3']:.3f} g/cm³, "
            f"{half['pressure_GPa']:.2f} GPa (set: {settings.pressure:g})",
            fontsize=9,
        )
        return
    _trace(axis, table, "pressure_GPa", 2)
    half = second_half(table)["pressure_GPa"]
    axis.set_title(f"second half: {half.mean():.2f} ± {half.std(ddof=0):.2f} GPa", fontsize=9)
    axis.set_ylabel("pressure (GPa)")


def _exchange(axis: plt.Axes, table: pd.DataFrame, num_atoms: int) -> None:
    """Draw how the energy goes to and fro between potential and kinetic."""
    for number, label in enumerate(("potential", "kinetic")):
        energy, look = table[f"{label}_eV"], {"color": colour(number)}
        values = 1e3 * (energy - energy.min()) / num_atoms
        axis.plot(table["time_ps"], values, lw=0.5, alpha=0.4, **look)
        axis.plot(table["time_ps"], _running(values.to_numpy()), lw=1.6, label=label, **look)
    axis.set_ylabel("energy above its lowest\n(meV/atom)")
    axis.set_title("potential and kinetic energy", fontsize=9)
    axis.legend(fontsize=8)


def last_frames(trajectory: str | Path, frames: int, number: int = 100) -> list[Atoms]:
    """At most ``number`` frames, evenly spread over the second half of a trajectory of ``frames``.

    Only those needed are parsed.
    """
    first = frames // 2
    stride = max(1, -(-(frames - first) // number))
    return read(trajectory, index=f"{first}:{frames}:{stride}")


def radial_distribution(
    frames: Sequence[Atoms], r_max: float = 8.0, bins: int = 160
) -> tuple[NDArray, dict[str, NDArray]]:
    """Partial radial distribution functions g(r), 1 at large r where there is no order.

    Args:
        frames: periodic in three directions, of the same atoms.
        r_max: A.
        bins: number of them.

    Returns:
        Bin centres (bins,) in A and, by pair of elements such as ``"H-O"``, g(r) (bins,).
    """
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    numbers = frames[0].numbers
    elements = np.unique(numbers)
    pairs = [(a, b) for i, a in enumerate(elements) for b in elements[i:]]
    found = {pair: np.zeros(bins) for pair in pairs}
    for atoms in frames:
        first, second, distance = periodic_neighbours("ijd", atoms, r_max)
        for a, b in pairs:
            # an atom's own images keep their distance: they are no structure
            chosen = (numbers[first] == a) & (numbers[second] == b) & (first != second)
            counts, _ = np.histogram(distance[chosen], edges)
            ideal = (numbers == a).sum() * (numbers == b).sum() / atoms.get_volume() * shells
            found[a, b] += counts / ideal / len(frames)
    centres = 0.5 * (edges[1:] + edges[:-1])
    names = {pair: "-".join(chemical_symbols[z] for z in pair) for pair in pairs}
    return centres, {names[pair]: function for pair, function in found.items()}


def bond_lengths(frames: Sequence[Atoms]) -> dict[str, NDArray]:
    """Lengths in A of the bonds of the first frame, along all frames.

    Returns:
        By pair of elements such as ``"C-H"``: (num_frames, num_bonds).
    """
    start = frames[0]
    bonds: dict[str, list[tuple[int, int]]] = {}
    for i, j in zip(*neighbor_list("ij", start, natural_cutoffs(start, mult=1.15)), strict=True):
        if i < j:
            kind = "-".join(sorted((start.symbols[i], start.symbols[j])))
            bonds.setdefault(kind, []).append((i, j))
    return {kind: _lengths(frames, np.array(pairs)) for kind, pairs in sorted(bonds.items())}


def _lengths(frames: Sequence[Atoms], pairs: NDArray) -> NDArray:
    first, second = pairs.T
    return np.array(
        [
            find_mic(atoms.positions[second] - atoms.positions[first], atoms.cell, atoms.pbc)[1]
            for atoms in frames
        ]
    )
