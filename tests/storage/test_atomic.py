"""Atomic writes of files and folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ketfit.errors import StorageError
from ketfit.storage.atomic import check_writable_file, check_writable_target, replace_folder, write_file
from tests.storage.failing_calls import fail_at


@pytest.mark.parametrize("step", range(5))
def test_write_file_failing_at_any_call_keeps_old_or_new_file(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with monkeypatch.context() as patch:
        calls = fail_at(patch, step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(StorageError, match="cannot write .*file: No space left on device"):
            write_file(path, b"new")
    assert len(calls) == step + 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() in (b"old", b"new")


class TestLinks:
    """Output paths that are symbolic links."""

    @pytest.mark.parametrize("relative", [False, True])
    def test_write_file_through_a_link_keeps_the_link(self, relative: bool, tmp_path: Path) -> None:
        target, link = tmp_path / "data" / "file", tmp_path / "links" / "link"
        target.parent.mkdir()
        link.parent.mkdir()
        target.write_bytes(b"old")
        link.symlink_to(Path("..", "data", "file") if relative else target)
        check_writable_file(link)
        write_file(link, b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "file", "link", "links"]

    def test_write_file_through_a_chain_of_links_writes_the_last_target(self, tmp_path: Path) -> None:
        (tmp_path / "second").symlink_to("file")
        (tmp_path / "first").symlink_to("second")
        write_file(tmp_path / "first", b"new")
        assert (tmp_path / "first").is_symlink()
        assert (tmp_path / "second").is_symlink()
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_write_file_through_a_dangling_link_creates_its_target(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "new" / "file")
        check_writable_file(link)
        assert not (tmp_path / "new").exists()
        write_file(link, b"new")
        assert link.is_symlink()
        assert (tmp_path / "new" / "file").read_bytes() == b"new"

    def test_failed_write_through_a_link_keeps_link_and_target(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "link"
        link.symlink_to("file")
        (tmp_path / "file").write_bytes(b"old")
        with monkeypatch.context() as patch:
            fail_at(patch, 2, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            with pytest.raises(StorageError, match="cannot write .*link: No space left on device"):
                write_file(link, b"new")
        assert link.is_symlink()
        assert link.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]

    def test_loop_of_links_raises_storage_error(self, tmp_path: Path) -> None:
        (tmp_path / "one").symlink_to("two")
        (tmp_path / "two").symlink_to("one")
        for act in (check_writable_file, check_writable_target, lambda path: write_file(path, b"new")):
            with pytest.raises(StorageError, match="cannot write .*one: Too many levels of symbolic links"):
                act(tmp_path / "one")
        assert (tmp_path / "one").is_symlink()

    def test_check_of_a_link_tests_the_folder_of_its_target(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "link").symlink_to(tmp_path / "file" / "below")
        with pytest.raises(StorageError, match="cannot write .*link: Not a directory"):
            check_writable_file(tmp_path / "link")


@pytest.mark.parametrize(
    "act",
    [
        check_writable_file,
        check_writable_target,
        lambda path: write_file(path, b"new"),
        lambda path: replace_folder(path, {"file": b"new"}),
    ],
    ids=["check_writable_file", "check_writable_target", "write_file", "replace_folder"],
)
@pytest.mark.parametrize("names", [("x" * 300,), ("x" * 300, "file")], ids=["name", "folder"])
def test_names_that_are_too_long_raise_storage_error(
    act: Callable[[Path], None], names: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="cannot write .*xxx.*: File name too long"):
        act(tmp_path.joinpath(*names))
    assert not any(tmp_path.iterdir())


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (lambda: write_file(pipe, b"1"), lambda: check_writable_file(pipe)):
        with pytest.raises(StorageError, match=r"cannot write .*pipe: it is not a regular file; name one"):
            write()
    assert pipe.is_fifo()
