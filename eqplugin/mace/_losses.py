"""What MACE's losses read, and which weights they heed (``mace/modules/loss.py``)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from eqplugin.errors import EqPluginError

_ENERGY_FORCES = ("energy", "forces")
_WITH_STRESS = (*_ENERGY_FORCES, "stress")


@dataclass(frozen=True)
class Loss:
    """A loss by the labels of its terms."""

    labels: tuple[str, ...]
    config_weight: tuple[str, ...]  # terms that `config_weight` of a frame multiplies
    own_weight: tuple[str, ...]  # terms that `config_LABEL_weight` of a frame multiplies


def _heeding_all(*labels: str) -> Loss:
    return Loss(labels, labels, labels)


LOSSES = {
    "ef": _heeding_all(*_ENERGY_FORCES),
    "weighted": _heeding_all(*_ENERGY_FORCES),
    "forces_only": _heeding_all("forces"),
    "virials": _heeding_all(*_ENERGY_FORCES, "virials"),
    "stress": _heeding_all(*_WITH_STRESS),
    "huber": Loss(_WITH_STRESS, (), ()),
    "universal": Loss(_WITH_STRESS, (), _WITH_STRESS),
    "l1l2energyforces": Loss(_ENERGY_FORCES, ("energy",), ("energy",)),
    "dipole": Loss(("dipole",), (), ()),
    "dipole_polar": Loss(("dipole", "polarizability"), (), ()),
    "energy_forces_dipole": Loss((*_ENERGY_FORCES, "dipole"), _ENERGY_FORCES, _ENERGY_FORCES),
}
# model -> the losses that it can be trained with, and the error table that suits it; all others
# are trained with losses without dipoles
_DIPOLE_MODELS = {
    "AtomicDipolesMACE": (("dipole",), "DipoleRMSE"),
    "AtomicDielectricMACE": (("dipole_polar",), "DipolePolarRMSE"),
    "EnergyDipolesMACE": (("energy_forces_dipole",), "EnergyDipoleRMSE"),
}
WITHOUT_ENERGY = ("AtomicDipolesMACE", "AtomicDielectricMACE")
_FURTHER = ("stress", "virials", "dipole", "polarizability")  # labels with a weight of their own


def needed_labels(args: argparse.Namespace) -> list[str]:
    """Labels without which the loss of the training would be zero in part, in either stage."""
    return [label for label in LOSSES[args.loss].labels if _counts(args, label)]


def _counts(args: argparse.Namespace, label: str) -> bool:
    if args.loss == "ef":  # MACE gives it weights of 1
        return True
    stages = [f"{label}_weight", *([f"swa_{label}_weight"] if args.swa else [])]
    return any(getattr(args, name, 1.0) != 0.0 for name in stages)


def ignored_options(args: argparse.Namespace, defaults: argparse.Namespace) -> list[str]:
    """Sentences about weights on the command line that the loss does not read."""
    loss, said = LOSSES[args.loss], []
    for label in _FURTHER:
        given = getattr(args, f"{label}_weight")
        if label not in loss.labels and given != getattr(defaults, f"{label}_weight"):
            said.append(
                f"--{label}_weight {given:g} has no effect with --loss {args.loss}, which reads "
                f"{' and '.join(loss.labels)}: choose a loss that reads the {label}."
            )
    if args.loss == "ef":
        for label in _ENERGY_FORCES:
            if getattr(args, f"{label}_weight") != getattr(defaults, f"{label}_weight"):
                said.append(
                    f"--{label}_weight has no effect with --loss ef, whose weights are 1: use "
                    f"--loss weighted."
                )
    if args.config_type_weights != defaults.config_type_weights:
        deaf = [label for label in loss.labels if label not in loss.config_weight]
        if deaf:
            said.append(
                f"--config_type_weights has no effect on the {', '.join(deaf)} with --loss "
                f"{args.loss}: use --loss weighted or stress."
            )
    return said


def check_loss(args: argparse.Namespace) -> None:
    """Refuse a loss that does not belong to the model, and an error table that would fail.

    Raises:
        EqPluginError: naming the option that fits.
    """
    losses, table = _DIPOLE_MODELS.get(args.model, (None, None))
    if losses is not None and args.loss not in losses:
        raise EqPluginError(
            f"--model {args.model} is not trained with --loss {args.loss}: use --loss {losses[0]} "
            f"--error_table {table}."
        )
    of_dipoles = {
        loss: (model, t) for model, (kinds, t) in _DIPOLE_MODELS.items() for loss in kinds
    }
    if losses is None and args.loss in of_dipoles and args.model != "PolarMACE":
        model = of_dipoles[args.loss][0]
        raise EqPluginError(f"--loss {args.loss} needs dipoles of the model: use --model {model}.")
    tables = ("DipoleRMSE", "DipoleMAE") if table == "DipoleRMSE" else (table,)
    if table is not None and args.error_table not in tables:
        raise EqPluginError(
            f"--error_table {args.error_table} does not suit --model {args.model}: use "
            f"--error_table {table}."
        )
    if table is None and "Dipole" in args.error_table and args.model != "PolarMACE":
        raise EqPluginError(
            f"--error_table {args.error_table} needs dipoles, which --model {args.model} does not "
            f"have: use PerAtomRMSE."
        )
    if args.swa and args.loss in ("forces_only", "dipole"):
        raise EqPluginError(f"--swa (stage two) is not possible with --loss {args.loss}.")
