"""Push models to the Hugging Face Hub."""

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
        there = api.model_info(repository, timeout=TIMEOUT_SECONDS)
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
        raise StorageError(f"the Hub did not take {repository!r}: {describe_error(error)}") from error
    return str(commit.oid)


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
