"""Jobs of a run: the keys of their results, their circuits with a canary each, and a budget for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ketfit.errors import ConfigError, CostLimitError
from ketfit.hardware.backends.base import Backend, BoundCircuit, GateCounts
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost
from ketfit.hardware.runs.canary import canary_circuit
from ketfit.integers import as_integer
from ketfit.storage.hashing import hash_json

DEFAULT_MAX_CIRCUITS = 1000
"""Circuits per job, where the backend has no limit."""
MONEY_TOLERANCE = 1e-6
"""Excess over a limit on money that is rounding: the prices of several jobs rarely add up to that of all of them."""


@dataclass(frozen=True)
class Budget:
    """Limits of a whole run, canaries included; None is no limit. `money` is in the currency of the prices.

    Raises:
        ConfigError: A limit is negative or not finite.
    """

    money: float | None = None
    circuits: int | None = None
    shots: int | None = None

    def __post_init__(self) -> None:
        if self.money is not None and (isinstance(self.money, bool) or not 0 <= self.money < math.inf):
            raise ConfigError(f"max_cost={self.money!r}: it must be a finite number of at least 0; None is no limit")
        for name in ("circuits", "shots"):
            if (limit := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_integer(limit, f"max_{name}", minimum=0))


def check_budget(budget: Budget, spent: Cost, added: Cost) -> None:
    """Raise an error if `added` on top of `spent` exceeds a budget.

    Raises:
        CostLimitError: A limit would be exceeded; the message names it.
        ConfigError: The money is limited, and no price is known.
    """
    for name, limit in (("circuits", budget.circuits), ("shots", budget.shots)):
        total = getattr(spent, name) + getattr(added, name)
        if limit is not None and total > limit:
            raise CostLimitError(
                f"{total:,} {name} in all, of which {getattr(added, name):,} new: the limit is {limit:,}"
            )
    if budget.money is None or not added.circuits:
        return
    if added.price is None or spent.price is None:
        raise ConfigError("there is a limit on money, and no price is known for this backend; give --device FILE")
    total = spent.price + added.price
    if total > budget.money + MONEY_TOLERANCE:
        raise CostLimitError(
            f"it would cost {total:,.2f} {added.currency} in all, of which {added.price:,.2f} new; the limit is "
            f"{budget.money:,.2f}: nothing was sent"
        )


def result_key(circuit: BoundCircuit, shots: int, backend: Mapping[str, object]) -> str:
    """Return the key of a result: the number of measured qubits, then a hash of circuit, shots and backend.

    Args:
        circuit: The circuit.
        shots: Shots per circuit.
        backend: `backend_identity` of the backend.
    """
    identity = hash_json({"circuit": circuit.key, "shots": shots, **backend}, sort_keys=True)
    return f"{len(circuit.measured)}-{identity}"


def n_measured_of_key(key: str) -> int:
    """Return the number of measured qubits that a `result_key` begins with."""
    return int(key.partition("-")[0])


def split_into_jobs(circuits: Sequence[BoundCircuit], max_circuits: int | None) -> list[list[BoundCircuit]]:
    """Split circuits into jobs of at most `max_circuits`, each with a canary at its head.

    Raises:
        ConfigError: A job can hold one circuit only, which leaves no room for a canary.
    """
    if max_circuits is not None and max_circuits < 2:
        raise ConfigError("this backend takes one circuit a job, and a canary has to come with each")
    size = (max_circuits or DEFAULT_MAX_CIRCUITS) - 1
    parts = [list(circuits[first : first + size]) for first in range(0, len(circuits), size)]
    return [[canary_circuit(part[0].circuit.n_qubits), *part] for part in parts]


def count_gates(
    backend: Backend, jobs: Sequence[Sequence[BoundCircuit]], retry: RetryPolicy
) -> list[Sequence[GateCounts]]:
    """Return the gates of the circuits of each job after transpilation.

    A backend may request the description of its machine for this, a read that is repeated as others are.

    Raises:
        BackendError: The provider does not describe the machine.
    """
    return [retry.call(partial(backend.count_gates, job), "the gates of a job") for job in jobs]
