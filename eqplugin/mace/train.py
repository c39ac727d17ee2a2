"""`eqplugin mace-train`: MACE's own trainer with our models, checked input and exact resuming.

Every option and YAML config of ``mace_run_train`` is accepted; the work is done by
``mace.cli.run_train.run``. A few of its names are exchanged while it runs, and put back.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from e3nn.util import jit
from mace import data, tools
from mace.cli import run_train
from mace.tools import distributed_tools

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.exchange import exchanged
from eqplugin.mace._data_checks import check_training_data, is_isolated_atom
from eqplugin.mace._loop import TrainingLoop
from eqplugin.mace.build import (
    building_families,
    configure_model,
    design_of_arguments,
    in_stock_words,
)
from eqplugin.mace.models import FAMILIES, check_degrees
from eqplugin.mace.optimizers import OPTIMIZERS, check_optimizer, exchanges
from eqplugin.mace.plan import design_from, plan_layers
from eqplugin.mace.products import products_while
from eqplugin.nn.product.compiled import load_operators
from eqplugin.resources import shipped_file
from eqplugin.structures import read_frames

_DESCRIPTION = """\
Train a MACE model: all options of mace_run_train, and dimension-matched models.

Examples:
eqplugin mace-train --config $(eqplugin configs)/mace/minimal.yaml
eqplugin mace-train --config $(eqplugin configs)/mace/minimal.yaml --hops 1 --max_L 0"""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Fills every line of a text on its own, so that examples can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(fill(line, width, indent) for line in text.splitlines())


def build_parser() -> argparse.ArgumentParser:
    """Return MACE's parser with our models and options added."""
    parser = tools.build_default_arg_parser()
    parser.prog = "eqplugin mace-train"
    parser.description = _DESCRIPTION
    parser.formatter_class = _HelpFormatter
    for action in parser._actions:
        if action.dest == "model":
            action.choices = [*action.choices, *FAMILIES]
        elif action.dest == "optimizer":
            action.choices = OPTIMIZERS
    ours = parser.add_argument_group("eqplugin", "options of SteerableMACE")
    ours.add_argument(
        "--feature_dim",
        type=int,
        help="feature dimension D, the sum over l of mul_l (2l + 1), met exactly; give --max_L too",
    )
    ours.add_argument(
        "--hops", type=int, help="products between two resets to scalars; unset: never reset"
    )
    ours.add_argument(
        "--reset_width", type=int, help="scalars after a reset; unset: as many as in the features"
    )
    ours.add_argument(
        "--zero_shift",
        action="store_true",
        help="give an isolated atom exactly its E0, as --model MACE does; otherwise it has its E0 "
        "plus the mean interaction energy of the training data, and energies are learnt faster",
    )
    ours.add_argument(
        "--allow_missing_labels",
        action="store_true",
        help="accept frames without energy or forces; such labels get zero weight in the loss",
    )
    ours.add_argument(
        "--products",
        action="store_true",
        help="train with compiled products on a CPU: the same losses to rounding, in less time; "
        "files are those of a training without it",
    )
    parser.error = _one_sentence
    return parser


def _one_sentence(message: str) -> NoReturn:
    sentence = message[:1].upper() + message[1:]
    raise EqPluginError(f"{sentence}; `eqplugin mace-train --help` lists the options.")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options, ``--config FILE.yaml`` included; nothing is written.

    Raises:
        EqPluginError: for anything that could not end in a trained model.
    """
    try:
        args = build_parser().parse_args(_with_present_config(argv))
    except OSError as error:
        raise EqPluginError(f"The config file cannot be read ({error}): check the path.") from error
    for name in ("train_file", "valid_file", "test_file", "E0s"):
        if isinstance(getattr(args, name), str):
            setattr(args, name, shipped_file(getattr(args, name)))
    check_model(args)
    _check_numbers(args)
    check_optimizer(args)
    _check_products(args)
    check_training_data(args)
    return args


# configs were one per family once; what their names meant beside the grade, kept for one release
_KHOP_CONFIGS = {
    "minimal": ("--hops", "1", "--max_L", "0"),
    "realistic": ("--hops", "2", "--num_interactions", "4"),
    "everything": ("--hops", "2", "--num_interactions", "4"),
}


def _with_present_config(argv: Sequence[str]) -> list[str]:
    """The command line with a config of an older name (``khop_minimal.yaml``) under the new one."""
    parts = []
    for part in argv:
        parts += part.split("=", 1) if part.startswith("--config=") else [part]
    if "--config" not in parts[:-1]:
        return parts
    at = parts.index("--config") + 1
    path = Path(parts[at])
    prefix, _, grade = path.stem.partition("_")
    if path.is_file() or prefix not in ("steerable", "khop") or grade not in _KHOP_CONFIGS:
        return parts
    new = path.with_name(f"{grade}{path.suffix}")
    changes = _KHOP_CONFIGS[grade] if prefix == "khop" else ()
    logging.warning(
        f"{path} is now {' '.join([str(new), *changes])}: the old name will be removed soon."
    )
    place = ("--name", path.stem, "--work_dir", f"outputs/mace/{path.stem}")
    return [*parts[:at], str(new), *changes, *place, *parts[at + 1 :]]


def check_model(args: argparse.Namespace) -> None:
    """Refuse options that make no model, ours or stock.

    Raises:
        EqPluginError: naming the option.
    """
    if args.model in FAMILIES:
        _check_family(args)
    else:
        _check_stock(args)


def _check_family(args: argparse.Namespace) -> None:
    for flag, backend in (
        ("enable_cueq", "cuEquivariance"),
        ("only_cueq", "cuEquivariance"),
        ("enable_oeq", "OpenEquivariance"),
    ):
        if getattr(args, flag):
            raise EqPluginError(
                f"--{flag} cannot be used with {args.model}: {backend} conversion assumes the "
                f"same irreps in every layer and would leave weights random; leave it out."
            )
    if args.foundation_model is not None and args.pt_train_file is not None:
        raise EqPluginError(
            f"Multi-head fine-tuning with replay (--pt_train_file) is not possible with "
            f"{args.model}: leave it out for plain fine-tuning, or use --heads from scratch."
        )
    if args.lora:
        raise EqPluginError(
            f"--lora is untested with {args.model}: fine-tune all weights, or --freeze layers."
        )
    if args.zero_shift and "Residual" in args.interaction_first:
        raise EqPluginError(
            "--zero_shift has no effect with a residual first layer, which gives an isolated atom "
            "an energy of its own: add --interaction_first RealAgnosticInteractionBlock."
        )
    design = design_from(vars(args), args.num_interactions)
    plan = plan_layers(design, args.use_so3)
    check_degrees(plan.uniform_base.lmax, args.max_ell)


def _check_stock(args: argparse.Namespace) -> None:
    for name in ("feature_dim", "hops", "reset_width", "zero_shift"):
        if getattr(args, name) is not None and getattr(args, name) is not False:
            raise EqPluginError(
                f"--{name} is not an option of --model {args.model}: use --model "
                f"{' or '.join(FAMILIES)}."
            )
    _require_at_least(args, "max_L", 0)
    _require_at_least(args, "num_channels", 1)


def _require_at_least(args: argparse.Namespace, name: str, least: int) -> None:
    value = getattr(args, name)
    if value is not None and value < least:
        raise EqPluginError(f"{name}={value} is not valid: give an integer >= {least}.")


def _check_numbers(args: argparse.Namespace) -> None:
    counts = ("max_num_epochs", "batch_size", "num_interactions", "correlation", "eval_interval")
    for name in counts:
        _require_at_least(args, name, 1)
    if not args.r_max > 0:
        raise EqPluginError(f"r_max={args.r_max} is not valid: give a cutoff in A > 0.")
    if args.valid_file is None and args.heads is None and not 0 < args.valid_fraction < 1:
        raise EqPluginError(
            f"valid_fraction={args.valid_fraction} is not valid: give a number between 0 and "
            f"1, or use --valid_file."
        )
    if args.device == "cuda" and not torch.cuda.is_available():
        raise EqPluginError("--device cuda: PyTorch sees no CUDA device here; use --device cpu.")


def _check_products(args: argparse.Namespace) -> None:
    if not args.products:
        return
    if args.device != "cpu":
        raise EqPluginError(f"--products is for the CPU: leave it out with --device {args.device}.")
    if args.enable_cueq or args.only_cueq or args.enable_oeq:
        raise EqPluginError("--products replaces what --enable_cueq and --enable_oeq do: give one.")
    reason = load_operators()
    if reason is not None:
        raise EqPluginError(f"--products: {reason}")


def train(argv: Sequence[str]) -> None:
    """Train a MACE model; see ``eqplugin mace-train --help`` for the options.

    Files are those of ``mace_run_train`` (models, checkpoints, logs, results), and
    ``checkpoints/TAG_resume.pt`` for ``--restart_latest``.

    Raises:
        EqPluginError: for bad input, before anything is written.
    """
    args = parse(argv)
    with building_families(design_of_arguments(args)), _in_trainer(args), _surroundings_kept():
        run_train.run(in_stock_words(args))


@contextmanager
def _surroundings_kept() -> Iterator[None]:
    """MACE sets torch's default dtype and adds log handlers; a Python caller gets its own back."""
    root = logging.getLogger()
    previous, handlers, level = torch.get_default_dtype(), list(root.handlers), root.level
    try:
        yield
    finally:
        torch.set_default_dtype(previous)
        root.setLevel(level)
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
            handler.close()


def _in_trainer(args: argparse.Namespace) -> AbstractContextManager[None]:
    """MACE's names that our trainer needs to be others, for the length of one run."""
    return exchanged(
        *exchanges(run_train),
        (run_train, "configure_model", configure_model),
        (run_train, "init_distributed", _init_distributed),
        (run_train, "DDP", _ddp),
        (run_train, "jit", SimpleNamespace(compile=_compile)),
        (data, "load_from_xyz", _load_from_xyz),
        (tools, "train", lambda **arguments: _run_loop(args, arguments)),
    )


def _run_loop(args: argparse.Namespace, arguments: dict[str, Any]) -> None:
    # stage two copies weights and buffers into a model of its own
    averaged = [arguments["swa"].model.module] if arguments.get("swa") else []
    with products_while(args.products, arguments["model"], *averaged):
        TrainingLoop(args.restart_latest, arguments).run()


def _init_distributed(args: argparse.Namespace) -> tuple[int, int, int]:
    """Start a process group on CPU too, where MACE 0.3.16 starts none."""
    rank, local_rank, world_size = distributed_tools.init_distributed(args)
    if args.distributed and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "gloo", init_method="env://", rank=rank, world_size=world_size
        )
    return rank, local_rank, world_size


def _ddp(model: torch.nn.Module, device_ids: Sequence[int]) -> torch.nn.Module:
    """Data parallelism; on CPU no device may be named."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return torch.nn.parallel.DistributedDataParallel(
        model, device_ids=None if on_cpu else device_ids
    )


def _compile(*args: Any, **kwargs: Any) -> Any:
    """MACE swallows a failed TorchScript compilation; say at least that the file is missing."""
    try:
        return jit.compile(*args, **kwargs)
    except Exception as error:
        logging.warning(
            f"No *_compiled.model was written: TorchScript failed ({reason_of(error)})."
        )
        raise


def _load_from_xyz(file_path: str, key_specification: Any, *rest: Any, **more: Any) -> tuple:
    """Find E0s under the key ``energy``, which ASE moves out of MACE's sight (E0 = 0)."""
    energies, configs = data.utils.load_from_xyz(file_path, key_specification, *rest, **more)
    if energies and key_specification.info_keys.get("energy") == "energy":
        for atoms in read_frames(file_path):
            if is_isolated_atom(atoms):
                energies[int(atoms.numbers[0])] = float(atoms.get_potential_energy())
    return energies, configs
