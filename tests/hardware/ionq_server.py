"""IonQ's REST API v0.4 on loopback, as far as qiskit-ionq uses it, executed with Qiskit Aer: for tests only.

Every job is a file and every request a line of a log, so the server can be stopped or killed at any time, and another
one started on the same folder. `Fault`s make it fail; an accepted job stays accepted, whatever the response.

    python -m tests.hardware.ionq_server FOLDER    serves, prints its URL, and ends when its standard input closes
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.hardware import ionq_machine as machine

KEY = "a-key-for-tests-5f0c2d"
_ENDED = ("completed", "failed", "canceled")


@dataclass(frozen=True)
class Fault:
    """A fault for requests whose method and path match, after `skip` of them.

    Kinds: "status" answers `status` instead of doing anything; "late status" does what was asked, then answers
    `status`; "drop" closes the connection before, "late drop" after doing it; "slow" waits `seconds` first, "late slow"
    after; "drip" sends the answer a byte at a time, `seconds` apart; "garbage" answers what is not JSON; "short" ends
    the answer in the middle; "answer" merges `body` into the answer, "replace" answers `body`; "shuffle" sends the
    entries of the answer in another order; "reversed" mirrors the qubits of all states of an answer.
    """

    kind: str
    method: str = "GET"
    path: str = "/jobs"
    skip: int = 0
    times: int = 1
    status: int = 503
    seconds: float = 0
    body: Any = None


class Store:
    """The jobs, the log of requests and the remaining faults, all on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        (folder / "jobs").mkdir(parents=True, exist_ok=True)

    def job(self, job_id: str) -> dict[str, Any] | None:
        path = self.folder / "jobs" / f"{job_id}.json"
        return json.loads(path.read_text(), object_pairs_hook=OrderedDict) if path.exists() else None

    def save(self, job: dict[str, Any]) -> None:
        _write(self.folder / "jobs" / f"{job['id']}.json", json.dumps(job))

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs, the newest first."""
        found = [json.loads(path.read_text()) for path in (self.folder / "jobs").glob("*.json")]
        return sorted(found, key=lambda job: -job["number"])

    def log(self, **entry: Any) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def requests(self, method: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "log.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [entry for entry in entries if method in (None, entry["method"])]

    def set_faults(self, *faults: Fault) -> None:
        _write(self.folder / "faults.json", json.dumps([asdict(fault) for fault in faults]))

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return the first remaining fault that matches, and count it."""
        file = self.folder / "faults.json"
        faults = json.loads(file.read_text()) if file.exists() else []
        for fault in faults:
            if fault["method"] == method and re.search(fault["path"], path) and fault["times"]:
                fits = fault["skip"] == 0
                fault["times" if fits else "skip"] -= 1
                _write(file, json.dumps(faults))
                if fits:
                    return Fault(**fault)
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    store: Store
    polls: int


class Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Write nothing to standard error: the log is in the store."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        store, (path, query) = self.server.store, urlsplit(self.path)[2:4]
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        entry: dict[str, Any] = {"method": self.command, "path": path, "query": query, "accepted": None}
        with store.lock:
            fault = store.next_fault(self.command, path)
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        with store.lock:
            if fault is None or fault.kind not in ("status", "drop"):
                status, body = self._answer(path.removeprefix("/v0.4"), dict(parse_qsl(query)), raw, entry)
            store.log(**entry, fault=fault and fault.kind)
        if fault is not None:
            if fault.kind in ("status", "late status"):
                status, body = fault.status, {"error": "Unavailable", "message": "scripted", "statusCode": fault.status}
            elif fault.kind in ("drop", "late drop"):
                self.close_connection = True
                self.connection.close()
                return
            elif fault.kind == "late slow":
                time.sleep(fault.seconds)
            elif status < 400:
                body = _corrupted(fault, body)
        self._send(status, body, fault)

    def _send(self, status: int, body: Any, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        content = b"<html>not what you asked for</html>" if kind == "garbage" else json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if fault and status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            if kind == "drip":
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(fault.seconds if fault else 0)
            else:
                self.wfile.write(content[: len(content) // 2] if kind == "short" else content)
        except OSError:
            pass  # the client has hung up

    def _answer(self, path: str, query: dict[str, str], raw: bytes, entry: dict[str, Any]) -> tuple[int, Any]:
        if re.match(r"/backends(/[\w.-]+)?$", path) and self.command == "GET":
            return _backends(path)
        if self.headers.get("Authorization") != f"apiKey {KEY}":
            return 401, _error(401, "Unauthorized", "no such API key")
        try:
            if path == "/jobs" and self.command == "POST":
                return self._create(raw, entry)
            if path == "/jobs":
                return 200, self._list(query)
            if path == "/jobs/estimate":
                return 200, _estimate(query)
            return self._one_job(*path.removeprefix("/jobs/").partition("/")[::2])
        except machine.RequestRefused as error:
            return error.status, _error(error.status, "Bad Request", str(error))

    def _create(self, raw: bytes, entry: dict[str, Any]) -> tuple[int, Any]:
        store = self.server.store
        try:
            payload = json.loads(raw)
        except ValueError:
            raise machine.RequestRefused("the body is not JSON") from None
        machine.check_payload(payload, len(raw))
        job_id, number = str(uuid.uuid4()), len(store.jobs())
        circuits = machine.circuits_of(payload)
        children = [str(uuid.uuid4()) for _ in circuits] if payload["type"].startswith("ionq.multi") else None
        store.save(
            {
                "id": job_id,
                "number": number,
                "status": "submitted",
                "polls": 0,
                "children": children,
                "payload": payload,
            }
        )
        entry.update(accepted=job_id, name=payload.get("name"), shots=payload["shots"], circuits=len(circuits))
        return 201, {"id": job_id, "status": "submitted", "session_id": None}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        limit, start = min(25, int(query.get("limit", 25))), int(query.get("next", 0))
        found = [job for job in self.server.store.jobs() if query.get("status") in (None, job["status"])]
        found = [job for job in found if query.get("target") in (None, job["payload"]["backend"])]
        later = str(start + limit) if start + limit < len(found) else None
        return {"jobs": [_job_description(job) for job in found[start : start + limit]], "next": later}

    def _one_job(self, job_id: str, what: str) -> tuple[int, Any]:
        store = self.server.store
        job = store.job(job_id)
        if job is None:
            return 404, _error(404, "Not Found", f"no job {job_id}")
        if self.command == "PUT" and what == "status/cancel":
            if job["status"] not in _ENDED:
                job["status"] = "canceled"
                store.save(job)
            return 200, {"id": job_id, "status": job["status"]}
        if what == "":
            self._advance(job)
            return 200, _job_description(job)
        if what == "cost":
            cost = {"value": _job_description(job)["cost"], "unit": "usd"}
            return 200, {"dry_run": False, "estimated_cost": cost, "cost": cost if job["status"] in _ENDED else None}
        if what.startswith("results/probabilities") and job["status"] == "completed":
            if job["children"]:
                return 200, dict(zip(job["children"], job["results"], strict=True))
            return 200, job["results"][0]
        return 404, _error(404, "Not Found", f"{self.command} {what}")

    def _advance(self, job: dict[str, Any]) -> None:
        # A job waits for `polls` looks at it, runs during the next one, and is done at the one after.
        if job["status"] in _ENDED:
            return
        job["polls"] += 1
        waited = job["polls"] - self.server.polls
        job["status"] = "ready" if waited < 0 else "started" if waited == 0 and self.server.polls else "completed"
        if job["status"] == "completed":
            job["results"] = machine.run(job["payload"], seed=job["number"] + 1)
        self.server.store.save(job)


@contextmanager
def serving(
    folder: Path, polls: int = 0, port: int = 0, handler: type[Handler] = Handler, base: str = "/v0.4"
) -> Iterator[tuple[str, Store]]:
    """Run a server in a thread; yield its URL and its store. A job ends after `polls` status requests."""
    server = _Server(("127.0.0.1", port), handler)
    server.store, server.polls = Store(folder), polls
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{base}", server.store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _job_description(job: dict[str, Any]) -> dict[str, Any]:
    payload, done = job["payload"], job["status"] == "completed"
    counts, mitigated = machine.count_gates(payload), bool((payload.get("settings") or {}).get("error_mitigation"))
    where = f"/v0.4/jobs/{job['id']}/results/probabilities{'/aggregated' if job['children'] else ''}"
    return {
        "id": job["id"],
        "status": job["status"],
        "type": payload["type"],
        "backend": payload["backend"],
        "name": payload.get("name"),
        "metadata": payload.get("metadata"),
        "shots": payload["shots"],
        "settings": payload.get("settings") or {},
        "dry_run": False,
        "parent_job_id": None,
        "session_id": None,
        "child_job_ids": job["children"],
        "execution_duration_ms": 100 if done else None,
        "failure": {"code": "ScriptedFailure", "error": "the trap lost its ions"}
        if job["status"] == "failed"
        else None,
        "stats": {"qubits": payload["input"]["qubits"], "circuits": len(job["children"] or [1]), "gate_counts": counts},
        "results": {"probabilities": {"url": where}} if done else None,
        "cost": machine.price(counts, payload["shots"], mitigated),
    }


def _corrupted(fault: Fault, body: Any) -> Any:
    if fault.kind == "replace":
        return fault.body
    if fault.kind == "answer":
        return {**body, **fault.body}
    if fault.kind == "shuffle":
        return dict(reversed(body.items()))
    if fault.kind == "reversed":
        rows = body.values() if all(isinstance(row, dict) for row in body.values()) else [body]
        width = max(int(state) for row in rows for state in row).bit_length()
        mirrored = [{str(int(f"{int(state):0{width}b}"[::-1], 2)): p for state, p in row.items()} for row in rows]
        return dict(zip(body, mirrored, strict=True)) if len(mirrored) == len(body) else mirrored[0]
    return body


def _backends(path: str) -> tuple[int, Any]:
    rows = {
        name: {"backend": name, "status": "available", "qubits": qubits, "average_queue_time": 0, "last_updated": "now"}
        for name, qubits in machine.BACKENDS.items()
    }
    name = path.removeprefix("/backends").removeprefix("/")
    if not name:
        return 200, list(rows.values())
    return (200, rows[name]) if name in rows else (404, _error(404, "Not Found", f"no backend {name}"))


def _estimate(query: dict[str, str]) -> dict[str, Any]:
    if query.get("backend") not in machine.BACKENDS:
        raise machine.RequestRefused(f"no such backend: {query.get('backend')}")
    gates = {"1q": int(query.get("1q_gates", 0)), "2q": int(query.get("2q_gates", 0))}
    cost = machine.price(gates, int(query.get("shots", 1000)), query.get("error_mitigation") == "true")
    return {
        "input_values": query,
        "estimated_at": "2026-01-01T00:00:00+00:00",
        "cost_unit": "usd",
        "rate_information": {"organization": "tests", **machine.RATES},
        "estimated_cost": 0.0 if query["backend"] == "simulator" else cost,
        "estimated_execution_time": 1.0,
        "current_predicted_queue_time": 2.0,
    }


def _error(status: int, error: str, message: str) -> dict[str, Any]:
    return {"statusCode": status, "error": error, "message": message}


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{threading.get_ident()}.tmp")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    with serving(Path(sys.argv[1])) as (url, _):
        print(url, flush=True)
        sys.stdin.read()
