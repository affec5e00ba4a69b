"""What KetFit writes to disk: whole files and whole folders, put in place at once or not at all.

A saved model is a folder of three files, numbers and JSON only: ``model.safetensors`` (the head's tensors),
``config.json`` (everything else, as a `ModelRecord`) and ``README.md`` (the model card). A body that was tuned for it,
or that was to go with it, stands beside them in the folder ``body``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ketfit.errors import ConfigError, ModelFileError, StorageError
from ketfit.learn import hub
from ketfit.learn.body_sources import SUFFIXES, file_hashes, fingerprint
from ketfit.learn.card import model_card
from ketfit.learn.data_sources import parse_json
from ketfit.learn.record import (
    BODY,
    CARD,
    LARGEST_RECORD,
    RECORD,
    SCHEMA_VERSION,
    WEIGHTS,
    ModelRecord,
    read_record,
    record_bytes,
)
from ketfit.model.head import QuantumHead


def save_model(
    folder: str | Path, head: QuantumHead, facts: Mapping[str, Any], body: Path | None = None
) -> ModelRecord:
    """Write a model folder: the head's tensors, its record, a card filled from the record, and a body if it is given.

    A model that stands there already is replaced as a whole. Nothing else in a folder is ever removed.

    Args:
        folder: Where to; made if it is missing.
        head: The trained head.
        facts: The fields of `ModelRecord` that the head itself does not know.
        body: The folder of a body to copy into the model's.

    Raises:
        StorageError: the folder holds other files, cannot be written, or the record is too large.
        ConfigError: a fact does not fit, such as a metric that is not finite or whose name is not one word.
    """
    weights = safetensors.torch.save({name: tensor.cpu() for name, tensor in head.state_dict().items()})
    record = ModelRecord(
        schema_version=SCHEMA_VERSION,
        head=head.config,
        embedding_dim=head.embedding_dim,
        dtype="float64" if head.weights.dtype == torch.float64 else "float32",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **facts,
    )
    files: dict[str, bytes | Path] = {
        WEIGHTS: weights,
        RECORD: (written := record_bytes(record)),
        CARD: model_card(record, head).encode(),
    }
    if body is not None:
        files |= {f"{BODY}/{name}": body / name for name in file_hashes(body)}
    if len(written) > LARGEST_RECORD:
        raise StorageError(
            f"{RECORD} would have {len(written)} bytes; the most is {LARGEST_RECORD}: shorten the labels, or the names "
            "of the features"
        )
    write_folder(Path(folder), files)
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
    asked = hub.Request(
        name=str(name),
        repository=str(name),
        revision=revision,
        kind="model",
        required=RECORD,
        wanted=lambda path: str(path) in (WEIGHTS, RECORD, CARD) or (path.parts[0] == BODY and path.suffix in SUFFIXES),
        failure=ModelFileError,
        otherwise="Connect once so that it is downloaded, or pass a local folder.",
    )
    return hub.fetch(asked)


def load_model(folder: str | Path) -> tuple[QuantumHead, ModelRecord]:
    """The head and the record of a model folder, if every tensor and every setting is as it was saved.

    The head is in evaluation mode; call its `train` before training it further.

    Raises:
        ModelFileError: a file is missing, damaged, of another version, or does not fit the others.
    """
    folder = Path(folder)
    if folder.is_dir() and not os.path.lexists(folder / RECORD):
        raise ModelFileError(
            f"{folder} is not a model: it has no {RECORD}; give the folder that ketfit fit -o or save_pretrained made"
        )
    record, intact = read_record(folder / RECORD, _read(folder / RECORD, at_most=LARGEST_RECORD))
    path, dtype, shapes = folder / WEIGHTS, getattr(torch, record.dtype), _shapes(record)
    tensors, _ = read_tensors(path, at_most=_largest_weights(shapes), sha256=record.weights_sha256)
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
        raise ModelFileError(f"{folder / RECORD} describes a head that cannot be: {error}") from error
    if not intact:  # asked last, because the questions before have better answers
        raise ModelFileError(f"{folder / RECORD} is not as it was saved; save or download the model again")
    head.load_state_dict(tensors)
    return head.eval(), record


def _shapes(record: ModelRecord) -> dict[str, tuple[int, ...]]:
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


def read_tensors(
    path: Path, *, at_most: int | None = None, sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        ModelFileError: the file is missing, larger than it should be, not a whole safetensors file, or another one.
    """
    content = _read(path, at_most)
    try:
        tensors = safetensors.torch.load(content)
        metadata = _metadata(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged, or not a safetensors file: {error}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(f"{path} is not the file that {RECORD} was written with; save or download the model again")
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


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, whole, whatever happens meanwhile.

    Raises:
        StorageError: it cannot be written; an older file of that name is untouched.
    """
    with staged_file(path) as staged:
        _write_through(staged, content)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file at, which is put in the place of `path` at the end of the context.

    If the context fails, nothing of it remains, and an older file at `path` is untouched.

    Raises:
        StorageError: it cannot be written.
    """
    staged = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield staged
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
        staged.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)


def write_folder(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write the folder of a model so that a reader finds all of the old one or all of the new one.

    A folder that stands there must hold a model and nothing else: it is replaced. Killed between the two
    renames of a replacement, the old folder stands whole beside its place as ``.NAME.<random>.old``.

    Args:
        folder: Where to.
        files: By name, which may have folders in it: the content, or a file to copy.

    Raises:
        StorageError: the folder holds other files, or cannot be written.
    """
    folder = folder.resolve()
    replaces = _replaces(folder)
    staged = _beside(folder)
    retired = staged.with_name(f"{staged.name}.old")
    try:
        staged.mkdir(parents=True)
        for name, content in files.items():
            (staged / name).parent.mkdir(exist_ok=True, parents=True)
            _write_through(staged / name, content)
        _flush_folder(staged)
        if replaces:
            folder.rename(retired)
        staged.rename(folder)
        _flush_folder(folder.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # as it was before; the error below is the one to tell
            if retired.exists():
                if folder.exists():
                    folder.rename(staged)
                retired.rename(folder)
        shutil.rmtree(staged, ignore_errors=True)
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    shutil.rmtree(retired, ignore_errors=True)


def place_folder(staged: Path, folder: Path) -> None:
    """Move a folder to its place once all of it is on the disk; if another stands there already, that one stays.

    Raises:
        OSError: it cannot be written.
    """
    for path in (path for path in staged.rglob("*") if path.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    _flush_folder(folder.parent)


def check_place(folder: Path) -> None:
    """Refuse a folder that a model cannot be saved in; before a long training, ask here.

    Raises:
        StorageError: it holds other files, is the current folder, or cannot be written.
    """
    folder = folder.resolve()
    _replaces(folder)
    _check_writable(folder)


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written; before a long training, ask here.

    Raises:
        StorageError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; name a file")
    _check_writable(path.resolve())


def _check_writable(path: Path) -> None:
    parent = next(parent for parent in path.parents if parent.exists())
    probe = _beside(parent / path.name)
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _replaces(folder: Path) -> bool:
    """Whether a folder stands there already, with a model and nothing else."""
    if folder == Path.cwd():
        raise StorageError(f"{folder} is the current folder, which cannot be replaced; name another")
    try:
        entries = list(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    files = {entry.name for entry in entries if not entry.is_dir()}
    strangers = sorted({entry.name for entry in entries} - (files & {WEIGHTS, RECORD, CARD}))
    if strangers == [BODY] and BODY not in files:
        strangers = _strange_to_body(folder)
    if strangers:
        raise StorageError(f"{folder} holds {strangers[0]!r}, which is not part of a model; choose another folder")
    return folder.exists()


def _strange_to_body(folder: Path) -> list[str]:
    """What stands in the folder of a model's body and is not as it was saved with that model."""
    try:
        body = json.loads((folder / RECORD).read_bytes())["body"]
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


def _read(path: Path, at_most: int | None) -> bytes:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):  # a pipe would wait, a device never end
            raise ModelFileError(f"{path} is not a file; save or download the model again")
        if at_most is not None and facts.st_size > at_most:
            raise ModelFileError(f"{path} has {facts.st_size} bytes; a file written by KetFit has at most {at_most}")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _metadata(content: bytes) -> dict[str, str]:
    """The free text of a safetensors file, from its header: eight bytes of length, then JSON."""
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = parse_json(content[8 : 8 + size].decode("utf-8")).get("__metadata__", {})
    return metadata


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _write_through(path: Path, content: bytes | Path) -> None:
    with path.open("xb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
