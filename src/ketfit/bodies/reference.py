"""References to bodies in pickles: location, identity, and the files of a fine-tuned body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ketfit.bodies.body import Body, Tuning, load_files
from ketfit.bodies.device import available_device
from ketfit.bodies.finetuned import check_body_files, save_files
from ketfit.bodies.sources import BodyFiles, Source, file_hashes, find_files
from ketfit.errors import BodyError
from ketfit.model.tuning import EmbeddingPrecision
from ketfit.storage.cache_dir import is_folder


@dataclass(frozen=True)
class BodyReference:
    """The location and identity of a body, for a pickle; the attributes not listed are those of `Body`.

    Attributes:
        folder: The folder of its files when it was pickled.
        device: Its torch device when it was pickled.
        files: The content of each file by its path in the folder; None for a frozen body, which is found by name.
    """

    name: str
    revision: str | None
    source: Source
    fingerprint: str
    dtype: EmbeddingPrecision
    tuning: Tuning | None
    folder: str
    device: str
    files: Mapping[str, bytes] | None

    @classmethod
    def from_body(cls, body: Body) -> BodyReference:
        """Return the reference to a body.

        Raises:
            BodyError: the files of a fine-tuned body were removed or changed.
        """
        files = None
        if body.tuning is not None:
            check_body_files(body)
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
    """Load the body of a reference.

    Raises:
        BodyError: the body cannot be found, or its fingerprint differs.
        StorageError: the files of a fine-tuned body cannot be written.
    """
    files = _find_reference_files(reference)
    if files.fingerprint != reference.fingerprint:
        raise BodyError(
            f"The pickled body {reference.name!r} has fingerprint {reference.fingerprint[:16]}..., and what is in "
            f"{files.location.folder} has {files.fingerprint[:16]}...; put the same body there"
        )
    body = load_files(files, device=available_device(reference.device), dtype=reference.dtype)
    return replace(
        body,
        name=reference.name,
        revision=reference.revision,
        source=reference.source,
        tuning=reference.tuning,
    )


def _find_reference_files(reference: BodyReference) -> BodyFiles:
    """Return the files in the original folder if they are unchanged; else unpack them or find them by name."""
    if is_folder(reference.folder):
        files = find_files(reference.folder)
        only_source = reference.source == "local" and reference.files is None
        if files.fingerprint == reference.fingerprint or only_source:
            return files
    if reference.files is not None:
        return find_files(save_files(reference.files, reference.fingerprint))
    if reference.source == "local":
        raise BodyError(
            f"The pickled body is in the folder {reference.folder}, which is missing; put it there, or load a saved "
            "model with TextClassifier.from_pretrained(model, body=...)"
        )
    return find_files(reference.name, reference.revision)
