"""Upload of models to the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ketfit.errors import StorageError
from ketfit.persistence.schema import BODY
from ketfit.storage.hub_client import TIMEOUT_SECONDS, describe_error


def push(
    folder: Path,
    repository: str,
    *,
    is_owned: Callable[[PurePosixPath], bool],
    private: bool,
    token: str | None,
    commit_message: str,
) -> str:
    """Upload a folder to a repository as one commit on top of the current one.

    Args:
        folder: The folder to upload.
        repository: ``user/name``; created if it does not exist.
        is_owned: Predicate of a path; such files of an older model that `folder` lacks are removed in the same commit.
        private: See `HubMixin.push_to_hub`.
        token: See `HubMixin.push_to_hub`.
        commit_message: See `HubMixin.push_to_hub`.

    Returns:
        The hash of the commit.

    Raises:
        StorageError: the Hub rejected the commit, or the repository changed during the upload.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        current = api.model_info(repository, timeout=TIMEOUT_SECONDS)
        names = {sibling.rfilename for sibling in current.siblings or []}
        stale = sorted(name for name in names - files.keys() if is_owned(PurePosixPath(name)))
        # Not upload_folder, which may split a folder into several commits with partial models between them.
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(name) for name in stale),
                *(CommitOperationAdd(name, path) for name, path in files.items()),
            ],
            commit_message=commit_message,
            parent_commit=current.sha,
        )
    except Exception as error:  # requests, httpx or httpx2, by the version of huggingface_hub
        raise StorageError(f"the Hub rejected the upload to {repository!r}: {describe_error(error)}") from error
    return str(commit.oid)


class HubMixin:
    """Mixin with `push_to_hub` for estimators that have `save_pretrained`."""

    @abstractmethod
    def save_pretrained(
        self, folder: str | Path, *, data: str | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the model folder."""

    def _save_for_hub(self, folder: Path, data: str | None, metrics: Mapping[str, float] | None) -> None:
        """Write a model folder that does not depend on files of this machine."""
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
        """Save the model and upload it as one commit.

        The commit has the head, the metadata, the model card, and the body unless it is bundled or on the Hub, where
        the metadata names its commit. Files of the body of an older model that this one lacks are removed in the same
        commit; other files in the repository are kept.

        Args:
            repo_id: ``user/name``; created if it does not exist.
            data: See `save_pretrained`.
            metrics: See `save_pretrained`.
            private: Make a new repository private.
            token: An access token; None uses the one stored by the client of the Hub.
            commit_message: Message of the commit.

        Returns:
            The hash of the commit, for ``revision`` of `from_pretrained`.

        Raises:
            StorageError: the Hub rejected the commit, or the repository changed during the upload.
        """
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            self._save_for_hub(model, data, metrics)
            options: dict[str, Any] = {"private": private, "token": token, "commit_message": commit_message}
            return push(model, repo_id, is_owned=lambda path: path.parts[0] == BODY, **options)
