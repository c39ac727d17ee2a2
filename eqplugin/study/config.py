"""Reading a study's config: composed by Hydra, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eqplugin.design import STACKS
from eqplugin.errors import EqPluginError, reason_of
from eqplugin.resources import CONFIGS, shipped_file
from eqplugin.study.schema import AXES, MATCHES, Arm, Axes, Data, StudyConfig, register

__all__ = ["Study", "read_study"]

_COUNTS = (
    "feature_dim", "speed_repeats", "train.steps", "train.batch_size", "train.threads",
    "data.train_frames", "data.val_frames", "data.test_frames",
)  # fmt: skip
# mappings with keys of the user's own
_OPEN = ("data.test.", "data.key_mapping.", "nequip.options.", "mace.options.")
_AMOUNTS = ("train.lr", "train.r_max", "tolerance.parameters", "tolerance.time")


@dataclass(frozen=True)
class Study:
    """A study's config, every value resolved."""

    config: StudyConfig  #: as the schema has it
    arms: dict[str, Axes]  #: by name
    hydra: tuple[str, ...]  #: overrides that concern Hydra itself, such as the launcher
    path: Path  #: the config file

    @property
    def out(self) -> Path:
        """The folder of results."""
        return Path(self.config.out).absolute()


def read_study(path: Path, overrides: Sequence[str] = (), sweep: bool = False) -> Study:
    """Compose and check a study's config.

    Args:
        path: the YAML file; without a suffix the name of a shipped study, such as ``quickstart``.
        overrides: as on Hydra's command line; with ``sweep`` the axes may have several values.
        sweep: the axes in the overrides (with the config's for the others) replace the arms.

    Raises:
        EqPluginError: what is wrong, in one sentence.
    """
    path = _config_file(Path(path))
    try:
        plain, swept, hydra, out = _sort_overrides(overrides, sweep)
        config = _compose(path, plain, out)
        arms = {name: _axes(_arm(arm), config) for name, arm in config.arms.items()}
    except (HydraException, OmegaConfBaseException) as error:
        raise EqPluginError(f"{path.name}: {_first_sentence(error)}") from error
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f", line {mark.line + 1}" if mark else ""
        raise EqPluginError(f"{path.name}{line}: this is not YAML ({reason_of(error)}).") from error
    except UnicodeDecodeError as error:
        raise EqPluginError(f"{path.name} is not UTF-8 ({error}): save it as UTF-8.") from error
    except OSError as error:
        raise EqPluginError(f"{path} cannot be read: {error.strerror or error}.") from error
    if sweep:
        arms = {"sweep": {**_axes(Arm(), config), **swept}}
    if not arms:
        raise EqPluginError(f"{path.name} has no arms: add `arms:`, or sweep with -m l_max=0,1,2.")
    _check_values(config, arms)
    return Study(config, arms, tuple(hydra), path)


def _config_file(path: Path) -> Path:
    folder = CONFIGS / "study"
    for file in (path.absolute(), folder / f"{path}.yaml"):
        if file.is_file():
            return file
    shipped = sorted(file.stem for file in folder.glob("[!_]*.yaml"))
    raise EqPluginError(
        f"the study's config {path.absolute()} is missing: check the path, or name a shipped one: "
        f"{', '.join(shipped)}."
    )


def _sort_overrides(
    overrides: Sequence[str], sweep: bool
) -> tuple[list[str], Axes, list[str], str | None]:
    """Overrides for the config, values to sweep by axis, overrides for Hydra itself, `out`."""
    plain, hydra, out = [], [], None
    swept: Axes = {}
    for text in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except OverrideParseException:
            if not text.startswith("out="):
                raise
            out = text.removeprefix("out=")  # a path need not be quoted for Hydra
            continue
        key = override.key_or_group
        if key.split("/")[0].split(".")[0] == "hydra":
            hydra.append(text)
        elif key == "out" and not override.is_sweep_override():
            # not Hydra's, which takes it for a config group where a folder of this name is at hand
            out = str(override.value())
        elif not override.is_sweep_override():
            # Hydra wants a + where a mapping gets a key that it does not have yet
            is_open = f"{key}.".startswith(_OPEN) and override.type is OverrideType.CHANGE
            plain.append(f"++{text}" if is_open else text)
            if key in AXES:
                swept[key] = [override.value()]
        elif not sweep:
            raise EqPluginError(f"{text} has several values: add -m to sweep.")
        elif key not in AXES:
            raise EqPluginError(
                f"{key} cannot be swept, only {', '.join(AXES)}: run the study once for each "
                f"value, each with its own out=."
            )
        else:
            swept[key] = list(override.sweep_iterator(transformer=lambda value: value))
    return plain, swept, hydra, out


def _compose(path: Path, overrides: list[str], out: str | None) -> StudyConfig:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(path.parent), version_base="1.3"):
        composed = compose(path.stem, overrides)
    if out is not None:
        OmegaConf.update(composed, "out", out)
    # a config that does not name the schema is held to it all the same
    typed = OmegaConf.merge(OmegaConf.structured(StudyConfig), composed)
    budget, budgets = typed.budget, typed.budgets
    if budget is not None and budget not in budgets:
        raise EqPluginError(
            f"{path.name}: budget={budget} is not one of {', '.join(budgets) or '(none)'}."
        )
    missing = sorted(OmegaConf.missing_keys(typed))
    if missing:
        raise EqPluginError(f"{path.name}: {missing[0]} is missing: set it in the config.")
    OmegaConf.resolve(typed)
    config = cast(StudyConfig, OmegaConf.to_object(typed))
    _find_shipped(config.data)
    return config


def _find_shipped(data: Data) -> None:
    """Paths of the quick-start data as a clone has them, wherever the study is run."""
    for name in ("train", "val", "isolated_atoms"):
        if (path := getattr(data, name)) is not None:
            setattr(data, name, shipped_file(path))
    data.test = {label: shipped_file(path) for label, path in data.test.items()}


def _first_sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's reasons without their footnotes."""
    footnotes = ("full_key:", "object_type=", "reference_type=", "To append")
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(footnotes)][:2]
    if len(lines) == 1 and error.__cause__ is not None:
        lines += str(error.__cause__).strip().splitlines()[:1]
    key = getattr(error, "full_key", None)
    at = [f"{key}:"] if key and key not in " ".join(lines) else []
    return " ".join([*at, *(lines or [type(error).__name__])])


def _arm(content: object) -> Arm:
    arm = OmegaConf.merge(OmegaConf.structured(Arm), content or {})
    return cast(Arm, OmegaConf.to_object(arm))


def _axes(arm: Arm, config: StudyConfig) -> Axes:
    given = {axis: getattr(arm, axis) for axis in AXES}
    return {
        axis: [getattr(config, axis)] if values is None else list(values)
        for axis, values in given.items()
    }


def _check_values(config: StudyConfig, arms: dict[str, Axes]) -> None:
    if config.reference_family not in (None, *STACKS):
        raise EqPluginError(
            f"reference_family={config.reference_family} is not one of {', '.join(STACKS)}."
        )
    allowed = {"family": STACKS, "match": MATCHES}
    for arm, axes in arms.items():
        for axis, values in axes.items():
            if not values:
                raise EqPluginError(f"arm {arm}: {axis} has no values: give at least one.")
            for value in values:
                if value not in allowed.get(axis, (value,)):
                    known = ", ".join(allowed[axis])
                    raise EqPluginError(f"arm {arm}: {axis}={value} is not one of {known}.")
                if axis == "seed" and not (type(value) is int and value >= 0):
                    raise EqPluginError(f"arm {arm}: {axis}={value}: give an integer >= 0.")
    _check_numbers(config)
    for label in config.data.test:
        if label in ("train", "val", "e0s") or label != Path(label).name:
            raise EqPluginError(
                f"data.test: {label!r} cannot be the label of a test set, because files are named "
                f"after it: choose another, such as 300K."
            )


def _check_numbers(config: StudyConfig) -> None:
    for name in _COUNTS:
        value = attrgetter(name)(config)
        if value is not None and value < 1:
            raise EqPluginError(f"{name}={value} is not valid: give an integer >= 1.")
    for name in _AMOUNTS:
        value = attrgetter(name)(config)
        if not 0 < value < float("inf"):
            raise EqPluginError(f"{name}={value} is not valid: give a number above 0.")
