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
    path: Path, *, max_bytes: int | None = None, sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Args:
        path: The file.
        max_bytes: Largest allowed size of the file.
        sha256: Expected SHA-256 (hex) of the file.

    Raises:
        ModelFileError: the file is missing, too large, damaged, not a safetensors file, or has another hash.
    """
    content = read_bytes(path, max_bytes)
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
    """Write a safetensors file atomically.

    Raises:
        StorageError: the file cannot be written; an existing file at `path` is unchanged.
    """
    content = safetensors.torch.save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata)
    )
    write_file(path, content)


def read_bytes(path: Path, max_bytes: int | None) -> bytes:
    """Return the content of a regular file of at most `max_bytes` bytes; raise ModelFileError for any other file."""
    try:
        status = path.stat()
        # Reading a pipe would wait; reading a device may never end. A folder fails below.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ModelFileError(f"{path} is not a file; save or download the model again")
        if max_bytes is not None and status.st_size > max_bytes:
            raise ModelFileError(f"{path} has {status.st_size} bytes; a file written by KetFit has at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _header_metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file from its header: eight bytes of length, then JSON."""
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = parse_json(content[8 : 8 + size].decode("utf-8")).get("__metadata__", {})
    return metadata
