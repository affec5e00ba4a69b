"""Append-only files with one record per line, written by one process at a time: rows of studies, ledgers of runs.

A line counts once its line break is written. A partial line, left by a killed process, is cut off when the next process
opens the file; a partial line, left by a full disk, is cut off at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from typing_extensions import Self

from ketfit.errors import KetFitError, StorageError

_T = TypeVar("_T")


def complete_lines(content: bytes) -> list[bytes]:
    r"""Return the lines that end with a line break, without it.

    >>> complete_lines(b"one\ntwo\nthr")
    [b'one', b'two']
    """
    return content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]


def read_json_lines(path: Path) -> list[Any]:
    """Return the JSON values of the complete lines of a file; none if there is no file."""
    return [json.loads(line) for line in complete_lines(path.read_bytes())] if path.exists() else []


class AppendLog:
    """A file of lines, locked for one process and opened for appending; a context manager.

    Args:
        path: The file; it and its folder are created if they are missing.
        lock: Name of the lock file in the same folder.
        locked_error: The exception to raise if another process holds the lock.
        flush_seconds: Lines appended within this time of each other are flushed to the disk together. A killed process
            loses none of them, a power failure may. With 0 each line is on the disk before `append` returns.

    Raises:
        KetFitError: `locked_error`.
        StorageError: the folder cannot be written.
    """

    def __init__(self, path: Path, lock: str, locked_error: KetFitError, flush_seconds: float = 0.0) -> None:
        self.path, self.flush_seconds = path, flush_seconds
        self._flushed_at = 0.0
        self._stack = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(FileLock(path.with_name(lock), timeout=0))
        except Timeout as error:
            raise locked_error from error
        except OSError as error:
            raise StorageError(f"cannot write {path.parent}: {error.strerror or error}") from error

    def open(self, read: Callable[[], _T]) -> _T:
        """Call `read` on the existing lines, open the file, and return the result of `read`.

        The file is unchanged if `read` fails.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            result = read()
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._stack.callback(os.close, self._file)
            os.ftruncate(self._file, self.path.read_bytes().rfind(b"\n") + 1)
            self.flush()
        except OSError as error:
            self._stack.close()
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error
        except BaseException:
            self._stack.close()
            raise
        return result

    def append(self, line: bytes) -> None:
        """Append a line; `line` has no line break.

        Raises:
            StorageError: the line cannot be written; the lines before it are unchanged.
        """
        content = line + b"\n"
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            while written < len(content):
                written += os.write(self._file, content[written:])
            if time.monotonic() - self._flushed_at > self.flush_seconds:
                self.flush()
        except OSError as error:
            os.ftruncate(self._file, size)
            raise StorageError(
                f"cannot write {self.path}: {error.strerror or error}; lines before are safe: make room and run again"
            ) from error

    def flush(self) -> None:
        """Flush all lines to the disk."""
        os.fsync(self._file)
        self._flushed_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            if self.flush_seconds:
                self.flush()
