"""A small local Hugging Face Hub for the client of the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER_COMMIT = "f" * 40


class Hub:
    """A server with one model that answers like the Hub, or with ``status`` to every request."""

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


Files = dict[str, bytes]


class WritableHub:
    """A server whose repositories are lists of commits, with the endpoints of an upload: small files come inside the
    commit, safetensors before it by the protocol of Git LFS."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, Files]]] = {}
        self.stored: dict[str, bytes] = {}
        self.before_commit: list[tuple[str, Files]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.read(self)

            def do_POST(self) -> None:
                hub.write(self, b"".join(blocks(self)))

            do_HEAD = do_GET
            do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, name: str, files: Files) -> str:
        """Add a commit, named by the hash of its content and number, and return the hash."""
        commits = self.commits.setdefault(name, [])
        parts = [len(commits), *((path, hashlib.sha1(content).hexdigest()) for path, content in sorted(files.items()))]
        commits.append((hashlib.sha1(repr(parts).encode()).hexdigest(), files))
        return commits[-1][0]

    def find(self, name: str, revision: str) -> tuple[str, Files] | None:
        commits = self.commits.get(name, [])
        wanted = commits[-1][0] if commits and revision == "main" else revision
        return next((commit for commit in commits if commit[0] == wanted), None)

    def read(self, request: BaseHTTPRequestHandler) -> None:
        _, *parts = request.path.split("?")[0].split("/")
        if parts[:2] == ["api", "models"]:
            name, revision, path = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", None
        else:
            name, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        found = self.find(name, revision)
        if found is None or not (path is None or path in found[1]):
            send(
                request, 404, b"{}", **{"X-Error-Code": "RevisionNotFound" if name in self.commits else "RepoNotFound"}
            )
        elif path is None:
            siblings = [{"rfilename": file} for file in found[1]]
            send_json(request, 200, {"id": name, "sha": found[0], "siblings": siblings})
        else:
            etag = hashlib.sha256(found[1][path]).hexdigest()
            send(request, 200, found[1][path], ETag=f'"{etag}"', **{"X-Repo-Commit": found[0]})

    def write(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        path = request.path.split("?")[0]
        name = "/".join(path.removeprefix("/api/models/").removeprefix("/").split("/")[:2]).removesuffix(".git")
        if path.startswith("/upload/"):
            self.stored[hashlib.sha256(content).hexdigest()] = content
            send(request, 200, b"")
        elif path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if name in self.commits else 200
            if status == 200:
                self.add(name, {".gitattributes": b"*.safetensors filter=lfs"})
            send_json(request, status, {"url": f"{self.url}/{name}"})
        elif path == "/api/validate-yaml":
            send_json(request, 200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = {True: "lfs", False: "regular"}
            names = [file["path"] for file in json.loads(content)["files"]]
            files = [
                {"path": file, "uploadMode": modes[file.endswith(".safetensors")], "shouldIgnore": False}
                for file in names
            ]
            send_json(request, 200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.url}/upload/{wanted['oid']}"}}}
                for wanted in json.loads(content)["objects"]
            ]
            send_json(request, 200, {"transfer": "basic", "objects": objects})
        else:
            self.commit(request, name, [json.loads(line) for line in content.splitlines()])

    def commit(self, request: BaseHTTPRequestHandler, name: str, lines: list[dict[str, Any]]) -> None:
        for other, meanwhile in self.before_commit:
            self.add(other, meanwhile)
        parent, files = self.commits[name][-1]
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value["parentCommit"] != parent:
                send_json(request, 412, {"error": "A commit has happened since. Please refresh and try again."})
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.add(name, files)
        send_json(request, 200, {"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit})


def blocks(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """Yield the body of a request, sent at once or in chunks."""
    if "Content-Length" in request.headers:
        yield request.rfile.read(int(request.headers["Content-Length"]))
        return
    while size := int(request.rfile.readline(), 16):
        yield request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()


def send(request: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    """Answer a request."""
    request.send_response(status)
    for key, value in {"Content-Length": str(len(content)), **headers}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


def send_json(request: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    """Answer a request with JSON."""
    send(request, status, json.dumps(content).encode(), **{"Content-Type": "application/json"})
