"""Requests to IBM's runtime REST API, each sent exactly once and ended by a deadline.

qiskit-ibm-runtime writes the jobs, the paths and the headers, and reads the answers; it is not left to send the
requests. Its own session sends a submission up to six times when the answer is 500, 502, 503, 504 or 520 to 524,
though a job behind such an answer may well have been accepted; and if it gets no access token, it sends the key itself
instead. Here a submission is never repeated, and whether to read again is for the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ketfit.errors import MissingExtraError, ServerError, UnknownStatusError
from ketfit.hardware.backends.boot_clock import boot_time
from ketfit.hardware.backends.http import ApiClient

KEY, INSTANCE = "QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE"
_PAGE = 100
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"


@dataclass(frozen=True)
class Answer:
    """As much of an answer as the client's adapters look at."""

    provider: ApiClient
    what: str
    text: str

    def json(self, cls: type[json.JSONDecoder] | None = None) -> Any:
        """What it says.

        Raises:
            ServerError: it is no JSON.
        """
        return self.provider.parse(self.text, self.what, cls)


class IBMClient:
    """What the client's REST adapters take for their session, and the calls that this library makes through them.

    Args:
        url: Base address of the API with its version, ``https://quantum.cloud.ibm.com/api/v1``.
        iam_url: Base address of the service that gives access tokens, ``https://iam.cloud.ibm.com``.
        token: The API key. It is sent to `iam_url` only, and appears nowhere else.
        instance: Cloud resource name of the instance whose plan pays.
        timeout: Seconds until a request that has no complete answer counts as failed.
    """

    def __init__(self, url: str, iam_url: str, token: str, instance: str, timeout: float) -> None:
        self._ibm = ApiClient("IBM", url.rstrip("/"), (token,), KEY)
        self._iam = ApiClient("IBM's IAM", iam_url.rstrip("/"), (token,), KEY)
        self._token, self._instance = token, instance
        self._bearer, self._renew_at = "", 0.0
        self.timeout = timeout
        self.headers: Mapping[str, str] = {}  # the adapters set it to the version of the API that they speak

    def __repr__(self) -> str:
        return f"Transport({self._ibm.url!r})"

    # What the client's adapters call, under its names. They pass a time-out of 15 minutes for a submission.

    def get(self, url: str, *, params: Mapping[str, Any] | None = None, **named: Any) -> Answer:
        """GET a path, once."""
        return self._send("GET", url, params=params, headers=named.get("headers"))

    def post(self, url: str, *, data: str | None = None, **named: Any) -> Answer:
        """POST to a path, once."""
        return self._send("POST", url, data=data, headers=named.get("headers"))

    # What KetFit calls.

    def authorize(self) -> None:
        """POST the key for an access token, unless there is one that lasts.

        Raises:
            RequestRejectedError: the key is none.
        """
        if boot_time().seconds < self._renew_at:
            return
        form = {"grant_type": _GRANT, "apikey": self._token}
        headers = {"Accept": "application/json"}
        text = self._iam.send("POST", "identity/token", headers=headers, timeout_s=self.timeout, data=form)
        said = self._iam.parse(text, "POST /identity/token")
        try:
            self._bearer, lasts = str(said["access_token"]), float(said["expires_in"])
        except (LookupError, TypeError, ValueError):
            raise ServerError("IBM's IAM answered without an access token and its time") from None
        self._renew_at = boot_time().seconds + 0.8 * lasts  # the token ages while the machine is suspended
        self._ibm = replace(self._ibm, secrets=(self._token, self._bearer))

    def submit(self, machine: str, program: str, inputs: dict[str, Any], tag: str, max_seconds: int | None) -> str:
        """POST a job, once; its id.

        Raises:
            RateLimitError, RequestRejectedError: it was not accepted.
            BackendTimeoutError, ServerError, ConnectionLostError: it may have been.
        """
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
        """GET what is known about a job, without its circuits."""
        return _object(self._rest().program_job(job).get(exclude_params=True), f"/jobs/{job}")

    def results(self, job: str) -> Any:
        """GET a job's results, as the client reads them.

        Raises:
            ServerError: there are none, or they are no JSON.
        """
        from qiskit_ibm_runtime import RuntimeDecoder

        return self._ibm.parse(self._rest().program_job(job).results(), f"GET /jobs/{job}/results", RuntimeDecoder)

    def cancel(self, job: str) -> None:
        """POST a job's cancellation."""
        self._rest().program_job(job).cancel()

    def jobs(self, tag: str) -> list[dict[str, Any]]:
        """GET all jobs that have a tag, over as many pages as there are.

        Raises:
            UnknownStatusError: a page has no list of jobs, or only jobs that another one has shown.
        """
        found: dict[str, dict[str, Any]] = {}
        skip = 0
        while True:
            page = _object(self._rest().jobs_get(limit=_PAGE, skip=skip, job_tags=[tag]), "/jobs")
            jobs = page.get("jobs")
            if not isinstance(jobs, list) or not all(isinstance(job, dict) and "id" in job for job in jobs):
                raise UnknownStatusError(f"IBM's list of jobs has no jobs: it holds {', '.join(page) or 'nothing'}")
            new = {str(job["id"]): job for job in jobs}
            if jobs and new.keys() <= found.keys():
                raise UnknownStatusError("IBM's list of jobs comes back to a page it has shown")
            found |= new
            skip += len(jobs)
            if len(jobs) < _PAGE and skip >= int(page.get("count") or 0):
                return list(found.values())
            if not jobs:
                raise UnknownStatusError(f"IBM counts {page.get('count')} jobs and lists {len(found)}")

    def configuration(self, machine: str) -> dict[str, Any]:
        """GET a machine's qubits, couplings and gates."""
        return _object(self._rest().backend(machine).configuration(), f"/backends/{machine}/configuration")

    def properties(self, machine: str) -> dict[str, Any]:
        """GET a machine's latest calibration."""
        return _object(self._rest().backend(machine).properties(), f"/backends/{machine}/properties")

    def _rest(self) -> Any:
        try:
            from qiskit_ibm_runtime.api.rest.runtime import Runtime
        except ImportError as error:
            raise MissingExtraError("IBM", "'ketfit[ibm]'") from error
        return Runtime(self)

    def _send(self, method: str, url: str, *, headers: Mapping[str, str] | None, **what: Any) -> Answer:
        self.authorize()
        said = {"Authorization": f"Bearer {self._bearer}", "Service-CRN": self._instance}
        path = url.lstrip("/")
        sent = {**self.headers, **(headers or {}), **said}
        text = self._ibm.send(method, path, headers=sent, timeout_s=self.timeout, **what)
        return Answer(self._ibm, f"{method} /{path}", text)


def _object(answer: Any, where: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise UnknownStatusError(f"IBM answered GET {where} with {type(answer).__name__}, not with an object")
    return answer
