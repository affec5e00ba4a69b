"""The embedding cache: round trips, killed and concurrent processes, damaged files."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest

from ketfit.bodies import cache
from ketfit.bodies.cache import EmbeddingCache
from ketfit.errors import BodyError, StorageError

# Row i of the writer is i, i + 0.5, ..., so that every row tells whether it is right.
WRITER = """
import sys
import numpy as np
from pathlib import Path
from ketfit.bodies.cache import EmbeddingCache
path, count, chunk = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
with EmbeddingCache(path, 96) as cache:
    for start in range(0, count, chunk):
        texts = [f"sentence {i}" for i in range(start, start + chunk)]
        if len(cache.get(texts)) < chunk:
            cache.put(texts, np.arange(start, start + chunk)[:, None] + np.arange(96) / 2)
print("done")
"""


def expected(i: int) -> np.ndarray:
    return (i + np.arange(96) / 2).astype(np.float32)


def start_writer(path: Path, count: int, chunk: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(count), str(chunk)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def assert_rows_right(path: Path, count: int) -> int:
    texts = [f"sentence {i}" for i in range(count)]
    with EmbeddingCache(path, 96) as store:
        found = store.get(texts)
    for i, text in enumerate(texts):
        if text in found:
            np.testing.assert_array_equal(found[text], expected(i))
    return len(found)


def test_put_then_get_returns_the_vectors(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    with EmbeddingCache(tmp_path / "new" / "a.sqlite", 5) as store:
        assert store.get(["a", "b"]) == {}
        store.put(["a", "b", "ä\U0001f600"], rows)
        store.put(["a"], np.zeros((1, 5)))  # what is there stays
    with EmbeddingCache(tmp_path / "new" / "a.sqlite", 5) as store:
        found = store.get(["b", "a", "a", "ä\U0001f600", "c"])
    assert set(found) == {"a", "b", "ä\U0001f600"}
    for text, row in zip(["a", "b", "ä\U0001f600"], rows, strict=True):
        assert found[text].dtype == np.float32
        np.testing.assert_array_equal(found[text], row)


def test_get_ten_thousand_rows_is_fast(tmp_path: Path) -> None:
    texts = [f"sentence {i}" for i in range(10_000)]
    rows = np.random.default_rng(0).standard_normal((10_000, 384)).astype(np.float32)
    with EmbeddingCache(tmp_path / "a.sqlite", 384) as store:
        store.put(texts, rows)
        start = time.perf_counter()
        found = store.get(texts)
        took = time.perf_counter() - start
    np.testing.assert_array_equal(np.stack([found[text] for text in texts]), rows)
    assert took < 0.8


def test_put_wrong_shape_raises_value_error(tmp_path: Path) -> None:
    with (
        EmbeddingCache(tmp_path / "a.sqlite", 3) as store,
        pytest.raises(ValueError, match=r"shape \(1, 2\), expected \(1, 3\)"),
    ):
        store.put(["a"], np.zeros((1, 2)))


@pytest.mark.slow
def test_put_killed_at_random_leaves_only_complete_rows(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.sqlite", random.Random(0)
    for _ in range(6):
        with start_writer(path, 100_000, 50) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.01, 0.25))
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        assert_rows_right(path, 2_000)
    with start_writer(path, 2_000, 50) as writer:
        assert writer.communicate()[0] == "ready\ndone\n"
    assert assert_rows_right(path, 2_000) == 2_000


def test_put_from_two_processes_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with start_writer(path, 2_000, 20) as one, start_writer(path, 2_000, 25) as two:
        answers = one.communicate()[0], two.communicate()[0]
    assert answers == ("ready\ndone\n", "ready\ndone\n")
    assert (one.returncode, two.returncode) == (0, 0)
    assert assert_rows_right(path, 2_000) == 2_000


def test_cache_file_that_is_no_database_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"no database, but long enough to have been one" * 100)
    with pytest.raises(BodyError, match=r"a\.sqlite is damaged: file is not a database\. Delete that file"):
        EmbeddingCache(path, 3)


def test_cache_file_of_another_database_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE embeddings (word TEXT)")
    with EmbeddingCache(path, 3) as store:
        with pytest.raises(BodyError, match=r"a\.sqlite is damaged: no such column"):
            store.get(["a"])
        with pytest.raises(BodyError, match=r"a\.sqlite is damaged: table embeddings has 1 column"):
            store.put(["a"], np.zeros((1, 3)))


def test_get_overwritten_pages_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    texts = [f"sentence {i}" for i in range(500)]
    with EmbeddingCache(path, 96) as store:
        store.put(texts, np.ones((500, 96)))
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
    path.write_bytes(content)
    with EmbeddingCache(path, 96) as store, pytest.raises(BodyError, match=r"a\.sqlite is damaged: .*Delete that file"):
        store.get(texts)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.zeros(2, "<f4").tobytes(), "does not hold 3 numbers"),
        ("text in place of bytes", "does not hold 3 numbers"),
        (np.array([1, np.nan, 0], "<f4").tobytes(), "not finite"),
        (np.array([1, np.inf, 0], "<f4").tobytes(), "not finite"),
    ],
)
def test_get_damaged_row_raises(tmp_path: Path, value: object, match: str) -> None:
    path = tmp_path / "a.sqlite"
    with EmbeddingCache(path, 3) as store:
        store.put(["a", "b"], np.zeros((2, 3)))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE embeddings SET vector = ?", (value,))
    with EmbeddingCache(path, 3) as store, pytest.raises(BodyError, match=rf"a\.sqlite is damaged: a row .*{match}"):
        store.get(["b"])


def test_put_on_full_disk_raises_and_keeps_old_rows(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "a.sqlite"
    with EmbeddingCache(path, 96) as store:
        store.put(["a"], np.ones((1, 96)))
        with full_disk(65_536), pytest.raises(StorageError, match=r"a\.sqlite cannot be used: .*KETFIT_CACHE"):
            store.put([f"sentence {i}" for i in range(1_000)], np.zeros((1_000, 96)))
        assert set(store.get(["a", "sentence 0"])) == {"a"}
        store.put(["b"], np.ones((1, 96)))


def test_put_into_read_only_file_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    with EmbeddingCache(path, 3) as store:
        store.put(["a"], np.ones((1, 3)))
    connect = sqlite3.connect

    def read_only(file: Path, **options: object) -> sqlite3.Connection:
        return connect(f"file:{file}?mode=ro", uri=True, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(cache.sqlite3, "connect", read_only)
    with EmbeddingCache(path, 3) as store:
        assert set(store.get(["a"])) == {"a"}
        with pytest.raises(StorageError, match="readonly database"):
            store.put(["b"], np.ones((1, 3)))


def test_put_into_locked_file_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "a.sqlite"
    with EmbeddingCache(path, 3) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="database is locked"):
            store.put(["b"], np.ones((1, 3)))


def test_cache_in_impossible_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"a\.sqlite cannot be used"):
        EmbeddingCache(tmp_path / "file" / "a.sqlite", 3)
    with pytest.raises(StorageError, match="unable to open database file"):
        EmbeddingCache(tmp_path, 3)
