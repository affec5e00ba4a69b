"""IBM's runtime REST API on loopback, as far as qiskit-ibm-runtime uses it, run with Qiskit Aer: for tests only.

Jobs, log and faults are kept as those of `tests.hardware.ionq_server`. Machines are the fake devices of
qiskit-ibm-runtime, whose configuration and calibration are what IBM's API once answered; they run without noise.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from qiskit import QuantumCircuit
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder

from tests.hardware.ionq_server import Handler, Store, serving

KEY = "a-key-for-tests-93be1d"
BEARER = "an-access-token-for-tests-77ac"
INSTANCE = "crn:v1:bluemix:public:quantum-computing:us-east:a/1234:5678::"
MACHINES = {"ibm_manila": "manila", "ibm_torino": "torino"}
_ENDED = ("Completed", "Failed", "Cancelled")


class RequestRefused(Exception):
    """A request that the API rejects with status 400."""


class _IBM(Handler):
    def _answer(self, path: str, query: dict[str, str], raw: bytes, entry: dict[str, Any]) -> tuple[int, Any]:
        if path == "/identity/token" and self.command == "POST":
            form = dict(parse_qsl(raw.decode()))
            if form.get("apikey") != KEY or not form.get("grant_type", "").endswith(":apikey"):
                return 400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
            return 200, {"access_token": BEARER, "token_type": "Bearer", "expires_in": 3600}
        if self.headers.get("Authorization") != f"Bearer {BEARER}" or self.headers.get("Service-CRN") != INSTANCE:
            return 401, _error(401, "no access token, or none of this instance")
        if not self.headers.get("IBM-API-Version"):
            return 400, _error(400, "no version of the API")
        path = path.removeprefix("/api/v1")
        try:
            if match := re.fullmatch(r"/backends/(\w+)/(configuration|properties)", path):
                found = match[1] in MACHINES
                return (200, described(match[1], match[2])) if found else (404, _error(404, f"no backend {match[1]}"))
            if path == "/jobs":
                return self._create(raw, entry) if self.command == "POST" else (200, self._list(query))
            return self._one_job(*path.removeprefix("/jobs/").partition("/")[::2])
        except RequestRefused as error:
            return 400, _error(400, str(error))

    def _create(self, raw: bytes, entry: dict[str, Any]) -> tuple[int, Any]:
        store, payload = self.server.store, json.loads(raw)
        circuits = check_payload(payload)
        shots = payload["params"]["pubs"][0][2]
        job_id, tags = uuid.uuid4().hex[:20], payload.get("tags", [])
        job = {"id": job_id, "number": len(store.jobs()), "status": "Queued", "polls": 0, "payload": payload}
        store.save({**job, "tags": tags})
        entry.update(accepted=job_id, name=tags[0] if tags else None, shots=shots, circuits=len(circuits))
        return 200, {"id": job_id, "backend": payload["backend"]}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        limit, start = min(200, int(query.get("limit", 200))), int(query.get("offset", 0))
        found = [job for job in self.server.store.jobs() if query.get("tags") in (None, *job["tags"])]
        shown = [_job_description(job) for job in found[start : start + limit]]
        return {"jobs": shown, "count": len(found), "limit": limit, "offset": start}

    def _one_job(self, job_id: str, what: str) -> tuple[int, Any]:
        store = self.server.store
        job = store.job(job_id)
        if job is None:
            return 404, _error(404, f"Job not found. Job ID: {job_id}")
        if what == "cancel" and self.command == "POST":
            if job["status"] in _ENDED:
                return 409, _error(409, "Job cannot be cancelled in its state")
            store.save({**job, "status": "Cancelled"})
            return 204, None
        if what == "":
            self._advance(job)
            return 200, _job_description(job)
        if what == "results" and job["status"] == "Completed":
            return 200, job["results"]
        return 404, _error(404, f"{self.command} {what}")

    def _advance(self, job: dict[str, Any]) -> None:
        # A job waits for `polls` status requests, runs during the next one, and is done at the one after.
        if job["status"] in _ENDED:
            return
        job["polls"] += 1
        waited = job["polls"] - self.server.polls
        job["status"] = "Queued" if waited < 0 else "Running" if waited == 0 and self.server.polls else "Completed"
        if job["status"] == "Completed":
            job["results"] = run(job["payload"], seed=job["number"] + 1)
        self.server.store.save(job)


@contextmanager
def serving_ibm(folder: Path, polls: int = 0) -> Iterator[tuple[str, Store]]:
    """Run a server as `serving` does; the URL has no path of either service."""
    with serving(folder, polls, handler=_IBM, base="") as served:
        yield served


@cache
def _file(machine: str, kind: str) -> str:
    name = MACHINES[machine]
    start = {"configuration": "conf", "properties": "props"}[kind]
    folder = files("qiskit_ibm_runtime.fake_provider") / "backends" / name
    return (folder / f"{start}_{name}.json").read_text()


def described(machine: str, kind: str) -> dict[str, Any]:
    """Return a machine's configuration or calibration, under its name in the tests."""
    found: dict[str, Any] = json.loads(_file(machine, kind))
    return {**found, "backend_name": machine}


def circuits_of(payload: dict[str, Any]) -> list[QuantumCircuit]:
    """Return the circuits of a job with their angles."""
    pubs = json.loads(json.dumps(payload["params"]["pubs"]), cls=RuntimeDecoder)
    return [circuit.assign_parameters(values) if len(values) else circuit for circuit, values, _ in pubs]


def check_payload(payload: Any) -> list[QuantumCircuit]:
    """Reject what IBM rejects: other programs, unknown fields, and circuits in other than the machine's gates."""
    known = {"program_id", "params", "backend", "tags", "cost", "log_level", "runtime", "private", "calibration_id"}
    if not isinstance(payload, dict) or payload.keys() - known or payload.get("program_id") != "sampler":
        raise RequestRefused("not a job of the sampler")
    params = payload["params"]
    if params.get("version") != 2 or params.keys() - {"pubs", "options", "version", "support_qiskit"}:
        raise RequestRefused("not the inputs of a sampler")
    if payload.get("backend") not in MACHINES:
        raise RequestRefused(f"no backend {payload.get('backend')}")
    if not all(isinstance(pub[2], int) and pub[2] > 0 for pub in params["pubs"]):
        raise RequestRefused("no shots")
    if sum(pub[2] for pub in params["pubs"]) > 10_000_000:
        raise RequestRefused("too many executions")
    machine, circuits = described(payload["backend"], "configuration"), circuits_of(payload)
    gates = {"measure", "barrier", "delay", *machine["basis_gates"]}
    coupled = {tuple(pair) for pair in machine["coupling_map"]}
    for circuit in circuits:
        for each in circuit.data:
            qubits = tuple(circuit.find_bit(qubit).index for qubit in each.qubits)
            if each.operation.name not in gates or (len(qubits) == 2 and qubits not in coupled):
                raise RequestRefused(f"{each.operation.name} on {qubits} is no gate of {payload['backend']}")
    return circuits


def run(payload: dict[str, Any], seed: int) -> Any:
    """Return a sampler's result as JSON: the bits of the shots of each register of each circuit."""
    circuits, shots = circuits_of(payload), payload["params"]["pubs"][0][2]
    simulator = AerSimulator(method="statevector", max_parallel_threads=1)
    result = simulator.run(circuits, shots=shots, seed_simulator=seed).result()
    pubs = []
    for place, circuit in enumerate(circuits):
        (register,) = circuit.cregs
        bits = BitArray.from_counts(dict(result.get_counts(place)), num_bits=register.size)
        pubs.append(SamplerPubResult(DataBin(**{register.name: bits}), metadata={"circuit_metadata": {}}))
    return json.loads(json.dumps(PrimitiveResult(pubs, metadata={"version": 2}), cls=RuntimeEncoder))


def _job_description(job: dict[str, Any]) -> dict[str, Any]:
    reason = {"reason": "the job was scripted to fail", "reason_code": 1517} if job["status"] == "Failed" else {}
    return {
        "id": job["id"],
        "backend": job["payload"]["backend"],
        "state": {"status": job["status"], **reason},
        "status": job["status"],
        "program": {"id": "sampler"},
        "tags": job["tags"],
        "created": "2026-01-01T00:00:00Z",
        "cost": job["payload"].get("cost"),
    }


def _error(status: int, message: str) -> dict[str, Any]:
    return {"errors": [{"code": 1000 + status, "message": message}], "trace": "none"}
