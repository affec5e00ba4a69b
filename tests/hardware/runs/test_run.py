"""Plan, submit, fetch on the local simulator: predictions are our own simulator's, and the plan is what is sent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from ketfit.errors import ConfigError, CostLimitError, LedgerError
from ketfit.hardware.pricing import Cost, load_device
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.plan import read_plan
from ketfit.hardware.runs.run import PREDICTIONS, fetch_run, run_status, submit_run
from ketfit.simulate.expectation import expectation
from ketfit.simulate.noise import NoiseConfig, load_noise
from tests.hardware.example_runs import HASTY, SENTENCES, SHOTS, classifier, planned, simulator

MANY = 500


def test_noiseless_predictions_are_those_of_the_simulator_within_shots(tmp_path: Path) -> None:
    check_against_engine(tmp_path, None)


@pytest.mark.parametrize("scale", [1, 20])
def test_noisy_predictions_are_those_of_the_noise_engine_within_shots(tmp_path: Path, scale: int) -> None:
    noise = load_noise("ionq-forte")
    check_against_engine(tmp_path, noise.updated(depolarizing_2q=scale * noise.depolarizing_2q))


def check_against_engine(folder: Path, noise: NoiseConfig | None) -> None:
    x = np.random.default_rng(5).normal(size=(MANY, 6))
    backend = simulator(folder, 100, noise=noise)
    made = planned(folder, backend, embeddings=x, shots=1000)
    submit_run(folder, backend)
    report = fetch_run(folder, backend)
    read = np.array([row["z"][0] for row in report["predictions"]])
    head = classifier().module_.double()
    with torch.no_grad():
        inputs = head.angle_scale * head.encoder(torch.as_tensor(x))
        cone = head.circuit.light_cone((0,))
        exact = expectation(cone, head.weights, inputs, noise=noise)[:, 0].numpy()
    statistic = float((((read - exact) ** 2) * 1000 / np.maximum(1 - exact**2, 1e-3)).sum())
    assert chi2.ppf(1e-6, MANY) < statistic < chi2.ppf(1 - 1e-6, MANY)
    assert made.plan.distinct == MANY
    if noise is None:
        labels = classifier().predict(x)
        sure = [row for row in range(MANY) if report["predictions"][row]["stability"] == 1]
        assert len(sure) > MANY / 2
        assert all(report["predictions"][row]["label"] == labels[row] for row in sure)


def test_what_was_planned_is_what_was_sent(tmp_path: Path) -> None:
    device = load_device("ionq-aria")
    backend = simulator(tmp_path)
    plan = planned(tmp_path, backend, device=device).plan
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


def test_equal_sentences_are_sent_once(tmp_path: Path) -> None:
    x = np.repeat(np.random.default_rng(2).normal(size=(2, 6)), 5, axis=0)
    plan = planned(tmp_path, embeddings=x).plan
    assert (plan.sentences, plan.distinct) == (10, 2)
    backend = simulator(tmp_path)
    submit_run(tmp_path, backend)
    assert len(fetch_run(tmp_path, backend)["predictions"]) == 10
    assert len(list((tmp_path / "jobs").glob("job-*.json"))) == 1


def test_nothing_is_bought_again(tmp_path: Path) -> None:
    planned(tmp_path)
    for _ in range(3):
        submit_run(tmp_path)
    first = fetch_run(tmp_path)
    submit_run(tmp_path, again=True)
    assert fetch_run(tmp_path) == first == json.loads((tmp_path / PREDICTIONS).read_text())
    assert run_status(tmp_path).jobs == {"done": 4}


def test_a_cost_limit_refuses_the_plan_and_every_later_submission(tmp_path: Path) -> None:
    device = load_device("ionq-aria")
    with pytest.raises(CostLimitError, match="the limit is 10"):
        planned(tmp_path, device=device, max_cost=10.0)
    assert not (tmp_path / "plan.json").exists()
    free = load_device(None).updated(price=None)
    with pytest.raises(ConfigError, match="no price is known"):
        planned(tmp_path, device=free, max_cost=10.0)


def test_labels_give_an_accuracy_with_its_interval(tmp_path: Path) -> None:
    planned(tmp_path, labels=["good"] * SENTENCES)
    submit_run(tmp_path)
    report = fetch_run(tmp_path)
    share = np.mean([row["label"] == "good" for row in report["predictions"]])
    assert report["accuracy"] == pytest.approx(share)
    assert report["interval"][0] <= share <= report["interval"][1]


@pytest.mark.parametrize("mitigation", [("readout",), ("zero_noise",), ("readout", "zero_noise")])
def test_mitigation_reduces_the_bias(tmp_path: Path, mitigation: tuple[str, ...]) -> None:
    noise = NoiseConfig(depolarizing_2q=0.01, readout=((0.97, 0.06), (0.03, 0.94)))
    with torch.no_grad():
        head = classifier().module_.double()
        z = head.encoder(torch.as_tensor(np.random.default_rng(3).normal(size=(30, 6))))
        exact = expectation(head.circuit, head.weights, head.angle_scale * z)[:, 0].numpy()
    bias = {}
    for name, chosen in (("none", ()), ("ours", mitigation)):
        folder = tmp_path / name
        backend = simulator(folder, 200, noise=noise)
        planned(
            folder, backend, embeddings=np.random.default_rng(3).normal(size=(30, 6)), mitigation=chosen, shots=100_000
        )
        submit_run(folder, backend)
        read = np.array([row["z"][0] for row in fetch_run(folder, backend)["predictions"]])
        bias[name] = np.abs(read - exact).mean()
    assert bias["ours"] < 0.8 * bias["none"]


def test_zero_noise_is_refused_where_gates_are_compiled_away(tmp_path: Path) -> None:
    backend = simulator(tmp_path)
    from dataclasses import replace

    backend._description = replace(backend.describe(), keeps_gates=False)
    with pytest.raises(ConfigError, match="would cancel the folded gates"):
        planned(tmp_path, backend, mitigation=("zero_noise",))


def test_another_backend_or_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    planned(tmp_path)
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
        planned(tmp_path)


def test_patience_ends(tmp_path: Path) -> None:
    assert HASTY.wait_until(lambda: False, 0.01) is False
    assert isinstance(planned(tmp_path).plan.cost, Cost)
