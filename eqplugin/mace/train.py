"""`eqplugin mace-train`: MACE's own trainer with our models, checked input and exact resuming.

Every option and YAML config of ``mace_run_train`` is accepted; the work is done by
``mace.cli.run_train.run``. A few of its names are exchanged while it runs, and put back.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from e3nn.util import jit
from mace import data, tools
from mace.cli import run_train
from mace.tools import arg_parser_tools, distributed_tools

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.exchange import exchanged
from eqplugin.mace import _neighborhood
from eqplugin.mace._data_checks import Findings, check_training_data
from eqplugin.mace._finite import frame_namer
from eqplugin.mace._heads import literal
from eqplugin.mace._loop import TrainingLoop
from eqplugin.mace._losses import check_loss, ignored_options
from eqplugin.mace._surroundings import (
    WholeTorch,
    failures_in_a_sentence,
    folders_held,
    surroundings_kept,
)
from eqplugin.mace.build import (
    building_families,
    configure_model,
    design_of_arguments,
    in_stock_words,
)
from eqplugin.mace.compat import opening
from eqplugin.mace.eqm import write_without_code
from eqplugin.mace.models import FAMILIES, check_degrees
from eqplugin.mace.optimizers import OPTIMIZERS, check_optimizer, exchanges
from eqplugin.mace.plan import design_from, plan_layers
from eqplugin.mace.products import products_while
from eqplugin.nn.product.compiled import load_operators
from eqplugin.resources import shipped_file

# no warning through `logging` itself before MACE has set its log up: every line would come twice
_LOGGER = logging.getLogger(__name__)
# models that sum over the cell's images; they were made with MACE's box where a slab ends
_LONG_RANGE = ("MACELES", "PolarMACE")
_LONGEST_NAME = 150  # characters; file names have 255, and MACE appends to this one

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
    args, findings = _checked(argv)
    for warning in findings.warnings:
        _LOGGER.warning(warning)
    return args


def _checked(argv: Sequence[str]) -> tuple[argparse.Namespace, Findings]:
    """The options, and what was found out about the data."""
    try:
        args = build_parser().parse_args(_with_present_config(argv))
    except OSError as error:
        raise EqPluginError(f"The config file cannot be read ({error}): check the path.") from error
    for name in ("train_file", "valid_file", "test_file", "E0s"):
        if isinstance(getattr(args, name), str):
            setattr(args, name, shipped_file(getattr(args, name)))
    _check_name(args)
    check_model(args)
    _check_numbers(args)
    check_optimizer(args)
    _check_products(args)
    check_loss(args)
    findings = check_training_data(args)
    defaults = build_parser().parse_args(["--name", args.name])
    findings.warnings = [*ignored_options(args, defaults), *findings.warnings]
    return args, findings


def _check_name(args: argparse.Namespace) -> None:
    """The name begins the names of files."""
    name = args.name
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise EqPluginError(
            f"--name {name!r} is not valid: it begins the names of files, so leave out slashes "
            f"and give the folder as --work_dir."
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise EqPluginError(
            f"--name is too long for file names: {_LONGEST_NAME} characters at most."
        )


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
    _LOGGER.warning(
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
    for name in ("lr", "swa_lr", "energy_weight", "forces_weight", "stress_weight",
                 "virials_weight", "dipole_weight", "polarizability_weight"):  # fmt: skip
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise EqPluginError(f"{name}={value} is not valid: give a finite number >= 0.")
    _check_literals(args)
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


def _check_literals(args: argparse.Namespace) -> None:
    """Options that MACE reads as Python: it fails over some, and leaves others out silently."""
    refusal = f"--radial_MLP {args.radial_MLP} cannot be read: write a list such as [64, 64, 64]."
    sizes = literal(str(args.radial_MLP), refusal)
    if not isinstance(sizes, list) or not all(type(n) is int and n > 0 for n in sizes):
        raise EqPluginError(refusal)
    given = args.config_type_weights
    refusal = f"--config_type_weights {given} cannot be read: write {{'Default': 1.0, 'MD': 0.5}}."
    weights = literal(str(given), refusal)
    if not isinstance(weights, dict) or not all(
        type(w) in (int, float) and math.isfinite(w) and w >= 0 for w in weights.values()
    ):
        raise EqPluginError(refusal)


def train(argv: Sequence[str]) -> None:
    """Train a MACE model; see ``eqplugin mace-train --help`` for the options.

    Files are those of ``mace_run_train`` (models, checkpoints, logs, results), and
    ``checkpoints/TAG_resume.pt`` for ``--restart_latest``.

    Raises:
        EqPluginError: for bad input, before anything is written; for a loss that is not finite,
            and whatever else stops MACE.
    """
    args, findings = _checked(argv)
    opening.repair()  # of MACE's trainer
    design = design_of_arguments(args)
    with (
        surroundings_kept(),
        failures_in_a_sentence(args),
        folders_held(args),
        building_families(design),
        _in_trainer(args, findings),
    ):
        run_train.run(in_stock_words(args))
    write_without_code(args)


def _in_trainer(args: argparse.Namespace, findings: Findings) -> AbstractContextManager[None]:
    """MACE's names that our trainer needs to be others, for the length of one run."""
    name_frame = frame_namer([path for files in findings.files.values() for path in files])

    def loop(**arguments: Any) -> None:
        # stage two copies weights and buffers into a model of its own
        averaged = [arguments["swa"].model.module] if arguments.get("swa") else []
        with products_while(args.products, arguments["model"], *averaged):
            TrainingLoop(args.restart_latest, arguments, name_frame).run()

    neighborhood = data.atomic_data.get_neighborhood
    if args.model in _LONG_RANGE:
        neighborhood = _neighborhood.STOCK
    return exchanged(
        *exchanges(run_train),
        (run_train, "configure_model", configure_model),
        (run_train, "init_distributed", _init_distributed),
        (run_train, "DDP", _ddp),
        (run_train, "jit", SimpleNamespace(compile=_compile)),
        (run_train, "torch", WholeTorch()),
        (run_train, "get_dataset_from_xyz", _datasets(args, findings)),
        (data.atomic_data, "get_neighborhood", neighborhood),
        (tools, "check_args", _with_warnings(findings.warnings)),
        (tools, "train", loop),
    )


def _with_warnings(warnings: Sequence[str]) -> Callable[[Any], tuple]:
    """MACE logs what its own check of the options returns, once its log is set up."""

    def check_args(args: argparse.Namespace) -> tuple:
        args, messages = arg_parser_tools.check_args(args)
        return args, [*messages, *((warning, logging.WARNING) for warning in warnings)]

    return check_args


def _datasets(args: argparse.Namespace, findings: Findings) -> Callable[..., tuple]:
    """MACE fails over an isolated atom of an element that no other frame holds."""
    stock = run_train.get_dataset_from_xyz

    def get_dataset_from_xyz(**options: Any) -> tuple:
        collections, energies = stock(**options)
        elements = findings.elements.get(options["head_name"])
        if energies and elements and not args.foundation_model_elements:
            energies = {z: energy for z, energy in energies.items() if z in elements}
        return collections, energies

    return get_dataset_from_xyz


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
