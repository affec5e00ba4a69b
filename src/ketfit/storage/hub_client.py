"""The seam to the models of the Hugging Face Hub: folders at one commit, and never a hang.

The Hub is asked once which commit a name means, with a limit on the whole answer. Then the files of that commit are
downloaded, or found in the Hub's own cache. A Hub that does not answer is what being offline is: then the cache holds
good. A Hub that answers no is believed.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unanswered  # another class than the built-in one before Python 3.11
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ketfit.errors import KetFitError, StorageError
from ketfit.storage.cache_dir import store_in

T = TypeVar("T")

COMMIT = re.compile("[0-9a-f]{40}")
# The cache's disk is full, or its folder cannot be made or written.
_UNWRITABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "EEXIST")
    if hasattr(errno, name)
}
SECONDS = 5.0  # for each connection to the Hub, and twice that for the whole answer to the first question


@dataclass(frozen=True)
class HubRequest:
    """What is asked of the Hub, and how a refusal is told.

    Attributes:
        name: What the user asked for.
        repository: ``user/name``.
        revision: Branch, tag or commit; None is the main branch.
        kind: What it is, for messages.
        required: The file without which it is no such thing.
        wanted: Which files to download.
        failure: The exception for what cannot be had.
        otherwise: What to do if the Hub does not answer.
    """

    name: str
    repository: str
    revision: str | None
    kind: str
    required: str
    wanted: Callable[[PurePosixPath], bool]
    failure: type[KetFitError]
    otherwise: str


@dataclass(frozen=True)
class Snapshot:
    """A folder with the files of one commit; a local folder has none."""

    folder: Path
    commit: str | None


def fetch(asked: HubRequest) -> Snapshot:
    """The files of a repository at one commit, from the Hub or, if it does not answer, from its local cache.

    Raises:
        KetFitError: ``asked.failure``: the Hub does not have it or refuses it, or it is neither there nor here.
        StorageError: the download cannot be stored.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    def ask() -> tuple[str | None, list[str]]:
        info = HfApi().model_info(asked.repository, revision=asked.revision, timeout=SECONDS)
        return info.sha, [sibling.rfilename for sibling in info.siblings or []]

    try:
        commit, files = _within(2 * SECONDS, ask)
        if commit is None or not COMMIT.fullmatch(commit):
            raise ConnectionError("its answer names no commit")
    except HFValidationError as error:
        raise asked.failure(
            f"There is no folder {asked.name!r}, and it cannot be a name on the Hub: {error}."
        ) from error
    except Exception as error:  # requests, httpx or httpx2, by the version of huggingface_hub
        _raise_if_refused(error, asked)
        return _from_cache(asked, error)
    cache = Path(constants.HF_HUB_CACHE)
    return store_in(cache, lambda place: _download(asked, commit, files, place), f"the {asked.kind}", "HF_HOME")


def _within(seconds: float, call: Callable[[], T]) -> T:
    """``call()``, or TimeoutError: a time-out of a socket bounds neither a name server nor an answer that trickles."""
    answer: Future[T] = Future()

    def run() -> None:
        """Put what the call returns or raises into the answer."""
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except Unanswered as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error


def _download(asked: HubRequest, commit: str, files: list[str], cache: Path) -> Snapshot:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    paths = [PurePosixPath(file) for file in files]
    wanted = [path for path in paths if asked.wanted(path) and not path.is_absolute() and ".." not in path.parts]
    if asked.required not in files:
        raise asked.failure(f"{asked.repository} on the Hub has no {asked.required}: it is not a {asked.kind}.")
    # Weights last: a download that broke off lacks them, and is never taken for a whole one later.
    wanted.sort(key=lambda path: (path.suffix == ".safetensors", path))
    try:
        for path in wanted:
            file = hf_hub_download(asked.repository, str(path), revision=commit, etag_timeout=SECONDS, cache_dir=cache)
        # Asked for by its branch or tag, so that the Hub's cache knows which commit that was when it is offline.
        last = hf_hub_download(
            asked.repository, asked.required, revision=asked.revision, etag_timeout=SECONDS, cache_dir=cache
        )
    except Exception as failure:
        # The client wraps what really happened in a word about its cache.
        wrapped = failure.__cause__ if isinstance(failure, LocalEntryNotFoundError) else None
        error = wrapped if isinstance(wrapped, Exception) else failure
        _raise_if_refused(error, asked)
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise StorageError(
                f"The {asked.kind} {asked.name!r} cannot be stored in the Hub's cache {cache}: {error}. Make room or "
                "make it writable, or set HF_HOME to another folder."
            ) from error
        raise asked.failure(
            f"The download of {asked.name!r} at commit {commit} broke off: {describe_error(error)}. Run it again; "
            "the files that arrived are kept."
        ) from error
    folder = Path(file).parents[len(wanted[-1].parts) - 1]
    if Path(last) != folder / asked.required:
        raise asked.failure(
            f"{asked.repository} moved on from commit {commit} while it was downloaded. Run it again, or ask for one "
            "commit with revision=..."
        )
    return Snapshot(folder, commit)


def _from_cache(asked: HubRequest, error: Exception) -> Snapshot:
    """The copy of an earlier download, which is what being offline calls for."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(asked.repository, revision=asked.revision, local_files_only=True))
    except LocalEntryNotFoundError as missing:
        raise asked.failure(
            f"The {asked.kind} {asked.name!r} was not found here, and the Hub at {constants.ENDPOINT} does not answer "
            f"({describe_error(error)}); its cache {constants.HF_HUB_CACHE} has no whole copy of {asked.repository} at "
            f"{asked.revision or 'main'!r}. {asked.otherwise}"
        ) from missing
    return Snapshot(folder, folder.name)


def _raise_if_refused(error: Exception, asked: HubRequest) -> None:
    """Raise if the Hub did answer, and its answer is no; 408 and 429 and everything from 500 mean 'not now'."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        at = "" if asked.revision is None else f" at revision {asked.revision!r}"
        raise asked.failure(
            f"There is no folder {asked.name!r}, and the Hub does not know that name{at}, or does not let you read it "
            f"(status {status}). Check the spelling; for a private or gated {asked.kind} log in with: hf auth login"
        ) from error


def describe_error(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
