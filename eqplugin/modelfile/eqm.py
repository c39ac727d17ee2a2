"""The pickle-free model file, ``.eqm``: safetensors' layout, and what builds the model as text.

    8 bytes: length n of the header, little endian
    n bytes: JSON, {tensor name: {dtype, shape, data_offsets}, "__metadata__": {name: text}}
    the rest: the tensors' bytes, one after the other

The metadata say which builder of a stack, from a list of known ones, made the model, and give its
arguments as JSON. Nothing in the file is run, and no name in it is imported.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.files import whole_file
from eqplugin.modelfile.archive import damage

SUFFIX = ".eqm"
FORMAT = "eqplugin.model/1"
_METADATA = "__metadata__"
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# of the header: a model of ten thousand tensors needs 2 MB
_LONGEST = 100 << 20


class EqmError(EqPluginError):
    """A model that cannot be written as .eqm, or a file that is none."""


@dataclass(frozen=True)
class EqmHeader:
    """What an ``.eqm`` file says of its model."""

    stack: str  # nequip or mace
    builder: str  # a name on the stack's list
    config: dict[str, Any]  # the builder's arguments, encoded by the stack
    dtype: str  # float32 or float64
    species: tuple[str, ...]  # chemical symbols, or names of atom types
    r_max: float  # cutoff, A
    versions: dict[str, str]  # of the packages that wrote it
    extra: dict[str, str]  # what a stack adds

    def texts(self) -> dict[str, str]:
        """As metadata of the file."""
        return {
            "format": FORMAT,
            "stack": self.stack,
            "builder": self.builder,
            "config": json.dumps(self.config, sort_keys=True, allow_nan=False),
            "dtype": self.dtype,
            "species": json.dumps(self.species),
            "r_max": json.dumps(self.r_max),
            "versions": json.dumps(self.versions, sort_keys=True),
            **self.extra,
        }

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> EqmHeader:
        """From metadata of a file.

        Raises:
            ValueError, KeyError, TypeError: for metadata of something else.
        """
        rest = dict(texts)
        if rest.pop("format") != FORMAT:
            raise ValueError(f"its format is {texts['format']!r}, not {FORMAT!r}")
        config, versions = json.loads(rest.pop("config")), json.loads(rest.pop("versions"))
        species = json.loads(rest.pop("species"))
        if not isinstance(config, dict) or not isinstance(versions, dict):
            raise ValueError("its config is no mapping")
        if not all(isinstance(name, str) for name in species):
            raise ValueError("its species are no names")
        return cls(
            rest.pop("stack"), rest.pop("builder"), config, rest.pop("dtype"), tuple(species),
            float(json.loads(rest.pop("r_max"))), versions, rest,
        )  # fmt: skip


def write_eqm(path: str | Path, header: EqmHeader, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a model, all or nothing; the same model gives the same bytes.

    Raises:
        EqmError: for a file that cannot be written, or a tensor of an unknown dtype.
    """
    table: dict[str, Any] = {}
    blobs, start = [], 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise EqmError(f"{name} is of {tensor.dtype}, which .eqm files do not hold.")
        plain = tensor.detach().cpu().contiguous()
        blob = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        table[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + len(blob)],
        }
        blobs.append(blob)
        start += len(blob)
    body, texts = b"".join(blobs), header.texts()
    metadata = {**texts, "sha256": _digest(texts, table, body)}
    content = json.dumps({_METADATA: metadata, **table}).encode()
    content += b" " * (-len(content) % 8)
    with whole_file(path, EqmError) as unfinished:
        unfinished.write_bytes(struct.pack("<Q", len(content)) + content + body)


def read_eqm(path: str | Path) -> tuple[EqmHeader, dict[str, torch.Tensor]]:
    """Read a file: what it says, and its tensors on the CPU.

    Raises:
        EqPluginError: for a missing, damaged or foreign file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise EqmError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        table, body = _split(content)
        metadata = table.pop(_METADATA)
        digest = metadata.pop("sha256")
        header = EqmHeader.of(metadata)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise EqmError(
            f"{path} is damaged or no .eqm file ({reason_of(error, named=True)[:200]}): copy it "
            f"again from where it came."
        ) from error
    if _digest(metadata, table, body) != digest:
        raise damage(path, "its bytes do not match their sha256")
    try:
        return header, _tensors(table, body)
    except (ValueError, KeyError, TypeError) as error:
        raise damage(path, reason_of(error, named=True)[:200]) from error


def read_header(path: str | Path) -> EqmHeader:
    """What a file says of its model, whole or not.

    Raises:
        EqPluginError: for a missing or foreign file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            content = start + file.read(min(struct.unpack("<Q", start)[0], _LONGEST))
        metadata = _split(content)[0][_METADATA]
        metadata.pop("sha256")
        return EqmHeader.of(metadata)
    except OSError as error:
        raise EqmError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise EqmError(
            f"{path} is damaged or no .eqm file ({reason_of(error, named=True)[:200]}): copy it "
            f"again from where it came."
        ) from error


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, _LONGEST):
        raise ValueError("its header is longer than the file")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _tensors(table: Mapping[str, Any], body: bytes) -> dict[str, torch.Tensor]:
    found, end = {}, 0
    for name, entry in table.items():
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        start, stop = entry["data_offsets"]
        if (
            start != end
            or stop - start != math.prod(shape) * dtype.itemsize
            or min(shape, default=0) < 0
        ):
            raise ValueError(f"{name} does not lie where it should")
        end = stop
        found[name] = (
            torch.frombuffer(bytearray(body[start:stop]), dtype=dtype).reshape(shape)
            if stop > start
            else torch.empty(shape, dtype=dtype)
        )
    if end != len(body):
        raise ValueError("bytes are left over")
    return found


def _digest(texts: Mapping[str, str], table: Mapping[str, Any], body: bytes) -> str:
    digest = hashlib.sha256(json.dumps([texts, table], sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()


def check_builder(
    header: EqmHeader, stack: str, builders: Collection[str], path: str | Path
) -> None:
    """Refuse a file whose builder is none of the stack's.

    Raises:
        EqmError: naming the builder, and those that are known.
    """
    if header.stack != stack or header.builder not in builders:
        raise EqmError(
            f"{path} is of {header.builder}, which this version does not know: it knows "
            f"{', '.join(builders)}."
        )


def fill(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Give a built model the tensors of its file, all of them.

    Raises:
        EqmError: naming the tensor that is missing, left over or of another kind.
    """
    own = model.state_dict()
    for name in [*own, *tensors]:
        wanted, given = own.get(name), tensors.get(name)
        if wanted is None or given is None:
            where = "the file" if given is None else "the model that it describes"
            raise EqmError(f"{path} cannot be read exactly: {name} is missing in {where}.")
        if wanted.shape != given.shape or wanted.dtype != given.dtype:
            raise EqmError(
                f"{path} cannot be read exactly: {name} is {tuple(given.shape)} of {given.dtype} "
                f"in the file and {tuple(wanted.shape)} of {wanted.dtype} in the model."
            )
    model.load_state_dict(tensors, strict=True)
