"""Test the connection to a Ray cluster: what is started is stopped, and failures are errors that say what to do."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ketfit.errors import ClusterError, MissingExtraError
from ketfit.ray_cluster import connected, first_line


class FakeRay(SimpleNamespace):
    """A module ``ray`` that records its calls."""

    def __init__(self, initialized: bool = False, error: Exception | None = None) -> None:
        super().__init__(initialized=initialized, error=error, calls=[])

    def is_initialized(self) -> bool:
        return bool(self.initialized)

    def init(self, address: str, **_: Any) -> None:
        self.calls.append(f"init {address}")
        if self.error is not None:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_connected_stops_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray := FakeRay())
    with connected(None) as module:
        assert module is ray
    assert ray.calls == ["init local", "shutdown"]


def test_connected_leaves_an_existing_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray := FakeRay(initialized=True))
    with connected("auto"):
        pass
    assert ray.calls == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("auto", r"cannot reach the Ray cluster auto: timed out; start it, or leave --address out"),
        (None, r"cannot start Ray on this machine: timed out; free memory and cores, and run again"),
    ],
)
def test_connected_failed_start_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, address: str | None, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(error=Exception("timed out")))
    with pytest.raises(ClusterError, match=message), connected(address):
        pass


def test_connected_to_a_closed_port_fails_before_ray_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setitem(sys.modules, "ray", ray := FakeRay())
        message = f"cannot reach the Ray cluster 127.0.0.1:{port}"
        with pytest.raises(ClusterError, match=message), connected(f"127.0.0.1:{port}"):
            pass
    assert ray.calls == []


def test_connected_without_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs .* pip install 'ketfit\[ray\]'"), connected(None):
        pass


def test_first_line_leaves_the_traceback_out() -> None:
    assert first_line(ValueError("lost\ntraceback")) == "lost"
