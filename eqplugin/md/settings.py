"""Settings of molecular dynamics: every option, its default and its limits.

The command line takes names, types and defaults from here, so this module imports nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from eqplugin.errors import EqPluginError

__all__ = ["ENSEMBLES", "Engine", "MdRequest", "MdSettings"]

ENSEMBLES = {
    "nve": "constant energy, velocity Verlet",
    "nvt-langevin": "Langevin thermostat",
    "nvt-bussi": "stochastic velocity rescaling",
    "npt": "Langevin thermostat and isotropic Langevin barostat",
}


@dataclass(frozen=True)
class MdSettings:
    """Settings of molecular dynamics; the names are those of ``eqplugin md --help``.

    >>> MdSettings("nvt-langevin", steps=20_000, timestep=1.0, temperature=500.0).every
    100

    Raises:
        EqPluginError: for an option that is not possible, naming it.
    """

    ensemble: str = "nvt-langevin"  #: a key of `ENSEMBLES`
    #: number of steps in all; a multiple of `every`. May grow when a run is continued
    steps: int = 10_000
    timestep: float = 0.5  #: fs
    temperature: float = 300.0  #: K, of the thermostat and of the starting velocities
    pressure: float = 0.0  #: GPa, of the barostat
    #: 1/fs. Langevin: friction; Bussi: 1 / coupling time. Higher holds the temperature tighter and
    #: disturbs the dynamics more
    friction: float = 0.01
    seed: int = 0  #: starts the random numbers of velocities and thermostat
    #: steps between frames. A frame costs one more evaluation of the model in periodic systems (for
    #: the pressure), and a kill loses what was done since the last one
    every: int = 100
    #: `"draw"` from `temperature`, or `"file"`: those of the structure file
    velocities: str = "draw"
    #: K, above which the run stops; None: ten times `temperature`, at least 3000 K
    max_temperature: float | None = None

    def __post_init__(self) -> None:
        positive = "is not valid: give a number above 0."
        at_rest = self.temperature == 0 and self.ensemble == "nve"
        hottest = math.inf if self.max_temperature is None else self.max_temperature
        for name, possible, advice in (
            ("ensemble", self.ensemble in ENSEMBLES,
             f"is not known: use one of {', '.join(ENSEMBLES)}."),
            ("velocities", self.velocities in ("draw", "file"), "is not known: use draw or file."),
            ("timestep", 0 < self.timestep < math.inf, positive),
            ("temperature", 0 < self.temperature < math.inf or at_rest, positive),
            ("friction", 0 < self.friction < math.inf, positive),
            ("pressure", math.isfinite(self.pressure), "is not valid: give it in GPa."),
            ("friction", self.friction * self.timestep < 1,
             f"is not valid with --timestep {self.timestep:g}: their product must stay below 1; "
             f"0.01 per fs is usual."),
            ("max_temperature", hottest > self.temperature,
             f"is not valid: it must be above --temperature {self.temperature:g}."),
            ("steps", self.steps >= 1, "is not valid: give 1 or more."),
            ("every", self.every >= 1, "is not valid: give 1 or more."),
            ("seed", self.seed >= 0, "is not valid: give 0 or more."),
        ):  # fmt: skip
            if not possible:
                value = getattr(self, name)
                text = f"{value:g}" if isinstance(value, float) else value
                raise EqPluginError(f"--{name.replace('_', '-')} {text} {advice}")
        if self.steps % self.every:
            raise EqPluginError(
                f"--steps {self.steps} is not a multiple of --every {self.every}: a run ends on a "
                f"frame, so that it can be continued; use "
                f"{max(1, round(self.steps / self.every)) * self.every} steps."
            )

    @property
    def conserves_momentum(self) -> bool:
        """Whether the centre of mass keeps its momentum, so that it carries no temperature."""
        return self.ensemble in ("nve", "nvt-bussi")

    def fixed(self) -> dict[str, object]:
        """Options that may not change when a run is continued: all but ``steps``."""
        return {name: value for name, value in asdict(self).items() if name != "steps"}

    def __str__(self) -> str:
        pressure = f", {self.pressure:g} GPa" if self.ensemble == "npt" else ""
        length = self.steps * self.timestep / 1e3
        return f"{self.ensemble}, {self.temperature:g} K{pressure}, {length:g} ps"


class Engine(StrEnum):
    """Library that moves the atoms: ASE one structure, torch-sim many."""

    ase = "ase"
    torch_sim = "torch-sim"


@dataclass(frozen=True)
class MdRequest:
    """The command line of ``eqplugin md``; its ``--help`` says what each field means."""

    model: Path
    structure: Path
    settings: MdSettings
    out: Path = Path("md")
    traj: Path | None = None
    log: Path | None = None
    engine: Engine = Engine.ase
    device: str = "cpu"
    dtype: str | None = None
    skin: float = 0.5
    compile: str | None = None
    head: str | None = None
