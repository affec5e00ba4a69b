"""The cache folder and the temporary folder that replaces it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from ketfit.errors import StorageError
from ketfit.storage.cache_dir import cache_folder, write_to_cache


def test_cache_folder_is_the_users_unless_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KETFIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("KETFIT_CACHE")
    assert cache_folder() == platformdirs.user_cache_path("ketfit")


PROGRAM = """
from pathlib import Path
from ketfit.errors import StorageError
from ketfit.storage.cache_dir import write_to_cache

def write(folder):
    if folder == Path("/cache"):
        raise StorageError("read-only")
    (folder / "file").touch()
    return folder

print(write_to_cache(Path("/cache"), write, "it"), write_to_cache(Path("/cache"), write, "it"))
"""


def test_write_to_cache_uses_temporary_folder_until_process_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second
    assert Path(first).parent == tmp_path
    assert done.stderr.count("The cache /cache cannot be used (read-only); it is kept in") == 1
    assert list(tmp_path.iterdir()) == []


def test_write_to_cache_without_any_writable_folder_raises(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise StorageError(f"{folder} is full")

    with pytest.raises(StorageError, match=f"^{tmp_path} is full$"):
        write_to_cache(tmp_path, write, "it")
