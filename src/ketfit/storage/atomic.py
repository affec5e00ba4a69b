"""Atomic writes of files and folders: a reader sees the whole old content or the whole new content."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ketfit.errors import StorageError
from ketfit.storage.cache_dir import is_folder


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

    A symbolic link is kept, and the file that it points to is written, also if that file does not exist. If the context
    fails, the temporary file is removed, and an existing file at `path` is unchanged.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        target = _follow_links(path)
        _check_regular(target)
        staged = _temporary_sibling(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield staged
            with staged.open("rb+") as file:
                os.fsync(file.fileno())
            staged.replace(target)
            _flush_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def replace_folder(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write a folder atomically; an existing folder is replaced as a whole.

    If the write fails or is interrupted, the old folder is restored, and partial output is removed. If the process is
    killed between the two renames of a replacement, the old folder remains beside `folder` as ``.NAME.<random>.old``.

    Args:
        folder: The folder to write; its parents are created.
        files: The content, or the path of a file to copy, by name; a name may contain folders.

    Raises:
        StorageError: the folder cannot be written.
    """
    staged = _temporary_sibling(folder)
    retired = staged.with_name(f"{staged.name}.old")
    try:
        replaces = _exists(folder)
        staged.mkdir(parents=True)
        for name, content in files.items():
            (staged / name).parent.mkdir(exist_ok=True, parents=True)
            _write_through(staged / name, content)
        _flush_folder(staged)
        if replaces:
            folder.rename(retired)
        staged.rename(folder)
        _flush_folder(folder.parent)
    except BaseException as error:  # also KeyboardInterrupt
        _restore_folder(folder, staged, retired)
        if isinstance(error, OSError):
            raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
        raise
    _remove_folder(retired)


def _restore_folder(folder: Path, staged: Path, retired: Path) -> None:
    """Rename the old folder back, if it was renamed, and remove the new one."""
    with contextlib.suppress(OSError):  # the error that led here is reported
        if retired.exists():
            if folder.exists():
                folder.rename(staged)
            retired.rename(folder)
    shutil.rmtree(staged, ignore_errors=True)


def _remove_folder(folder: Path) -> None:
    """Remove a folder as far as possible; an interrupt is raised after the removal."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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
        StorageError: `path` is a folder or a device, or cannot be written.
    """
    if is_folder(path):
        raise StorageError(f"cannot write {path}: it is a folder; name a file")
    check_writable_target(path)
    try:
        _check_regular(_follow_links(path))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable_target(path: Path) -> None:
    """Check that a file or folder can be created at `path`, or where its link points to; raise StorageError if not."""
    try:
        target = _follow_links(path)
        parent = next(parent for parent in target.parents if _exists(parent))
        probe = _temporary_sibling(parent / target.name)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _follow_links(path: Path) -> Path:
    """Return the absolute path that `path` leads to through symbolic links; nothing needs to exist there.

    Raises:
        OSError: the links form a loop, or the path cannot be looked up.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _check_regular(path: Path) -> None:
    """Raise OSError for a device, a pipe or a socket, which a rename would replace by a file."""
    if _exists(path) and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file; name one")


def _exists(path: Path) -> bool:
    """Return whether there is a file or folder; raise OSError if the path cannot be looked up.

    For a name that is too long, `Path.exists` raises in some versions of Python and returns False in others.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


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
