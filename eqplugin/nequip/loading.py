"""Reading trained NequIP models: as modules, as their configs, as ASE calculators."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from nequip.integrations.ase import NequIPCalculator
from nequip.model.saved_models.load_utils import load_saved_model
from nequip.utils.global_state import global_state_initialized, set_global_state

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.nequip.modify import modify_model

_COMPILED = ".nequip.pt2"
_PACKAGE = ".nequip.zip"


def prepare_session() -> None:
    """Set what NequIP needs to be set in a process, unless it is already."""
    if not global_state_initialized():
        set_global_state()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """One sentence for whatever a damaged checkpoint or package trips over."""
    package = path.name.endswith(_PACKAGE)
    what = "NequIP package" if package else "NequIP checkpoint"
    if package and not zipfile.is_zipfile(path):
        raise EqPluginError(f"{path} is damaged or not a {what}: it is not a zip file.")
    try:
        yield
    except EqPluginError:
        raise
    except Exception as error:
        reason = reason_of(error, named=True)[:200]
        raise EqPluginError(f"{path} cannot be loaded as a {what} ({reason}).") from error


def read_model(
    path: str | Path, device: str | torch.device = "cpu", modifiers: Sequence[str] = ()
) -> torch.nn.Module:
    """Load a checkpoint (.ckpt) or a package (.nequip.zip) as a GraphModel for evaluation.

    Args:
        path: the file, a pickle: open only files that you trust.
        device: where the weights go.
        modifiers: model modifiers to apply; those of the training are not applied by themselves.

    Raises:
        EqPluginError: for a damaged or foreign file, or a modifier that cannot be applied.
    """
    prepare_session()
    with _reading(Path(path)):
        model = load_saved_model(str(path))
    return modify_model(model.eval(), modifiers, f"the model {path}", device)


def read_config(path: Path) -> dict[str, Any]:
    """``training_module.model`` of the config that a checkpoint or package was trained with.

    Raises:
        EqPluginError: for a damaged or foreign file.
    """
    with _reading(path):
        if path.name.endswith(_PACKAGE):
            text = torch.package.PackageImporter(path).load_text("model", "config.yaml")
            config = yaml.safe_load(text)
        else:
            saved = torch.load(path, map_location="cpu", weights_only=False)
            config = saved["hyper_parameters"]["info_dict"]
        return config["training_module"]["model"]


def load_calculator(
    model: str | Path, device: str = "cpu", modifiers: Sequence[str] = ()
) -> NequIPCalculator:
    """Load a checkpoint (.ckpt), a package (.nequip.zip) or a compiled model (.nequip.pt2).

    Args:
        model: path to the file. Checkpoints and packages run eagerly; a model compiled with
            ``nequip-compile --mode aotinductor --target ase`` is 2 to 3 times faster in MD.
        device: ``"cpu"`` or ``"cuda"``; a compiled model runs only on the device it was made for.
        modifiers: model modifiers such as ``"enable_FactorizedTP"``, for models that run eagerly;
            those a model was trained with are not applied by themselves.

    Returns:
        NequIPCalculator with eV, A, eV/A and eV/A^3.

    Raises:
        EqPluginError: when the file is missing or damaged, or a modifier cannot be applied.
    """
    path = Path(model)
    options = {"device": device, "chemical_species_to_atom_type_map": True}
    if not path.is_file():
        raise EqPluginError(f"the model file {path} is missing: check the path.")
    if path.name.endswith(_COMPILED):
        if modifiers:
            raise EqPluginError(
                f"the compiled model {path} cannot be modified: "
                f"compile it again with nequip-compile --modifiers {' '.join(modifiers)}."
            )
        return NequIPCalculator.from_compiled_model(path, **options)
    with _reading(path):
        calculator = NequIPCalculator._from_saved_model(path, **options)
    calculator.model = modify_model(
        calculator.model, modifiers, f"the model {path}", calculator.device
    )
    return calculator
