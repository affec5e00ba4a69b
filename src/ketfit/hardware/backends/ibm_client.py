"""Requests to IBM's runtime REST API, each sent exactly once and ended by a deadline.

qiskit-ibm-runtime writes the jobs, the paths and the headers, and reads the responses, but does not send the requests:
its own session sends a submission up to six times after a status of 500, 502, 503, 504 or 520 to 524, although such a
job may have been accepted, and without an access token it sends the key itself. Here a submission is never repeated,
and the caller decides about retries of reads.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ketfit.errors import ServerError, UnknownStatusError, optional_imports
from ketfit.hardware.backends.boot_clock import boot_time
from ketfit.hardware.backends.http import ApiClient, Response

KEY, INSTANCE = "QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE"
_PAGE = 100
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"


class IBMClient:
    """A session for qiskit-ibm-runtime's REST adapters, and KetFit's calls through them.

    Args:
        url: Base address of the API with its version, ``https://quantum.cloud.ibm.com/api/v1``.
        iam_url: Base address of the service that gives access tokens, ``https://iam.cloud.ibm.com``.
        token: API key; sent to `iam_url` only and shown nowhere.
        instance: Cloud resource name of the instance whose plan pays.
        timeout: Seconds after which a request without a complete response fails.
    """

    def __init__(self, url: str, iam_url: str, token: str, instance: str, timeout: float) -> None:
        self._ibm = ApiClient("IBM", url.rstrip("/"), (token,), KEY, timeout)
        self._iam = ApiClient("IBM's IAM", iam_url.rstrip("/"), (token,), KEY, timeout)
        self._token, self._instance = token, instance
        self._bearer, self._renew_at = "", 0.0
        self.headers: Mapping[str, str] = {}  # the adapters set the version of the API here

    def __repr__(self) -> str:
        return f"IBMClient({self._ibm.url!r})"

    # Called by the adapters, under their names. They pass a time-out of 15 minutes for a submission.

    def get(self, url: str, *, params: Mapping[str, Any] | None = None, **named: Any) -> Response:
        """GET a path, once."""
        return self._send("GET", url, params=params, headers=named.get("headers"))

    def post(self, url: str, *, data: str | None = None, **named: Any) -> Response:
        """POST to a path, once."""
        return self._send("POST", url, data=data, headers=named.get("headers"))

    # Called by KetFit.

    def authorize(self) -> None:
        """POST the key for an access token, unless a valid token is there.

        Raises:
            RequestRejectedError: The key is not valid.
        """
        if boot_time().seconds < self._renew_at:
            return
        form = {"grant_type": _GRANT, "apikey": self._token}
        headers = {"Accept": "application/json"}
        answer = self._iam.send("POST", "identity/token", headers=headers, data=form).json()
        try:
            self._bearer, lifetime = str(answer["access_token"]), float(answer["expires_in"])
        except (LookupError, TypeError, ValueError):
            raise ServerError("IBM's IAM answered without an access token and its lifetime") from None
        self._renew_at = boot_time().seconds + 0.8 * lifetime  # the token ages while the machine is suspended
        self._ibm = replace(self._ibm, secrets=(self._token, self._bearer))

    def submit(self, machine: str, program: str, inputs: dict[str, Any], tag: str, max_seconds: int | None) -> str:
        """POST a job, once, and return its id."""
        answer = self._rest().program_run(
            program_id=program,
            backend_name=machine,
            params=inputs,
            job_tags=[tag],
            max_execution_time=max_seconds,
        )
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise ServerError("IBM answered a submission without the job's id")
        return str(answer["id"])

    def job(self, job: str) -> dict[str, Any]:
        """GET a job's state and metadata, without its circuits."""
        return _object(self._rest().program_job(job).get(exclude_params=True), f"/jobs/{job}")

    def results(self, job: str) -> Any:
        """GET a job's results, decoded by qiskit-ibm-runtime.

        Raises:
            ServerError: There are no results, or they are not JSON.
            UnknownStatusError: qiskit-ibm-runtime cannot decode them.
        """
        from qiskit_ibm_runtime import RuntimeDecoder

        text = self._rest().program_job(job).results()
        try:
            return Response("IBM", f"GET /jobs/{job}/results", text).json(RuntimeDecoder)
        except (LookupError, TypeError, AttributeError, OSError, EOFError, zlib.error) as error:
            raise UnknownStatusError(
                f"this qiskit-ibm-runtime cannot decode the result of job {job} ({error!r}); it stays with IBM"
            ) from error

    def cancel(self, job: str) -> None:
        """POST a job's cancellation."""
        self._rest().program_job(job).cancel()

    def jobs(self, tag: str) -> list[dict[str, Any]]:
        """GET all jobs that have a tag, page by page.

        Raises:
            UnknownStatusError: A page has no list of jobs, or only jobs of earlier pages.
        """
        found: dict[str, dict[str, Any]] = {}
        skip = 0
        while True:
            page = _object(self._rest().jobs_get(limit=_PAGE, skip=skip, job_tags=[tag]), "/jobs")
            jobs = page.get("jobs")
            if not isinstance(jobs, list) or not all(map(_is_listed_job, jobs)):
                raise UnknownStatusError(f"IBM's list of jobs has no jobs: it holds {', '.join(page) or 'nothing'}")
            new = {str(job["id"]): job for job in jobs}
            if jobs and new.keys() <= found.keys():
                raise UnknownStatusError("IBM's list of jobs repeats a page that it has shown")
            found |= new
            skip += len(jobs)
            count = page.get("count") or 0
            if not isinstance(count, int):
                raise UnknownStatusError(f"IBM's list of jobs has the count {count!r}, which is no number of jobs")
            if len(jobs) < _PAGE and skip >= count:
                return list(found.values())
            if not jobs:
                raise UnknownStatusError(f"IBM counts {count} jobs and lists {len(found)}")

    def configuration(self, machine: str) -> dict[str, Any]:
        """GET a machine's qubits, couplings and gates."""
        return _object(self._rest().backend(machine).configuration(), f"/backends/{machine}/configuration")

    def properties(self, machine: str) -> dict[str, Any]:
        """GET a machine's latest calibration."""
        return _object(self._rest().backend(machine).properties(), f"/backends/{machine}/properties")

    def _rest(self) -> Any:
        with optional_imports("IBM", "ibm"):
            from qiskit_ibm_runtime.api.rest.runtime import Runtime
        return Runtime(self)

    def _send(self, method: str, url: str, *, headers: Mapping[str, str] | None, **content: Any) -> Response:
        self.authorize()
        authorization = {"Authorization": f"Bearer {self._bearer}", "Service-CRN": self._instance}
        path = url.lstrip("/")
        headers = {**self.headers, **(headers or {}), **authorization}
        return self._ibm.send(method, path, headers=headers, **content)


def _is_listed_job(job: Any) -> bool:
    return isinstance(job, dict) and "id" in job and isinstance(job.get("tags") or [], list)


def _object(answer: Any, path: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise UnknownStatusError(f"IBM answered GET {path} with {type(answer).__name__}, not with an object")
    return answer
