"""Serve the demo, by default to this machine only, with limits on requests and without content from other hosts."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ketfit.app.trace import TracePredictor
from ketfit.app.ui import Page
from ketfit.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "::1")
MAX_FILE_BYTES = 2**20
MAX_REQUEST_BYTES = MAX_FILE_BYTES + 2**16
"""Bytes of the body of one request, an uploaded file and its envelope."""

HEADERS = {
    # No content from other hosts, no embedding in pages of other hosts; Gradio's page needs inline scripts.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class RequestLimitMiddleware:
    """An ASGI middleware that limits the size of requests, checks their host and adds `HEADERS`.

    Attributes:
        inner: The application behind it.
        hosts: Accepted names in the Host header, without a port; empty for any. The check refuses DNS rebinding.
        max_bytes: Largest body of a request, in bytes.
    """

    inner: ASGIApp
    hosts: tuple[str, ...] = LOCAL
    max_bytes: int = MAX_REQUEST_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it to the inner application."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.hosts and _host_name(headers.get(b"host", b"")) not in self.hosts:
            await _refuse(send, 421, "unknown host name")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_bytes:
            await _refuse(send, 413, f"the request is larger than {self.max_bytes} bytes")
            return
        await self.inner(scope, self._bounded(receive), _with_headers(send))

    def _bounded(self, receive: Receive) -> Receive:
        """Disconnect a request without a Content-Length when its body grows too long."""
        got = 0

        async def receive_some() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            return {"type": "http.disconnect"} if got > self.max_bytes else message

        return receive_some


def require_gradio() -> None:
    """Raise MissingExtraError if Gradio is not installed."""
    if not find_spec("gradio"):
        raise MissingExtraError("The web demo", "'ketfit[app]'")


def make_app(
    predictor: TracePredictor, metadata: list[tuple[str, str]], hosts: tuple[str, ...] = LOCAL
) -> RequestLimitMiddleware:
    """Return the demo as an ASGI application.

    Args:
        predictor: The model.
        metadata: Names and values that describe the model.
        hosts: See `RequestLimitMiddleware`.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    # Gradio reads these when it is imported and before each report of its usage.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    require_gradio()
    import gradio as gr
    from fastapi import FastAPI

    outer: FastAPI = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    plain = ["ui-sans-serif", "system-ui", "sans-serif"]  # names, and no files to fetch
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=plain, font_mono=["ui-monospace", "monospace"])
    theme.set(  # dark enough to be read on
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_600",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )
    gr.mount_gradio_app(
        outer,
        Page(predictor, metadata).build(),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_FILE_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=files("ketfit.app").joinpath("style.css").read_text(encoding="utf-8"),
    )
    return RequestLimitMiddleware(outer, hosts)


def serve(
    predictor: TracePredictor, metadata: list[tuple[str, str]], host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Serve the demo until Ctrl-C.

    Args:
        predictor: The model.
        metadata: Names and values that describe the model.
        host: Address to listen on; requests under any name are accepted unless it is a loopback address.
        port: Port; 0 for any free one.
        ready: Called with the URL when the server listens.

    Raises:
        ConfigError: the server cannot listen on the address.
        MissingExtraError: Gradio is not installed.
    """
    with _listening(host, port) as listening, _temporary_files(), _exit_on_sigterm():
        app = make_app(predictor, metadata, LOCAL if host in LOCAL else ())
        import uvicorn

        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, limit_concurrency=64, timeout_graceful_shutdown=2
        )
        uvicorn.Server(config).run(sockets=[listening])


def check_address(host: str, port: int) -> None:
    """Raise ConfigError if the server cannot listen on an address."""
    with _listening(host, port):
        pass


@contextmanager
def _temporary_files() -> Iterator[None]:
    """Keep uploaded and written files in a folder that is removed with the server."""
    before = os.environ.get("GRADIO_TEMP_DIR"), tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="ketfit-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before[1]
            if before[0] is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before[0]


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Exit on SIGTERM by SystemExit, so that contexts are left; uvicorn raises the signal again after its shutdown."""

    def end(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # connections from here on wait for the server
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"cannot listen on {host}:{port} ({reason}); choose another --port, or another --host"
            ) from error
        yield listening


def _host_name(header: bytes) -> str:
    """Return the name in a Host header without the port."""
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _with_headers(send: Send) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return send_with


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
