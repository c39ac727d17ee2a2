"""The model of a `nequip-train` config, built without its training data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nequip.utils  # noqa: F401 - registers the resolvers that configs use
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from nequip.utils.resolvers import _register_default_resolvers
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.nequip.loading import nequip_session


def read_model_section(folder: Path, name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """``training_module.model`` of a config, every interpolation resolved.

    Statistics of training data are not at hand; they scale energies and tell nothing apart, so
    plain numbers stand in their place.

    Args:
        folder: of the config.
        name: of the config, without ``.yaml``.
        overrides: as on the command line of ``nequip-train``.

    Raises:
        EqPluginError: for a config that cannot be composed or resolved.
    """
    GlobalHydra.instance().clear()
    _register_default_resolvers()
    try:
        with initialize_config_dir(str(Path(folder).resolve()), version_base=None):
            config = compose(name, list(overrides))
        text = _without_statistics(OmegaConf.to_yaml(config))
        section = OmegaConf.create(text).training_module.model
        return cast("dict[str, Any]", OmegaConf.to_container(section, resolve=True))
    except Exception as error:  # hydra and omegaconf raise many kinds
        kind = "" if isinstance(error, OmegaConfBaseException) else f" ({type(error).__name__})"
        raise EqPluginError(
            f"{Path(folder) / name}.yaml cannot be read as a NequIP config{kind}: "
            f"{reason_of(error)}"
        ) from error


def _without_statistics(text: str) -> str:
    text = re.sub(r"\$\{training_data_stats:\s*num_neighbors_mean\s*\}", "10.0", text)
    return re.sub(r"\$\{training_data_stats:[^}]*\}", "1.0", text)


def build_model(section: Mapping[str, Any]) -> torch.nn.Module:
    """Instantiate a model section, in the precision that it asks for.

    Raises:
        EqPluginError: what a builder of ours refuses.
    """
    try:
        with nequip_session():
            built = instantiate(dict(section), _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ if isinstance(error.__cause__, EqPluginError) else error from None
    return built if isinstance(built, torch.nn.Module) else built["sole_model"]
