"""Write files and folders so that a reader finds the old or the new content, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ketfit.errors import StorageError


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, whole, whatever happens meanwhile.

    Raises:
        StorageError: it cannot be written; an older file of that name is untouched.
    """
    with staged_file(path) as staged:
        _write_through(staged, content)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file at, which is put in the place of `path` at the end of the context.

    If the context fails, nothing of it remains, and an older file at `path` is untouched.

    Raises:
        StorageError: it cannot be written.
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
    """Write a folder so that a reader finds all of the old one or all of the new one; replace one that exists.

    Killed between the two renames of a replacement, the old folder stands whole beside the path as
    ``.NAME.<random>.old``.

    Args:
        folder: The folder to write; its parents are made.
        files: The content, or a file to copy, by name; a name may have folders in it.

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
        with contextlib.suppress(OSError):  # as it was before; the error below is the one to tell
            if retired.exists():
                if folder.exists():
                    folder.rename(staged)
                retired.rename(folder)
        shutil.rmtree(staged, ignore_errors=True)
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    shutil.rmtree(retired, ignore_errors=True)


def place_folder(staged: Path, folder: Path) -> None:
    """Move a folder to its place once all of it is on the disk; if another stands there already, that one stays.

    Raises:
        OSError: it cannot be written.
    """
    for path in (path for path in staged.rglob("*") if path.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    _flush_folder(folder.parent)


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written; before a long training, ask here.

    Raises:
        StorageError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; name a file")
    check_writable(path.resolve())


def check_writable(path: Path) -> None:
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
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
