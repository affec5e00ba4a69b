"""Models on the Hugging Face Hub: fetched at one commit, pushed as one commit."""

from __future__ import annotations

from pathlib import Path

from ketfit.errors import ModelFileError, StorageError


def fetch_model(name: str | Path, revision: str | None) -> Path:
    """The folder of a model: `name` if it is one, else a download of ``user/name`` from the Hub.

    Raises:
        ModelFileError: there is no such folder, and the Hub does not have it or does not answer.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise ModelFileError(f"{folder} is a local folder and has no revision {revision!r}; leave the revision out")
        return folder
    raise ModelFileError(f"no {name}")


def push_folder(folder: Path, repo_id: str, *, private: bool, token: str | None, commit_message: str) -> str:
    """Upload a folder as one commit, and return the commit's hash.

    Raises:
        StorageError: the Hub did not take it.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    except Exception as error:  # the Hub's client raises those of its HTTP library, too
        raise StorageError(f"the Hub did not take {repo_id}: {error}") from error
    return str(commit.oid)
