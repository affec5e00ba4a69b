"""Append-only files: complete lines, partial lines, locks and full disks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ketfit.errors import StorageError, StudyError
from ketfit.storage.append_log import AppendLog, complete_lines, read_json_lines


def open_log(path: Path) -> AppendLog:
    return AppendLog(path, "lock", StudyError("the log is in use"))


def test_append_log_reopened_returns_the_lines_of_before(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log"
    with open_log(path) as log:
        assert log.open(lambda: path.exists()) is False
        log.append(b"one")
        log.append(b"two")
    with open_log(path) as log:
        assert log.open(lambda: complete_lines(path.read_bytes())) == [b"one", b"two"]


def test_append_log_opened_cuts_a_partial_line_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    with open_log(path) as log:
        log.open(lambda: None)
        log.append(b"three")
    assert path.read_bytes() == b"one\nthree\n"


def test_append_log_failing_read_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")

    def fail() -> None:
        raise StudyError("the first line is damaged")

    with open_log(path) as log, pytest.raises(StudyError, match="damaged"):
        log.open(fail)
    assert path.read_bytes() == b"one\ntw"


def test_append_log_locked_by_another_raises(tmp_path: Path) -> None:
    with open_log(tmp_path / "log"), pytest.raises(StudyError, match="the log is in use"):
        open_log(tmp_path / "log")


def test_append_log_on_full_disk_raises_and_keeps_earlier_lines(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "log"
    with open_log(path) as log:
        log.open(lambda: None)
        log.append(b"one")
        with full_disk(8), pytest.raises(StorageError, match="lines before are safe"):
            log.append(b"x" * 100)
        log.append(b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_read_json_lines_leaves_out_a_partial_line(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    assert read_json_lines(path) == []
    path.write_bytes(b'{"a": 1}\n[2]\n{"a"')
    assert read_json_lines(path) == [{"a": 1}, [2]]
