"""The folder of KetFit's own caches, and the cache of sentence embeddings: one SQLite file for every body."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import platformdirs

from ketfit.errors import BodyError, StorageError

_BUSY_SECONDS = 60.0
_KEYS_PER_QUERY = 500  # SQLite before 3.32 allows 999 variables in one statement

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


def cached(part: str, name: str) -> Path:
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


class EmbeddingCache:
    """Sentence embeddings of one body on disk: SHA-256 of the text's UTF-8 bytes -> float32 little-endian vector.

    Every :meth:`put` is one SQLite transaction, so that a process may be killed at any instant and loses only the
    transaction it is in; several processes may use one file at once, and wait for each other for up to a minute.
    Use it as a context manager, or call :meth:`close`.

    Args:
        path: The SQLite file; it and its folder are created when they do not exist.
        dimension: Length of every vector.

    Raises:
        BodyError: The file is not such a cache, or is damaged.
        StorageError: The file cannot be opened or created.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        with self._translated():
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with self._translated():
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
                )
        except BaseException:
            self.close()
            raise

    def get(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors, float32 of shape (dimension,), of those of ``texts`` that are in the cache.

        Raises:
            BodyError: The file or one of the rows asked for is damaged.
            StorageError: The file cannot be read.
        """
        keys = {_key(text): text for text in texts}
        found: dict[str, np.ndarray] = {}
        with self._translated():
            for row_key, blob in self._rows(list(keys)):
                found[keys[row_key]] = self._vector(blob)
        return found

    def put(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Add ``vectors`` (len(texts), dimension) in one transaction; texts that are there already stay as they are.

        Raises:
            BodyError: The file is damaged.
            StorageError: The file cannot be written: disk full, read-only, or locked for more than a minute.
        """
        stored = np.ascontiguousarray(vectors, dtype="<f4")
        if stored.shape != (len(texts), self.dimension):
            raise ValueError(f"vectors have shape {stored.shape}, expected {(len(texts), self.dimension)}")
        rows = [(_key(text), vector.tobytes()) for text, vector in zip(texts, stored, strict=True)]
        with self._translated():
            # IMMEDIATE: a transaction that starts as a reader and then writes can be refused without any waiting.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", rows)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._connection.close()

    def __enter__(self) -> EmbeddingCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, keys: list[bytes]) -> Iterator[tuple[bytes, object]]:
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, vector FROM embeddings WHERE key IN ({marks})"  # noqa: S608 - only question marks
            yield from self._connection.execute(query, some).fetchall()

    def _vector(self, blob: object) -> np.ndarray:
        if not isinstance(blob, bytes) or len(blob) != 4 * self.dimension:
            raise self._damaged(f"a row does not hold {self.dimension} numbers")
        vector = np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)
        if not np.isfinite(vector).all():
            raise self._damaged("a row holds numbers that are not finite")
        return vector

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as ours: damage to the file is a BodyError, a file that cannot be used a StorageError."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error).startswith(("no such", "table embeddings has")):
                raise self._damaged(error) from error
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> BodyError:
        return BodyError(f"The embedding cache {self.path} is damaged: {why}. Delete that file; it will be made again.")

    def _unusable(self, error: Exception) -> StorageError:
        return StorageError(
            f"The embedding cache {self.path} cannot be used: {error}. Make room or make its folder writable, "
            "set KETFIT_CACHE to another folder, or pass cache=False."
        )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
