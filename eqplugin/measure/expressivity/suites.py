"""The pairs of structures, and what each is a question about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Literal

from ase import Atoms
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.rules import Architecture, Expectation
from eqplugin.theory.congruence import congruence
from eqplugin.theory.counterexamples import congruent_pair, many_body_pair, star_edges
from eqplugin.theory.structures import articulated, k_chain, rotor, star

__all__ = ["SUITES", "Case", "cases_of"]

Measure = Literal["energy", "atoms", "centre"]


@dataclass(frozen=True)
class Case:
    """Two structures that a model may or may not tell apart."""

    suite: str  # key of `SUITES`
    label: str  # for the table
    first: Atoms  # in the units of the suites (cutoff 2 A), see `Subject.adapt`
    second: Atoms  # the other one, same species in the same order
    expect: Callable[[Architecture], Expectation]  # the prediction for an architecture
    # `"energy"` of the structure, the energies of all `"atoms"`, or the features of the `"centre"`
    # (atom 0) after the first layer
    measure: Measure = "energy"
    edges: NDArray | None = None  # (2, num_edges) in place of the neighbour list


def _chains() -> Iterator[Case]:
    for k in (2, 3, 4, 5):
        # short bonds, deeper inside the cutoff, keep the signal of long chains clear of round-off
        first, second = (k_chain(k, end, bond=1.2) for end in ("cis", "trans"))
        yield Case("chains", f"{k}-chain, cis/trans", first, second, methodcaller("chain", k))


def _stars() -> Iterator[Case]:
    for n in (2, 3, 4, 5, 6):
        yield Case(
            "stars",
            f"{n}-fold star, turned",
            star(n),
            star(n, 180.0 / n),
            methodcaller("star", n),
            measure="centre",
        )


_ROTORS = {
    (1, 2): "1-fold rotor",
    (2, 2): "2-fold rotor (ethene)",
    (3, 2): "3-fold rotor (ethane)",
    (4, 2): "4-fold rotor",
    (2, 3): "allene",
    (3, 4): "2-butyne",
}


def _rotors() -> Iterator[Case]:
    for (n, k), name in _ROTORS.items():
        yield Case(
            "rotors", name, rotor(n, 0.0, k), rotor(n, 180.0 / n, k), methodcaller("rotor", n, k)
        )


def _many_body() -> Iterator[Case]:
    for order in (2, 3, 4):
        first, second = many_body_pair(order)
        _require(congruence(first, second) == "none", f"the {order}-body pair")
        yield Case(
            "many-body",
            f"{order}-body pair",
            first,
            second,
            methodcaller("many_body", order),
            edges=star_edges(first),
        )
    for kind in ("chiral", "nonchiral"):
        first, second = congruent_pair(kind)
        _require(congruence(first, second) == "proper", f"the congruent {kind} pair")
        yield Case(
            "many-body",
            f"congruent pair ({kind})",
            first,
            second,
            _congruent,
            edges=star_edges(first),
        )


def _congruent(_: Architecture) -> Expectation:
    return Expectation(False, "one is the other, turned")


def _articulation() -> Iterator[Case]:
    for k in range(1, 7):
        yield Case(
            "articulation",
            f"linker of {k}, turned",
            articulated(k),
            articulated(k, 100.0),
            methodcaller("articulation", k),
            measure="atoms",
        )


def _controls() -> Iterator[Case]:
    molecule = articulated(2)
    image = molecule.copy()
    image.positions[:, 0] *= -1
    _require(congruence(molecule, image) == "mirror", "the enantiomers")
    yield Case("controls", "mirror images", molecule, image, methodcaller("mirror"))
    stretched = k_chain(3)
    stretched.positions[0] += [0.05, 0.02, -0.03]
    yield Case("controls", "one atom moved", k_chain(3), stretched, _generic)


def _generic(_: Architecture) -> Expectation:
    return Expectation(True, "distances differ; else the model is dead")


def _require(true: bool, what: str) -> None:
    if not true:  # a claim about models must not rest on structures that are not what they seem
        raise AssertionError(f"{what} is not what the suite takes it for")


SUITES: dict[str, tuple[str, Callable[[], Iterator[Case]]]] = {
    "chains": ("how far orientation travels: cis or trans across k atoms", _chains),
    "stars": ("which degree turns with n equal spokes", _stars),
    "rotors": ("which degree and how many layers see a twist", _rotors),
    "many-body": ("equal fingerprints of n neighbours, and congruent pairs", _many_body),
    "articulation": ("the geometry between local structures, every atom's energy", _articulation),
    "controls": ("mirror images must not differ, a moved atom must", _controls),
}
"""Name of a suite: its question, and its cases."""


def cases_of(names: Sequence[str]) -> list[Case]:
    """Return the cases of the suites named, all if none is.

    Raises:
        EqPluginError: for an unknown name.
    """
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise EqPluginError(
            f"--suite {unknown[0]} is not known: use one or more of {', '.join(SUITES)}."
        )
    return [case for name in (names or SUITES) for case in SUITES[name][1]()]
