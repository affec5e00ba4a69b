"""SHA-256 of files, of JSON values and of tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_BYTES = 2**20


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def hash_json(value: Any, *, sort_keys: bool = False) -> str:
    """Return the SHA-256 (hex) of a value written as JSON.

    >>> hash_json({"b": 1, "a": 2}, sort_keys=True) == hash_json({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=sort_keys).encode()).hexdigest()


def tensor_bytes(tensor: Tensor, name: str = "") -> bytes:
    """Return the name, shape, dtype and elements of a tensor as bytes, for a hash."""
    header = f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode()
    return header + tensor.detach().cpu().contiguous().numpy().tobytes()


def hash_tensors(tensors: Mapping[str, Tensor], settings: str = "") -> str:
    """Return the SHA-256 (hex) of a settings text and of named tensors, such as a state dict, in the given order."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in tensors.items():
        digest.update(tensor_bytes(tensor, name))
    return digest.hexdigest()
