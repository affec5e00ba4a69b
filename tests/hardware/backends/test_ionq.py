"""IonQ behind the seam: qiskit-ionq's jobs and results, over HTTP, against a server that executes with Aer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import (
    BackendTimeoutError,
    ConfigError,
    ConnectionLostError,
    InputError,
    JobFailedError,
    PartialResultError,
    RateLimitError,
    RequestRejectedError,
    ServerError,
    UnknownStatusError,
    WrongCountsError,
)
from ketfit.hardware.backends.base import BoundCircuit, GateCounts, JobStatus
from ketfit.hardware.backends.ionq import IonQBackend, client_from_environment
from ketfit.hardware.backends.ionq_client import IonQClient
from ketfit.hardware.backends.registry import fetch_prices, load_backend
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import estimate
from ketfit.hardware.runs.canary import canary_circuit, check_canary, check_counts
from ketfit.hardware.runs.plan import plan_run
from ketfit.hardware.runs.postprocessing import MeasurementPlan
from ketfit.hardware.testing.conformance import check_backend
from tests.hardware import ionq_machine
from tests.hardware.example_runs import classifier, embeddings
from tests.hardware.ionq_circuits import assert_counts_match_simulator, exact_distribution, random_circuits
from tests.hardware.ionq_server import KEY, Fault, Store, serving

SHOTS = 2000
QUICK_RETRY = RetryPolicy(deadline_s=10, initial_pause_s=0.02, max_pause_s=0.1)
Served = tuple[str, Store]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(tmp_path / "ionq") as (url, store):
        monkeypatch.setenv("IONQ_API_KEY", KEY)
        monkeypatch.setenv("IONQ_API_URL", url)
        yield url, store


def finished(backend: IonQBackend, job: str) -> list[dict[str, int]]:
    assert backend.status(job) is JobStatus.DONE
    return [dict(row) for row in backend.result(job)]


@pytest.mark.parametrize("gateset", ["qis", "native"])
@pytest.mark.parametrize(
    ("machine", "noise_model"), [("simulator", "ideal"), ("simulator", "forte-1"), ("qpu.forte-1", None)]
)
def test_ionq_counts_match_simulator(served: Served, machine: str, noise_model: str | None, gateset: str) -> None:
    backend = IonQBackend(machine, noise_model=noise_model, gateset=gateset)
    circuits = [canary_circuit(4), *random_circuits(6), *random_circuits(2, measured=(2, 0), seed=1)]
    job = backend.submit(circuits, SHOTS, tag="ketfit-a-0")
    counts = finished(backend, job)
    check_counts(counts, [len(bound.measured) for bound in circuits], SHOTS)
    check_canary(counts[0], 4)
    if noise_model == "ideal":
        assert_counts_match_simulator(circuits[1:], counts[1:], SHOTS)
    else:  # few gates and Forte's errors: some percent
        for bound, row in zip(circuits[1:], counts[1:], strict=True):
            found = np.array([row.get(f"{k:02b}", 0) for k in range(4)]) / SHOTS
            assert np.abs(found - exact_distribution(bound)).max() < 0.08
    assert finished(backend, job) == counts  # what is read again is what was read


@pytest.mark.parametrize("name", ["ionq:simulator", "ionq:qpu.forte-1", "ionq:qpu.aria-1"])
@pytest.mark.parametrize("gateset", ["qis", "native"])
def test_ionq_passes_conformance(served: Served, tmp_path: Path, name: str, gateset: str) -> None:
    backend = load_backend(name, tmp_path, {"gateset": gateset})
    findings = check_backend(backend, retry=RetryPolicy(initial_pause_s=0.02))
    assert [finding for finding in findings if not finding.passed] == []
    assert len(served[1].requests("POST")) == len(served[1].jobs()) == 1


def test_conformance_fails_for_reversed_bits(served: Served, tmp_path: Path) -> None:
    served[1].set_faults(Fault("reversed", path="results", times=99))
    findings = check_backend(IonQBackend("simulator"), retry=RetryPolicy(initial_pause_s=0.02))
    failed = {finding.check for finding in findings if not finding.passed}
    assert "bits, qubits and totals" in failed


def test_single_circuit_is_a_job(served: Served) -> None:
    backend = IonQBackend("simulator")
    circuits = random_circuits(1, measured=(2, 0, 1))
    assert_counts_match_simulator(circuits, finished(backend, backend.submit(circuits, SHOTS, tag="one")), SHOTS)


def test_counted_gates_equal_sent_gates(served: Served) -> None:
    for gateset in ("qis", "native"):
        backend = IonQBackend("qpu.forte-1", gateset=gateset)
        circuits = random_circuits(3)
        counted = backend.count_gates(circuits)
        assert served[1].requests("POST") == [] or gateset == "native"
        backend.submit(circuits, 100, tag=f"gates-{gateset}")
        payload = served[1].jobs()[0]["payload"]
        for each, sent in zip(counted, ionq_machine.circuits_of(payload), strict=True):
            arrived = ionq_machine.count_gates({"type": "ionq.circuit.v1", "input": {"circuit": sent}})
            assert (each.one_qubit, each.two_qubit) == (arrived["1q"], arrived["2q"])


def test_inverse_gates_stay_if_backend_keeps_gates(served: Served) -> None:
    gates = (ry(0, Angle("weight", 0)), cx(0, 1), cx(0, 1), cx(0, 1))
    folded = BoundCircuit(Circuit(2, gates, 1, 0), (0.3,), (), (0, 1))
    for gateset, level in (("qis", 1), ("native", 1), ("native", 0)):
        backend = IonQBackend("simulator", gateset=gateset, optimization_level=level)
        kept = backend.describe().keeps_gates
        assert kept == (gateset == "native" and level == 0)
        assert (backend.count_gates([folded])[0].two_qubit == 3) == kept
    assert_counts_match_simulator([folded], finished(backend, backend.submit([folded], SHOTS, tag="folded")), SHOTS)
    with pytest.raises(ConfigError, match="optimization_level"):
        IonQBackend("simulator", optimization_level=3)


def test_estimated_price_returns_ionq_price(served: Served) -> None:
    backend = IonQBackend("qpu.forte-1")
    gates = [GateCounts(10, 20)] * 3 + [GateCounts(4, 5)]
    prices = [backend.estimated_price(each, 3, 1000) for each in gates]
    assert prices == pytest.approx([1000 * (10 * 0.0002 + 20 * 0.001)] * 3 + [10])
    assert IonQBackend("qpu.forte-1", mitigation="debiasing").estimated_price(gates[0], 3, 1000) == 80
    assert IonQBackend("simulator").estimated_price(gates[0], 3, 1000) == 0


def test_fetched_prices_predict_charged_price(served: Served, tmp_path: Path) -> None:
    backend, circuits = IonQBackend("qpu.forte-1"), random_circuits(3)
    device = fetch_prices(backend)
    for shots in (1, 100, 5000):
        gates = backend.count_gates(circuits)
        mine = estimate(gates, shots, device)
        assert mine.price == pytest.approx(sum(backend.estimated_price(each, 3, shots) for each in gates))
        assert mine.currency == "USD" and mine.machine_s and mine.machine_s > 0
    job = backend.submit(circuits[:1], 5000, tag="charged")
    charged = backend.client._object("GET", f"jobs/{job}/cost")["estimated_cost"]["value"]
    assert estimate(gates[:1], 5000, device).price == pytest.approx(charged)
    assert fetch_prices(IonQBackend("qpu.forte-1", mitigation="debiasing")).price.minimum == 80
    with pytest.raises(ConfigError, match="no prices"):
        fetch_prices(load_backend("aer", tmp_path))


def test_reads_of_a_plan_are_repeated_after_passing_errors(served: Served) -> None:
    backend = IonQBackend("qpu.forte-1")
    served[1].set_faults(
        Fault("status", path="/backends", status=503, times=2), Fault("drop", path="estimate", times=2)
    )
    device = fetch_prices(backend, QUICK_RETRY)
    prepared = plan_run(
        classifier(), embeddings(), backend, name="ionq:qpu.forte-1", device=device, shots=100, retry=QUICK_RETRY
    )
    assert prepared.plan.cost.price
    asked = [entry["path"] for entry in served[1].requests("GET")]
    assert (asked.count("/v0.4/backends/qpu.forte-1"), asked.count("/v0.4/jobs/estimate")) == (3, 4)
    assert served[1].requests("POST") == []


def test_device_cost_rejects_rates_that_contradict_estimate(served: Served) -> None:
    backend = IonQBackend("qpu.forte-1")
    for body in ({"rate_information": {"cost_1q_gate": 1, "cost_2q_gate": 1}}, {"rate_information": None}):
        served[1].set_faults(Fault("answer", path="estimate", body=body))
        with pytest.raises(UnknownStatusError, match="rates"):
            backend.device_cost()


@pytest.mark.parametrize(("mitigation", "sharpen"), [("debiasing", "sharpen=false"), ("sharpening", "sharpen=true")])
def test_mitigation_is_sent_to_ionq(served: Served, mitigation: str, sharpen: str) -> None:
    backend = IonQBackend("qpu.forte-1", mitigation=mitigation)
    with pytest.raises(ConfigError, match="500"):
        backend.submit(random_circuits(2), 499, tag="few")
    job = backend.submit(random_circuits(2), 500, tag="debiased")
    assert served[1].jobs()[0]["payload"]["settings"] == {"error_mitigation": {"debiasing": True}}
    finished(backend, job)
    assert served[1].requests("GET")[-1]["query"] == sharpen
    assert len(served[1].requests("POST")) == 1


def test_jobs_finds_tag_among_many_pages(served: Served) -> None:
    backend, circuits = IonQBackend("simulator"), random_circuits(1)
    made = [backend.submit(circuits, 10, tag=f"run-{k}") for k in range(30)]  # two pages
    assert backend.jobs("run-2") == [made[2]]
    assert backend.jobs("run-29") == [made[29]]
    assert backend.jobs("run") == []
    assert IonQBackend("qpu.forte-1").jobs("run-2") == []


def test_jobs_with_cyclic_pages_raise_an_error(served: Served) -> None:
    served[1].set_faults(Fault("answer", path="/jobs$", body={"next": "0"}, times=9))
    with pytest.raises(UnknownStatusError, match="has shown"):
        IonQBackend("simulator").jobs("any")
    served[1].set_faults(Fault("replace", path="/jobs$", body={}))
    with pytest.raises(UnknownStatusError, match="jobs"):
        IonQBackend("simulator").jobs("any")


ODD_JOBS = [5, {"status": "ready"}, {"id": "a", "metadata": ["ketfit_tag"]}]


@pytest.mark.parametrize("body", [*({"jobs": [job]} for job in ODD_JOBS), {"jobs": [], "next": [1]}], ids=str)
def test_odd_list_of_jobs_raises_an_error(served: Served, body: dict[str, object]) -> None:
    backend = IonQBackend("simulator")
    served[1].set_faults(Fault("replace", body=body))
    with pytest.raises(UnknownStatusError, match="IonQ's list of jobs"):
        backend.jobs("any")


@pytest.mark.parametrize("body", [{"status": ["ready"]}, {"child_job_ids": 5}], ids=str)
def test_odd_job_raises_an_error(served: Served, body: dict[str, object]) -> None:
    backend = IonQBackend("simulator")
    job = backend.submit(random_circuits(1), 10, tag="odd")
    served[1].set_faults(Fault("answer", body=body))
    with pytest.raises(UnknownStatusError, match=job):
        backend.status(job)


def test_odd_header_of_a_result_raises_an_error(served: Served) -> None:
    backend = IonQBackend("simulator")
    job = backend.submit(random_circuits(1), 10, tag="odd")
    served[1].set_faults(Fault("answer", body={"metadata": {"shots": "1", "qiskit_header": "AAAA"}}, skip=1))
    with pytest.raises(UnknownStatusError, match=f"cannot read the result of job {job}"):
        backend.result(job)


def test_job_without_probabilities_has_a_status(served: Served) -> None:
    backend = IonQBackend("simulator")
    job = backend.submit(random_circuits(1), 10, tag="odd")
    served[1].set_faults(Fault("answer", body={"results": {"probabilities": None}}))
    assert backend.status(job).is_final


def test_unreachable_address_raises_connection_error(served: Served) -> None:
    backend = IonQBackend("simulator", client=IonQClient("http://127.0.0.1:1/v0.4", KEY, 2))
    for ask in (lambda: backend.status("x"), lambda: backend.submit(random_circuits(1), 1, tag="t")):
        with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
            ask()


def test_status_and_cancel_follow_the_job(tmp_path: Path) -> None:
    with serving(tmp_path, polls=2) as (url, _):
        backend = IonQBackend("simulator", client=IonQClient(url, KEY, 10))
        job = backend.submit(random_circuits(1), 10, tag="waits")
        assert [backend.status(job) for _ in range(3)] == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.DONE]
        backend.cancel(job)  # too late, and no error
        assert backend.status(job) is JobStatus.DONE
        other = backend.submit(random_circuits(1), 10, tag="cancelled")
        backend.cancel(other)
        assert backend.status(other) is JobStatus.CANCELLED
        with pytest.raises(JobFailedError, match="cancelled"):
            backend.result(other)


POST_FAULTS = {
    "502": (Fault("status", "POST", status=502), ServerError, 0),
    "503 of an accepted job": (Fault("late status", "POST", status=503), ServerError, 1),
    "504 of an accepted job": (Fault("late status", "POST", status=504), ServerError, 1),
    "524 of an accepted job": (Fault("late status", "POST", status=524), ServerError, 1),
    "429": (Fault("status", "POST", status=429), RateLimitError, 0),
    "400": (Fault("status", "POST", status=400), RequestRejectedError, 0),
    "dropped": (Fault("drop", "POST"), ConnectionLostError, 0),
    "dropped when accepted": (Fault("late drop", "POST"), ConnectionLostError, 1),
    "slow": (Fault("late slow", "POST", seconds=5), BackendTimeoutError, 1),
    "dripping": (Fault("drip", "POST", seconds=0.2), BackendTimeoutError, 1),
    "no JSON": (Fault("garbage", "POST"), ServerError, 1),
    "half an answer": (Fault("short", "POST"), ConnectionLostError, 1),
    "no id": (Fault("replace", "POST", body={"status": "submitted"}), ServerError, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POST_FAULTS)
def test_failed_submission_is_sent_once(served: Served, name: str) -> None:
    url, store = served
    fault, error, accepted = POST_FAULTS[name]
    backend = IonQBackend("simulator", client=IonQClient(url, KEY, timeout=1.5))
    backend.count_gates(random_circuits(1))
    store.set_faults(fault)
    start = time.monotonic()
    with pytest.raises(error) as caught:
        backend.submit(random_circuits(2), 10, tag="once")
    assert time.monotonic() - start < 4
    assert len(store.requests("POST")) == 1
    assert len(backend.jobs("once")) == accepted  # what was accepted is found again
    assert KEY not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


def test_qiskit_ionq_client_repeats_submission(served: Served, recwarn: pytest.WarningsRecorder) -> None:
    # Why `IonQClient` exists. If this fails, qiskit-ionq has mended its client, and our own may go.
    from qiskit_ionq.ionq_client import IonQClient

    url, store = served
    backend = IonQBackend("simulator")
    qiskit_backend = backend._compiler.backend
    qiskit_backend._client = IonQClient(KEY, url)
    store.set_faults(Fault("late status", "POST", status=503, times=2))
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    qiskit_backend.run(circuit, shots=1)
    assert len(store.jobs()) == 3
    recwarn.clear()


GET_FAULTS = {
    "503": (Fault("status"), ServerError),
    "429": (Fault("status", status=429), RateLimitError),
    "401": (Fault("status", status=401), RequestRejectedError),
    "404": (Fault("status", status=404), RequestRejectedError),
    "dropped": (Fault("drop"), ConnectionLostError),
    "slow": (Fault("slow", seconds=3), BackendTimeoutError),
    "dripping": (Fault("drip", seconds=0.2), BackendTimeoutError),
    "no JSON": (Fault("garbage"), ServerError),
    "half an answer": (Fault("short"), ConnectionLostError),
    "a list": (Fault("replace", body=[1]), UnknownStatusError),
    "an unknown status": (Fault("answer", body={"status": "paused"}), UnknownStatusError),
    "failed": (Fault("answer", body={"status": "failed"}), JobFailedError),
    "no address of the results": (Fault("answer", body={"results": {}}, skip=1), UnknownStatusError),
    "a status that is no text": (Fault("answer", body={"status": ["completed"]}), UnknownStatusError),
    "no probabilities": (Fault("answer", body={"results": {"probabilities": None}}, skip=1), UnknownStatusError),
    "circuits that are no list": (Fault("answer", body={"child_job_ids": 5}), UnknownStatusError),
    "a header that is not compressed": (
        Fault("answer", body={"metadata": {"shots": "1", "qiskit_header": "AAAA"}}, skip=1),
        UnknownStatusError,
    ),
    "no header": (Fault("answer", body={"metadata": None}, skip=1), UnknownStatusError),
    "a circuit missing": (Fault("replace", path="results", body={"a": {"0": 1.0}}), PartialResultError),
    "no circuit": (Fault("replace", path="results", body={}), PartialResultError),
    "503 for the results": (Fault("status", path="results"), ServerError),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GET_FAULTS)
def test_read_fault_raises_its_error_and_then_returns_result(served: Served, name: str) -> None:
    url, store = served
    fault, error = GET_FAULTS[name]
    backend = IonQBackend("simulator", client=IonQClient(url, KEY, timeout=1.5))
    circuits = random_circuits(2)
    job = backend.submit(circuits, SHOTS, tag="reads")
    store.set_faults(fault)
    start = time.monotonic()
    with pytest.raises(error) as caught:
        backend.result(job)
    assert time.monotonic() - start < 4
    assert KEY not in str(caught.value)
    assert_counts_match_simulator(circuits, [dict(row) for row in backend.result(job)], SHOTS)
    assert len(store.requests("POST")) == 1


def test_rate_limit_error_has_retry_after(served: Served) -> None:
    backend = IonQBackend("simulator")
    served[1].set_faults(Fault("status", status=429))
    with pytest.raises(RateLimitError) as caught:
        backend.jobs("any")
    assert caught.value.retry_after_s == 1


def test_shuffled_results_are_assigned_to_their_circuits(served: Served) -> None:
    backend, circuits = IonQBackend("simulator"), random_circuits(5)
    job = backend.submit(circuits, SHOTS, tag="shuffled")
    counts = finished(backend, job)
    served[1].set_faults(Fault("shuffle", path="results"))
    assert finished(backend, job) == counts


def test_probabilities_not_summing_to_one_are_rejected(served: Served) -> None:
    backend = IonQBackend("qpu.forte-1")
    job = backend.submit(random_circuits(1), 100, tag="odd")
    (child,) = served[1].jobs()[0]["children"]
    served[1].set_faults(Fault("replace", path="results", body={child: {"0": 0.5, "1": 0.4}}))
    with pytest.raises(WrongCountsError, match="0.9"):
        backend.result(job)


def test_key_is_read_from_environment_only(served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = client_from_environment()
    assert KEY not in repr(client) + repr(vars(IonQBackend("simulator").describe()))
    (tmp_path / ".env").write_text("IONQ_API_KEY=from-a-file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IONQ_API_KEY")
    with pytest.raises(ConfigError, match="IONQ_API_KEY"):
        IonQBackend("simulator")
    monkeypatch.setenv("QISKIT_IONQ_API_TOKEN", "wrong")
    with pytest.raises(RequestRejectedError, match="key"):
        IonQBackend("simulator").jobs("x")


@pytest.mark.parametrize(
    ("machine", "options"),
    [
        ("harmony", {}),
        ("simulator", {"mitigation": "debiasing"}),
        ("qpu.forte-1", {"noise_model": "forte-1"}),
        ("qpu.forte-1", {"mitigation": "zne"}),
        ("qpu.forte-1", {"gateset": "clifford"}),
    ],
)
def test_invalid_options_are_rejected(served: Served, machine: str, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        IonQBackend(machine, **options)


def test_job_with_too_many_gates_is_rejected_when_counted(served: Served) -> None:
    circuit = reuploading_circuit(6, 4, 4, 4, 5)
    bound = BoundCircuit(circuit, (0.1,) * circuit.n_weights, (0.2,) * 6)
    gates = sum(circuit.gate_counts().values())
    backend = IonQBackend("qpu.forte-1", max_circuits=500)
    most = 150_000 // gates
    assert len(backend.count_gates([bound] * most)) == most < 500
    with pytest.raises(ConfigError, match=f"max_circuits={most}"):
        backend.count_gates([bound] * (most + 1))


@pytest.mark.slow
def test_500_circuits_of_ten_qubits_are_one_job(served: Served) -> None:
    circuits = random_circuits(500, n_qubits=10, measured=(0,))
    job = IonQBackend("qpu.forte-1").submit(circuits, 10, tag="many")
    assert len(served[1].job(job)["children"]) == 500
    assert len(served[1].requests("POST")) == 1


def test_unknown_machine_and_too_wide_circuit_are_rejected(served: Served) -> None:
    with pytest.raises(RequestRejectedError, match="404"):
        IonQBackend("qpu.nowhere").submit(random_circuits(1), 10, tag="x")
    with pytest.raises(InputError, match="30 qubits"):
        IonQBackend("simulator").count_gates(random_circuits(1, n_qubits=30))
    assert served[1].requests("POST") == []


@pytest.mark.parametrize("machine", ["simulator", "qpu.forte-1"])
def test_mitigated_circuits_are_sent_folded_at_same_qubits(served: Served, machine: str) -> None:
    backend = IonQBackend(machine, gateset="native", optimization_level=0)
    plain = random_circuits(1, n_qubits=3, measured=(2, 0))[0]
    measurement = MeasurementPlan(plain.circuit, plain.measured, ("readout", "zero_noise"))
    circuits = measurement.circuits(plain.weights, torch.tensor([plain.inputs]))
    backend.submit(circuits, SHOTS, tag="mitigated")
    arrived = ionq_machine.circuits_of(served[1].jobs()[0]["payload"])
    two_qubit = [sum(len(gate.get("targets", ())) > 1 for gate in circuit) for circuit in arrived]
    assert two_qubit[0] > 0 and two_qubit == [two_qubit[0], 3 * two_qubit[0], 5 * two_qubit[0], 0, 0]
    assert {counted.physical_qubits for counted in backend.count_gates(circuits)} == {(2, 0)}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, False),
        ({"gateset": "native"}, True),
        ({"gateset": "native", "mitigation": "debiasing"}, False),
    ],
)
def test_readout_is_rejected_if_ionq_chooses_ions(served: Served, options: dict[str, str], kept: bool) -> None:
    backend = IonQBackend("qpu.forte-1", **options)
    assert backend.describe().keeps_qubits == kept
    if not kept:
        assert {counted.physical_qubits for counted in backend.count_gates(random_circuits(1))} == {()}
        with pytest.raises(ConfigError, match="gateset=native"):
            plan_run(classifier(), embeddings(), backend, name="ionq:qpu.forte-1", mitigation=("readout",), shots=500)
    assert served[1].jobs() == []


def test_debiasing_with_too_few_shots_is_rejected_by_plan(served: Served) -> None:
    backend = IonQBackend("qpu.forte-1", mitigation="debiasing")
    with pytest.raises(ConfigError, match="shots=499: ionq:qpu.forte-1 takes 500 to 1,000,000"):
        plan_run(classifier(), embeddings(), backend, name="ionq:qpu.forte-1", shots=499)
