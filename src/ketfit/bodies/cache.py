"""The folder of KetFit's own caches, and the cache of sentence embeddings: one SQLite file for every body."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from ketfit.errors import BodyError, StorageError

_BUSY_SECONDS = 60.0
_KEYS_PER_QUERY = 500  # SQLite before 3.32 allows 999 variables in one statement


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
