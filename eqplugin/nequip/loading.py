"""Reading trained NequIP models: as modules, as their configs, as ASE calculators."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from ase import Atoms
from ase.calculators.calculator import all_changes
from lightning.pytorch.utilities.seed import isolate_rng
from nequip.integrations.ase import NequIPCalculator
from nequip.model.saved_models import load_utils
from nequip.model.saved_models.load_utils import load_saved_model
from nequip.utils.global_dtype import _GLOBAL_DTYPE
from nequip.utils.global_state import global_state_initialized, set_global_state

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.exchange import default_dtype, exchanged
from eqplugin.modelfile.archive import check_archive
from eqplugin.modelfile.eqm import SUFFIX, read_header
from eqplugin.modelfile.trust import check_code_file, trusted
from eqplugin.nequip.modify import modify_model
from eqplugin.nequip.targets import check_checkpoint
from eqplugin.process import loading

_COMPILED = ".nequip.pt2"
_PACKAGE = ".nequip.zip"
# what Lightning's seed_everything leaves behind
_SEEDS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


def prepare_session() -> None:
    """Set what NequIP needs to be set in a process, unless it is already.

    Of what it sets beside that, the caller gets its own back: torch's default dtype, the states of
    all random numbers, and Lightning's environment variables for the seeds of workers.
    """
    if global_state_initialized():
        return
    seeds = {name: os.environ.get(name) for name in _SEEDS}
    with loading(), isolate_rng():
        set_global_state()
    for name, value in seeds.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def nequip_session() -> Iterator[None]:
    """Load or build in, alone, with the default dtype that NequIP counts on: float64."""
    prepare_session()
    with loading(), default_dtype(_GLOBAL_DTYPE):
        yield


@contextmanager
def _reading(path: Path, trust: bool | None) -> Iterator[None]:
    """One sentence for whatever a damaged checkpoint or package trips over, or would run."""
    package = path.name.endswith(_PACKAGE)
    what = "NequIP package" if package else "NequIP checkpoint"
    if not path.is_file():
        raise EqPluginError(f"the model file {path} is missing: check the path.")
    check_archive(path, f"not a {what}")
    if package:
        check_code_file(path, trust)
    else:
        check_checkpoint(path, trust)
    try:
        with nequip_session():
            yield
    except EqPluginError:
        raise
    except Exception as error:
        reason = reason_of(error, named=True)[:200]
        raise EqPluginError(f"{path} cannot be loaded as a {what} ({reason}).") from error


def read_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    modifiers: Sequence[str] = (),
    trust: bool | None = None,
) -> torch.nn.Module:
    """Load a checkpoint, a package (.nequip.zip) or an .eqm file as a GraphModel for evaluation.

    Args:
        path: the file.
        device: where the weights go.
        modifiers: model modifiers to apply; those of the training are not applied by themselves.
        trust: see :mod:`eqplugin.modelfile.trust`.

    Raises:
        EqPluginError: for a damaged or foreign file, one that would run what no honest file does,
            or a modifier that cannot be applied.
    """
    with nequip_session():
        if Path(path).suffix == SUFFIX:
            model = _of_eqm(path)
        else:
            with _reading(Path(path), trust):
                model = load_saved_model(str(path))
        return modify_model(model.eval(), modifiers, f"the model {path}", device)


def _of_eqm(path: str | Path) -> torch.nn.Module:
    from eqplugin.nequip.eqm import load_eqm  # which rests on this module

    return load_eqm(path)


def read_config(path: Path, trust: bool | None = None) -> dict[str, Any]:
    """``training_module.model`` of the config that a model was trained with.

    Args:
        path: the file.
        trust: see :mod:`eqplugin.modelfile.trust`.

    Raises:
        EqPluginError: for a damaged or foreign file.
    """
    if path.suffix == SUFFIX:
        header = read_header(path)
        return {"_target_": header.builder, **header.config}
    return read_information(path, trust)["training_module"]["model"]


def read_information(path: Path, trust: bool | None = None) -> dict[str, Any]:
    """The config that a checkpoint or package was trained with.

    Args:
        path: the file.
        trust: see :mod:`eqplugin.modelfile.trust`.

    Raises:
        EqPluginError: for a damaged or foreign file.
    """
    with _reading(path, trust):
        if path.name.endswith(_PACKAGE):
            text = torch.package.PackageImporter(path).load_text("model", "config.yaml")
            found = yaml.safe_load(text)
        else:
            # plain types alone, but where somebody's own are trusted
            plain = not trusted(trust)
            saved = torch.load(path, map_location="cpu", weights_only=plain)
            found = saved["hyper_parameters"]["info_dict"]
        found["training_module"]["model"]  # a file of something else fails here
        return found


def integration_of(cls: Any, path: Path, trust: bool | None = None, **options: Any) -> Any:
    """NequIP's calculator for ASE or torch-sim, of a model file that :func:`read_model` reads.

    Args:
        cls: with NequIP's loaders.
        path: the file.
        trust: see :mod:`eqplugin.modelfile.trust`.
        **options: of the calculator.

    Raises:
        EqPluginError: as :func:`read_model`.
    """

    def read(_: str, **__: Any) -> torch.nn.Module:
        return read_model(path, trust=trust)

    with nequip_session(), exchanged((load_utils, "load_saved_model", read)):
        return cls._from_saved_model(path, **options)


class _Calculator(NequIPCalculator):
    """NequIP's, which makes positions tensors of torch's default dtype: float64, whatever it is."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See ASE."""
        with default_dtype(_GLOBAL_DTYPE):
            super().calculate(atoms, properties, system_changes)


def load_calculator(
    model: str | Path,
    device: str = "cpu",
    modifiers: Sequence[str] = (),
    trust: bool | None = None,
) -> NequIPCalculator:
    """Load a checkpoint, a package (.nequip.zip), an .eqm file or a compiled model (.nequip.pt2).

    Args:
        model: path to the file. All but compiled ones run eagerly; a model compiled with
            ``nequip-compile --mode aotinductor --target ase`` is 2 to 3 times faster in MD.
        device: ``"cpu"`` or ``"cuda"``; a compiled model runs only on the device it was made for.
        modifiers: model modifiers such as ``"enable_FactorizedTP"``, for models that run eagerly;
            those a model was trained with are not applied by themselves.
        trust: see :class:`eqplugin.EqCalculator`.

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
        check_archive(path, "not a compiled NequIP model")
        check_code_file(path, trust)
        if modifiers:
            raise EqPluginError(
                f"the compiled model {path} cannot be modified: "
                f"compile it again with nequip-compile --modifiers {' '.join(modifiers)}."
            )
        with nequip_session():
            return _Calculator.from_compiled_model(path, **options)
    calculator = integration_of(_Calculator, path, trust, **options)
    calculator.model = modify_model(
        calculator.model, modifiers, f"the model {path}", calculator.device
    )
    return calculator
