"""Save, find and load model folders.

A model folder has three files: ``model.safetensors`` (the tensors of the head), ``config.json`` (a `ModelMetadata`) and
``README.md`` (the model card). A fine-tuned or included body is in the subfolder ``body``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ketfit.bodies.sources import SUFFIXES, file_hashes, fingerprint
from ketfit.errors import ConfigError, ModelFileError, StorageError
from ketfit.model.classical import Shapes
from ketfit.model.config import HeadConfig
from ketfit.model.head import QuantumHead
from ketfit.persistence.model_card import model_card
from ketfit.persistence.schema import (
    BODY,
    CARD,
    HEAD_SETTINGS,
    MAX_METADATA_BYTES,
    METADATA,
    SCHEMA_VERSION,
    WEIGHTS,
    HeadSettings,
    ModelMetadata,
    metadata_bytes,
    read_metadata,
)
from ketfit.storage import hub_client as hub
from ketfit.storage.atomic import check_writable_target, replace_folder
from ketfit.storage.cache_dir import is_folder
from ketfit.storage.tensors import read_bytes, read_tensors

MAX_HEAD_BYTES = 2**30
"""Largest size of the tensors of a head, in bytes."""

_INTEGER_TENSORS = frozenset({"support"})


@dataclass(frozen=True, eq=False)
class SavedHead:
    """A fitted head as settings and tensors, whose names and shapes follow from the settings; see `tensor_shapes`."""

    config: HeadSettings
    tensors: dict[str, Tensor]
    embedding_dim: int
    dtype: torch.dtype

    @classmethod
    def from_module(cls, head: QuantumHead) -> SavedHead:
        """Return a quantum head as settings and tensors."""
        return cls(head.config, head.state_dict(), head.embedding_dim, head.weights.dtype)


def save_model(
    folder: str | Path, head: SavedHead, fields: Mapping[str, Any], body: Path | None = None
) -> ModelMetadata:
    """Write a model folder: tensors, metadata, model card and, if given, a body.

    An existing model is replaced as a whole; other files are never removed.

    Args:
        folder: The folder; created if it is missing.
        head: The fitted head.
        fields: The fields of `ModelMetadata` that do not follow from the head.
        body: The folder of a body to copy into the model folder.

    Returns:
        The metadata written.

    Raises:
        StorageError: the folder holds other files, cannot be written, or the metadata or the tensors are too large.
        ConfigError: a field is invalid, such as a metric that is not finite or whose name is not one word.
    """
    weights = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in head.tensors.items()})
    if len(weights) > MAX_HEAD_BYTES:
        raise StorageError(f"the head takes {len(weights):,} bytes; a model file allows {MAX_HEAD_BYTES:,}")
    metadata = ModelMetadata(
        schema_version=SCHEMA_VERSION,
        head_kind=next(kind for kind, settings in HEAD_SETTINGS.items() if isinstance(head.config, settings)),
        head=head.config,
        embedding_dim=head.embedding_dim,
        dtype="float64" if head.dtype == torch.float64 else "float32",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **fields,
    )
    files: dict[str, bytes | Path] = {
        WEIGHTS: weights,
        METADATA: (content := metadata_bytes(metadata)),
        CARD: model_card(metadata).encode(),
    }
    if body is not None:
        files |= {f"{BODY}/{name}": body / name for name in file_hashes(body)}
    if len(content) > MAX_METADATA_BYTES:
        raise StorageError(
            f"{METADATA} would have {len(content)} bytes; allowed are {MAX_METADATA_BYTES}: shorten the labels, "
            "or the names of the features"
        )
    folder = Path(folder).resolve()
    _check_replaceable(folder)
    replace_folder(folder, files)
    return metadata


def find_model(name: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a model; see `fetch_model`."""
    return fetch_model(name, revision).folder


def fetch_model(name: str | Path, revision: str | None = None) -> hub.Snapshot:
    """Return the files of a model: the local folder `name`, else ``user/name`` on the Hub at the commit of `revision`.

    Raises:
        ModelFileError: there is no such folder, and the Hub does not have the model or does not answer.
        StorageError: the download cannot be stored.
    """
    folder = Path(name)
    if is_folder(folder):
        if revision is not None:
            raise ModelFileError(f"{folder} is a local folder and has no revision {revision!r}; leave the revision out")
        return hub.Snapshot(folder, None)
    request = hub.HubRequest(
        name=str(name),
        repository=str(name),
        revision=revision,
        kind="model",
        required_file=METADATA,
        includes=lambda path: (
            str(path) in (WEIGHTS, METADATA, CARD) or (path.parts[0] == BODY and path.suffix in SUFFIXES)
        ),
        error=ModelFileError,
        hint="Connect once so that it is downloaded, or pass a local folder.",
    )
    return hub.fetch(request)


def load_metadata(folder: str | Path) -> ModelMetadata:
    """Return the metadata of a model folder; its tensors are not read.

    Raises:
        ModelFileError: ``config.json`` is missing, damaged, changed, or of an unsupported version.
    """
    folder = Path(folder)
    metadata, intact = _read_metadata(folder)
    _check_intact(folder, intact)
    return metadata


def load_head(folder: str | Path) -> tuple[SavedHead, ModelMetadata]:
    """Load the head of any kind and the metadata of a model folder, and verify their hashes.

    Raises:
        ModelFileError: a file is missing, damaged, of an unsupported version, or does not fit the others.
    """
    folder = Path(folder)
    metadata, intact = _read_metadata(folder)
    config, path, dtype = metadata.head, folder / WEIGHTS, getattr(torch, metadata.dtype)
    shapes = tensor_shapes(config, metadata.embedding_dim, len(metadata.classes))
    if (size := _max_weights_bytes(shapes)) > MAX_HEAD_BYTES:
        raise ModelFileError(
            f"{folder / METADATA} describes a head of {size:,} bytes; a model file allows {MAX_HEAD_BYTES:,}"
        )
    tensors, _ = read_tensors(path, max_bytes=size, sha256=metadata.weights_sha256)
    _check_tensors(path, tensors, shapes, dtype)
    if isinstance(config, HeadConfig):
        try:
            config.check_sizes(metadata.embedding_dim, len(metadata.classes))
        except ConfigError as error:
            raise ModelFileError(f"{folder / METADATA} describes an invalid head: {error}") from error
    _check_intact(folder, intact)  # last, because the errors above are more precise
    return SavedHead(config, tensors, metadata.embedding_dim, dtype), metadata


def load_model(folder: str | Path) -> tuple[QuantumHead, ModelMetadata]:
    """Load the quantum head and the metadata of a model folder, and verify their hashes.

    The head is in evaluation mode; call its `train` before training it further.

    Raises:
        ModelFileError: as in `load_head`, or the model has another kind of head.
    """
    saved, metadata = load_head(folder)
    if not isinstance(saved.config, HeadConfig):
        raise ModelFileError(
            f"{folder} has a head of kind {metadata.head_kind!r}, which has no circuit; this needs a quantum head"
        )
    return build_head(saved, len(metadata.classes)), metadata


def build_head(saved: SavedHead, n_classes: int) -> QuantumHead:
    """Return the module of a saved quantum head, in evaluation mode."""
    assert isinstance(saved.config, HeadConfig)
    head = QuantumHead(saved.config, saved.embedding_dim, n_classes).to(saved.dtype)
    head.load_state_dict(saved.tensors)
    return head.eval()


def _read_metadata(folder: Path) -> tuple[ModelMetadata, bool]:
    """Return the metadata of a model folder, and whether its hash is correct."""
    if is_folder(folder) and not os.path.lexists(folder / METADATA):
        raise ModelFileError(
            f"{folder} is not a model: it has no {METADATA}; name a folder written by ketfit fit -o or save_pretrained"
        )
    return read_metadata(folder / METADATA, read_bytes(folder / METADATA, max_bytes=MAX_METADATA_BYTES))


def _check_intact(folder: Path, intact: bool) -> None:
    if not intact:
        raise ModelFileError(f"{folder / METADATA} was changed after saving; save or download the model again")


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], shapes: Shapes, dtype: torch.dtype) -> None:
    """Check that tensors have these names and shapes, the type of the head, and finite numbers."""
    if tensors.keys() != shapes.keys():
        raise ModelFileError(f"{path} holds the tensors {sorted(tensors)}; this head needs {sorted(shapes)}")
    for name, tensor in tensors.items():
        expected = torch.int32 if name in _INTEGER_TENSORS else dtype
        if tensor.shape != shapes[name] or tensor.dtype != expected:
            raise ModelFileError(
                f"{path}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
                f"this head needs {expected} of shape {shapes[name]}"
            )
        if not torch.isfinite(tensor).all():
            raise ModelFileError(f"{path}: {name} holds a number that is not finite")
        if name in _INTEGER_TENSORS and (tensor < 0).any():
            raise ModelFileError(f"{path}: {name} holds a negative index")


def tensor_shapes(config: HeadSettings, embedding_dim: int, n_classes: int) -> Shapes:
    """Return the shape of each tensor of a head, without building it."""
    if not isinstance(config, HeadConfig):
        return config.tensor_shapes(embedding_dim, n_classes)
    encoder, qpu = config.count_angles()
    shapes: Shapes = {
        "encoder.weights": (config.n_encoders, encoder // config.n_encoders),
        "weights": (qpu,),
        "angle_scale": (),
        "linear.weight": (n_classes, config.n_readouts),
        "linear.bias": (n_classes,),
    }
    components: int | None = getattr(config, "components", None)
    if components is not None:
        shapes |= {"projection.mean": (embedding_dim,), "projection.directions": (components, embedding_dim)}
    return shapes


def check_model_folder(folder: Path) -> None:
    """Check that a model can be saved in a folder, before a long training.

    Raises:
        StorageError: the folder holds other files, is the current folder, or cannot be written.
    """
    folder = folder.resolve()
    _check_replaceable(folder)
    check_writable_target(folder)


def _check_replaceable(folder: Path) -> None:
    """Raise StorageError if the folder holds anything but a model, or is the current folder."""
    if folder == Path.cwd():
        raise StorageError(f"{folder} is the current folder, which cannot be replaced; name another")
    try:
        entries = list(folder.iterdir()) if folder.exists() else []
        files = {entry.name for entry in entries if not entry.is_dir()}
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    unknown = sorted({entry.name for entry in entries} - (files & {WEIGHTS, METADATA, CARD}))
    if unknown == [BODY] and BODY not in files:
        unknown = _unknown_body_files(folder)
    if unknown:
        raise StorageError(f"{folder} holds {unknown[0]!r}, which is not part of a model; choose another folder")


def _unknown_body_files(folder: Path) -> list[str]:
    """Return the files in the body folder of a model that were not saved with it."""
    try:
        body = json.loads((folder / METADATA).read_bytes())["body"]
        saved = (body["tuned"] or body)["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError):
        return [BODY]
    if (folder / BODY).is_symlink() or fingerprint(file_hashes(folder / BODY)) != saved:
        return [BODY]
    files = [path for path in (folder / BODY).rglob("*") if not path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in files if path.suffix not in SUFFIXES)


def _max_weights_bytes(shapes: Shapes) -> int:
    """Return an upper bound of the size of a file with tensors of these shapes."""
    return 8 * sum(map(math.prod, shapes.values())) + 2**16
