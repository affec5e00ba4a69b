"""Tests of postprocessing: predictions match the simulator, mitigation reduces errors on devices with a layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import transpile
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error
from scipy.stats import chi2

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import InputError, LedgerError, RateLimitError
from ketfit.hardware.backends.base import BoundCircuit
from ketfit.hardware.backends.qiskit import Compiler, QiskitBackend, physical_qubits
from ketfit.hardware.runs.plan import read_plan
from ketfit.hardware.runs.postprocessing import MeasurementPlan
from ketfit.hardware.runs.run import fetch_run, submit_run
from ketfit.simulate.expectation import expectation
from ketfit.simulate.noise import NoiseConfig, load_noise
from tests.hardware.example_runs import classifier, simulator, write_example_plan

MISREAD = (0.30, 0.02, 0.15, 0.01, 0.25, 0.03, 0.10)
"""Of each physical qubit."""
LINE = [[a, b] for first in range(len(MISREAD) - 1) for a, b in ((first, first + 1), (first + 1, first))]
SHOTS = 40_000
LEVELS = pytest.mark.parametrize("level", [0, 1, 2, 3])


class Device(GenericBackendV2):
    """A line of qubits that are misread each in its own way, with noisy CNOTs."""

    misread: tuple[float, ...] = ()
    noise: float = 0.0

    def run(self, run_input: Any, **options: Any) -> Any:
        model = NoiseModel(basis_gates=["cx", "rz", "sx", "x", "id"])
        for qubit, error in enumerate(self.misread):
            model.add_readout_error(ReadoutError([[1 - error, error], [error, 1 - error]]), [qubit])
        if self.noise:
            model.add_all_qubit_quantum_error(depolarizing_error(self.noise, 2), ["cx"])
        return AerSimulator(noise_model=model, seed_simulator=7).run(run_input, **options)


def device(
    misread: tuple[float, ...] = MISREAD, noise: float = 0.0, basis: tuple[str, ...] = ("cx", "sx"), seed: int = 1
) -> Device:
    generic = Device(len(MISREAD), basis_gates=[*basis, "rz", "x", "id"], coupling_map=LINE, seed=seed)
    generic.misread, generic.noise = misread, noise
    for qubit, error in enumerate(misread):
        generic.target["measure"][(qubit,)].error = error  # what layouts are chosen by
    return generic


CIRCUIT = reuploading_circuit(4, 1, 1, 1, 2)
RNG = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(CIRCUIT.n_weights, generator=RNG, dtype=torch.float64) * 0.4
INPUTS = torch.randn(5, 4, generator=RNG, dtype=torch.float64)
MEASURED = (0, 1)


def errors(backend: QiskitBackend, mitigation: tuple[Any, ...]) -> np.ndarray:
    """What is read minus what is true, for each input and measured qubit."""
    measurement = MeasurementPlan(CIRCUIT, MEASURED, mitigation)
    circuits = measurement.circuits(WEIGHTS.tolist(), INPUTS)
    counts = backend.result(backend.submit(circuits, SHOTS, tag="mitigated"))
    exact = expectation(CIRCUIT, WEIGHTS, INPUTS, qubits=MEASURED)
    return (measurement.expectations(measurement.distributions(counts)) - exact).numpy()


def sent(backend: QiskitBackend, mitigation: tuple[Any, ...]) -> list[Any]:
    circuits = MeasurementPlan(CIRCUIT, MEASURED, mitigation).circuits(WEIGHTS.tolist(), INPUTS)
    return [backend.compiler.bind(bound) for bound in circuits]


@LEVELS
def test_readout_is_calibrated_at_measured_physical_qubits(tmp_path: Path, level: int) -> None:
    backend = QiskitBackend(tmp_path, device(), optimization_level=level)
    assert len({physical_qubits(circuit) for circuit in sent(backend, ("readout",))}) == 1
    # A value has a standard error of at most 1 / sqrt(shots), and so have both calibrations together; undoing an error
    # of e divides by 1 - 2 e. Five of those, for the largest of ten values.
    bound = 5 * np.sqrt(2 / SHOTS) / (1 - 2 * max(MISREAD))
    assert np.abs(errors(backend, ("readout",))).max() < bound
    if level == 0:  # later levels avoid the worst qubits, but not all
        assert np.abs(errors(backend, ())).max() > 2 * bound


@LEVELS
@pytest.mark.parametrize("basis", [("cx", "sx"), ("ecr", "sx"), ("cz", "rx"), ("rzz", "u")])
def test_folds_have_exactly_three_and_five_times_the_gates(tmp_path: Path, level: int, basis: tuple[str, ...]) -> None:
    backend = QiskitBackend(tmp_path, device(basis=basis), optimization_level=level)
    circuits = sent(backend, ("zero_noise",))
    folds = [circuits[fold * len(INPUTS)] for fold in range(3)]
    two_qubit = [circuit.num_nonlocal_gates() for circuit in folds]
    assert two_qubit[0] > 0 and [count / two_qubit[0] for count in two_qubit] == [1, 3, 5]
    pulses = [sum(circuit.count_ops().get(name, 0) for name in ("sx", "x", "rx", "u")) for circuit in folds]
    assert [count / pulses[0] for count in pulses] == [1, 3, 5]
    assert len({physical_qubits(circuit) for circuit in circuits}) == 1
    # A compiler behind this one, in the device's own run, cancels nothing either.
    behind = transpile(
        folds[1], backend.backend, optimization_level=3, initial_layout=list(range(len(MISREAD))), seed_transpiler=0
    )
    assert behind.num_nonlocal_gates() == two_qubit[1]
    # Planned is what is sent: the counts are those of the very circuits.
    measurement = MeasurementPlan(CIRCUIT, MEASURED, ("zero_noise",)).circuits(WEIGHTS.tolist(), INPUTS)
    assert [backend.count_gates(measurement)[fold * len(INPUTS)].two_qubit for fold in range(3)] == two_qubit


@pytest.mark.slow
@LEVELS
@pytest.mark.parametrize("mitigation", [("zero_noise",), ("readout", "zero_noise")])
def test_zero_noise_and_both_mitigations_reduce_error(tmp_path: Path, level: int, mitigation: tuple[str, ...]) -> None:
    misread = MISREAD if "readout" in mitigation else ()
    backend = QiskitBackend(tmp_path, device(misread, noise=0.006), optimization_level=level)
    raw = np.abs(errors(backend, ())).mean()
    mitigated = np.abs(errors(backend, mitigation)).mean()
    # Richardson's coefficients are 15/8, -5/4 and 3/8: they spread a value by 2.3, and undoing readout by 2.5 at most.
    spread = 2.3 / np.sqrt(SHOTS) * (1 / (1 - 2 * max(misread)) if misread else 1)
    assert mitigated + 2 * spread < raw or mitigated < 2 * spread
    assert mitigated < raw / 2


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("mitigation", [("readout",), ("readout", "zero_noise")])
def test_mitigation_reduces_error_of_ibm_fake_device(tmp_path: Path, level: int, mitigation: tuple[str, ...]) -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    faulty_backend = provider.FakeManilaV2()
    faulty_backend.set_options(seed_simulator=3)
    backend = QiskitBackend(tmp_path, faulty_backend, optimization_level=level)
    raw, mitigated = np.abs(errors(backend, ())).mean(), np.abs(errors(backend, mitigation)).mean()
    # Ten values from 40,000 shots each: their mean is off by 0.003, three times that if extrapolated. Most of this
    # device's error is in its gates.
    assert mitigated < raw - 0.006 if mitigation == ("readout",) else mitigated < 0.3 * raw
    for circuit in sent(backend, mitigation):
        assert physical_qubits(circuit) == physical_qubits(sent(backend, ())[0])


def test_gate_without_native_inverse_is_not_folded(tmp_path: Path) -> None:
    backend = QiskitBackend(tmp_path, device(basis=("iswap", "sx")))
    circuits = MeasurementPlan(CIRCUIT, MEASURED, ("zero_noise",)).circuits(WEIGHTS.tolist(), INPUTS)
    with pytest.raises(InputError, match="has no inverse of its own: leave zero_noise out"):
        backend.count_gates(circuits)


def test_calibration_that_needs_swaps_is_rejected() -> None:
    followed = BoundCircuit(CIRCUIT, tuple(WEIGHTS.tolist()), tuple(INPUTS[0].tolist()), (0, 3))
    far = Circuit(4, (ry(0, Angle("weight", 0)), *(cx(a, b) for a in range(4) for b in range(4) if a != b)), 1, 0)
    calibration = BoundCircuit(far, (0.0,), (), (0, 3), followed)
    with pytest.raises(InputError, match="calibrate with rotations alone"):
        for level in range(4):
            Compiler(device(), level).bind(calibration)


@pytest.mark.slow
@pytest.mark.parametrize("mitigation", [("readout",), ("readout", "zero_noise")])
def test_reread_plan_of_mitigated_run_has_same_circuits_and_qubits(tmp_path: Path, mitigation: Any) -> None:
    backend = QiskitBackend(tmp_path / "jobs", device(noise=0.002), optimization_level=2, max_circuits=7)
    prepared = write_example_plan(tmp_path, backend, mitigation=mitigation, shots=200)
    again = read_plan(tmp_path)
    assert again.circuits == prepared.circuits
    assert [bound.follows for bound in again.circuits] == [bound.follows for bound in prepared.circuits]
    submit_run(tmp_path, backend)
    assert len(fetch_run(tmp_path, backend)["predictions"]) == prepared.plan.sentences


def test_mitigated_run_is_not_spread_over_two_layouts(tmp_path: Path) -> None:
    """A device that was calibrated anew between two submissions is compiled to other qubits."""
    today = QiskitBackend(tmp_path / "jobs", device(), name="line", optimization_level=2, max_circuits=7)
    tomorrow = QiskitBackend(tmp_path / "jobs", device(seed=2), name="line", optimization_level=2, max_circuits=7)
    prepared = write_example_plan(tmp_path, today, mitigation=("readout",), shots=200)
    assert prepared.plan.batches == 3
    submit, sent_jobs = today.submit, []

    def first_only(*arguments: Any, **named: Any) -> str:
        if sent_jobs:
            raise RateLimitError("later")
        sent_jobs.append(submit(*arguments, **named))
        return sent_jobs[0]

    today.submit = first_only  # type: ignore[method-assign]
    with pytest.raises(RateLimitError):
        submit_run(tmp_path, today)
    today.submit = submit  # type: ignore[method-assign]
    with pytest.raises(LedgerError, match="calibration does not hold"):
        submit_run(tmp_path, tomorrow)
    submit_run(tmp_path, today)
    assert len(fetch_run(tmp_path, today)["predictions"]) == prepared.plan.sentences


MANY = 500


def test_noiseless_predictions_match_simulator_within_shots(tmp_path: Path) -> None:
    check_against_engine(tmp_path, None)


@pytest.mark.parametrize("scale", [1, 20])
def test_noisy_predictions_match_simulator_within_shots(tmp_path: Path, scale: int) -> None:
    noise = load_noise("ionq-forte")
    check_against_engine(tmp_path, noise.updated(depolarizing_2q=scale * noise.depolarizing_2q))


def check_against_engine(folder: Path, noise: NoiseConfig | None) -> None:
    x = np.random.default_rng(5).normal(size=(MANY, 6))
    backend = simulator(folder, 100, noise=noise)
    prepared = write_example_plan(folder, backend, embeddings=x, shots=1000)
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
    assert prepared.plan.distinct == MANY
    if noise is None:
        labels = classifier().predict(x)
        sure = [row for row in range(MANY) if report["predictions"][row]["stability"] == 1]
        assert len(sure) > MANY / 2
        assert all(report["predictions"][row]["label"] == labels[row] for row in sure)


@pytest.mark.parametrize("mitigation", [("readout",), ("zero_noise",), ("readout", "zero_noise")])
def test_mitigation_reduces_bias(tmp_path: Path, mitigation: tuple[str, ...]) -> None:
    noise = NoiseConfig(depolarizing_2q=0.01, readout=((0.97, 0.06), (0.03, 0.94)))
    with torch.no_grad():
        head = classifier().module_.double()
        z = head.encoder(torch.as_tensor(np.random.default_rng(3).normal(size=(30, 6))))
        exact = expectation(head.circuit, head.weights, head.angle_scale * z)[:, 0].numpy()
    bias = {}
    for name, chosen in (("none", ()), ("ours", mitigation)):
        folder = tmp_path / name
        backend = simulator(folder, 200, noise=noise)
        write_example_plan(
            folder, backend, embeddings=np.random.default_rng(3).normal(size=(30, 6)), mitigation=chosen, shots=100_000
        )
        submit_run(folder, backend)
        read = np.array([row["z"][0] for row in fetch_run(folder, backend)["predictions"]])
        bias[name] = np.abs(read - exact).mean()
    assert bias["ours"] < 0.8 * bias["none"]
