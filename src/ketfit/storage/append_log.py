"""Files that are only ever appended to, a line at a time, by one process: rows of studies, ledgers of runs.

A line is there or it is not. The one that a kill cuts off has no line break; it does not count, and is taken off when
the next process opens the file. A line that the disk had no room for is taken back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from typing_extensions import Self

from ketfit.errors import KetFitError, StorageError

_T = TypeVar("_T")


def complete_lines(content: bytes) -> list[bytes]:
    """The lines that have ended, without their breaks."""
    return content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]


class AppendLog:
    """A file of lines, open for appending. Use it as a context manager.

    Args:
        path: The file; it and its folder are made if they are missing.
        lock: Name of the file beside it that keeps others out.
        taken: What is raised if another process has it.
        flush_seconds: Lines that come faster than this are flushed to the disk together; a kill of the process loses
            none of them. With 0 each line is on the disk before `append` returns.

    Raises:
        KetFitError: `taken`.
        StorageError: the folder cannot be written.
    """

    def __init__(self, path: Path, lock: str, taken: KetFitError, flush_seconds: float = 0.0) -> None:
        self.path, self.flush_seconds = path, flush_seconds
        self._flushed = 0.0
        self._stack = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(FileLock(path.with_name(lock), timeout=0))
        except Timeout as error:
            raise taken from error
        except OSError as error:
            raise StorageError(f"cannot write {path.parent}: {error.strerror or error}") from error

    def open(self, read: Callable[[], _T]) -> _T:
        """What `read` makes of the lines that are there; then the file is open. If `read` fails, all stays as it was.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            found = read()
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
        return found

    def append(self, line: bytes) -> None:
        """Add a line, without its break.

        Raises:
            StorageError: it cannot be written; the lines before it stand.
        """
        content = line + b"\n"
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            while written < len(content):
                written += os.write(self._file, content[written:])
            if time.monotonic() - self._flushed > self.flush_seconds:
                self.flush()
        except OSError as error:
            os.ftruncate(self._file, size)
            raise StorageError(
                f"cannot write {self.path}: {error.strerror or error}; lines before are safe: make room and run again"
            ) from error

    def flush(self) -> None:
        """Have all lines on the disk."""
        os.fsync(self._file)
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            if self.flush_seconds:
                self.flush()
