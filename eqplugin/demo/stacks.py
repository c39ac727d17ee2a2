"""How each stack is told to train a variant of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from eqplugin import stacks
from eqplugin.demo.variants import FEATURE_DIM, Variant

__all__ = ["STACKS", "DemoStack"]


class DemoStack(stacks.Stack, Protocol):
    """A training stack that knows the demo's variants."""

    def command(self, variant: Variant, root: Path, folder: Path, epochs: int) -> list[str]:
        """The command line, as a user would type it in the clone ``root``."""


class NequIP(stacks.NequIP):
    """`nequip-train` with a config of configs/nequip."""

    def command(self, variant: Variant, root: Path, folder: Path, epochs: int) -> list[str]:
        """See :class:`DemoStack`."""
        return [
            "nequip-train",
            "-cp",
            str(root / "configs" / "nequip"),
            "-cn",
            variant.config,
            f"feature_dim={FEATURE_DIM}",
            *variant.overrides,
            f"max_epochs={epochs}",
            f"data_root={root / 'examples' / 'data'}",
            f"hydra.run.dir={folder}",
        ]


class Mace(stacks.Mace):
    """`eqplugin mace-train` with a config of configs/mace."""

    def command(self, variant: Variant, root: Path, folder: Path, epochs: int) -> list[str]:
        """See :class:`DemoStack`."""
        data = root / "examples" / "data" / "ethanol_xtb"
        return [
            "eqplugin",
            "mace-train",
            "--config",
            str(root / "configs" / "mace" / f"{variant.config}.yaml"),
            "--name",
            variant.name,
            "--feature_dim",
            str(FEATURE_DIM),
            *variant.overrides,
            "--max_num_epochs",
            str(epochs),
            "--train_file",
            str(data / "train_300K.xyz"),
            "--valid_file",
            str(data / "val_300K.xyz"),
            "--E0s",
            str(data / "isolated_atoms.xyz"),
            "--work_dir",
            str(folder),
        ]


STACKS: dict[str, DemoStack] = {"nequip": NequIP(), "mace": Mace()}
