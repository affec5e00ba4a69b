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
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from ketfit.bodies.sources import SUFFIXES, file_hashes, fingerprint
from ketfit.errors import ConfigError, ModelFileError, StorageError
from ketfit.model.head import QuantumHead
from ketfit.persistence.model_card import model_card
from ketfit.persistence.schema import (
    BODY,
    CARD,
    MAX_METADATA_BYTES,
    METADATA,
    SCHEMA_VERSION,
    WEIGHTS,
    ModelMetadata,
    metadata_bytes,
    read_metadata,
)
from ketfit.storage import hub_client as hub
from ketfit.storage.atomic import check_writable_target, replace_folder
from ketfit.storage.tensors import read_bytes, read_tensors


def save_model(
    folder: str | Path, head: QuantumHead, fields: Mapping[str, Any], body: Path | None = None
) -> ModelMetadata:
    """Write a model folder: tensors, metadata, model card and, if given, a body.

    An existing model is replaced as a whole; other files are never removed.

    Args:
        folder: The folder; created if it is missing.
        head: The trained head.
        fields: The fields of `ModelMetadata` that do not follow from the head.
        body: The folder of a body to copy into the model folder.

    Returns:
        The metadata written.

    Raises:
        StorageError: the folder holds other files, cannot be written, or the metadata is too large.
        ConfigError: a field is invalid, such as a metric that is not finite or whose name is not one word.
    """
    weights = safetensors.torch.save({name: tensor.cpu() for name, tensor in head.state_dict().items()})
    metadata = ModelMetadata(
        schema_version=SCHEMA_VERSION,
        head=head.config,
        embedding_dim=head.embedding_dim,
        dtype="float64" if head.weights.dtype == torch.float64 else "float32",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **fields,
    )
    files: dict[str, bytes | Path] = {
        WEIGHTS: weights,
        METADATA: (content := metadata_bytes(metadata)),
        CARD: model_card(metadata, head).encode(),
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
    if folder.is_dir():
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


def load_model(folder: str | Path) -> tuple[QuantumHead, ModelMetadata]:
    """Load the head and the metadata of a model folder, and verify their hashes.

    The head is in evaluation mode; call its `train` before training it further.

    Raises:
        ModelFileError: a file is missing, damaged, of an unsupported version, or does not fit the others.
    """
    folder = Path(folder)
    if folder.is_dir() and not os.path.lexists(folder / METADATA):
        raise ModelFileError(
            f"{folder} is not a model: it has no {METADATA}; name a folder written by ketfit fit -o or save_pretrained"
        )
    metadata, intact = read_metadata(folder / METADATA, read_bytes(folder / METADATA, max_bytes=MAX_METADATA_BYTES))
    path, dtype, shapes = folder / WEIGHTS, getattr(torch, metadata.dtype), _tensor_shapes(metadata)
    tensors, _ = read_tensors(path, max_bytes=_max_weights_bytes(shapes), sha256=metadata.weights_sha256)
    if tensors.keys() != shapes.keys():
        raise ModelFileError(f"{path} holds the tensors {sorted(tensors)}; this head needs {sorted(shapes)}")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name] or tensor.dtype != dtype:
            raise ModelFileError(
                f"{path}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
                f"this head needs {dtype} of shape {shapes[name]}"
            )
        if not torch.isfinite(tensor).all():
            raise ModelFileError(f"{path}: {name} holds a number that is not finite")
    try:  # after the checks above: the size of the file bounds the size of the head
        head = QuantumHead(metadata.head, metadata.embedding_dim, len(metadata.classes)).to(dtype)
    except ConfigError as error:
        raise ModelFileError(f"{folder / METADATA} describes an invalid head: {error}") from error
    if not intact:  # last, because the errors above are more precise
        raise ModelFileError(f"{folder / METADATA} was changed after saving; save or download the model again")
    head.load_state_dict(tensors)
    return head.eval(), metadata


def _tensor_shapes(metadata: ModelMetadata) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the head, without building it."""
    config, classes = metadata.head, len(metadata.classes)
    encoder, qpu = config.count_angles()
    projection: dict[str, tuple[int, ...]] = {}
    if config.components is not None:
        projection["projection.mean"] = (metadata.embedding_dim,)
        projection["projection.directions"] = (config.components, metadata.embedding_dim)
    return {
        **projection,
        "encoder.weights": (config.n_encoders, encoder // config.n_encoders),
        "weights": (qpu,),
        "angle_scale": (),
        "linear.weight": (classes, config.n_readouts),
        "linear.bias": (classes,),
    }


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
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    files = {entry.name for entry in entries if not entry.is_dir()}
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


def _max_weights_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return an upper bound of the size of a file with tensors of these shapes."""
    return 8 * sum(map(math.prod, shapes.values())) + 2**16
