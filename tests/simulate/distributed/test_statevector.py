"""Distributed states in processes of their own, against one process."""

from __future__ import annotations

import atexit
import os
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ketfit import HeadConfig, QuantumHead, expectation, expectation_and_gradients
from ketfit.circuit import Circuit, Gate, PauliSum, Projector, reuploading_circuit
from ketfit.errors import CircuitError, ConfigError, DistributedError, InputError, InsufficientMemoryError
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.distributed import exchange
from ketfit.simulate.distributed.ranks import Ranks
from ketfit.simulate.distributed.statevector import circuit_schedule, distributed_distribution, make_run
from ketfit.simulate.pauli_program import PauliWord
from ketfit.simulate.statevector import statevector_expectation
from tests.circuits_of_any_kind import random_general_circuit
from tests.simulate.distributed.launch import run_ranks
from tests.simulate.distributed.thread_ranks import run_threads

SUMS = [
    PauliSum([(0.5, "ZZ", (0, 4)), (1.5, "XY", (1, 2)), (0.3, "I", (0,))]),
    PauliSum([(1.0, "Z", (3,))]),
    PauliSum([(-2.0, "XZ", (1, 5))]),
]


def arguments(circuit: Circuit, seed: int, dtype: torch.dtype) -> list[Tensor | None]:
    """Weights, inputs of three samples, and initial amplitudes: none, complex or real."""
    generator = torch.Generator().manual_seed(seed)
    weights, inputs = (
        torch.rand(shape, generator=generator, dtype=torch.float64) * 6 - 3
        for shape in ((circuit.n_weights,), (3, circuit.n_inputs))
    )
    initial: Tensor | None = None
    if seed % 3:
        kind = torch.complex128 if seed % 3 == 1 else torch.float64
        initial = torch.randn(3, 2**circuit.n_qubits, generator=generator, dtype=kind)
        initial = initial / initial.norm(dim=1, keepdim=True)
    given: list[Tensor | None] = [weights.to(dtype), inputs.to(dtype), None]
    if initial is not None:
        given[2] = initial.to(torch.complex64 if dtype == torch.float32 and initial.is_complex() else initial.dtype)
        given[2] = given[2].to(dtype) if not initial.is_complex() else given[2]
    return [None if each is None else each.requires_grad_() for each in given]


def values_and_gradients(engine: Any, seed: int, dtype: torch.dtype) -> list[np.ndarray]:
    circuit = random_general_circuit(6, 30, seed)
    tensors = arguments(circuit, seed, dtype)
    values = expectation(circuit, *tensors, observables=SUMS, engine=engine)  # type: ignore[misc]
    cotangent = torch.arange(1.0, 1 + values.numel(), dtype=dtype).reshape(values.shape)
    given = [each for each in tensors if each is not None]
    found = [values, *torch.autograd.grad(values, given, cotangent)]
    found += [each for each in expectation_and_gradients(circuit, *tensors, (5, 0), engine=engine) if each is not None]  # type: ignore[misc]
    return [each.detach().numpy() for each in found]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_distributed_values_and_gradients_equal_one_process(seed: int, size: int) -> None:
    expected = values_and_gradients("native", seed, torch.float64)
    for found in run_threads(size, lambda _: values_and_gradients("distributed", seed, torch.float64)):
        assert [each.shape for each in found] == [each.shape for each in expected]
        assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) < 1e-12


@pytest.mark.parametrize("size", [2, 4])
def test_distributed_single_precision_is_as_precise_as_one_process(size: int) -> None:
    expected = values_and_gradients("native", 0, torch.float64)
    for found in run_threads(size, lambda _: values_and_gradients("distributed", 0, torch.float32)):
        for a, b in zip(found, expected, strict=True):
            assert np.abs(a - b).max() / np.abs(b).max() < 1e-5


def real_run(engine: Any, initial: bool) -> list[np.ndarray]:
    circuit = reuploading_circuit(9, 2, 1, 2, 3)
    generator = torch.Generator().manual_seed(2)
    shapes = ((circuit.n_weights,), (3, circuit.n_inputs), (3, 2**9))
    weights, inputs, states = (torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    states = torch.nn.functional.normalize(states)
    given = [each.requires_grad_() for each in (weights, inputs, states)[: 3 if initial else 2]]
    sums = [PauliSum([(1.0, "Z", (0,)), (0.5, "XX", (2, 7))]), PauliSum([(2.0, "YY", (1, 8)), (0.7, "Y", (4,))])]
    values = expectation(circuit, *given, observables=sums, engine=engine)  # type: ignore[misc]
    outcomes = distributed_distribution if engine == "distributed" else statevector_outcomes
    distribution = outcomes(CircuitBatch(circuit, *given), (3, 0, 8))  # type: ignore[arg-type]
    cotangents = [
        torch.arange(each.numel(), dtype=torch.float64).reshape(each.shape) for each in (values, distribution)
    ]
    gradients = torch.autograd.grad((values, distribution), given, cotangents)
    return [each.detach().numpy() for each in (values, distribution, *gradients)]


def statevector_outcomes(batch: CircuitBatch, measured: tuple[int, ...]) -> Tensor:
    return statevector_expectation(batch, measured, joint=True)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("size", [1, 4, 16])
def test_distributed_real_circuits_have_values_and_outcomes_of_one_process(size: int, initial: bool) -> None:
    expected = real_run("native", initial)
    for found in run_threads(size, lambda _: real_run("distributed", initial)):
        assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) < 1e-12


def test_distributed_states_of_real_circuits_have_no_imaginary_parts() -> None:
    words = (PauliWord(0, 1),)
    circuit = reuploading_circuit(6, 1, 1, 2, 1)
    run = run_threads(2, lambda _: make_run(circuit, Ranks.connect(), words, False, True, True, 8))[0]
    assert run.layout.is_real and run.plans[0].unit_numbers == 2**5
    complex_run = run_threads(2, lambda _: make_run(circuit, Ranks.connect(), words, False, False, False, 8))[0]
    assert complex_run.plans[0].unit_numbers == 2**6


def test_distributed_backward_twice_has_equal_gradients() -> None:
    circuit = reuploading_circuit(6, 1, 1, 2, 1)

    def twice(_: int) -> list[Tensor]:
        weights = torch.linspace(-1, 1, circuit.n_weights).requires_grad_()
        value = expectation(circuit, weights, torch.linspace(0, 1, 6)[None], engine="distributed").sum()
        return [torch.autograd.grad(value, weights, retain_graph=True)[0] for _ in range(2)]

    for first, second in run_threads(4, twice):
        assert torch.equal(first, second)


def test_distributed_memory_is_checked_on_every_rank() -> None:
    circuit = reuploading_circuit(24, 1, 1, 1, 1)

    def refused(rank: int) -> str:
        with pytest.raises(InsufficientMemoryError) as raised:
            expectation(circuit, torch.zeros(circuit.n_weights), torch.zeros(9, 24), engine="distributed")
        return str(raised.value)

    def free(required: float) -> int | None:  # of the second rank alone
        return 2**28 if Ranks.connect().rank else None

    with mock.patch("ketfit.simulate.distributed.statevector.memory_shortage", free):
        messages = run_threads(2, refused)
    assert all("a rank needs 0.3 GiB, which one of the 2 does not have" in message for message in messages)
    assert ["and 0.2 GiB are free here" in message for message in messages] == [False, True]


def general(rank: int) -> list[np.ndarray]:
    return values_and_gradients("distributed", 1, torch.float64)


@pytest.mark.slow
def test_distributed_processes_have_values_and_gradients_of_one(tmp_path: Path) -> None:
    expected = values_and_gradients("native", 1, torch.float64)
    for found in run_ranks(4, general, tmp_path):
        assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) < 1e-12


def paper(rank: int) -> dict[str, Any]:
    circuit = reuploading_circuit(7, 2, 1, 2, 2)
    weights = torch.linspace(-1, 1, circuit.n_weights, dtype=torch.float64)
    inputs = torch.linspace(0, 2, 14, dtype=torch.float64).reshape(2, 7)
    sent: list[int] = []
    swap = Ranks.swap

    def counted(self: Ranks, piece: Tensor, partner: int) -> Tensor:
        sent.append(piece.numel())
        return swap(self, piece, partner)

    Ranks.swap = counted  # type: ignore[method-assign]
    exchange.CHUNK = 5
    values = expectation(circuit, weights, inputs, qubits=(0, 3, 6), engine="distributed")
    words = [PauliWord(0, 1 << (6 - qubit)) for qubit in (0, 3, 6)]
    schedule, _ = circuit_schedule(circuit, words, Ranks.connect().n_global, from_zero=True)
    planned = 2 * schedule.exchanged_amplitudes
    assert sum(sent) == planned
    counts = expectation(
        circuit, weights, inputs, qubits=(0, 6), shots=4000, engine="distributed", generator=torch.manual_seed(3)
    )
    return {"values": values.numpy(), "sent": sum(sent), "planned": planned, "largest": max(sent, default=0)} | {
        "shots": counts.numpy()
    }


@pytest.mark.slow
def test_distributed_shots_and_exchanged_amplitudes(tmp_path: Path) -> None:
    alone, *several = [run_ranks(size, paper, _folder(tmp_path, size)) for size in (1, 4)]
    for found in several[0]:
        np.testing.assert_allclose(found["values"], alone[0]["values"], atol=1e-13)
        np.testing.assert_array_equal(found["shots"], several[0][0]["shots"])
        assert np.abs(found["shots"] - alone[0]["values"][:, [0, 2]]).max() < 5 / np.sqrt(4000)
        assert 0 < found["planned"] < found["sent"]  # the shots have a schedule of their own
        assert 0 < found["largest"] <= 5


def _folder(path: Path, size: int) -> Path:
    (path / str(size)).mkdir()
    return path / str(size)


def lost(rank: int, victim: int) -> tuple[str, float]:
    circuit, start = reuploading_circuit(5, 1, 1, 2, 1), time.monotonic()
    weights, inputs = torch.rand(circuit.n_weights), torch.rand(2, 5)
    expectation(circuit, weights, inputs, engine="distributed")
    if rank == victim:
        os._exit(0)
    try:
        expectation(circuit, weights, inputs, engine="distributed")
    except DistributedError as error:
        return str(error), time.monotonic() - start
    return "no error", 0.0


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_lost_rank_is_named_on_every_other_rank(tmp_path: Path, victim: int) -> None:
    found = run_ranks(4, lost, tmp_path, victim)
    assert found.pop(victim) is None
    for message, seconds in found:
        assert f"lost the connection to rank {victim}" in message
        assert seconds < 60


def heartbeats() -> int:
    return sum(thread.name == "ketfit heartbeat" for thread in threading.enumerate())


def heartbeat_until_end(_: int) -> int:
    dist.destroy_process_group = dist.barrier  # so that the process group lives until Python ends
    atexit.register(lambda: os._exit(heartbeats()))  # runs last, because it is registered first
    circuit = reuploading_circuit(3, 1, 1, 1, 1)
    expectation(circuit, torch.rand(circuit.n_weights), torch.rand(1, 3), engine="distributed")
    return heartbeats()


@pytest.mark.slow
def test_heartbeat_of_a_rank_ends_before_python(tmp_path: Path) -> None:
    assert run_ranks(2, heartbeat_until_end, tmp_path) == [1, 1]


def refused(rank: int) -> list[str]:
    messages = []
    calls: list[tuple[type[Exception], Circuit, dict[str, Any]]] = [
        (ConfigError, Circuit(2, [], 0, 0), {}),
        (ConfigError, Circuit(4, [], 0, 0), {"observables": [Projector("0", (0,))]}),
        (CircuitError, Circuit(3, [], 0, 0), {"observables": [PauliSum([(1.0, "X", (0,)), (1.0, "X", (1,))])]}),
    ]
    for kind, circuit, options in calls:
        with pytest.raises(kind) as raised:
            expectation(circuit, torch.zeros(0), engine="distributed", **options)
        messages.append(str(raised.value))
    weights = torch.zeros(1, requires_grad=True)
    value = expectation(Circuit.from_gates(3, [Gate("ry", 0, (1.0,))]), torch.zeros(0), engine="distributed")
    assert value.shape == (1, 1)
    from ketfit.circuit import Angle

    turned = expectation(Circuit(3, [Gate("rx", 0, (Angle("weight", 0),))], 1, 0), weights, engine="distributed")
    with pytest.raises(InputError, match="second|twice|once"):
        torch.autograd.grad(turned.sum(), weights, create_graph=True)
    return messages


@pytest.mark.slow
def test_distributed_runs_that_cannot_be_are_refused_on_every_rank(tmp_path: Path) -> None:
    for messages in run_ranks(4, refused, tmp_path):
        assert "4 ranks share a state of 2 qubits; start at most 2" in messages[0]
        assert "distributed states have sums of Pauli words, and not Projector" in messages[1]
        assert "X or Y on too many qubits for parts of 1 qubits, one on each of the 4 ranks" in messages[2]


def test_distributed_engine_outside_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="start the program with torchrun"):
        expectation(Circuit(2, [], 0, 0), torch.zeros(0), engine="distributed")


def test_distributed_engine_refuses_trajectories_and_transforms() -> None:
    circuit = reuploading_circuit(3, 1, 1, 1, 1)
    weights, inputs = torch.zeros(circuit.n_weights), torch.zeros(2, 3)
    with pytest.raises(ConfigError, match="cannot be transformed by torch.func"):
        torch.func.grad(lambda w: expectation(circuit, w, inputs, engine="distributed").sum())(weights)
    assert QuantumHead(HeadConfig(n_qubits=3), 8, 2).circuit.n_qubits == 3
