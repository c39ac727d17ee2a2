"""What a model cannot take or should not have returned, in one sentence, before it is a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from eqplugin.calculator.graph import Backend, Graph
from eqplugin.errors import EqPluginError
from eqplugin.structures import element_name


def check_species(atoms: Atoms, species: Sequence[int], model: str) -> None:
    """Refuse elements that a model does not know.

    Raises:
        EqPluginError: naming the first such atom.
    """
    known = np.isin(atoms.numbers, species)
    if not known.all():
        first = int(np.argmin(known))
        names = ", ".join(map(element_name, sorted(species)))
        raise EqPluginError(
            f"the model {model} does not know {element_name(atoms.numbers[first])} "
            f"(atom {first}): it was trained for {names}."
        )


def check_committee(backends: Sequence[Backend]) -> None:
    """Refuse a committee whose members do not see the same edges and species.

    Raises:
        EqPluginError: naming the member that differs from the first.
    """
    first = backends[0]
    for other in backends[1:]:
        if abs(other.r_max - first.r_max) > 1e-9:
            raise EqPluginError(
                f"a committee needs one cutoff: {first.name} has {first.r_max:g} A and "
                f"{other.name} has {other.r_max:g} A."
            )
        if set(other.species) != set(first.species):
            only = set(other.species) ^ set(first.species)
            names = ", ".join(element_name(z) for z in sorted(only))
            raise EqPluginError(
                f"a committee needs the same species: {first.name} and {other.name} differ "
                f"in {names}."
            )


def check_outputs(outputs: dict[str, torch.Tensor], graph: Graph, model: str) -> None:
    """Refuse outputs that are not finite numbers.

    Raises:
        EqPluginError: naming the quantity and, for forces, the first atom.
    """
    # two sums tell for everything: anything that is not finite makes a sum that is not either
    if torch.isfinite(outputs["energy"] + outputs["forces"].sum()):
        stress = outputs.get("stress")
        if stress is None or torch.isfinite(stress).all():
            return
    for name in ("energy", "forces", "stress"):
        values = outputs.get(name)
        if values is None or torch.isfinite(values).all():
            continue
        where = ""
        if name == "forces":
            atom = int((~torch.isfinite(values)).any(1).nonzero()[0])
            where = f" on {element_name(graph.numbers[atom])} (atom {atom})"
        raise EqPluginError(
            f"the model {model} returned {name}{where} that are not finite: the structure is far "
            f"from its training data, or its weights are damaged."
        )
    # finite values whose sum overflows
    raise EqPluginError(f"the model {model} returned forces too large to be physical.")


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return float32 or float64; None stays None, the model's own.

    Raises:
        EqPluginError: for anything else.
    """
    names = {"float32": torch.float32, "float64": torch.float64}
    if dtype is None or dtype in names.values():
        return dtype
    if dtype not in names:
        raise EqPluginError(f"dtype={dtype!r} is not valid: use 'float32' or 'float64'.")
    return names[dtype]
