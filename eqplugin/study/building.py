"""Variants built but not trained, and one training step of any model, to count and to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ase import Atoms

from eqplugin.study.commands import mace_arguments, nequip_overrides
from eqplugin.study.job import Variant
from eqplugin.study.schema import StudyConfig

__all__ = ["build", "clock_for", "count_parameters", "time_steps", "training_step"]

_NEIGHBORS = 10.0  # a placeholder: it scales messages and costs nothing


def build(config: StudyConfig, variant: Variant, species: tuple[str, ...]) -> torch.nn.Module:
    """The variant as its trainer would build it, with weights nobody has trained."""
    if variant.family == "nequip":
        return _build_nequip(config, variant, species)
    return _build_mace(config, variant, species)


def count_parameters(model: torch.nn.Module) -> int:
    """All parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _build_nequip(
    config: StudyConfig, variant: Variant, species: tuple[str, ...]
) -> torch.nn.Module:
    import nequip.utils  # noqa: F401 - registers the resolvers that the configs use
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.utils import instantiate
    from nequip.utils.global_state import set_global_state

    set_global_state()
    _, folder, _, name, *overrides = nequip_overrides(config, variant, species, stress=False)
    statistics = {"avg_num_neighbors": _NEIGHBORS, "per_type_energy_shifts": 0.0}
    model = "training_module.model"
    overrides += [f"++{model}.{key}={value}" for key, value in statistics.items()]
    overrides += [f"++{model}.per_type_energy_scales=1.0"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(folder, version_base="1.3"):
        composed = compose(name, [*overrides, "train_files=none", "val_files=none"])
    built = instantiate(composed.training_module.model)
    return built if isinstance(built, torch.nn.Module) else built["sole_model"]


def _build_mace(config: StudyConfig, variant: Variant, species: tuple[str, ...]) -> torch.nn.Module:
    import eqplugin.mace  # noqa: F401, I001 - first: it repairs MACE
    from ase.data import atomic_numbers
    from mace import modules

    from eqplugin.mace._build import families_built_by, spec_from
    from eqplugin.mace.train import build_parser

    args = build_parser().parse_args([*mace_arguments(config, variant), "--name", "none"])
    spec = spec_from(args)
    plan = spec.plan(args.num_interactions, args.use_so3)
    args.mean, args.std, args.embedding_specs = 0.0, 1.0, None
    numbers = [atomic_numbers[symbol] for symbol in species]
    options = {
        "r_max": args.r_max,
        "num_bessel": args.num_radial_basis,
        "num_polynomial_cutoff": args.num_cutoff_basis,
        "max_ell": args.max_ell,
        "interaction_cls": modules.interaction_classes[args.interaction],
        "num_interactions": args.num_interactions,
        "num_elements": len(numbers),
        "hidden_irreps": plan.uniform_base,
        "atomic_energies": np.zeros((1, len(numbers))),
        "apply_cutoff": args.apply_cutoff,
        "avg_num_neighbors": _NEIGHBORS,
        "atomic_numbers": numbers,
        "use_reduced_cg": args.use_reduced_cg,
        "use_so3": args.use_so3,
    }
    previous = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, args.default_dtype))
    try:
        return families_built_by(None, spec)(args, options, None, ["Default"])
    finally:
        torch.set_default_dtype(previous)


def training_step(
    family: str, model: torch.nn.Module, frames: Sequence[Atoms], r_max: float
) -> Callable[[], None]:
    """A call that does what a training step costs: forward, loss on energy and forces, backward.

    The optimizer's own update is left out: it is small, and would change a trained model.
    """
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    make = _nequip_forward if family == "nequip" else _mace_forward
    forward = make(model, frames, r_max)

    def step() -> None:
        energy, forces = forward()
        (energy.square().mean() + forces.square().mean()).backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def _nequip_forward(model: torch.nn.Module, frames: Sequence[Atoms], r_max: float) -> Callable:
    from nequip.data import AtomicDataDict, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform

    types = list(model.type_names)
    mapper = ChemicalSpeciesToAtomTypeMapper(types, {t: t for t in types})
    neighbours = NeighborListTransform(r_max=r_max)
    batch = AtomicDataDict.batched_from_list([neighbours(mapper(from_ase(a))) for a in frames])
    batch = AtomicDataDict.to_(batch, next(model.parameters()).device)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        out = model({key: value.clone() for key, value in batch.items()})
        return out["total_energy"], out["forces"]

    return forward


def _mace_forward(model: torch.nn.Module, frames: Sequence[Atoms], r_max: float) -> Callable:
    from mace import data
    from mace.tools import torch_geometric
    from mace.tools.utils import AtomicNumberTable

    weight = next(model.parameters())
    previous = torch.get_default_dtype()
    torch.set_default_dtype(weight.dtype)
    try:
        table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
        keys = data.KeySpecification({}, {})
        items = [
            data.AtomicData.from_config(
                data.config_from_atoms(atoms, key_specification=keys),
                z_table=table, cutoff=r_max, heads=model.heads,
            )
            for atoms in frames
        ]  # fmt: skip
        loader = torch_geometric.dataloader.DataLoader(items, batch_size=len(items), shuffle=False)
        batch = next(iter(loader)).to(weight.device).to_dict()
    finally:
        torch.set_default_dtype(previous)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        out = model(batch, training=True, compute_force=True)
        return out["energy"], out["forces"]

    return forward


def clock_for(device: str, threads: int) -> Callable[[], float]:
    """CPU time where one thread of the CPU does it all: the same as wall time on a quiet machine,
    and nearly so on a busy one. Wall time otherwise.
    """
    return time.process_time if device == "cpu" and threads == 1 else time.perf_counter


def time_steps(
    steps: Mapping[object, Callable[[], None]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[object, np.ndarray]:
    """Time several steps in turn, A B C A B C ..., so that a slow moment hits all alike.

    Args:
        steps: key -> call.
        rounds: timed calls of each.
        warmup: calls of each before the clock starts.
        clock: :func:`clock_for` gives one that a busy machine disturbs less.

    Returns:
        key -> times in ms, (rounds,).
    """
    times: dict[object, list[float]] = {key: [] for key in steps}
    for turn in range(warmup + rounds):
        for key, step in steps.items():
            start = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                times[key].append(1e3 * (clock() - start))
    return {key: np.array(values) for key, values in times.items()}
