"""The cache of sentence embeddings: one SQLite file per body."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ketfit.errors import BodyError, StorageError

_BUSY_SECONDS = 60.0
_KEYS_PER_QUERY = 500  # SQLite before 3.32 allows 999 variables in one statement


class EmbeddingCache:
    """Sentence embeddings of one body on disk; a context manager.

    The key is the SHA-256 of the UTF-8 bytes of the text, the value a little-endian float32 vector. Every :meth:`put`
    is one SQLite transaction: a killed process loses only its open transaction. Several processes may use one
    file; they wait for each other for up to a minute.

    Args:
        path: The SQLite file; it and its folder are created if they are missing.
        dimension: Length of every vector.

    Raises:
        BodyError: The file is not an embedding cache, or is damaged.
        StorageError: The file cannot be opened or created.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        with self._translate_errors():
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with self._translate_errors():
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
                )
        except BaseException:
            self.close()
            raise

    def get(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors, float32 of shape (dimension,), of the texts that are in the cache.

        Raises:
            BodyError: The file or a row is damaged.
            StorageError: The file cannot be read.
        """
        keys = {_key(text): text for text in texts}
        found: dict[str, np.ndarray] = {}
        with self._translate_errors():
            for row_key, blob in self._rows(list(keys)):
                found[keys[row_key]] = self._vector(blob)
        return found

    def put(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Add ``vectors``, shape (len(texts), dimension), in one transaction; existing texts keep their vectors.

        Raises:
            BodyError: The file is damaged.
            StorageError: The file cannot be written: disk full, read-only, or locked for more than a minute.
        """
        stored = np.ascontiguousarray(vectors, dtype="<f4")
        if stored.shape != (len(texts), self.dimension):
            raise ValueError(f"vectors have shape {stored.shape}, expected {(len(texts), self.dimension)}")
        rows = [(_key(text), vector.tobytes()) for text, vector in zip(texts, stored, strict=True)]
        with self._translate_errors():
            # IMMEDIATE: a transaction that starts as a reader may fail without waiting when it writes.
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, keys: list[bytes]) -> Iterator[tuple[bytes, object]]:
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            batch = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(batch))
            query = f"SELECT key, vector FROM embeddings WHERE key IN ({marks})"  # noqa: S608 - only question marks
            yield from self._connection.execute(query, batch).fetchall()

    def _vector(self, blob: object) -> np.ndarray:
        if not isinstance(blob, bytes) or len(blob) != 4 * self.dimension:
            raise self._damaged(f"a row does not hold {self.dimension} numbers")
        vector = np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)
        if not np.isfinite(vector).all():
            raise self._damaged("a row holds numbers that are not finite")
        return vector

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise BodyError for a damaged file, and StorageError for a file that cannot be used."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error).startswith(("no such", "table embeddings has")):
                raise self._damaged(error) from error
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> BodyError:
        return BodyError(f"The embedding cache {self.path} is damaged: {why}. Delete that file; it is created again.")

    def _unusable(self, error: Exception) -> StorageError:
        return StorageError(
            f"The embedding cache {self.path} cannot be used: {error}. Make room or make its folder writable, "
            "set KETFIT_CACHE to another folder, or pass cache=False."
        )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
