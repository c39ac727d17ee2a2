"""Shipped configs as files that stand alone, with the user's data filled in.

Text is changed, not parsed YAML: half of a shipped config is its comments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import yaml
from ase.data import chemical_symbols
from omegaconf import OmegaConf

from eqplugin.errors import EqPluginError
from eqplugin.resources import CONFIGS, DATA
from eqplugin.structures import read_frames

__all__ = ["UserFiles", "template", "template_names"]

Blocks = dict[str, str]  # top-level key -> its text, with the comments above it

_OLD = "# Old name of"
_OPTIMIZER = "# @package training_module.optimizer\n"  # first line of such a config
_COMMANDS = {
    "nequip": "nequip-train -cn {}        # in the folder of this file",
    "mace": "eqplugin mace-train --config {}.yaml",
    "study": "eqplugin study {}.yaml --dry-run",
}


@dataclass(frozen=True)
class UserFiles:
    """Structure files that a template is filled in with."""

    train: Path  # to train on
    val: Path | None = None  # to choose the best epoch by; None: a tenth of `train`
    test: Path | None = None  # to test on; None: nothing (a study: a tenth of `train`)
    # lone atoms with energies; None: energies start from the mean per atom
    isolated_atoms: Path | None = None

    def paths(self) -> dict[str, str | None]:
        """Absolute paths, since a trained model's data are looked up again from elsewhere."""
        for path in filter(None, vars(self).values()):
            if not path.is_file():
                raise EqPluginError(f"The file {path} is missing: check the path.")
        return {name: path and str(path.absolute()) for name, path in vars(self).items()}


def template_names() -> list[str]:
    """Names such as ``nequip/minimal``; files that only forward an old name are left out."""
    files = [file for file in sorted(CONFIGS.glob("*/*.yaml")) if not file.name.startswith("_")]
    current = [file for file in files if not file.read_text().startswith(_OLD)]
    return [f"{file.parent.name}/{file.stem}" for file in current]


def template(name: str, files: UserFiles | None = None, stem: str = "my") -> str:
    """The text of a shipped config that needs no other file.

    Args:
        name: one of :func:`template_names`.
        files: to fill in, with their species; None: those of the shipped config.
        stem: of the file that the text will be written to; MACE models and studies have this name.

    Raises:
        EqPluginError: no such template, or files that cannot be used.
    """
    if name not in template_names():
        raise EqPluginError(f"{name} is not a template: use {', '.join(template_names())}.")
    path = (CONFIGS / name).with_suffix(".yaml")
    stack = path.parent.name
    header, _, _ = path.read_text().partition("\n\n")
    blocks = _standing_alone(path, skip=len(header))
    if files is not None:
        blocks = _FILL[stack](blocks, files, stem)
    elif stack == "nequip" and "config_sources" in blocks.get("data_root", ""):
        blocks = _filled(blocks, {"data_root": str(DATA)})
    about = header.split("\n#\n")[0]
    if stack == "study" and files is not None:
        about = f"# A study like the shipped one called {path.stem}."
    return (
        f"{about}\n#\n#   {_COMMANDS[stack].format(stem)}\n#\n"
        f"# Written by `eqplugin template {name}`.\n\n" + "".join(blocks.values()).lstrip("\n")
    )


# ---------------------------------------------------------------- text in blocks


def _blocks_of(text: str) -> Blocks:
    blocks: Blocks = {}
    key, waiting = "", ""
    for line in text.splitlines(keepends=True):
        if found := re.match(r"(\w+):", line):
            key = found[1]
            blocks[key], waiting = waiting + line, ""
        elif line.startswith(("#", "\n")):
            waiting += "" if line.startswith("# @package") else line
        else:
            blocks[key], waiting = blocks[key] + waiting + line, ""
    if key:
        blocks[key] += waiting
    return blocks


def _standing_alone(path: Path, skip: int = 0) -> Blocks:
    """The blocks of a config after ``skip`` characters, what its defaults name written in first."""
    own = _blocks_of(path.read_text()[skip:])
    listed = yaml.safe_load(own.pop("defaults", "defaults: [_self_]"))["defaults"]
    merged: Blocks = {}
    for entry in listed:
        if entry == "_self_":
            merged = _merged(merged, own)
        elif entry != "study_schema":
            name = entry if isinstance(entry, str) else "/".join(*entry.items())
            chosen = path.parent / f"{name}.yaml"
            if chosen.read_text().startswith(_OPTIMIZER):
                merged = _with_optimizer(merged, chosen.read_text().removeprefix(_OPTIMIZER))
            else:
                merged = _merged(merged, _standing_alone(chosen))
    blocks = {key: merged[key] for key in sorted(merged, key=lambda key: key in own)}
    if "study_schema" in listed:
        return {"defaults": "defaults: [study_schema, _self_]\n\n", **blocks}
    return blocks


def _with_optimizer(blocks: Blocks, text: str) -> Blocks:
    """The blocks with an optimizer in ``training_module``, above the schedule of its rate."""
    section = "  optimizer:\n" + indent(text, "    ")
    above, schedule, rest = blocks["training_module"].partition("  lr_scheduler:\n")
    return {**blocks, "training_module": above + section + schedule + rest}


def _merged(low: Blocks, high: Blocks) -> Blocks:
    both = {key: _merged_block(low[key], high[key]) for key in low if key in high}
    return {**low, **high, **both}


def _merged_block(low: str, high: str) -> str:
    values = [next(iter(yaml.safe_load(text).values())) for text in (low, high)]
    if not all(isinstance(value, dict) for value in values):
        return high
    return "\n" + OmegaConf.to_yaml(OmegaConf.merge(*map(OmegaConf.create, (low, high))))


def _filled(blocks: Blocks, values: dict[str, Any], without: tuple[str, ...] = ()) -> Blocks:
    """Blocks with other values; keys that are new come first."""
    blocks = {key: text for key, text in blocks.items() if key not in without}
    new = {}
    for key, value in values.items():
        line = f"{key}: {json.dumps(value, ensure_ascii=False)}"  # also YAML, safely quoted
        if key not in blocks:
            new[key] = line + "\n"
            continue
        above, _, rest = blocks[key].rpartition(f"{key}:")
        note = re.search(r"\s+#.*", rest.partition("\n")[0])
        blocks[key] = f"{above}{line}{note[0] if note else ''}\n"
    return {**new, **blocks}


# ---------------------------------------------------------------- the user's data


def _species_and_frames(path: Path) -> tuple[list[str], int]:
    """Chemical symbols by atomic number, and the number of frames."""
    numbers = [atoms.numbers for atoms in read_frames(path)]
    return [chemical_symbols[z] for z in np.unique(np.concatenate(numbers))], len(numbers)


def _tenth(files: UserFiles, frames: int) -> int:
    """Number of frames to validate with."""
    if frames < 2:
        raise EqPluginError(
            f"{files.train} has one frame, so none is left for validation: give --val or more "
            f"frames."
        )
    return max(1, frames // 10)


def _fill_nequip(blocks: Blocks, files: UserFiles, stem: str) -> Blocks:
    paths = files.paths()
    species, frames = _species_and_frames(files.train)
    values = {
        "train_files": paths["train"] if files.val else [],
        "val_files": paths["val"] or [],
        "split_files": [],
        "test_files": [paths["test"]] if files.test else [],
        "isolated_atoms": paths["isolated_atoms"],
        "type_names": species,
    }
    if not files.val:
        val = _tenth(files, frames)
        values["split_files"] = [{"file_path": paths["train"], "train": frames - val, "val": val}]
    if not files.test and "run" in blocks:
        values["run"] = ["train"]
    if files.isolated_atoms and not any("${isolated_atoms}" in text for text in blocks.values()):
        raise EqPluginError(
            "This template starts energies from the mean per atom: leave --isolated-atoms out, or "
            "use a realistic template."
        )
    statistic = "isolated_atom_energies" if files.isolated_atoms else "per_atom_energy_mean"
    shifts = r"(energy_shifts: *\$\{training_data_stats:)\w+"
    blocks = {key: re.sub(shifts, rf"\g<1>{statistic}", text) for key, text in blocks.items()}
    return _filled(blocks, values, without=("data_root",))


def _fill_mace(blocks: Blocks, files: UserFiles, stem: str) -> Blocks:
    paths = files.paths()
    _, frames = _species_and_frames(files.train)  # MACE finds the species itself
    values: dict[str, Any] = {"train_file": paths["train"]}
    if files.val:
        values["valid_file"] = paths["val"]
    else:
        values["valid_fraction"] = 0.1 if _tenth(files, frames) * 10 <= frames else 0.5
    if files.test:
        values["test_file"] = paths["test"]
    values["E0s"] = paths["isolated_atoms"] or "average"
    absent = {"valid_file", "valid_fraction", "test_file"} - values.keys()
    values |= {"name": stem, "work_dir": f"outputs/mace/{stem}"}
    return _filled(blocks, values, without=tuple(absent))


def _fill_study(blocks: Blocks, files: UserFiles, stem: str) -> Blocks:
    paths = files.paths()
    _, frames = _species_and_frames(files.train)  # the study finds the species itself
    data: dict[str, Any] = {"train": paths["train"]}
    data |= {"val": paths["val"]} if files.val else {"val_frames": _tenth(files, frames)}
    if files.test:
        data["test"] = {files.test.stem: paths["test"]}
    else:
        data["test_frames"] = _tenth(files, frames)
    if files.isolated_atoms:
        data["isolated_atoms"] = paths["isolated_atoms"]
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in data.items()]
    return _filled({**blocks, "data": "data:\n" + "".join(lines)}, {"name": stem})


_FILL: dict[str, Callable[[Blocks, UserFiles, str], Blocks]] = {
    "nequip": _fill_nequip,
    "mace": _fill_mace,
    "study": _fill_study,
}
