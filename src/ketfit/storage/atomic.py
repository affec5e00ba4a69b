"""Atomic writes of files and folders: a reader sees the whole old content or the whole new content."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ketfit.errors import StorageError


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        StorageError: the file cannot be written; an existing file at `path` is unchanged.
    """
    with staged_file(path) as staged:
        _write_through(staged, content)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename the file written there to `path` at the end of the context.

    If the context fails, the temporary file is removed, and an existing file at `path` is unchanged.

    Raises:
        StorageError: the file cannot be written.
    """
    staged = _temporary_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield staged
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
        staged.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)


def replace_folder(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write a folder atomically; an existing folder is replaced as a whole.

    If the process is killed between the two renames of a replacement, the old folder remains beside `folder` as
    ``.NAME.<random>.old``.

    Args:
        folder: The folder to write; its parents are created.
        files: The content, or the path of a file to copy, by name; a name may contain folders.

    Raises:
        StorageError: the folder cannot be written.
    """
    replaces = folder.exists()
    staged = _temporary_sibling(folder)
    retired = staged.with_name(f"{staged.name}.old")
    try:
        staged.mkdir(parents=True)
        for name, content in files.items():
            (staged / name).parent.mkdir(exist_ok=True, parents=True)
            _write_through(staged / name, content)
        _flush_folder(staged)
        if replaces:
            folder.rename(retired)
        staged.rename(folder)
        _flush_folder(folder.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # restore the old folder; report the first error
            if retired.exists():
                if folder.exists():
                    folder.rename(staged)
                retired.rename(folder)
        shutil.rmtree(staged, ignore_errors=True)
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    shutil.rmtree(retired, ignore_errors=True)


def move_folder(staged: Path, folder: Path) -> None:
    """Flush the files of `staged` to the disk and rename it to `folder`; an existing folder there is kept.

    Raises:
        OSError: the folder cannot be written.
    """
    for path in (path for path in staged.rglob("*") if path.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process has written it
            raise
    _flush_folder(folder.parent)


def check_writable_file(path: Path) -> None:
    """Check that a file can be written, before a long computation.

    Raises:
        StorageError: `path` is a folder, or cannot be written.
    """
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; name a file")
    check_writable_target(path.resolve())


def check_writable_target(path: Path) -> None:
    """Check that a file or folder can be created at `path`; raise StorageError if it cannot."""
    parent = next(parent for parent in path.parents if parent.exists())
    probe = _temporary_sibling(parent / path.name)
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _write_through(path: Path, content: bytes | Path) -> None:
    with path.open("xb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
