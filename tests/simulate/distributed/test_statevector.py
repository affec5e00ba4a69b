"""Distributed states in processes of their own, against one process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit import HeadConfig, QuantumHead, expectation, expectation_and_gradients
from ketfit.circuit import Circuit, Gate, PauliSum, Projector, reuploading_circuit
from ketfit.errors import CircuitError, ConfigError, DistributedError, InputError
from ketfit.simulate.distributed import ranks as ranks_module
from ketfit.simulate.distributed.schedule import make_schedule
from tests.circuits_of_any_kind import random_general_circuit
from tests.simulate.distributed.launch import run_ranks

SUMS = [
    PauliSum([(0.5, "ZZ", (0, 4)), (1.5, "XY", (1, 2)), (0.3, "I", (0,))]),
    PauliSum([(1.0, "Z", (3,))]),
    PauliSum([(-2.0, "XZ", (1, 5))]),
]
SEEDS = range(4)


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


def general(rank: int) -> list[list[np.ndarray]]:
    return [values_and_gradients("distributed", seed, torch.float64) for seed in SEEDS] + [
        values_and_gradients("distributed", 0, torch.float32)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_distributed_values_and_gradients_equal_one_process(size: int, tmp_path: Path) -> None:
    expected = [values_and_gradients("native", seed, torch.float64) for seed in SEEDS]
    for found in run_ranks(size, general, tmp_path):
        for one, other in zip(found[:-1], expected, strict=True):
            assert [each.shape for each in one] == [each.shape for each in other]
            assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-12
        for a, b in zip(found[-1], expected[0], strict=True):
            assert np.abs(a - b).max() / np.abs(b).max() < 1e-5


def paper(rank: int) -> dict[str, Any]:
    circuit = reuploading_circuit(7, 2, 1, 2, 2)
    weights = torch.linspace(-1, 1, circuit.n_weights, dtype=torch.float64)
    inputs = torch.linspace(0, 2, 14, dtype=torch.float64).reshape(2, 7)
    sent: list[int] = []
    swap = ranks_module._swap_with

    def counted(piece: Tensor, partner: int) -> None:
        sent.append(piece.numel())
        swap(piece, partner)

    ranks_module._swap_with = counted
    ranks_module.CHUNK = 5
    values = expectation(circuit, weights, inputs, qubits=(0, 3, 6), engine="distributed")
    cone = circuit.light_cone((0, 3, 6))
    planned = 2 * make_schedule(cone, ranks_module.Ranks.connect().n_global, frozenset(), True).exchanged_amplitudes
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
        assert 0 < found["planned"] <= found["sent"] <= 2 * found["planned"]  # the shots have a schedule of their own
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


def refused(rank: int) -> list[str]:
    messages = []
    swap = Circuit(3, [Gate("swap", (0, 1)), Gate("h", 2)], 0, 0)
    calls: list[tuple[type[Exception], Circuit, dict[str, Any]]] = [
        (CircuitError, swap, {"qubits": (0,)}),
        (ConfigError, Circuit(2, [], 0, 0), {}),
        (ConfigError, Circuit(4, [], 0, 0), {"observables": [Projector("0", (0,))]}),
        (CircuitError, Circuit(3, [], 0, 0), {"observables": [PauliSum([(1.0, "XX", (0, 1))])]}),
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
        assert "mixes 2 qubits, and each of the 4 ranks holds 1" in messages[0]
        assert "4 ranks share a state of 2 qubits; start at most 2" in messages[1]
        assert "distributed states have sums of Pauli words, and not Projector" in messages[2]
        assert "X or Y on 2 qubits" in messages[3]


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
