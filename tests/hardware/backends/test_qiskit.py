"""Any Qiskit backend behind the seam: Aer without noise and with ours, a fake device, and its own gates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from qiskit.providers.fake_provider import GenericBackendV2
from scipy.stats import chi2

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.export import to_qiskit
from ketfit.circuit.gate import GATES
from ketfit.errors import ConfigError, InputError, RequestRejectedError, WrongCountsError
from ketfit.hardware.backends.aer import aer_noise_model, aer_simulator
from ketfit.hardware.backends.base import BoundCircuit
from ketfit.hardware.backends.qiskit import Compiler, QiskitBackend, round_to_counts, to_big_endian_counts
from ketfit.hardware.testing.conformance import check_backend
from ketfit.simulate import NoiseConfig, expectation, load_noise
from tests.simulate.aer_reference import ALL, NOISES

READ_WRONG = NoiseConfig(readout=((0.95, 0.1), (0.05, 0.9)), preparation=0.05, depolarizing_2q=0.03)


def head_circuits(count: int, n_qubits: int = 4, measured: tuple[int, ...] = (0,)) -> list[BoundCircuit]:
    """As a head sends them: the weights of all, the inputs of each sentence."""
    circuit = reuploading_circuit(n_qubits, 2, 1, 1, 1)
    rng = np.random.default_rng(5)
    weights = tuple(rng.uniform(-3, 3, circuit.n_weights))
    return [BoundCircuit(circuit, weights, tuple(rng.uniform(-3, 3, n_qubits)), measured) for _ in range(count)]


def exact_values(circuits: list[BoundCircuit], noise: NoiseConfig | None = None) -> np.ndarray:
    """<Z> of each measured qubit of each circuit, from our own engine."""
    weights = torch.tensor(circuits[0].weights, dtype=torch.float64)
    inputs = torch.tensor([bound.inputs for bound in circuits], dtype=torch.float64)
    return expectation(circuits[0].circuit, weights, inputs, qubits=circuits[0].measured, noise=noise).numpy()


def read_values(counts: list[dict[str, int]], width: int, shots: int) -> np.ndarray:
    """<Z> of each measured qubit as the counts have it."""
    signs = [[sum(n if key[j] == "0" else -n for key, n in row.items()) for j in range(width)] for row in counts]
    return np.array(signs) / shots


def assert_within_shots(read: np.ndarray, exact: np.ndarray, shots: int) -> None:
    """All in one chi-square test; the variance of an outcome +-1 is 1 - <Z>^2, a shot's worth at the least."""
    variance = np.maximum(1 - exact**2, 1 / shots) / shots
    statistic = ((read - exact) ** 2 / variance).sum()
    assert 1e-6 < chi2.sf(statistic, exact.size) < 1 - 1e-6


def test_aer_counts_of_500_sentences_match_simulator(tmp_path: Path) -> None:
    circuits, shots = head_circuits(500), 1000
    backend = QiskitBackend(tmp_path, aer_simulator())
    job = backend.submit(circuits, shots, tag="sentences")
    assert_within_shots(read_values(backend.result(job), 1, shots), exact_values(circuits), shots)


@pytest.mark.parametrize("name", ["all", "relaxation", "preparation", "read wrong", "ionq-forte", "all, twirled"])
def test_aer_noise_matches_simulator_noise(tmp_path: Path, name: str) -> None:
    noise = READ_WRONG if name == "read wrong" else load_noise(name) if name == "ionq-forte" else NOISES[name]
    circuits, shots = head_circuits(25, n_qubits=3, measured=(0, 2)), 4000
    backend = QiskitBackend(tmp_path, aer_simulator(noise), reset_first=noise.preparation > 0)
    read = read_values(backend.result(backend.submit(circuits, shots, tag="noisy")), 2, shots)
    # Two qubits of one circuit are correlated, so each has a test of its own.
    for qubit in range(2):
        assert_within_shots(read[:, qubit], exact_values(circuits, noise)[:, qubit], shots)
    distance = np.abs(exact_values(circuits, noise) - exact_values(circuits)).max()
    assert distance > 0.005, "this noise is too weak to be seen"


def test_noise_model_has_an_entry_for_each_gate() -> None:
    names = {name for name, gate in GATES.items() if gate.n_qubits in (1, 2)} - {"ch", "iswap"}
    assert set(aer_noise_model(ALL).noise_instructions) == names | {"reset"}


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_gives_same_counts_and_jobs_differ(tmp_path: Path, seed: int) -> None:
    circuits = head_circuits(3)
    drawn = []
    for folder in ("a", "b"):
        backend = QiskitBackend(tmp_path / folder, aer_simulator(), seed=seed)
        drawn.append([backend.result(backend.submit(circuits, 500, tag=f"t{k}")) for k in range(2)])
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


def test_aer_passes_conformance(tmp_path: Path) -> None:
    for name, noise in (("ideal", None), ("noisy", load_noise("ionq-forte")), ("prepared", READ_WRONG)):
        backend = QiskitBackend(tmp_path / name, aer_simulator(noise), reset_first=noise is READ_WRONG)
        assert [finding for finding in check_backend(backend) if not finding.passed] == []


def test_device_with_sparse_couplings_passes_conformance(tmp_path: Path) -> None:
    device = GenericBackendV2(5, coupling_map=[[0, 1], [1, 0], [1, 2], [2, 3], [3, 4]], seed=1)
    backend = QiskitBackend(tmp_path, device, optimization_level=1)
    assert [finding for finding in check_backend(backend) if not finding.passed] == []
    circuit = head_circuits(1)[0]
    counts = backend.count_gates([circuit])[0]
    assert counts.two_qubit > circuit.circuit.gate_counts()["cx"]  # swaps
    with pytest.raises(InputError, match="6 qubits"):
        backend.count_gates(head_circuits(1, n_qubits=6))


def test_compiler_compiles_each_shape_once_and_keeps_gates(tmp_path: Path) -> None:
    compiler = Compiler(aer_simulator(), 0)
    circuits = head_circuits(20)
    filled = [compiler.bind(bound) for bound in circuits]
    assert len(compiler._templates) == 1
    own = circuits[0].circuit.gate_counts()
    assert (compiler.count_gates(circuits[0]).one_qubit, compiler.count_gates(circuits[0]).two_qubit) == tuple(
        own.values()
    )
    for bound, qiskit_circuit in zip(circuits, filled, strict=True):
        assert not qiskit_circuit.parameters
        assert qiskit_circuit.remove_final_measurements(inplace=False) == to_qiskit(
            bound.circuit, bound.weights, bound.inputs, bound.measured
        ).remove_final_measurements(inplace=False)


def test_jobs_survive_the_process(tmp_path: Path) -> None:
    circuits = head_circuits(2)
    job = QiskitBackend(tmp_path, aer_simulator()).submit(circuits, 100, tag="kept")
    later = QiskitBackend(tmp_path, aer_simulator())
    assert later.jobs("kept") == [job]
    assert len(later.result(job)) == 2
    with pytest.raises(RequestRejectedError):
        later.status("../job-000000")


def test_remote_qiskit_backend_is_rejected(tmp_path: Path) -> None:
    class Away:
        name = "ionq_qpu.forte-1"

    Away.__module__ = "qiskit_ionq.ionq_backend"
    with pytest.raises(ConfigError, match="IonQBackend"):
        QiskitBackend(tmp_path, Away())


def test_backend_is_local_if_its_package_is_known_to_compute_here(tmp_path: Path) -> None:
    from qiskit_aer import AerSimulator

    class ElsewhereSimulator(AerSimulator):
        """A backend of an unknown package."""

    ElsewhereSimulator.__module__ = "some_provider.backends"
    assert QiskitBackend(tmp_path, AerSimulator()).describe().is_local
    assert not QiskitBackend(tmp_path, ElsewhereSimulator()).describe().is_local
    assert QiskitBackend(tmp_path, ElsewhereSimulator(), is_local=True).describe().is_local
    ElsewhereSimulator.__module__ = "qiskit_aer_cloud"
    assert not QiskitBackend(tmp_path, ElsewhereSimulator()).describe().is_local


def test_to_big_endian_counts_reverses_and_checks_bits() -> None:
    assert to_big_endian_counts({"01 1": 5, "000": 2}, 3) == {"110": 5, "000": 2}
    for outcome in ("01", "0a1", "0111"):
        with pytest.raises(WrongCountsError):
            to_big_endian_counts({outcome: 1}, 3)


@pytest.mark.parametrize("shots", [1, 7, 1000])
def test_round_to_counts_distributes_all_shots(shots: int) -> None:
    rng = np.random.default_rng(shots)
    for _ in range(20):
        p = rng.dirichlet(np.ones(6))
        counts = round_to_counts({f"{k:03b}": float(p[k]) for k in range(6)}, shots)
        assert sum(counts.values()) == shots
        assert all(abs(counts.get(f"{k:03b}", 0) - p[k] * shots) < 1 + 1e-5 for k in range(6))
    for wrong in ({"0": 0.5}, {"0": 1.5, "1": -0.5}, {}, {"0": float("nan")}):
        with pytest.raises(WrongCountsError):
            round_to_counts(wrong, shots)
