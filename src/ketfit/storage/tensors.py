"""Read and write safetensors files."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from ketfit.errors import ModelFileError
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import parse_json


def read_tensors(
    path: Path, *, at_most: int | None = None, sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        ModelFileError: the file is missing, larger than it should be, not a whole safetensors file, or another one.
    """
    content = read_bytes(path, at_most)
    try:
        tensors = safetensors.torch.load(content)
        metadata = _header_metadata(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged, or not a safetensors file: {error}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(
            f"{path} is not the file that its config.json was written with; save or download the model again"
        )
    return tensors, metadata


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file at once or not at all.

    Raises:
        StorageError: it cannot be written; an older file of that name is untouched.
    """
    content = safetensors.torch.save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata)
    )
    write_file(path, content)


def read_bytes(path: Path, at_most: int | None) -> bytes:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):  # a pipe would wait, a device never end
            raise ModelFileError(f"{path} is not a file; save or download the model again")
        if at_most is not None and facts.st_size > at_most:
            raise ModelFileError(f"{path} has {facts.st_size} bytes; a file written by KetFit has at most {at_most}")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _header_metadata(content: bytes) -> dict[str, str]:
    """The free text of a safetensors file, from its header: eight bytes of length, then JSON."""
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = parse_json(content[8 : 8 + size].decode("utf-8")).get("__metadata__", {})
    return metadata
