"""The seam to the models of the Hugging Face Hub: folders at one commit, and never a hang.

The Hub is asked once which commit a name means, with a limit on the whole answer. Then the files of that commit are
downloaded, or found in the Hub's own cache. A Hub that does not answer is what being offline is: then the cache holds
good. A Hub that answers no is believed.
"""

from __future__ import annotations

import errno
import re
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unanswered  # another class than the built-in one before Python 3.11
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ketfit.errors import KetFitError, StorageError
from ketfit.learn.cache import store_in
from ketfit.learn.record import BODY

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
class Request:
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


def fetch(asked: Request) -> Snapshot:
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


def push(
    folder: Path,
    repository: str,
    *,
    owned: Callable[[PurePosixPath], bool],
    private: bool,
    token: str | None,
    commit_message: str,
) -> str:
    """Put a folder into a repository as one commit, on top of the one that is there now.

    Args:
        folder: What to upload.
        repository: ``user/name``; made if it does not exist.
        owned: Which files of an older model are removed in the same commit if this one has them no more.
        private, token, commit_message: As in `HubMixin.push_to_hub`.

    Returns:
        The commit's hash.

    Raises:
        StorageError: the Hub did not take it, or somebody else changed the repository meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        there = api.model_info(repository, timeout=SECONDS)
        names = {sibling.rfilename for sibling in there.siblings or []}
        stale = sorted(name for name in names - files.keys() if owned(PurePosixPath(name)))
        # Not upload_folder, which may make several commits of a folder: between two of them there is no whole model.
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(name) for name in stale),
                *(CommitOperationAdd(name, path) for name, path in files.items()),
            ],
            commit_message=commit_message,
            parent_commit=there.sha,
        )
    except Exception as error:  # as in fetch
        raise StorageError(f"the Hub did not take {repository!r}: {_reason(error)}") from error
    return str(commit.oid)


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


def _download(asked: Request, commit: str, files: list[str], cache: Path) -> Snapshot:
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
            f"The download of {asked.name!r} at commit {commit} broke off: {_reason(error)}. Run it again; "
            "the files that arrived are kept."
        ) from error
    folder = Path(file).parents[len(wanted[-1].parts) - 1]
    if Path(last) != folder / asked.required:
        raise asked.failure(
            f"{asked.repository} moved on from commit {commit} while it was downloaded. Run it again, or ask for one "
            "commit with revision=..."
        )
    return Snapshot(folder, commit)


def _from_cache(asked: Request, error: Exception) -> Snapshot:
    """The copy of an earlier download, which is what being offline calls for."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(asked.repository, revision=asked.revision, local_files_only=True))
    except LocalEntryNotFoundError as missing:
        raise asked.failure(
            f"The {asked.kind} {asked.name!r} was not found here, and the Hub at {constants.ENDPOINT} does not answer "
            f"({_reason(error)}); its cache {constants.HF_HUB_CACHE} has no whole copy of {asked.repository} at "
            f"{asked.revision or 'main'!r}. {asked.otherwise}"
        ) from missing
    return Snapshot(folder, folder.name)


def _raise_if_refused(error: Exception, asked: Request) -> None:
    """Raise if the Hub did answer, and its answer is no; 408 and 429 and everything from 500 mean 'not now'."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        at = "" if asked.revision is None else f" at revision {asked.revision!r}"
        raise asked.failure(
            f"There is no folder {asked.name!r}, and the Hub does not know that name{at}, or does not let you read it "
            f"(status {status}). Check the spelling; for a private or gated {asked.kind} log in with: hf auth login"
        ) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class HubMixin:
    """An estimator that can be saved can be pushed to the Hugging Face Hub."""

    @abstractmethod
    def save_pretrained(
        self, folder: str | Path, *, data: str | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the model folder."""

    def _save_for_hub(self, folder: Path, data: str | None, metrics: Mapping[str, float] | None) -> None:
        """Write a model folder that means the same on every machine."""
        self.save_pretrained(folder, data=data, metrics=metrics)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        data: str | None = None,
        metrics: Mapping[str, float] | None = None,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload a KetFit model",
    ) -> str:
        """Save the model and upload it as one commit of ``repo_id``, which is made if it does not exist.

        The commit holds all that a model is: the head, the record, the card, and the body unless that is bundled or
        on the Hub itself, where the record names its commit. Files of an older model's body that this one does not
        have are removed by the same commit; nothing else in the repository is.

        Args:
            repo_id: ``user/name``.
            data, metrics: As in `save_pretrained`.
            private: Whether a new repository is private.
            token: An access token; None takes the one that the Hub's own client knows.
            commit_message: Of the commit.

        Returns:
            The commit's hash, which `from_pretrained` takes as ``revision``.

        Raises:
            StorageError: the Hub did not take it, or somebody else changed the repository meanwhile.
        """
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            self._save_for_hub(model, data, metrics)
            options: dict[str, Any] = {"private": private, "token": token, "commit_message": commit_message}
            return push(model, repo_id, owned=lambda path: path.parts[0] == BODY, **options)
