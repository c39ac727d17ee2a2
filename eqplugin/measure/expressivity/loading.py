"""From a config, a model file or a name to a subject."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.measure.expressivity.named import FAMILIES, build_named, is_named
from eqplugin.measure.expressivity.subject import Subject
from eqplugin.quiet import quiet
from eqplugin.stacks import file_kind

__all__ = ["load_subject"]

_WAYS = (
    "give a NequIP or MACE config (.yaml), a checkpoint (.ckpt), a package (.nequip.zip), a MACE "
    "model (.model), an .eqm file, or an architecture such as steerable:L=2,layers=3"
)


def load_subject(model: str, overrides: Sequence[str] = ()) -> Subject:
    """Load anything that can be asked what it tells apart, in float64.

    Args:
        model: path to a NequIP YAML config, a MACE YAML config, a NequIP checkpoint or package, or
            a MACE ``.model`` file, or an ``.eqm`` file;
            or ``family:key=value,...``, see :mod:`eqplugin.measure.expressivity.named`.
        overrides: ``key=value`` entries that replace those of a config.

    Raises:
        EqPluginError: for a missing or foreign file, or a config that does not build.
    """
    if is_named(model):
        return build_named(model)
    path = Path(model)
    if not path.is_file():
        raise EqPluginError(
            f"{model} is neither a file nor one of the families {', '.join(FAMILIES)}: {_WAYS}."
        )
    if path.suffix in (".yaml", ".yml"):
        return _from_config(path, list(overrides))
    if overrides:
        raise EqPluginError(f"--set changes configs; {path.name} is a model file: leave it out.")
    if path.suffix == ".ckpt" or path.name.endswith(".nequip.zip"):
        return _from_nequip_file(path)
    if path.suffix == ".model":
        return _from_mace_file(path)
    if path.suffix == ".eqm":
        return _from_mace_file(path) if file_kind(path) == "mace" else _from_nequip_file(path)
    raise EqPluginError(f"{path} has an unknown ending: {_WAYS}.")


def _from_config(path: Path, overrides: list[str]) -> Subject:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EqPluginError(f"{path} is not YAML: {reason_of(error)}.") from error
    except OSError as error:
        raise EqPluginError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not isinstance(content, dict):
        raise EqPluginError(f"{path} holds no settings: {_WAYS}.")
    if "training_module" in content or "defaults" in content:
        from eqplugin.nequip.config import read_model_section

        return _from_section(read_model_section(path.parent, path.stem, overrides), path.stem)
    from eqplugin.measure.expressivity.mace_subject import MACESubject, model_from_options

    return MACESubject(path.stem, model_from_options(path, overrides))


def _from_section(
    options: Mapping[str, Any], name: str, weights: Mapping[str, Any] | None = None
) -> Subject:
    """Follow a NequIP model's modifiers and older files down to the builder."""
    from eqplugin.measure.expressivity.nequip_subject import build_nequip

    while str(options.get("_target_", "")).endswith(".modify") and "model" in options:
        options = options["model"]
    if "_target_" not in options:
        raise EqPluginError(
            "The config's training_module.model has no _target_: several models at once are not "
            "supported; give a config with one."
        )
    for key in ("checkpoint_path", "package_path"):
        if key in options:  # fine-tuned: the architecture is the older file's
            subject = _from_nequip_file(Path(options[key]))
            if weights is not None:
                subject.take(weights, name)
            return subject
    return build_nequip(options, name, weights)


def _from_nequip_file(path: Path) -> Subject:
    from eqplugin.nequip.loading import read_config, read_model

    with quiet(logging.INFO):  # NequIP tells at length what it loads
        weights = dict(read_model(path).named_parameters())
        section = read_config(path)
    return _from_section(section, path.name, weights)


def _from_mace_file(path: Path) -> Subject:
    import torch

    from eqplugin.mace.export import rebuild
    from eqplugin.mace.loading import read_model
    from eqplugin.measure.expressivity.mace_subject import MACESubject

    model = read_model(path)
    try:
        with quiet(logging.CRITICAL, stdout=True):
            model = rebuild(model, torch.float64)
    except EqPluginError as error:
        raise EqPluginError(f"{path}: {error}") from error
    subject = MACESubject(path.name, model)
    subject.trained = True
    return subject
