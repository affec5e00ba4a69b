"""Distributed states on the cores of this machine, beside one process; and a table of wide circuits on clusters.

    python benchmarks/distributed.py --output benchmarks/results/distributed.json

One process has all threads; the ranks share them. The circuits are the paper's QPU circuit with R = 4, which stays
real, and three strongly entangling layers behind RX, which do not. The speed of a machine drifts, so one process and
the ranks run in turn: seconds are medians, and ratios are medians of those of the turns. The seconds of the exchanges
are measured in the runs. The model is that of ``ketfit doctor --plan``, with the times measured here. The exchanged
amplitudes of smaller circuits are beside the fewest that any schedule needs that keeps qubits local: the optimum that
schedulers by integer programming find, here by a search through all schedules.
"""

from __future__ import annotations

import heapq
import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
import typer
from kernel import describe, write_json

from ketfit import expectation
from ketfit.circuit import Angle, Circuit, Gate, cx, reuploading_circuit
from ketfit.circuit.gate import block_diagonal
from ketfit.circuit.lowering import ConstantUnitary, LoweredOperation, lower
from ketfit.simulate.distributed.cost import ComputeTimes, DistributedCost, distributed_cost, measure_times
from ketfit.simulate.distributed.exchange import Exchange
from ketfit.simulate.distributed.statevector import DistributedRun, circuit_schedule
from ketfit.simulate.pauli_program import PauliWord

CLUSTERS = {
    "16 nodes of 64 GiB, 10 GB/s": (16, 64, 10e9),
    "64 nodes of 256 GiB, 25 GB/s": (64, 256, 25e9),
    "1,024 nodes of 512 GiB, 25 GB/s": (1024, 512, 25e9),
}
WIDTHS = range(30, 43, 2)
SEARCHED = ((12, 2), (12, 4), (16, 2), (16, 4), (22, 2))  # qubits and ranks


def paper(qubits: int) -> Circuit:
    return reuploading_circuit(qubits, 1, 1, 4, 2)


def entangling(qubits: int) -> Circuit:
    """Return RX of the inputs and three layers of RZ, RY, RZ and CNOTs over growing distances."""
    gates = [Gate("rx", (qubit,), (Angle("input", qubit),)) for qubit in range(qubits)]
    for layer in range(3):
        for qubit in range(qubits):
            first = 3 * (layer * qubits + qubit)
            gates += [Gate(name, (qubit,), (Angle("weight", first + k),)) for k, name in enumerate(("rz", "ry", "rz"))]
        gates += [cx(qubit, (qubit + layer + 1) % qubits) for qubit in range(qubits)]
    return Circuit.from_gates(qubits, gates)


CIRCUITS = {"paper": paper, "strongly entangling": entangling}
VALUE, GRADIENTS, SPEEDS = "value", "value and gradients", "seconds per amplitude"
SPEED_TURNS = 2  # each is of several runs


def serve(orders: Connection, rank: int, size: int, port: int, kind: str, qubits: int) -> None:
    """Run in one rank what is ordered, and answer with its figures, until the order is None."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    circuit, generator = CIRCUITS[kind](qubits), torch.Generator().manual_seed(0)
    weights = torch.rand(circuit.n_weights, generator=generator, requires_grad=True)
    inputs = torch.rand(1, qubits, generator=generator)
    spent = 0.0
    exchange = DistributedRun.exchange

    def timed(self: DistributedRun, given: Exchange | None, states: Sequence[torch.Tensor]) -> None:
        nonlocal spent
        start = time.perf_counter()
        exchange(self, given, states)
        spent += time.perf_counter() - start

    DistributedRun.exchange = timed  # type: ignore[method-assign, assignment]
    engine: Any = "distributed" if size > 1 else "native"
    while (order := orders.recv()) is not None:
        if dist.is_initialized():
            dist.barrier()
        if order == SPEEDS:
            orders.send(asdict(measure_times(circuit, size)))  # at the same time: ranks share the memory's bandwidth
            continue
        spent, start = 0.0, time.perf_counter()
        value = expectation(circuit, weights, inputs, engine=engine)
        if order == GRADIENTS:
            torch.autograd.backward(value.sum())
        seconds = time.perf_counter() - start
        orders.send({"seconds": seconds, "seconds of exchanges": spent, "result": value.item()})
    if dist.is_initialized():
        dist.destroy_process_group()


class ProcessGroup:
    """The ranks of a circuit, each a process that waits for orders."""

    def __init__(self, size: int, kind: str, qubits: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self.size, self._processes, self._pipes = size, [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, rank, size, port, kind, qubits), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)

    def run(self, order: str) -> dict[str, Any]:
        """Run a value, its gradients or the measurement of speeds on all ranks; return the figures of the first."""
        for pipe in self._pipes:
            pipe.send(order)
        answers: list[dict[str, Any]] = [pipe.recv() for pipe in self._pipes]
        return answers[0]

    def end(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def in_turn(sizes: Sequence[int], kind: str, qubits: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row of medians for one process and for each number of ranks, which run one after another."""
    groups = [ProcessGroup(size, kind, qubits) for size in (1, *sizes)]
    runs: list[dict[str, list[dict[str, Any]]]] = [{} for _ in groups]
    for order, times in ((VALUE, repeats), (GRADIENTS, repeats), (SPEEDS, SPEED_TURNS)):
        turns = [[group.run(order) for group in groups] for _ in range(times + 1)][1:]
        for own, answers in zip(runs, zip(*turns, strict=True), strict=True):
            own[order] = list(answers)
    for group in groups:
        group.end()
    return [row(kind, qubits, group.size, own, runs[0]) for group, own in zip(groups, runs, strict=True)]


def row(kind: str, qubits: int, size: int, runs: Mapping[str, Any], of_one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the medians of the runs, with the model's exchanged bytes and seconds, and ratios to one process."""
    speeds = {key: statistics.median(each[key] for each in runs[SPEEDS]) for key in runs[SPEEDS][0]}
    found: dict[str, Any] = {"circuit": kind, "ranks": size, "qubits": qubits, "seconds per amplitude": speeds}
    for order in (VALUE, GRADIENTS):
        own: dict[str, Any] = {
            key: round(statistics.median(each[key] for each in runs[order]), 3)
            for key in ("seconds", "seconds of exchanges")
        }
        cost = distributed_cost(CIRCUITS[kind](qubits), size, 1.0, ComputeTimes(**speeds), gradient=order == GRADIENTS)
        own["result"] = runs[order][0]["result"]
        own["exchanged bytes"] = cost.exchanged_bytes
        if own["seconds of exchanges"]:
            own["GB/s"] = round(cost.exchanged_bytes / own["seconds of exchanges"] / 1e9, 2)
        own["seconds by the model"] = round(cost.compute_seconds + own["seconds of exchanges"], 3)
        ratios = [
            (each["seconds"] - each["seconds of exchanges"]) / alone["seconds"]
            for each, alone in zip(runs[order], of_one[order], strict=True)
        ]
        own["without exchanges, times one process"] = round(statistics.median(ratios), 2)
        if size > 1:
            own["quartiles of turns"] = [round(q, 2) for q in np.quantile(ratios, [0.25, 0.75])]
        found[order] = own
    return found


def fewest_exchanged(circuit: Circuit, n_global: int) -> float:
    """Return the fewest amplitudes that a rank has to send if qubits are local or global, in those of its part.

    A segment may run all gates that commute with those before them and mix local qubits alone; an exchange of m qubits
    costs 1 - 2**-m. Dijkstra's search through what has run and which qubits are global.
    """
    operations = [_masks(operation) for operation in lower(circuit)]

    def run(done: int, global_qubits: int) -> int:
        blocked = mixed_by_left = 0
        for number, (qubits, mixed) in enumerate(operations):
            if done >> number & 1:
                continue
            if not mixed & global_qubits and not mixed_by_left & qubits and not blocked & mixed:
                done |= 1 << number
            else:
                blocked |= qubits
                mixed_by_left |= mixed
        return done

    choices = [sum(1 << qubit for qubit in chosen) for chosen in combinations(range(circuit.n_qubits), n_global)]
    visited: dict[int, list[int]] = {choice: [] for choice in choices}
    heap = [(0.0, -(done := run(0, choice)).bit_count(), done, choice) for choice in choices]
    heapq.heapify(heap)
    while True:
        cost, _, done, global_qubits = heapq.heappop(heap)
        if done == (1 << len(operations)) - 1:
            return cost
        if any(done | other == other for other in visited[global_qubits]):
            continue
        visited[global_qubits].append(done)
        for choice in choices:
            after = run(done, choice)
            if after != done and not any(after | other == other for other in visited[choice]):
                exchanged = (choice & ~global_qubits).bit_count()
                heapq.heappush(heap, (cost + 1 - 0.5**exchanged, -after.bit_count(), after, choice))


def _masks(operation: LoweredOperation) -> tuple[int, int]:
    """Return the qubits of an operation, and those on which it is not diagonal."""
    if isinstance(operation, ConstantUnitary):
        diagonal = block_diagonal(operation.matrix)
    else:
        diagonal = tuple(letter == "Z" for letter in operation.word)
    mixed = [qubit for qubit, kept in zip(operation.qubits, diagonal, strict=True) if not kept]
    return sum(1 << qubit for qubit in operation.qubits), sum(1 << qubit for qubit in mixed)


def exchanged_amplitudes() -> list[dict[str, Any]]:
    """Return what a rank sends for a value, in amplitudes of its part, beside the fewest with local qubits."""
    rows = []
    for kind, circuit_of in CIRCUITS.items():
        for qubits, ranks in SEARCHED:
            circuit, n_global = circuit_of(qubits), ranks.bit_length() - 1
            words = [PauliWord(0, 1 << (qubits - 1))]
            schedule, _ = circuit_schedule(circuit, words, n_global, from_zero=True)
            rows.append(
                {
                    "circuit": kind,
                    "qubits": qubits,
                    "ranks": ranks,
                    "sent": schedule.exchanged_amplitudes / 2**schedule.n_local,
                    "fewest with local qubits": fewest_exchanged(circuit.light_cone((0,)), n_global),
                }
            )
    return rows


def table() -> list[dict[str, Any]]:
    """Return the cost of the paper's circuit on clusters whose nodes are as fast as this machine."""
    rows = []
    for cluster, (nodes, memory, bandwidth) in CLUSTERS.items():
        for qubits in WIDTHS:
            circuit = paper(qubits)
            cost = distributed_cost(circuit, nodes, bandwidth, measure_times(circuit, nodes), gradient=True)
            if cost.memory_bytes <= memory * 2**30:
                rows.append({"cluster": cluster, **_row(cost)})
    return rows


def _row(cost: DistributedCost) -> dict[str, Any]:
    return {
        "qubits": cost.qubits,
        "memory of a node, GiB": round(cost.memory_bytes / 2**30, 2),
        "exchanged by a node, GiB": round(cost.exchanged_bytes / 2**30, 2),
        "seconds": float(f"{cost.seconds:.3g}"),
        "seconds of exchanges": float(f"{cost.exchange_seconds:.3g}"),
    }


def main(
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    qubits: Annotated[list[int], typer.Option(help="Widths.")] = [22, 24],  # noqa: B006
    ranks: Annotated[list[int], typer.Option(help="Numbers of ranks.")] = [2, 4],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Turns.")] = 11,
) -> None:
    """Measure, and print the rows and the tables."""
    options = {"qubits": qubits, "ranks": ranks, "repeats": repeats}
    results = {
        **describe("distributed", options),
        "rows": [row for kind in CIRCUITS for width in qubits for row in in_turn(ranks, kind, width, repeats)],
        "exchanged": exchanged_amplitudes(),
        "clusters": table(),
    }
    print(json.dumps(results, indent=2))
    if output is not None:
        write_json(output, results)


if __name__ == "__main__":
    typer.run(main)
