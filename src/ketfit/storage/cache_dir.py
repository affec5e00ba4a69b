"""Folders of the cache, with a temporary one where the cache cannot be written."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TypeVar

import platformdirs

from ketfit.errors import StorageError

T = TypeVar("T")


_told: set[Path] = set()


_temporary: dict[Path, Path] = {}  # what stands in for a folder that could not be written, until this process ends


def cache_folder() -> Path:
    """The folder for assembled bodies and embeddings: ``KETFIT_CACHE``, or the user's cache folder.

    It is not created here. Everything in it can be deleted when no process uses it; it is made again when needed.
    """
    chosen = os.environ.get("KETFIT_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("ketfit")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder can be seen at `path`."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises below a folder that may not be entered


def cached_folder(part: str, name: str) -> Path:
    """Return the folder `name` of one part of the cache, whether it exists or not.

    It is in the temporary folder that stands in for a part that could not be written (see `store_in`), unless the
    cache itself has it.
    """
    place = cache_folder() / part
    there = place / name
    return there if is_folder(there) else _temporary.get(place, place) / name


def store_in(place: Path, store: Callable[[Path], T], what: str, setting: str = "KETFIT_CACHE") -> T:
    """Return ``store(place)``, or ``store(temporary folder)`` if `place` cannot be written.

    The first time it warns. The temporary folder then stands in for `place`, and is removed when the process ends.

    Args:
        place: A folder of a cache.
        store: Writes into the folder that it is given; raises StorageError if it cannot.
        what: What is stored, for the warning.
        setting: The environment variable that names another cache, for the warning.

    Raises:
        StorageError: neither folder can be written.
    """
    if place in _temporary:
        return store(_temporary[place])
    try:
        return store(place)
    except StorageError as error:
        try:
            folder = Path(tempfile.mkdtemp(prefix="ketfit-"))
            # Not atexit: it does not run in the workers of a pool, and in a forked child it would remove the parent's.
            Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)
            made = store(folder)
        except OSError:  # StorageError is one, too
            raise error from error.__cause__
        _temporary[place] = folder
        consequence = f"{what} is kept in {folder} until this process ends"
        warn_of_cache(place, error.__cause__ or error, consequence, setting, stacklevel=4)
        return made


def warn_of_cache(
    place: Path, reason: object, consequence: str, setting: str = "KETFIT_CACHE", *, stacklevel: int = 3
) -> None:
    """Warn that a cache cannot be used, once for each place in a process."""
    if place not in _told:
        _told.add(place)
        warnings.warn(
            f"The cache {place} cannot be used ({reason}); {consequence}. Make room or make it writable, or set "
            f"{setting} to another folder.",
            stacklevel=stacklevel,
        )
