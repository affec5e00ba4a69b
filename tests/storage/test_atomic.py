"""Atomic writes of single files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ketfit.errors import StorageError
from ketfit.storage.atomic import write_file
from tests.storage.failing_calls import fail_at


@pytest.mark.parametrize("step", range(5))
def test_write_file_failing_at_any_call_keeps_old_or_new_file(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with monkeypatch.context() as patch:
        calls = fail_at(patch, step, errno.ENOSPC)
        with pytest.raises(StorageError, match="cannot write .*file: No space left on device"):
            write_file(path, b"new")
    assert len(calls) == step + 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() in (b"old", b"new")
