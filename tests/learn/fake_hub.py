"""A small Hugging Face Hub on this machine, for the client that the product uses."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER_COMMIT = "f" * 40


class Hub:
    """A server with one model, which answers as the Hub does, or with ``status`` to everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = COMMIT
        self.status: int | None = None
        self.file_status: dict[str, int] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        _, *parts = request.path.split("?")[0].split("/")
        files = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        if self.status:
            self.send(request, self.status, b"{}")
        elif parts[:4] == ["api", "models", "someone", "tiny"] and parts[5:] in ([], ["main"], ["v1"], [self.commit]):
            names = [{"rfilename": name} for name in files]
            self.send(request, 200, json.dumps({"id": "someone/tiny", "sha": self.commit, "siblings": names}).encode())
        elif parts[:3] == ["someone", "tiny", "resolve"] and "/".join(parts[4:]) in files:
            content = (self.folder / "/".join(parts[4:])).read_bytes()
            status, etag = self.file_status.get(parts[-1], 200), hashlib.sha256(content).hexdigest()
            self.send(request, status, content, ETag=f'"{etag}"')
        else:
            self.send(
                request, 404, b"{}", **{"X-Error-Code": "RevisionNotFound" if "tiny" in parts else "RepoNotFound"}
            )

    def send(self, request: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
        request.send_response(status)
        for key, value in {"X-Repo-Commit": self.commit, "Content-Length": str(len(content)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)
