"""Folders of the cache, with a temporary folder in place of one that cannot be written."""

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

_T = TypeVar("_T")

_warned: set[Path] = set()
_fallbacks: dict[Path, Path] = {}  # temporary folder by the folder that it replaces until this process ends


def cache_folder() -> Path:
    """Return the folder for assembled bodies and embeddings: ``KETFIT_CACHE``, or the user's cache folder.

    It is not created here. It can be deleted while no process uses it; its content is rebuilt when needed.
    """
    configured = os.environ.get("KETFIT_CACHE")
    return Path(configured) if configured else platformdirs.user_cache_path("ketfit")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a folder; False where a parent folder may not be entered."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises below a folder that may not be entered


def cached_folder(section: str, name: str) -> Path:
    """Return the folder `name` in a section of the cache; it may not exist.

    If the cache does not have it, and the section has a temporary replacement (see `write_to_cache`), the folder is in
    the replacement.
    """
    parent = cache_folder() / section
    folder = parent / name
    return folder if is_folder(folder) else _fallbacks.get(parent, parent) / name


def write_to_cache(folder: Path, write: Callable[[Path], _T], what: str, setting: str = "KETFIT_CACHE") -> _T:
    """Return ``write(folder)``, or ``write(temporary folder)`` if `folder` cannot be written.

    The temporary folder replaces `folder` until the process ends, and is removed then. The first use warns.

    Args:
        folder: A folder of a cache.
        write: Writes into the folder passed to it; raises StorageError if it cannot.
        what: Name of the stored thing for the warning.
        setting: The environment variable that sets the cache, for the warning.

    Raises:
        StorageError: neither folder can be written.
    """
    if folder in _fallbacks:
        return write(_fallbacks[folder])
    try:
        return write(folder)
    except StorageError as error:
        try:
            fallback = Path(tempfile.mkdtemp(prefix="ketfit-"))
            # Not atexit: pool workers skip it, and a forked child would remove the folder of its parent.
            Finalize(None, shutil.rmtree, (fallback,), {"ignore_errors": True}, exitpriority=0)
            result = write(fallback)
        except OSError:  # includes StorageError
            raise error from error.__cause__
        _fallbacks[folder] = fallback
        consequence = f"{what} is kept in {fallback} until this process ends"
        warn_cache_unusable(folder, error.__cause__ or error, consequence, setting, stacklevel=4)
        return result


def warn_cache_unusable(
    folder: Path, reason: object, consequence: str, setting: str = "KETFIT_CACHE", *, stacklevel: int = 3
) -> None:
    """Warn that a cache folder cannot be used, once per folder and process."""
    if folder not in _warned:
        _warned.add(folder)
        warnings.warn(
            f"The cache {folder} cannot be used ({reason}); {consequence}. Make room or make it writable, or set "
            f"{setting} to another folder.",
            stacklevel=stacklevel,
        )
