"""Fixtures of the tests about learning."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ketfit.learn.body import Body, load_body


@pytest.fixture(scope="session")
def tiny_body(tiny_body_folder: Path) -> Body:
    return load_body(tiny_body_folder, device="cpu")


@pytest.fixture
def own_body(tiny_body_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny body's folder that a test may break."""
    return shutil.copytree(tiny_body_folder, tmp_path / "own-body")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("KETFIT_CACHE", str(folder))
    return folder


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Inside this context no file can grow beyond some bytes, which fails as a full disk does."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
