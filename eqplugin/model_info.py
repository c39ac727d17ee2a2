"""What a model file says of itself, without running anything in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqplugin.errors import EqPluginError
from eqplugin.modelfile.archive import check_archive
from eqplugin.modelfile.eqm import SUFFIX, EqmHeader, read_eqm
from eqplugin.modelfile.owner import why_not_ours
from eqplugin.modelfile.pickles import HostileFileError, check_pickles
from eqplugin.quiet import quiet
from eqplugin.stacks import file_kind, stack_named


def describe_file(path: Path) -> dict[str, str]:
    """Facts about a model file, by name.

    Raises:
        EqPluginError: for a missing, damaged or foreign file.
    """
    kind = file_kind(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"file": str(path), "bytes": f"{path.stat().st_size:,}", "sha256": digest}
    if path.suffix == SUFFIX:
        header, tensors = read_eqm(path)
        numbers = sum(tensor.numel() for tensor in tensors.values())
        return facts | _of_eqm(header) | {"numbers": f"{numbers:,} in {len(tensors)} tensors"}
    with quiet(stdout=True):
        return facts | _of_archive(path, kind)


def _of_archive(path: Path, kind: str) -> dict[str, str]:
    check_archive(path)
    if kind in ("package", "compiled"):
        owner = why_not_ours(path) or "only you can have written it"
        return {"kind": f"{kind}, which is code", "opened": owner}
    if kind == "mace":
        stack_named("mace")  # repairs MACE before the names of its classes are looked up
    try:
        found = check_pickles(path)
    except HostileFileError as error:
        return {"kind": f"{kind}, a pickle", "opened": f"no: {error}"}
    facts = {"kind": f"{kind}, a pickle", "opened": "yes: it holds what honest files hold"}
    return facts | (_of_checkpoint(found) if kind == "checkpoint" else _of_model(path))


def _of_eqm(header: EqmHeader) -> dict[str, str]:
    config = {name: value for name, value in header.config.items() if not _is_long(value)}
    return {
        "kind": f"{header.stack} model without code",
        "builder": header.builder,
        "species": ", ".join(header.species),
        "cutoff": f"{header.r_max:g} A",
        "dtype": header.dtype,
        "written by": ", ".join(f"{name} {number}" for name, number in header.versions.items()),
        **{name.replace("_", " "): text for name, text in header.extra.items()},
        "options": json.dumps(config),
    }


def _is_long(value: Any) -> bool:
    return len(json.dumps(value)) > 120


def _of_checkpoint(found: Any) -> dict[str, str]:
    try:
        information = found["hyper_parameters"]["info_dict"]
        section = information["training_module"]["model"]
        versions = information["versions"]
    except (KeyError, TypeError) as error:
        raise EqPluginError("the file is no NequIP checkpoint: it holds no config.") from error
    plain = section if isinstance(section, Mapping) else {}
    return {
        "builder": str(plain.get("_target_")),
        "species": ", ".join(map(str, plain.get("type_names", ()))),
        "cutoff": f"{plain.get('r_max')} A",
        "dtype": str(plain.get("model_dtype")),
        "written by": ", ".join(f"{name} {number}" for name, number in dict(versions).items()),
    }


def _of_model(path: Path) -> dict[str, str]:
    from ase.data import chemical_symbols

    from eqplugin.mace.inert import read_inert

    view, tensors = read_inert(path)
    floats = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    heads = getattr(view, "heads", None) or ["Default"]
    return {
        "class": type(view).__name__,
        "species": ", ".join(chemical_symbols[int(z)] for z in view.atomic_numbers),
        "cutoff": f"{float(view.r_max):g} A",
        "dtype": str(floats[0].dtype).removeprefix("torch."),
        "heads": ", ".join(heads),
        "design": str(getattr(view, "eqplugin_spec", "a model of MACE's own")),
    }
