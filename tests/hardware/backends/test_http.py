"""What one request carries, whatever stands in the files of the user, and what is sent after its deadline: nothing."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("requests")

from ketfit.errors import BackendTimeoutError, RateLimitError, ServerError
from ketfit.hardware.backends.http import ApiClient

SEEN: list[str | None] = []


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        SEEN.append(self.headers.get("Authorization"))
        retry_after = self.headers.get("Wanted-Retry-After")
        self.send_response(int(self.headers.get("Wanted-Status", "200")))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_send_uses_own_key_despite_netrc(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    SEEN.clear()
    provider = ApiClient("Lab", url, ("secret",), "LAB_KEY", 10)
    assert provider.send("GET", "jobs", headers={"Authorization": "apiKey secret"}).text == "{}"
    assert SEEN == ["apiKey secret"]


def in_an_hour() -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("90", 90),
        (in_an_hour, 3600),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 0),
        ("soon", None),
        ("-5", None),
        ("9" * 400, None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +99999999999999999999", None),
    ],
)
@pytest.mark.parametrize(("status", "error"), [(429, RateLimitError), (503, ServerError)])
def test_errors_have_the_seconds_of_a_retry_after_that_is_a_number_or_a_date(
    url: str, header: Any, seconds: float | None, status: int, error: type[RateLimitError | ServerError]
) -> None:
    provider, wanted = ApiClient("Lab", url, (), "LAB_KEY", 10), header() if callable(header) else header
    with pytest.raises(error) as caught:
        provider.send("GET", "jobs", headers={"Wanted-Retry-After": wanted, "Wanted-Status": str(status)})
    assert caught.value.retry_after_s == (seconds if seconds is None else pytest.approx(seconds, abs=5))


class Listener:
    """A server that accepts one connection, stores all bytes of the request and answers once the job is there.

    The TLS handshake, if there is one, begins when `handshake` is set.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls, self.handshake, self.received = tls, threading.Event(), b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        with self._socket, self._socket.accept()[0] as connection:
            if self.tls is None:
                self._read(connection)
                return
            self.handshake.wait(10)
            with self.tls.wrap_socket(connection, server_side=True) as encrypted:
                self._read(encrypted)

    def _read(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        while received := connection.recv(65536):
            self.received += received
            if self.received.endswith(b"the job"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                return


def hanging_getaddrinfo(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let every resolution of a name hang until the event that is returned is set."""
    released, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(*arguments: Any, **named: Any) -> Any:
        released.wait(10)
        return real(*arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return released


def post_until_deadline(url: str, seconds: float = 0.1) -> threading.Thread:
    """Post a job, let the deadline pass, and return the thread that goes on."""
    before = set(threading.enumerate())
    with pytest.raises(BackendTimeoutError):
        ApiClient("Lab", url, ("secret",), "LAB_KEY", seconds).send("POST", "jobs", headers={}, data="the job")
    (thread,) = {each for each in threading.enumerate() if each.name == "ketfit-request"} - before
    return thread


@pytest.fixture
def server_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server for localhost, whose certificate requests trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-newkey", "rsa:2048", *names]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("proxy", [False, True])
def test_post_is_not_sent_if_the_name_is_resolved_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch, proxy: bool
) -> None:
    listener = Listener()
    url = f"http://localhost:{listener.port}"
    if proxy:
        monkeypatch.setenv("http_proxy", url)
        url = "http://provider.invalid"
    released = hanging_getaddrinfo(monkeypatch)
    thread = post_until_deadline(url)
    released.set()
    thread.join()
    listener.thread.join()
    assert listener.received == b""


def test_post_is_not_sent_if_the_tls_handshake_ends_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch, server_tls: ssl.SSLContext
) -> None:
    listener = Listener(server_tls)
    released = hanging_getaddrinfo(monkeypatch)
    timer = threading.Timer(0.7, released.set)  # the socket's time-out begins anew here
    timer.start()
    thread = post_until_deadline(f"https://localhost:{listener.port}", seconds=1.0)
    listener.handshake.set()
    thread.join()
    listener.thread.join()
    assert listener.received == b""


def test_body_is_not_sent_if_the_deadline_passes_after_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    from http.client import HTTPConnection

    listener, released, end_headers = Listener(), threading.Event(), HTTPConnection.endheaders

    def endheaders(self: HTTPConnection, *arguments: Any, **named: Any) -> None:
        end_headers(self, *arguments, **named)
        released.wait(10)

    monkeypatch.setattr(HTTPConnection, "endheaders", endheaders)
    thread = post_until_deadline(f"http://127.0.0.1:{listener.port}", seconds=0.5)
    released.set()
    thread.join()
    listener.thread.join()
    assert listener.received.startswith(b"POST /jobs") and b"the job" not in listener.received


def test_post_within_the_deadline_is_sent_over_tls(server_tls: ssl.SSLContext) -> None:
    listener = Listener(server_tls)
    listener.handshake.set()
    provider = ApiClient("Lab", f"https://localhost:{listener.port}", ("secret",), "LAB_KEY", 10)
    assert provider.send("POST", "jobs", headers={}, data="the job").text == "{}"
    listener.thread.join()
    assert listener.received.endswith(b"the job")
