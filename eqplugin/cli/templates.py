"""The commands `eqplugin configs` and `eqplugin template`."""

from __future__ import annotations

from pathlib import Path

import typer

from eqplugin.cli._common import user_errors


def configs(
    data: bool = typer.Option(
        False, "--data", help="Print the folder of the quick-start data instead."
    ),
) -> None:
    """Print the folder of the shipped configs, in a clone or in an installed wheel.

    The configs find the shipped data from any working directory. For your own data, add
    `data_root=PATH`, or let `eqplugin template` fill in your files.

    **Examples**

        nequip-train -cp $(eqplugin configs)/nequip -cn minimal l_max=2

        eqplugin mace-train --config $(eqplugin configs)/mace/minimal.yaml

        eqplugin bench forces best.ckpt $(eqplugin configs --data)/ethanol_xtb/test_600K.xyz
    """
    from eqplugin.resources import CONFIGS, DATA

    typer.echo(DATA if data else CONFIGS)


@user_errors()
def template(
    name: str = typer.Argument(
        None, help="Template, such as study/quickstart; default: list all names."
    ),
    out: Path = typer.Option(None, "--out", "-o", help="File to write; default: standard output."),
    train: Path = typer.Option(
        None, help="Your training file; its path and species are filled in."
    ),
    val: Path = typer.Option(None, help="Validation file; default: a tenth of the training file."),
    test: Path = typer.Option(
        None, help="Test file; default: none (for a study, a tenth of the training file)."
    ),
    isolated_atoms: Path = typer.Option(
        None, help="File of isolated atoms with energies; default: the mean energy per atom."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing file."),
) -> None:
    """Write a shipped config as a starting point: one commented file that needs no other.

    With `--train`, your files and their species replace those of the shipped data.

    **Examples**

        eqplugin template

        eqplugin template nequip/minimal --train my.xyz -o my.yaml && nequip-train -cn my

        eqplugin template mace/realistic --train my.xyz --isolated-atoms e0.xyz -o my.yaml

        eqplugin template study/quickstart --train my.xyz -o my.yaml && eqplugin study my.yaml
    """
    from eqplugin.errors import EqPluginError
    from eqplugin.files import write_text
    from eqplugin.templates import UserFiles, template_names
    from eqplugin.templates import template as text_of

    if name is None:
        typer.echo("\n".join(template_names()))
        return
    if train is None and (val or test or isolated_atoms):
        raise EqPluginError("--val, --test and --isolated-atoms need --train: give it, too.")
    files = None if train is None else UserFiles(train, val, test, isolated_atoms)
    if out is None:
        typer.echo(text_of(name, files), nl=False)
        return
    if out.exists() and not force:
        raise EqPluginError(f"{out} already exists: name another file, or replace it with --force.")
    write_text(out, text_of(name, files, out.stem))
    typer.echo(f"written: {out}")
