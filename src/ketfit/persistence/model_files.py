"""Save, find and load model folders.

A saved model is a folder of three files, numbers and JSON only: ``model.safetensors`` (the head's tensors),
``config.json`` (everything else, a `ModelMetadata`) and ``README.md`` (the model card). A body that was tuned for it,
or that was to go with it, stands beside them in the folder ``body``.
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
    folder: str | Path, head: QuantumHead, facts: Mapping[str, Any], body: Path | None = None
) -> ModelMetadata:
    """Write a model folder: the head's tensors, its record, a card filled from the record, and a body if it is given.

    A model that stands there already is replaced as a whole. Nothing else in a folder is ever removed.

    Args:
        folder: Where to; made if it is missing.
        head: The trained head.
        facts: The fields of `ModelMetadata` that the head itself does not know.
        body: The folder of a body to copy into the model's.

    Raises:
        StorageError: the folder holds other files, cannot be written, or the record is too large.
        ConfigError: a fact does not fit, such as a metric that is not finite or whose name is not one word.
    """
    weights = safetensors.torch.save({name: tensor.cpu() for name, tensor in head.state_dict().items()})
    record = ModelMetadata(
        schema_version=SCHEMA_VERSION,
        head=head.config,
        embedding_dim=head.embedding_dim,
        dtype="float64" if head.weights.dtype == torch.float64 else "float32",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **facts,
    )
    files: dict[str, bytes | Path] = {
        WEIGHTS: weights,
        METADATA: (written := metadata_bytes(record)),
        CARD: model_card(record, head).encode(),
    }
    if body is not None:
        files |= {f"{BODY}/{name}": body / name for name in file_hashes(body)}
    if len(written) > MAX_METADATA_BYTES:
        raise StorageError(
            f"{METADATA} would have {len(written)} bytes; the most is {MAX_METADATA_BYTES}: shorten the labels, "
            "or the names of the features"
        )
    folder = Path(folder).resolve()
    _check_replaceable(folder)
    replace_folder(folder, files)
    return record


def find_model(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model; see `fetch_model`."""
    return fetch_model(name, revision).folder


def fetch_model(name: str | Path, revision: str | None = None) -> hub.Snapshot:
    """A model's files: the folder `name` if it is one, else ``user/name`` on the Hub, at the one commit of `revision`.

    Raises:
        ModelFileError: there is no such folder, and the Hub does not have it or does not answer.
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
    """The head and the record of a model folder, if every tensor and every setting is as it was saved.

    The head is in evaluation mode; call its `train` before training it further.

    Raises:
        ModelFileError: a file is missing, damaged, of another version, or does not fit the others.
    """
    folder = Path(folder)
    if folder.is_dir() and not os.path.lexists(folder / METADATA):
        raise ModelFileError(
            f"{folder} is not a model: it has no {METADATA}; give the folder that ketfit fit -o or save_pretrained made"
        )
    record, intact = read_metadata(folder / METADATA, read_bytes(folder / METADATA, max_bytes=MAX_METADATA_BYTES))
    path, dtype, shapes = folder / WEIGHTS, getattr(torch, record.dtype), _shapes(record)
    tensors, _ = read_tensors(path, max_bytes=_largest_weights(shapes), sha256=record.weights_sha256)
    if tensors.keys() != shapes.keys():
        raise ModelFileError(f"{path} holds the tensors {sorted(tensors)}; this head has {sorted(shapes)}")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name] or tensor.dtype != dtype:
            raise ModelFileError(
                f"{path}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
                f"this head needs {dtype} of shape {shapes[name]}"
            )
        if not torch.isfinite(tensor).all():
            raise ModelFileError(f"{path}: {name} holds a number that is not finite")
    try:  # only now, because a large head takes a while to make, and costs whoever asks for it a large file
        head = QuantumHead(record.head, record.embedding_dim, len(record.classes)).to(dtype)
    except ConfigError as error:
        raise ModelFileError(f"{folder / METADATA} describes a head that cannot be: {error}") from error
    if not intact:  # asked last, because the questions before have better answers
        raise ModelFileError(f"{folder / METADATA} is not as it was saved; save or download the model again")
    head.load_state_dict(tensors)
    return head.eval(), record


def _shapes(record: ModelMetadata) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a record's head, without making the head."""
    config, classes = record.head, len(record.classes)
    encoder, qpu = config.count_angles()
    return {
        "encoder.weights": (config.n_encoders, encoder // config.n_encoders),
        "weights": (qpu,),
        "angle_scale": (),
        "linear.weight": (classes, config.n_readouts),
        "linear.bias": (classes,),
    }


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that a model cannot be saved in; before a long training, ask here.

    Raises:
        StorageError: it holds other files, is the current folder, or cannot be written.
    """
    folder = folder.resolve()
    _check_replaceable(folder)
    check_writable_target(folder)


def _check_replaceable(folder: Path) -> None:
    """Raise StorageError if the folder holds anything but a model."""
    if folder == Path.cwd():
        raise StorageError(f"{folder} is the current folder, which cannot be replaced; name another")
    try:
        entries = list(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    files = {entry.name for entry in entries if not entry.is_dir()}
    strangers = sorted({entry.name for entry in entries} - (files & {WEIGHTS, METADATA, CARD}))
    if strangers == [BODY] and BODY not in files:
        strangers = _strange_to_body(folder)
    if strangers:
        raise StorageError(f"{folder} holds {strangers[0]!r}, which is not part of a model; choose another folder")


def _strange_to_body(folder: Path) -> list[str]:
    """What stands in the folder of a model's body and is not as it was saved with that model."""
    try:
        body = json.loads((folder / METADATA).read_bytes())["body"]
        saved = (body["tuned"] or body)["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError):
        return [BODY]
    if (folder / BODY).is_symlink() or fingerprint(file_hashes(folder / BODY)) != saved:
        return [BODY]
    files = [path for path in (folder / BODY).rglob("*") if not path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in files if path.suffix not in SUFFIXES)


def _largest_weights(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes that tensors of these shapes take, with ample room for their names."""
    return 8 * sum(map(math.prod, shapes.values())) + 2**16
