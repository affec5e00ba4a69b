"""Requests to IonQ's REST API, each sent exactly once and ended by a deadline.

qiskit-ionq writes the jobs and reads the results, but does not send the requests: its own client sends a job up to five
times after a status of 429, 502, 503, 504 or 520 to 529, although such a job may have been accepted and will be paid
for, and it has no time-out. Here a submission is never repeated, and the caller decides about retries of reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ketfit.errors import PartialResultError, ServerError, UnknownStatusError
from ketfit.hardware.backends.base import GateCounts
from ketfit.hardware.backends.http import ApiClient

_PAGE = 25  # the API's largest page


class IonQClient:
    """A client for qiskit-ionq's backends and jobs, with further calls for KetFit.

    Args:
        url: Base address with the version, ``https://api.ionq.co/v0.4``.
        token: API key; sent in a header and shown nowhere.
        timeout: Seconds after which a request without a complete response fails.
    """

    def __init__(self, url: str, token: str, timeout: float) -> None:
        self._ionq = ApiClient("IonQ", url.rstrip("/"), (token,), "IONQ_API_KEY", timeout)
        self._token = token
        self._children: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"IonQClient({self._ionq.url!r})"

    # The four methods that qiskit-ionq calls, under its names.

    def submit_job(self, job: Any) -> Any:
        """POST a job, once."""
        from qiskit_ionq.helpers import qiskit_to_ionq

        arguments = (job._passed_args, job.extra_query_params, job.extra_metadata)
        body = qiskit_to_ionq(job.circuit, job.backend(), *arguments)
        answer = self._send("POST", "jobs", data=body)
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise ServerError("IonQ answered a submission without the job's id")
        return answer

    def retrieve_job(self, job_id: str) -> dict[str, Any]:
        """GET a job's status, metadata and links."""
        job = self._object("GET", f"jobs/{job_id}")
        children, results = job.get("child_job_ids"), job.get("results")
        probabilities = results.get("probabilities") if isinstance(results, dict) else None
        url = probabilities.get("url") if isinstance(probabilities, dict) else None
        if not isinstance(children or [], list) or not isinstance(url or "", str):
            raise UnknownStatusError(f"IonQ says that job {job_id} has the child jobs {children!r}, results at {url!r}")
        if children and url:
            self._children[url] = children
        return job

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """PUT a job's cancellation."""
        return self._object("PUT", f"jobs/{job_id}/status/cancel")

    def get_results(self, results_url: str, sharpen: bool | None = None, extra_query_params: Any = None) -> Any:
        """GET the probabilities; those of several circuits in the order of the job.

        qiskit-ionq relies on the order of the response, which JSON does not guarantee.
        """
        if not results_url:
            raise UnknownStatusError(
                "the job is done, but its response has no probabilities in the form that this qiskit-ionq reads; "
                "nothing is lost: update qiskit-ionq and fetch again"
            )
        path = results_url.lstrip("/").partition("/")[2]  # without the version, which the base address has
        params = {} if sharpen is None else {"sharpen": str(sharpen).lower()}
        results = self._object("GET", path, params={**params, **(extra_query_params or {})})
        children = self._children.get(results_url)
        if children is None:
            return results
        if results.keys() != set(children):
            raise PartialResultError(
                f"of the job's {len(children)} circuits, the results have {len(results.keys() & set(children))}"
            )
        return {child: results[child] for child in children}

    # Calls that qiskit-ionq does not have, or not reliably.

    def backend(self, name: str) -> dict[str, Any]:
        """GET the description of a machine."""
        return self._object("GET", f"backends/{name}")

    def jobs(self, target: str) -> list[dict[str, Any]]:
        """GET all jobs sent to a machine, page by page, the newest first.

        Raises:
            UnknownStatusError: The pages repeat, or contain no list of jobs with an id each.
        """
        jobs: list[dict[str, Any]] = []
        seen: set[str] = set()
        cursor: str | None = None
        while True:
            params = {"target": target, "limit": str(_PAGE), **({"next": cursor} if cursor else {})}
            page = self._object("GET", "jobs", params=params)
            if not isinstance(page.get("jobs"), list):
                raise UnknownStatusError("IonQ's list of jobs has no field 'jobs'")
            for job in page["jobs"]:
                if not isinstance(job, dict) or "id" not in job or not isinstance(job.get("metadata") or {}, dict):
                    raise UnknownStatusError(f"IonQ's list of jobs has {job!r}, which is no job with id and metadata")
            jobs.extend(page["jobs"])
            cursor = page.get("next")
            if not isinstance(cursor or "", str):
                raise UnknownStatusError(f"IonQ's list of jobs goes on at {cursor!r}, which is no text")
            if not cursor:
                return jobs
            if cursor in seen:
                raise UnknownStatusError("IonQ's list of jobs repeats a page that it has shown")
            seen.add(cursor)

    def estimate(self, machine: str, gates: GateCounts, n_qubits: int, shots: int, mitigated: bool) -> dict[str, Any]:
        """GET IonQ's estimate of the price of a job of one circuit."""
        params = {
            "type": "ionq.circuit.v1",
            "backend": machine,
            "1q_gates": str(gates.one_qubit),
            "2q_gates": str(gates.two_qubit),
            "qubits": str(n_qubits),
            "shots": str(shots),
            "error_mitigation": str(mitigated).lower(),
        }
        return self._object("GET", "jobs/estimate", params=params)

    def _object(self, method: str, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self._send(method, path, params=params)
        if not isinstance(answer, dict):
            raise UnknownStatusError(f"IonQ answered {method} /{path} with {type(answer).__name__}, not with an object")
        return answer

    def _send(self, method: str, path: str, *, params: Mapping[str, str] | None = None, data: str | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"apiKey {self._token}"}
        return self._ionq.send(method, path, headers=headers, params=params, data=data).json()
