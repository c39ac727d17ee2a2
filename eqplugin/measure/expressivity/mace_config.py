"""MACE models from a YAML config, and from a file in float64, without training data."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

import torch

from eqplugin.errors import EqPluginError
from eqplugin.mace.build import build_untrained
from eqplugin.mace.export import extract_config
from eqplugin.mace.models import FAMILIES
from eqplugin.mace.plan import family_name
from eqplugin.mace.train import build_parser, check_model
from eqplugin.measure.expressivity.mace_subject import in_float64

_DEFAULT_ELEMENTS = (1, 6, 8)


def model_from_options(path: Path, overrides: list[str]) -> torch.nn.Module:
    """Build the model of a MACE config with random weights.

    Args:
        path: YAML for ``eqplugin mace-train`` or ``mace_run_train``.
        overrides: ``key=value`` entries that replace those of the config.

    Raises:
        EqPluginError: for an override without "=", and all that the trainer refuses.
    """
    argv = ["--config", str(path)]
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise EqPluginError(f"--set {override} is not an override: write key=value.")
        argv += [f"--{key}", value]
    args = build_parser().parse_args(argv)
    if args.foundation_model is not None:
        raise EqPluginError(f"{path} starts from a foundation model: give that .model file itself.")
    check_model(args)
    numbers = _elements(args.atomic_numbers)
    with _silence():
        return in_float64(lambda: build_untrained(args, numbers))


def _elements(text: str | None) -> tuple[int, ...]:
    if text is None:
        return _DEFAULT_ELEMENTS
    try:
        return tuple(int(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        raise EqPluginError(f"atomic_numbers={text} is no list such as [1, 6, 8].") from None


@contextlib.contextmanager
def _silence() -> object:
    """MACE logs and prints while it builds."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


def in_double_precision(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    """Build a loaded model anew in float64 around its own weights.

    Only parameters are taken over: the coupling coefficients of a float32 model have 7 digits, and
    with those what must vanish does not.

    Raises:
        EqPluginError: when the file does not hold enough to rebuild the model.
    """
    cls = FAMILIES.get(family_name(model), type(model))
    try:
        with _silence():
            config = extract_config(model)
            rebuilt = in_float64(lambda: cls(**config))
        weights = dict(model.named_parameters())
        own = dict(rebuilt.named_parameters())
        fitting = {key: weights[key].shape == value.shape for key, value in own.items()}
    except Exception as error:
        raise EqPluginError(
            f"{path} cannot be rebuilt in float64 from what it stores ({type(error).__name__})."
        ) from error
    if not all(fitting.values()):
        raise EqPluginError(f"{path} cannot be rebuilt: it was built with options it lacks now.")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(weights[key])
        if hasattr(rebuilt, "scale_shift"):
            rebuilt.scale_shift.scale.copy_(model.scale_shift.scale)
    return rebuilt
