"""Serves the page: to this machine unless told otherwise, with bounds on what is asked, and nothing from elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ketfit.app.trace import TracePredictor
from ketfit.app.ui import Page
from ketfit.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

LOCAL = ("127.0.0.1", "localhost", "::1")
LARGEST_FILE = 2**20
LARGEST_REQUEST = LARGEST_FILE + 2**16
"""Bytes of the body of one request, an uploaded file and its envelope."""

HEADERS = {
    # Nothing from other hosts, and no page of another host around this one. Gradio's page has scripts inside.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class RequestLimitMiddleware:
    """An ASGI application in front of another: bounds the body of a request, checks its host, adds `HEADERS`.

    Args:
        inner: What is guarded.
        hosts: Names in the Host header that are answered, without a port; empty is any. A page elsewhere whose name
            was made to lead here (DNS rebinding) asks under its own name.
        largest: Bytes of a body.
    """

    def __init__(self, inner: Application, hosts: tuple[str, ...] = LOCAL, largest: int = LARGEST_REQUEST) -> None:
        self.inner = inner
        self.hosts = hosts
        self.largest = largest

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or let the inner application do it."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.hosts and _host(headers.get(b"host", b"")) not in self.hosts:
            await _refuse(send, 421, "this server answers to its own name alone")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.largest:
            await _refuse(send, 413, f"a request may have {self.largest} bytes")
            return
        await self.inner(scope, self._bounded(receive), _with_headers(send))

    def _bounded(self, receive: Receive) -> Receive:
        """A body in pieces, without a length in front, is cut off where it grows too long."""
        got = 0

        async def receive_some() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            return {"type": "http.disconnect"} if got > self.largest else message

        return receive_some


def require_gradio() -> None:
    """Say that the extra is missing before anything slow is done.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    if not find_spec("gradio"):
        raise MissingExtraError("The web demo", "'ketfit[app]'")


def make_app(
    traveller: TracePredictor, facts: list[tuple[str, str]], hosts: tuple[str, ...] = LOCAL
) -> RequestLimitMiddleware:
    """The whole demo as an ASGI application.

    Args:
        traveller: What computes.
        facts: What is told about the model.
        hosts: As for `RequestLimitMiddleware`.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    # Read when Gradio is imported, and before each of its reports home.
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
        Page(traveller, facts).build(),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=files("ketfit.app").joinpath("style.css").read_text(encoding="utf-8"),
    )
    return RequestLimitMiddleware(outer, hosts)


def serve(
    traveller: TracePredictor, facts: list[tuple[str, str]], host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C.

    Args:
        traveller: What computes.
        facts: What is told about the model.
        host: Address to bind to; but for this machine's own, any name of it is answered.
        port: 0 is any that is free.
        ready: Called with the address once it is bound.

    Raises:
        ConfigError: the address cannot be bound.
        MissingExtraError: Gradio is not installed.
    """
    with _bound(host, port) as bound, _own_files(), _ended_in_order():
        app = make_app(traveller, facts, LOCAL if host in LOCAL else ())
        import uvicorn

        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{bound.getsockname()[1]}/")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, limit_concurrency=64, timeout_graceful_shutdown=2
        )
        uvicorn.Server(config).run(sockets=[bound])


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be bound; before a model is loaded, ask here.

    Raises:
        ConfigError: with the reason.
    """
    with _bound(host, port):
        pass


@contextmanager
def _own_files() -> Iterator[None]:
    """What is uploaded and written meanwhile is in a folder that goes away with the server."""
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
def _ended_in_order() -> Iterator[None]:
    """SIGTERM, which uvicorn raises again when it has shut down, unwinds the stack as Ctrl-C does."""

    def end(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
            bound.listen()  # whoever asks from here on waits until there is an answer
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"cannot listen on {host}:{port} ({reason}); choose another --port, or another --host"
            ) from error
        yield bound


def _host(header: bytes) -> str:
    """The name in a Host header, without its port."""
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


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
