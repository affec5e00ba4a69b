"""Tests of plans: a plan is what is sent, and a changed or damaged plan is rejected."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from qiskit.quantum_info import PauliList

from ketfit.errors import BackendTimeoutError, ConfigError, CostLimitError, LedgerError
from ketfit.estimators.classical import LogisticRegressionHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.hardware.backends.registry import load_backend
from ketfit.hardware.pricing import load_device
from ketfit.hardware.runs.ledger import Ledger, read_ledger_state
from ketfit.hardware.runs.plan import plan_run, read_plan, write_plan
from ketfit.hardware.runs.run import fetch_run, submit_run
from ketfit.hardware.testing.faulty_backend import Fault, FaultInjectingBackend
from ketfit.model.head import QuantumHead
from ketfit.simulate.expectation import expectation
from tests.hardware.example_runs import (
    FAST_RETRY,
    SENTENCES,
    SHOTS,
    classifier,
    embeddings,
    simulator,
    write_example_plan,
)


def test_submitted_circuits_equal_the_plan(tmp_path: Path) -> None:
    device = load_device("ionq-aria")
    backend = simulator(tmp_path)
    plan = write_example_plan(tmp_path, backend, device=device).plan
    sent: list[tuple[int, int]] = []
    original = backend.submit
    gates = {"ry": 0, "cx": 0}

    def watching(circuits, shots, *, tag):  # type: ignore[no-untyped-def]
        sent.append((len(circuits), shots))
        for bound in circuits:
            for name, count in bound.circuit.gate_counts().items():
                gates[name] += count
        return original(circuits, shots, tag=tag)

    backend.submit = watching  # type: ignore[method-assign]
    submit_run(tmp_path, backend)
    assert len(sent) == plan.batches == 4
    assert sum(circuits for circuits, _ in sent) == plan.cost.circuits == SENTENCES + plan.batches
    assert sum(circuits * shots for circuits, shots in sent) == plan.cost.shots
    assert (gates["ry"], gates["cx"]) == (plan.cost.one_qubit_gates, plan.cost.two_qubit_gates)
    bought = sum(submission.price or 0 for submission in read_ledger_state(tmp_path).submissions)
    assert bought == pytest.approx(plan.cost.price)
    price = 12.4166 * plan.cost.circuits + SHOTS * (0.00022 * gates["ry"] + 0.000975 * gates["cx"])
    assert bought == pytest.approx(price)
    assert device.profile is not None
    each = sum(getattr(device.profile, name).value for name in ("readout_us", "reset_us", "overhead_us"))
    assert plan.cost.machine_s == pytest.approx(
        1e-6 * SHOTS * (135 * gates["ry"] + 600 * gates["cx"] + each * plan.cost.circuits)
    )


@pytest.mark.parametrize("kind", ["rate_limit", "timeout", "server_error", "connection_lost"])
def test_plan_counts_gates_again_after_passing_errors(tmp_path: Path, kind: str) -> None:
    undisturbed = write_example_plan(tmp_path / "undisturbed").plan
    backend = FaultInjectingBackend(simulator(tmp_path), [Fault("count_gates", kind, times=3)])
    plan = write_example_plan(tmp_path / "run", backend, retry=FAST_RETRY).plan
    assert plan.cost == undisturbed.cost
    assert backend.calls.count("count_gates") == 3 + plan.batches


def test_plan_without_an_answer_fails_at_the_deadline(tmp_path: Path) -> None:
    backend = FaultInjectingBackend(simulator(tmp_path), [Fault("count_gates", "server_error", times=10**6)])
    with pytest.raises(BackendTimeoutError, match=r"the gates of a job: no answer within 0\.2 s"):
        write_example_plan(tmp_path, backend, retry=FAST_RETRY)
    assert not (tmp_path / "plan.json").exists()


def test_equal_sentences_are_sent_once(tmp_path: Path) -> None:
    x = np.repeat(np.random.default_rng(2).normal(size=(2, 6)), 5, axis=0)
    plan = write_example_plan(tmp_path, embeddings=x).plan
    assert (plan.sentences, plan.distinct) == (10, 2)
    backend = simulator(tmp_path)
    submit_run(tmp_path, backend)
    assert len(fetch_run(tmp_path, backend)["predictions"]) == 10
    assert len(list((tmp_path / "jobs").glob("job-*.json"))) == 1


def test_plan_beyond_cost_limit_is_rejected(tmp_path: Path) -> None:
    device = load_device("ionq-aria")
    with pytest.raises(CostLimitError, match="the limit is 10"):
        write_example_plan(tmp_path, device=device, max_cost=10.0)
    assert not (tmp_path / "plan.json").exists()
    free = load_device(None).updated(price=None)
    with pytest.raises(ConfigError, match="no price is known"):
        write_example_plan(tmp_path, device=free, max_cost=10.0)


def test_plan_prices_the_mitigation_of_the_backend(tmp_path: Path) -> None:
    backend = simulator(tmp_path, device="ionq-aria")
    backend._description = replace(backend.describe(), options={"mitigation": "debiasing"})
    with pytest.raises(CostLimitError, match="the limit is 1,500"):  # 16 circuits at 97.50 USD, or at 12.42 without
        plan_run(classifier(), embeddings(), backend, name="simulator", shots=1, max_cost=1500.0)


def test_plan_is_not_replaced_while_another_process_works_on_it(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    with Ledger(tmp_path), pytest.raises(LedgerError, match="another process works on"):
        write_example_plan(tmp_path)


def test_zero_noise_is_rejected_if_gates_are_not_kept(tmp_path: Path) -> None:
    backend = simulator(tmp_path)
    from dataclasses import replace

    backend._description = replace(backend.describe(), keeps_gates=False)
    with pytest.raises(ConfigError, match="would cancel the folded gates"):
        write_example_plan(tmp_path, backend, mitigation=("zero_noise",))


def test_other_backend_and_damaged_plan_are_rejected(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    with pytest.raises(LedgerError, match="results do not mix"):
        submit_run(tmp_path, simulator(tmp_path, seed=1))
    plan = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(plan.replace('"shots": 200', '"shots": 300', 1))
    with pytest.raises(LedgerError, match="not the circuits that were planned"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(LedgerError, match="damaged"):
        read_plan(tmp_path)
    with pytest.raises(LedgerError, match="begin with ketfit hardware plan"):
        read_plan(tmp_path / "nowhere")
    (tmp_path / "plan.json").write_text(plan)
    submit_run(tmp_path)
    with pytest.raises(LedgerError, match="name another folder"):
        write_example_plan(tmp_path)


@pytest.mark.parametrize("money", [math.inf, math.nan, -1.0, True])
def test_plan_rejects_invalid_max_cost(tmp_path: Path, money: float) -> None:
    with pytest.raises(ConfigError, match="max_cost"):
        write_example_plan(tmp_path, max_cost=money)
    assert not (tmp_path / "plan.json").exists()


def test_readout_is_rejected_if_qubits_are_not_kept(tmp_path: Path) -> None:
    backend = simulator(tmp_path)
    backend._description = replace(backend.describe(), keeps_qubits=False)
    with pytest.raises(ConfigError, match="keeps_qubits"):
        plan_run(classifier(), embeddings(), backend, name="simulator", mitigation=("readout",))


def test_classical_head_is_rejected_before_the_backend_is_asked(tmp_path: Path) -> None:
    head = LogisticRegressionHead().fit(embeddings(), ["good", "bad"] * (SENTENCES // 2))
    with pytest.raises(
        ConfigError, match="LogisticRegressionHead is a classical head and has no circuit to run on hard"
    ):
        plan_run(head, embeddings(), None, name="simulator")  # type: ignore[arg-type]


def test_plan_of_head_with_components_has_encoded_projections(tmp_path: Path) -> None:
    fitted = classifier(n_qubits=2, connectivity=1, components=3)
    written = write_example_plan(tmp_path, classifier=fitted)
    projected = fitted.module_.project(torch.from_numpy(embeddings()))
    plain = QuantumHead(fitted.head_config_.updated(components=None), 3, 2, dtype=torch.float64)
    tensors = fitted.module_.state_dict()
    plain.load_state_dict({name: tensors[name] for name in plain.state_dict()})
    torch.testing.assert_close(written.encoder_expectations, plain.encode(projected).detach())
    assert written.plan.to_json()["head"]["components"] == 3
    assert read_plan(tmp_path).circuits == written.circuits


@pytest.mark.parametrize("kind", ["simulator", "aer"])
def test_run_of_head_with_components_predicts_as_the_head(tmp_path: Path, kind: str) -> None:
    fitted = classifier(n_qubits=2, connectivity=1, components=3)
    fitted.save_pretrained(tmp_path / "model")
    saved = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
    backend = load_backend(kind, tmp_path)
    plan = plan_run(saved, embeddings(), backend, name=kind, shots=20_000)
    write_plan(tmp_path / "run", plan)
    submit_run(tmp_path / "run", backend)
    found = [row["probabilities"] for row in fetch_run(tmp_path / "run", backend)["predictions"]]
    exact = fitted.predict_proba(embeddings())
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert np.ptp(exact[:, 0]) > 0.1, "the test would pass with one prediction for all"


@pytest.mark.parametrize("kind", ["simulator", "aer"])
@pytest.mark.parametrize("ansatz", ["strongly_entangling", "ising"])
def test_run_of_other_ansatz_and_words_predicts_as_the_head(tmp_path: Path, ansatz: str, kind: str) -> None:
    fitted = classifier(ansatz=ansatz, encoder_ansatz=ansatz, angle_axis="x", readout=("X0 Y2", "X0", "Z1"))
    backend = load_backend(kind, tmp_path)
    plan = plan_run(fitted, embeddings(), backend, name=kind, shots=20_000)
    write_plan(tmp_path / "run", plan)
    assert read_plan(tmp_path / "run").circuits == plan.circuits
    submit_run(tmp_path / "run", backend)
    found = [row["probabilities"] for row in fetch_run(tmp_path / "run", backend)["predictions"]]
    exact = fitted.predict_proba(embeddings())
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert np.ptp(exact[:, 0]) > 0.1, "the test would pass with one prediction for all"


@pytest.mark.parametrize("kind", ["simulator", "aer"])
def test_run_of_words_in_several_bases_predicts_as_the_head(tmp_path: Path, kind: str) -> None:
    words = ("X0 Z1", "Z0", "Y1", "Z0 Z2")
    fitted = classifier(ansatz="strongly_entangling", readout=words)
    backend = load_backend(kind, tmp_path)
    prepared = plan_run(fitted, embeddings(3), backend, name=kind, shots=50_000)
    write_plan(tmp_path / "run", prepared)
    assert read_plan(tmp_path / "run").circuits == prepared.circuits
    submit_run(tmp_path / "run", backend)
    report = fetch_run(tmp_path / "run", backend)
    head = fitted.module_.with_measurement().double()
    with torch.no_grad():
        encoded = head.encode(torch.from_numpy(embeddings(3)))
        exact = expectation(
            head.circuit, head.weights, head.angle_scale * encoded, observables=fitted.head_config_.observables
        )
    found = [row["expectations"] for row in report["predictions"]]
    np.testing.assert_allclose(found, exact, atol=6 / 50_000**0.5)
    assert report["readout"] == list(words)
    probabilities = [row["probabilities"] for row in report["predictions"]]
    np.testing.assert_allclose(probabilities, fitted.predict_proba(embeddings(3)), atol=0.02)
    assert np.ptp(exact.numpy(), axis=0).min() > 0.05, "the test would pass with one value for all"


def test_plan_of_words_has_one_circuit_for_each_group_that_commutes_qubit_by_qubit(tmp_path: Path) -> None:
    words = ("X0 Z1", "Z0", "Y1", "Z0 Z2", "X2", "Y0")
    prepared = write_example_plan(tmp_path, classifier=classifier(readout=words), shots=50)
    paulis = [{int(factor[1:]): factor[0] for factor in word.split()} for word in words]
    labels = ["".join(letters.get(qubit, "I") for qubit in (2, 1, 0)) for letters in paulis]
    groups = len(PauliList(labels).group_commuting(qubit_wise=True))
    assert groups == 3
    assert prepared.plan.sentences == SENTENCES
    assert prepared.plan.distinct == len(prepared.circuits) == groups * SENTENCES
    jobs = math.ceil(groups * SENTENCES / 3)  # four circuits in a job, of which one is the canary
    assert (prepared.plan.batches, prepared.plan.cost.circuits) == (jobs, groups * SENTENCES + jobs)
    assert prepared.plan.cost.shots == 50 * prepared.plan.cost.circuits


def test_plan_of_words_refuses_mitigation(tmp_path: Path) -> None:
    fitted = classifier(readout=("X0 Z1",))
    with pytest.raises(ConfigError, match="is for Z of single qubits, not for a readout of words"):
        plan_run(fitted, embeddings(), simulator(tmp_path), name="simulator", shots=100, mitigation=("readout",))
