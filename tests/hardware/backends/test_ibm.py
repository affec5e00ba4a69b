"""IBM through qiskit-ibm-runtime, against its API on loopback, executed with Qiskit Aer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("qiskit_ibm_runtime")

from ketfit.errors import (
    BackendTimeoutError,
    ConfigError,
    ConnectionLostError,
    InputError,
    JobFailedError,
    RateLimitError,
    RequestRejectedError,
    ServerError,
    SubmissionStateUnknownError,
    UnknownStatusError,
    WrongCountsError,
)
from ketfit.hardware.backends.base import JobStatus
from ketfit.hardware.backends.ibm import IBMBackend, client_from_environment
from ketfit.hardware.backends.ibm_client import IBMClient
from ketfit.hardware.backends.qiskit import physical_qubits
from ketfit.hardware.backends.registry import load_backend
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.runs.plan import plan_run
from ketfit.hardware.runs.postprocessing import MeasurementPlan
from ketfit.hardware.runs.session import Session
from ketfit.hardware.testing.conformance import check_backend
from tests.hardware import ibm_server
from tests.hardware.example_runs import classifier, embeddings
from tests.hardware.ibm_server import BEARER, INSTANCE, KEY, serving_ibm
from tests.hardware.ionq_circuits import assert_counts_match_simulator, random_circuits
from tests.hardware.ionq_server import Fault, Store

SHOTS = 2000
Served = tuple[str, Store]
FAST_RETRY = RetryPolicy(deadline_s=10, initial_pause_s=0.02, max_pause_s=0.1)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving_ibm(tmp_path / "ibm") as (url, store):
        monkeypatch.setenv("QISKIT_IBM_TOKEN", KEY)
        monkeypatch.setenv("QISKIT_IBM_INSTANCE", INSTANCE)
        monkeypatch.setenv("IBM_API_URL", f"{url}/api/v1")
        monkeypatch.setenv("IBM_IAM_URL", url)
        yield url, store


def hasty(url: str, token: str = KEY) -> IBMBackend:
    return IBMBackend("ibm_manila", client=IBMClient(f"{url}/api/v1", url, token, INSTANCE, 1.5))


def submissions(store: Store) -> list[dict[str, Any]]:
    return [entry for entry in store.requests("POST") if entry["path"].endswith("/jobs")]


def finished(backend: IBMBackend, job: str) -> list[dict[str, int]]:
    while not backend.status(job).is_final:
        pass
    return [dict(counts) for counts in backend.result(job)]


@pytest.mark.parametrize("level", [0, 2])
def test_ibm_passes_conformance(served: Served, tmp_path: Path, level: int) -> None:
    backend = load_backend("ibm:ibm_manila", tmp_path, {"optimization_level": level})
    findings = check_backend(backend, retry=FAST_RETRY)
    assert [finding for finding in findings if not finding.passed] == []
    assert len(submissions(served[1])) == len(served[1].jobs()) == 1


def test_counts_of_133_qubit_machine_match_simulator(served: Served) -> None:
    backend, circuits = (
        IBMBackend("ibm_torino", decoupling="XY4", max_seconds=30),
        random_circuits(3, measured=(2, 0, 1)),
    )
    counted = backend.count_gates(circuits)
    assert submissions(served[1]) == []
    job = backend.submit(circuits, SHOTS, tag="wide")
    assert_counts_match_simulator(circuits, finished(backend, job), SHOTS)
    payload = served[1].job(job)["payload"]
    assert payload["cost"] == 30 and payload["tags"] == ["wide"]
    assert payload["params"]["options"]["dynamical_decoupling"] == {"enable": True, "sequence_type": "XY4"}
    for each, sent in zip(counted, ibm_server.circuits_of(payload), strict=True):
        assert each.two_qubit == sent.num_nonlocal_gates()
        assert each.one_qubit == sum(sent.count_ops().values()) - sent.num_nonlocal_gates() - 3  # measurements


def test_reads_of_a_plan_are_repeated_after_passing_errors(served: Served) -> None:
    served[1].set_faults(
        Fault("status", path="/configuration", status=503, times=2), Fault("drop", path="/properties", times=2)
    )
    backend = IBMBackend("ibm_manila")
    plan_run(classifier(), embeddings(), backend, name="ibm:ibm_manila", shots=100, retry=FAST_RETRY)
    paths = [entry["path"] for entry in served[1].requests("GET")]
    assert [sum(path.endswith(kind) for path in paths) for kind in ("/configuration", "/properties")] == [3, 3]
    assert submissions(served[1]) == []


POST_FAULTS = {
    "500": (Fault("status", "POST", "/jobs$", status=500), ServerError, 0),
    "503": (Fault("status", "POST", "/jobs$", status=503), ServerError, 0),
    "503 of an accepted job": (Fault("late status", "POST", "/jobs$", status=503), ServerError, 1),
    "504 of an accepted job": (Fault("late status", "POST", "/jobs$", status=504), ServerError, 1),
    "524 of an accepted job": (Fault("late status", "POST", "/jobs$", status=524), ServerError, 1),
    "429": (Fault("status", "POST", "/jobs$", status=429), RateLimitError, 0),
    "400": (Fault("status", "POST", "/jobs$", status=400), RequestRejectedError, 0),
    "dropped": (Fault("drop", "POST", "/jobs$"), ConnectionLostError, 0),
    "dropped when accepted": (Fault("late drop", "POST", "/jobs$"), ConnectionLostError, 1),
    "slow": (Fault("late slow", "POST", "/jobs$", seconds=5), BackendTimeoutError, 1),
    "dripping": (Fault("drip", "POST", "/jobs$", seconds=0.2), BackendTimeoutError, 1),
    "no JSON": (Fault("garbage", "POST", "/jobs$"), ServerError, 1),
    "half an answer": (Fault("short", "POST", "/jobs$"), ConnectionLostError, 1),
    "no id": (Fault("replace", "POST", "/jobs$", body={"backend": "ibm_manila"}), ServerError, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POST_FAULTS)
def test_failed_submission_is_sent_once(served: Served, name: str) -> None:
    url, store = served
    fault, error, accepted = POST_FAULTS[name]
    backend = hasty(url)
    backend.count_gates(random_circuits(1))
    store.set_faults(fault)
    start = time.monotonic()
    with pytest.raises(error) as caught:
        backend.submit(random_circuits(1), 10, tag="once")
    assert time.monotonic() - start < 10
    assert len(submissions(store)) == 1
    assert len(backend.jobs("once")) == accepted  # what was accepted is found again
    message = str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert KEY not in message and BEARER not in message


def test_qiskit_ibm_runtime_client_repeats_submission(served: Served) -> None:
    # Why `IBMClient` exists. If this fails, qiskit-ibm-runtime has mended its session.
    from qiskit_ibm_runtime.api.rest.runtime import Runtime
    from qiskit_ibm_runtime.api.session import RetrySession

    url, store = served
    backend = IBMBackend("ibm_manila")
    inputs = backend._sampler_inputs(random_circuits(1), 10)
    session = RetrySession(f"{url}/api/v1", backoff_factor=0)
    rest = Runtime(session)
    session.headers = {
        "IBM-API-Version": "2026-04-15",
        "Authorization": f"Bearer {BEARER}",
        "Service-CRN": INSTANCE,
    }
    store.set_faults(Fault("late status", "POST", "/jobs$", status=503, times=2))
    rest.program_run("sampler", "ibm_manila", inputs)
    session.close()
    assert len(store.jobs()) == 3


@pytest.mark.parametrize(("kind", "posts"), [("late status", 1), ("late drop", 1), ("drop", 2)])
def test_unresolved_submission_is_reconciled_by_tag(served: Served, tmp_path: Path, kind: str, posts: int) -> None:
    url, store = served
    backend, circuits = hasty(url), random_circuits(2)
    message = backend.describe()
    backend._description = type(message)(**{**vars(message), "listing_delay_s": 0.0})
    backend.count_gates(circuits)
    store.set_faults(Fault(kind, "POST", "/jobs$", status=503))
    with Session(tmp_path / "run", backend, "r1", retry=FAST_RETRY) as session:
        with pytest.raises(SubmissionStateUnknownError):
            session.submit(circuits, SHOTS)
        assert len(submissions(store)) == 1
    with Session(tmp_path / "run", hasty(url), "r1", retry=FAST_RETRY) as session:
        session.description = backend.describe()
        counts = session.run(circuits, SHOTS, wait_s=20)
    assert len(submissions(store)) == posts and len(store.jobs()) == 1
    assert_counts_match_simulator(circuits, [dict(row) for row in counts], SHOTS)


GET_FAULTS = {
    "503": (Fault("status"), ServerError),
    "429": (Fault("status", status=429), RateLimitError),
    "401": (Fault("status", status=401), RequestRejectedError),
    "dropped": (Fault("drop"), ConnectionLostError),
    "slow": (Fault("slow", seconds=3), BackendTimeoutError),
    "no JSON": (Fault("garbage"), ServerError),
    "a list": (Fault("replace", body=[1]), UnknownStatusError),
    "an unknown status": (Fault("answer", body={"state": {"status": "Paused"}}), UnknownStatusError),
    "no state": (Fault("answer", body={"state": None}), UnknownStatusError),
    "failed": (Fault("answer", body={"state": {"status": "Failed", "reason": "no fridge"}}), JobFailedError),
    "ran too long": (Fault("answer", body={"state": {"status": "Cancelled", "reason_code": 1305}}), JobFailedError),
    "results that are none": (Fault("replace", path="results", body={"a": 1}), UnknownStatusError),
    "no JSON for the results": (Fault("garbage", path="results"), ServerError),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GET_FAULTS)
def test_read_fault_raises_its_error_and_then_returns_result(served: Served, name: str) -> None:
    fault, error = GET_FAULTS[name]
    backend, circuits = hasty(served[0]), random_circuits(1)
    job = backend.submit(circuits, SHOTS, tag="reads")
    served[1].set_faults(fault)
    with pytest.raises(error) as caught:
        backend.result(job)
    assert KEY not in str(caught.value)
    assert_counts_match_simulator(circuits, finished(backend, job), SHOTS)
    assert len(submissions(served[1])) == 1


def test_results_are_read_by_register_name(served: Served) -> None:
    backend = IBMBackend("ibm_manila")
    job = backend.submit(random_circuits(1), 10, tag="named")
    assert finished(backend, job)
    stored = served[1].job(job)
    data = stored["results"]["__value__"]["pub_results"][0]["__value__"]["data"]["__value__"]
    data["field_names"], data["fields"] = ["meas"], {"meas": data["fields"]["c"]}
    served[1].save(stored)
    with pytest.raises(WrongCountsError, match="meas"):
        backend.result(job)


ODD_RESULTS = [
    {"__type__": "ndarray"},
    {"__type__": "ndarray", "__value__": "AAAA"},
    {"__type__": "complex", "__value__": 5},
]


@pytest.mark.parametrize("body", ODD_RESULTS, ids=str)
def test_result_that_cannot_be_decoded_raises_an_error(served: Served, body: dict[str, Any]) -> None:
    backend = IBMBackend("ibm_manila")
    job = backend.submit(random_circuits(1), 10, tag="odd")
    while not backend.status(job).is_final:
        pass
    served[1].set_faults(Fault("replace", path="results", body=body))
    with pytest.raises(UnknownStatusError, match=f"cannot decode the result of job {job}"):
        backend.result(job)


def test_jobs_finds_tag_among_many_pages(served: Served) -> None:
    backend = IBMBackend("ibm_manila")
    made = [backend.submit(random_circuits(1), 10, tag=f"run-{k}") for k in range(3)]
    assert backend.jobs("run-2") == [made[2]] and backend.jobs("run") == []
    many = {"jobs": [{"id": f"j{k}", "tags": ["run"]} for k in range(100)], "count": 300}
    served[1].set_faults(Fault("replace", path="/jobs$", times=2, body=many))
    with pytest.raises(UnknownStatusError, match="has shown"):
        backend.jobs("run")
    served[1].set_faults(Fault("replace", path="/jobs$", body={"jobs": [{"id": "a", "tags": 5}]}))
    with pytest.raises(UnknownStatusError, match="no jobs"):
        backend.jobs("run")
    served[1].set_faults(Fault("replace", path="/jobs$", body={"jobs": [], "count": "many"}))
    with pytest.raises(UnknownStatusError, match="the count 'many', which is no number of jobs"):
        backend.jobs("run")
    served[1].set_faults(Fault("replace", path="/jobs$", body={}))
    with pytest.raises(UnknownStatusError, match="no jobs"):
        backend.jobs("run")


def test_status_and_cancel_follow_the_job(tmp_path: Path) -> None:
    with serving_ibm(tmp_path, polls=2) as (url, _):
        backend = hasty(url)
        job = backend.submit(random_circuits(1), 10, tag="waits")
        assert [backend.status(job) for _ in range(3)] == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.DONE]
        backend.cancel(job)  # too late, and no error
        other = backend.submit(random_circuits(1), 10, tag="cancelled")
        backend.cancel(other)
        assert backend.status(other) is JobStatus.CANCELLED
        with pytest.raises(JobFailedError, match="cancelled"):
            backend.result(other)


def test_key_and_instance_are_read_from_environment_only(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = IBMBackend("ibm_manila")
    job = backend.submit(random_circuits(1), 10, tag="secret")
    assert KEY not in repr(backend.client) + repr(vars(backend.describe()))
    assert KEY not in (served[1].folder / "jobs" / f"{job}.json").read_text()
    with pytest.raises(RequestRejectedError, match="could not be found"):
        hasty(served[0], "wrong").jobs("x")
    monkeypatch.delenv("IBM_API_URL")
    assert "//quantum.cloud.ibm.com/api/v1" in repr(client_from_environment())
    monkeypatch.setenv("QISKIT_IBM_INSTANCE", INSTANCE.replace("us-east", "eu-de"))
    assert "//eu-de.quantum.cloud.ibm.com/api/v1" in repr(client_from_environment())
    monkeypatch.setenv("QISKIT_IBM_INSTANCE", "my-instance")
    with pytest.raises(ConfigError, match="CRN"):
        client_from_environment()
    monkeypatch.delenv("QISKIT_IBM_INSTANCE")
    with pytest.raises(ConfigError, match="QISKIT_IBM_INSTANCE"):
        client_from_environment()
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    with pytest.raises(ConfigError, match="QISKIT_IBM_TOKEN"):
        client_from_environment()


def test_submit_without_access_token_sends_nothing(served: Served) -> None:
    backend = hasty(served[0])
    backend.count_gates(random_circuits(1))
    backend.client._renew_at = 0.0
    served[1].set_faults(Fault("status", "POST", "/identity", status=503))
    with pytest.raises(RequestRejectedError, match="nothing was sent"):
        backend.submit(random_circuits(1), 10, tag="x")
    assert submissions(served[1]) == []


@pytest.mark.parametrize(
    "options",
    [{"optimization_level": 4}, {"decoupling": "ZZ"}, {"max_seconds": 0}, {"max_circuits": 1}],
)
def test_invalid_options_are_rejected(served: Served, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        IBMBackend("ibm_manila", **options)


def test_unknown_machine_and_too_wide_circuit_are_rejected(served: Served) -> None:
    with pytest.raises(ConfigError, match="no machine"):
        IBMBackend("../jobs")
    with pytest.raises(RequestRejectedError, match="404"):
        IBMBackend("ibm_nowhere").count_gates(random_circuits(1))
    with pytest.raises(InputError, match="5"):
        IBMBackend("ibm_manila").count_gates(random_circuits(1, n_qubits=6))
    assert submissions(served[1]) == []


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_mitigated_circuits_are_sent_folded_and_calibrated_in_place(served: Served, level: int) -> None:
    backend = IBMBackend("ibm_manila", optimization_level=level)
    plain = random_circuits(2, n_qubits=4)[0]
    measurement = MeasurementPlan(plain.circuit, plain.measured, ("readout", "zero_noise"))
    circuits = measurement.circuits(plain.weights, torch.tensor([plain.inputs]))
    job = backend.submit(circuits, SHOTS, tag="mitigated")
    arrived = ibm_server.circuits_of(served[1].job(job)["payload"])
    two_qubit = [circuit.num_nonlocal_gates() for circuit in arrived]
    assert two_qubit[0] > 0 and two_qubit == [two_qubit[0], 3 * two_qubit[0], 5 * two_qubit[0], 0, 0]
    assert len({physical_qubits(circuit) for circuit in arrived}) == 1
    assert_counts_match_simulator(circuits, finished(backend, job), SHOTS)  # as the folds and calibrations are written
