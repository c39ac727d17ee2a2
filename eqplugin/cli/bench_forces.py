"""The command `eqplugin bench forces`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from eqplugin.cli._common import counting, print_warning, user_errors
from eqplugin.errors import EqPluginError


@user_errors()
def forces(
    names: list[str] = typer.Argument(
        metavar="MODEL... DATA...", help="Models, then files of labelled frames."
    ),
    train: list[str] | None = typer.Option(
        None,
        help="The models' training file: frames shared with DATA are reported. Repeat for several.",
    ),
    key: list[str] | None = typer.Option(
        None,
        help="KEY=LABEL: a key in DATA and its label (energy, forces, stress). Repeat for several.",
    ),
    by: str | None = typer.Option(
        None, help="Print a second table, by `element` or `config_type`."
    ),
    out: Path | None = typer.Option(
        None, help="Folder for errors.json, errors.csv, errors.md and plots."
    ),
    device: str = typer.Option("cpu", help="`cpu` or `cuda`."),
    dtype: str | None = typer.Option(
        None, help="`float32` or `float64`; default: that of the model."
    ),
    head: str | None = typer.Option(
        None, help="Head of MACE models with several; models with one run as they are."
    ),
) -> None:
    """How large are the energy, force and stress errors of these models on this data?

    MODEL is a NequIP checkpoint, package or compiled file, a MACE .model, an .eqm file of either,
    or any ASE calculator as `module:factory`. DATA is any file that ASE reads, with the keys
    energy, forces, stress or REF_energy, REF_forces, REF_stress. Labels missing from a file are
    reported as '-', never as zero.

    **Examples**

        eqplugin bench forces demo/*/best.ckpt examples/data/ethanol_xtb/test_*.xyz --out errors

        eqplugin bench forces ours.model theirs.model test.xyz --key dft_forces=forces --by element

        eqplugin bench forces ase.calculators.emt:EMT examples/data/cuau_emt/test_600K.xyz
    """
    from eqplugin.cli.data import _mapping
    from eqplugin.measure.comparison import (
        GROUPINGS,
        Comparison,
        compare_forces,
        shared_frames,
        write_comparison,
    )
    from eqplugin.measure.labels import read_labelled
    from eqplugin.measure.models import check_head, is_model, labels_of, open_model

    if by is not None and by not in GROUPINGS:
        raise EqPluginError(f"--by {by} is not valid: choose {' or '.join(GROUPINGS)}.")
    models = [name for name in dict.fromkeys(names) if is_model(name)]
    files = [name for name in dict.fromkeys(names) if not is_model(name)]
    if not models or not files:
        missing = "model" if not models else "file of labelled frames"
        raise EqPluginError(f"No {missing} among {', '.join(names)}: name models, then data.")
    check_head(models, head)
    named_models = dict(zip(labels_of(models), models, strict=True))
    named_files = dict(zip(labels_of(files), files, strict=True))
    mapping = _mapping(key or [])
    frames = {label: read_labelled(file, mapping) for label, file in named_files.items()}
    for sentence in shared_frames(train or [], files):
        print_warning(sentence)
    with counting("frames", len(models) * sum(map(len, frames.values()))) as advance:
        calculators = {
            label: open_model(model, device, dtype, head) for label, model in named_models.items()
        }
        results = compare_forces(calculators, frames, advance)
    comparison = Comparison(named_models, named_files, results)
    console = Console(markup=False)
    console.print(comparison.table().to_rich())
    if by is not None:
        console.print(comparison.table(by).to_rich(f"by {by}"))
    if out is not None:
        written = ", ".join(path.name for path in write_comparison(comparison, out))
        console.print(f"written to {out}: {written}")
