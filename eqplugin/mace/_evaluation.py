"""What ``mace_eval_configs`` would fail over, or evaluate in another way than meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import ase.io
from ase import Atoms
from mace.cli import eval_configs
from mace.modules.models import ScaleShiftMACE

from eqplugin.errors import EqPluginError
from eqplugin.exchange import exchanged
from eqplugin.mace.model_file import read_model_file
from eqplugin.structures import check_structure, element_name, read_frames

_STOCK = eval_configs.run


def evaluate(args: argparse.Namespace) -> None:
    """``mace.cli.eval_configs.run`` on frames that are read as we read them, and checked.

    Raises:
        EqPluginError: see :func:`check_evaluation`.
    """
    frames = list(read_frames(args.configs))
    check_evaluation(args, frames)

    def read(path: str, index: str = ":") -> list[Atoms]:
        return frames

    with exchanged((ase.io, "read", read)):
        _STOCK(args)


def check_evaluation(args: argparse.Namespace, frames: Sequence[Atoms]) -> None:
    """Refuse structures, heads and outputs that the model does not have.

    Args:
        args: options of ``mace_eval_configs``.
        frames: of its ``configs``.

    Raises:
        EqPluginError: naming the file, the frame and what is wrong with it.
    """
    model = read_model_file(args.model)
    known = {int(z) for z in model.atomic_numbers}
    for index, atoms in enumerate(frames):
        where = f"{args.configs}, frame {index}: "
        check_structure(atoms, where)
        for z in sorted(set(atoms.numbers.tolist()) - known):
            names = ", ".join(element_name(k) for k in sorted(known))
            raise EqPluginError(
                f"{where}{element_name(z)} is not among the elements of {args.model} ({names}): "
                f"remove such frames, or give another model."
            )
    heads = list(getattr(model, "heads", None) or ["Default"])
    if args.head is not None and args.head not in heads:
        raise EqPluginError(f"{args.model} has no head '{args.head}': it has {', '.join(heads)}.")
    if args.head is None and len(heads) > 1 and "Default" not in heads:
        raise EqPluginError(f"{args.model} has several heads: give --head {' or '.join(heads)}.")
    if args.return_contributions and isinstance(model, ScaleShiftMACE):
        raise EqPluginError(
            f"{args.model} is a {type(model).__name__}, which has no contributions by body order: "
            f"leave out --return_contributions."
        )
    if not hasattr(model, "atomic_energies_fn"):
        raise EqPluginError(
            f"{args.model} is a {type(model).__name__}, which has no energy: mace_eval_configs "
            f"writes energies and forces only."
        )
