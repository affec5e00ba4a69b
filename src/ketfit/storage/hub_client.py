"""Downloads from the Hugging Face Hub: the files of a repository at one commit.

One request with a total time limit resolves the revision to a commit; then the files of that commit are downloaded, or
found in the Hub's cache. If the Hub is unreachable, the cached copy is used. A 4xx status other than 408 and 429 is an
error.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ketfit.errors import KetFitError, StorageError
from ketfit.storage.cache_dir import write_to_cache
from ketfit.storage.deadline import call_with_deadline

COMMIT = re.compile("[0-9a-f]{40}")
# The disk of the cache is full, or its folder cannot be created or written.
_UNWRITABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "EEXIST")
    if hasattr(errno, name)
}
TIMEOUT_SECONDS = 5.0  # per connection to the Hub; the first request may take twice that in all


@dataclass(frozen=True)
class HubRequest:
    """The files to fetch from the Hub, and the texts of the errors.

    Attributes:
        name: The name given by the user.
        repository: ``user/name``.
        revision: Branch, tag or commit; None is the main branch.
        kind: "model" or "body", for errors.
        required_file: A file that every repository of this kind has.
        includes: Predicate that selects the files to download.
        error: The exception to raise.
        hint: Advice for the error if the Hub does not answer.
    """

    name: str
    repository: str
    revision: str | None
    kind: str
    required_file: str
    includes: Callable[[PurePosixPath], bool]
    error: type[KetFitError]
    hint: str


@dataclass(frozen=True)
class Snapshot:
    """A folder with the files of one commit; `commit` is None for a local folder."""

    folder: Path
    commit: str | None


def fetch(request: HubRequest) -> Snapshot:
    """Return the files of a repository at one commit, from the Hub or, if it does not answer, from its local cache.

    Raises:
        KetFitError: `request.error`, if the Hub does not have the repository or denies access, or if the Hub does not
            answer and the cache has no complete copy.
        StorageError: the download cannot be stored.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    def resolve() -> tuple[str | None, list[str]]:
        info = HfApi().model_info(request.repository, revision=request.revision, timeout=TIMEOUT_SECONDS)
        return info.sha, [sibling.rfilename for sibling in info.siblings or []]

    try:
        commit, files = call_with_deadline(2 * TIMEOUT_SECONDS, resolve)
        if commit is None or not COMMIT.fullmatch(commit):
            raise ConnectionError("its answer names no commit")
    except HFValidationError as error:
        raise request.error(
            f"There is no folder {request.name!r}, and it cannot be a name on the Hub: {error}."
        ) from error
    except Exception as error:  # requests, httpx or httpx2, by the version of huggingface_hub
        _raise_if_refused(error, request)
        return _from_cache(request, error)
    download = partial(_download, request, commit, files)
    return write_to_cache(Path(constants.HF_HUB_CACHE), download, f"the {request.kind}", "HF_HOME")


def _download(request: HubRequest, commit: str, files: list[str], cache: Path) -> Snapshot:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    paths = [PurePosixPath(file) for file in files]
    paths = [path for path in paths if request.includes(path) and not path.is_absolute() and ".." not in path.parts]
    if request.required_file not in files:
        raise request.error(
            f"{request.repository} on the Hub has no {request.required_file}: it is not a {request.kind}."
        )
    # Weights last: an interrupted download lacks them and cannot be mistaken for a complete one.
    paths.sort(key=lambda path: (path.suffix == ".safetensors", path))
    download = partial(hf_hub_download, request.repository, etag_timeout=TIMEOUT_SECONDS, cache_dir=cache)
    try:
        for path in paths:
            file = download(str(path), revision=commit)
        # By branch or tag, so that the Hub's cache stores which commit it means, for use without a connection.
        last = download(request.required_file, revision=request.revision)
    except Exception as failure:
        # The client wraps the original error in one about its cache.
        wrapped = failure.__cause__ if isinstance(failure, LocalEntryNotFoundError) else None
        error = wrapped if isinstance(wrapped, Exception) else failure
        _raise_if_refused(error, request)
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise StorageError(
                f"The {request.kind} {request.name!r} cannot be stored in the Hub's cache {cache}: {error}. Make "
                "room or make it writable, or set HF_HOME to another folder."
            ) from error
        raise request.error(
            f"The download of {request.name!r} at commit {commit} was interrupted: {describe_error(error)}. Run it "
            "again; the files already downloaded are kept."
        ) from error
    folder = Path(file).parents[len(paths[-1].parts) - 1]
    if Path(last) != folder / request.required_file:
        raise request.error(
            f"{request.repository} changed from commit {commit} to another one during the download. Run it again, or "
            "name a commit with revision=..."
        )
    return Snapshot(folder, commit)


def _from_cache(request: HubRequest, error: Exception) -> Snapshot:
    """Return the copy of an earlier download."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(request.repository, revision=request.revision, local_files_only=True))
    except LocalEntryNotFoundError as missing:
        raise request.error(
            f"The {request.kind} {request.name!r} was not found here, and the Hub at {constants.ENDPOINT} does not "
            f"answer ({describe_error(error)}); its cache {constants.HF_HUB_CACHE} has no whole copy of "
            f"{request.repository} at {request.revision or 'main'!r}. {request.hint}"
        ) from missing
    return Snapshot(folder, folder.name)


def _raise_if_refused(error: Exception, request: HubRequest) -> None:
    """Raise `request.error` for a status of 4xx; 408 and 429 and all from 500 are temporary."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        at = "" if request.revision is None else f" at revision {request.revision!r}"
        raise request.error(
            f"There is no folder {request.name!r}, and the Hub does not know that name{at}, or denies access to it "
            f"(status {status}). Check the spelling; for a private or gated {request.kind} log in with: hf auth login"
        ) from error


def describe_error(error: Exception) -> str:
    """Return the class of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
