"""Fixtures of the tests about learning."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from ketfit.learn import hub as hub_seam
from ketfit.learn.body import Body, load_body
from tests.learn.fake_hub import Hub, WritableHub


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
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Go online, to a server on this machine; the Hub's cache is a new folder."""

    def go(url: str) -> None:
        assert url.startswith("http://127.0.0.1:")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_seam, "SECONDS", 0.5)
    yield go
    huggingface_hub.close_session()


@pytest.fixture
def hub(own_body: Path, online: Callable[[str], None]) -> Iterator[Hub]:
    hub = Hub(own_body)
    online(hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def writable(online: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A Hub without repositories, that takes what is pushed; files go to it by Git LFS, which it can speak."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_seam, "SECONDS", 5.0)
    hub = WritableHub()
    online(hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
