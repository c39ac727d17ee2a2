"""From a config, a model file or a name to a subject."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.named import FAMILIES, build_named, is_named
from eqplugin.measure.expressivity.subject import Subject

__all__ = ["load_subject"]

_WAYS = (
    "give a NequIP or MACE config (.yaml), a checkpoint (.ckpt), a package (.nequip.zip), a MACE "
    "model (.model), or an architecture such as steerable:L=2,layers=3"
)


def load_subject(model: str, overrides: Sequence[str] = ()) -> Subject:
    """Load anything that can be asked what it tells apart.

    Args:
        model: path to a NequIP YAML config, a MACE YAML config, a NequIP checkpoint or package, or
            a MACE ``.model`` file (a pickle, as are checkpoints: open only files that you trust);
            or ``family:key=value,...``, see :mod:`eqplugin.measure.expressivity.named`.
        overrides: ``key=value`` entries that replace those of a config.

    Returns:
        the model in float64; ``trained`` when it came with weights.

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
    raise EqPluginError(f"{path} has an ending that is not known: {_WAYS}.")


# ---- NequIP


def _from_config(path: Path, overrides: list[str]) -> Subject:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EqPluginError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    except OSError as error:
        raise EqPluginError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not isinstance(content, dict):
        raise EqPluginError(f"{path} holds no settings: {_WAYS}.")
    if "training_module" in content or "defaults" in content:
        return _from_nequip_config(path, overrides)
    return _from_mace_config(path, overrides)


def _from_nequip_config(path: Path, overrides: list[str]) -> Subject:
    from eqplugin.nequip.config import read_model_section

    return _from_model_section(read_model_section(path.parent, path.stem, overrides), path.stem)


def _from_model_section(options: Mapping[str, Any], name: str) -> Subject:
    """Follow model modifiers and files down to the builder."""
    from eqplugin.measure.expressivity.nequip_subject import build_nequip

    options = _unwrapped(options)
    for key in ("checkpoint_path", "package_path"):
        if key in options:
            return _from_nequip_file(Path(options[key]))
    return build_nequip(options, name)


def _unwrapped(options: Mapping[str, Any]) -> Mapping[str, Any]:
    while str(options.get("_target_", "")).endswith(".modify") and "model" in options:
        options = options["model"]
    if "_target_" not in options:
        raise EqPluginError(
            "The config's training_module.model has no _target_: several models at once are not "
            "possible; give a config with one."
        )
    return options


def _from_nequip_file(path: Path) -> Subject:
    import torch
    import yaml
    from nequip.model.saved_models.load_utils import load_saved_model
    from nequip.utils.global_state import set_global_state

    from eqplugin.measure.expressivity.nequip_subject import build_nequip

    set_global_state()
    try:
        with _silence():
            weights = dict(load_saved_model(path).named_parameters())
            if path.suffix == ".ckpt":
                saved = torch.load(path, map_location="cpu", weights_only=False)
                info = saved["hyper_parameters"]["info_dict"]
            else:
                text = torch.package.PackageImporter(path).load_text("model", "config.yaml")
                info = yaml.safe_load(text)
        section = info["training_module"]["model"]
    except Exception as error:
        raise EqPluginError(
            f"{path} cannot be read as a NequIP model ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'})."
        ) from error
    options = _unwrapped(section)
    for key in ("checkpoint_path", "package_path"):
        if key in options:  # fine-tuned: the architecture is the older file's
            older = _from_nequip_file(Path(options[key]))
            return _with_weights(older, weights, path)
    return build_nequip(options, path.name, weights)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """NequIP tells at length what it loads."""
    from eqplugin.measure.expressivity.nequip_subject import surroundings_kept

    logger = logging.getLogger("nequip")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with surroundings_kept():
            yield
    finally:
        logger.setLevel(level)


def _with_weights(subject: Subject, weights: Mapping[str, Any], path: Path) -> Subject:
    import torch

    own = dict(subject.model.named_parameters())
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
        raise EqPluginError(f"{path} and the model it was fine-tuned from differ in their weights.")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(weights[key])
    subject.remember(path.name)
    subject.trained = True
    return subject


# ---- MACE


def _from_mace_config(path: Path, overrides: list[str]) -> Subject:
    from eqplugin.measure.expressivity.mace_config import model_from_options
    from eqplugin.measure.expressivity.mace_subject import MACESubject

    return MACESubject(path.stem, model_from_options(path, overrides))


def _from_mace_file(path: Path) -> Subject:
    from eqplugin.mace.loading import read_model
    from eqplugin.measure.expressivity.mace_config import in_double_precision
    from eqplugin.measure.expressivity.mace_subject import MACESubject

    subject = MACESubject(path.name, in_double_precision(read_model(path), path))
    subject.trained = True
    return subject
