"""The part of a body that a pickle holds: its place, its identity, and the files of a tuned one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ketfit.bodies.body import Body, Tuning, load_files
from ketfit.bodies.device import available_device
from ketfit.bodies.finetuned import check_files, keep_files
from ketfit.bodies.sources import BodyFiles, Source, file_hashes, find_files
from ketfit.errors import BodyError
from ketfit.model.tuning import Precision
from ketfit.storage.cache_dir import is_folder


@dataclass(frozen=True)
class BodyReference:
    """The place and identity of a body, in a pickle.

    Attributes:
        name, revision, source, fingerprint, dtype, tuning: As in `Body`.
        folder: Where its files were.
        device: Where it ran.
        files: The content of each file by its path in the folder; None for a frozen body, which is found by its name.
    """

    name: str
    revision: str | None
    source: Source
    fingerprint: str
    dtype: Precision
    tuning: Tuning | None
    folder: str
    device: str
    files: Mapping[str, bytes] | None

    @classmethod
    def of(cls, body: Body) -> BodyReference:
        """Return the reference to a body.

        Raises:
            BodyError: the files of a tuned body are gone, or were changed.
        """
        files = None
        if body.tuning is not None:
            check_files(body)
            files = {name: (body.folder / name).read_bytes() for name in file_hashes(body.folder)}
        return cls(
            name=body.name,
            revision=body.revision,
            source=body.source,
            fingerprint=body.fingerprint,
            dtype=body.dtype,
            tuning=body.tuning,
            folder=str(body.folder),
            device=str(body.transformer.device),
            files=files,
        )


def load_reference(reference: BodyReference) -> Body:
    """Return the body that was pickled.

    Raises:
        BodyError: it is not here, or another body is in its place.
        StorageError: the files of a tuned body cannot be written.
    """
    files = _files_of(reference)
    if files.fingerprint != reference.fingerprint:
        raise BodyError(
            f"The pickled body {reference.name!r} has fingerprint {reference.fingerprint[:16]}..., and what is in "
            f"{files.found.folder} has {files.fingerprint[:16]}...; put the same body there"
        )
    body = load_files(files, device=available_device(reference.device), dtype=reference.dtype)
    return replace(
        body,
        name=reference.name,
        revision=reference.revision,
        source=reference.source,
        tuning=reference.tuning,
    )


def _files_of(reference: BodyReference) -> BodyFiles:
    """Return the files in the folder where they were if they are still the same, or else found by name or unpacked."""
    if is_folder(reference.folder):
        there = find_files(reference.folder)
        nowhere_else = reference.source == "local" and reference.files is None
        if there.fingerprint == reference.fingerprint or nowhere_else:
            return there
    if reference.files is not None:
        return find_files(keep_files(reference.files, reference.fingerprint))
    if reference.source == "local":
        raise BodyError(
            f"The pickled body is in the folder {reference.folder}, which is not here; put it there, or load a saved "
            "model with TextClassifier.from_pretrained(model, body=...)"
        )
    return find_files(reference.name, reference.revision)
