"""Plans of runs: the circuits that a trained head sends to a backend, and their cost, before anything is sent."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.errors import ConfigError, InputError, LedgerError
from ketfit.estimators.quantum import QuantumHeadClassifier, require_quantum_head
from ketfit.hardware.backends.base import (
    Backend,
    BoundCircuit,
    Description,
    Scalar,
    backend_identity,
    check_range,
    check_submission,
    checked_options,
)
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost, DeviceCost, estimate, load_device, read_device
from ketfit.hardware.runs.jobs import Budget, check_budget, count_gates, result_key, split_into_jobs
from ketfit.hardware.runs.ledger import Ledger
from ketfit.hardware.runs.postprocessing import MeasurementPlan, Mitigation, OutputLayer
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig
from ketfit.model.head import QuantumHead
from ketfit.storage.atomic import write_file
from ketfit.storage.hashing import hash_file
from ketfit.storage.strict_json import dump_json, parse_json
from ketfit.storage.tensors import read_tensors, write_tensors

PLAN, INPUTS = "plan.json", "inputs.safetensors"
VERSION = 1


@dataclass(frozen=True)
class RunPlan:
    """The content of ``plan.json``: circuits, backend, cost, and the meaning of the results.

    Attributes:
        run_id: Unique id of the run.
        backend: Name for `load_backend`, with its `options` and `seed`.
        described: `backend_identity` of the backend, which is part of the key of every result.
        shots: Shots per circuit.
        mitigation: Mitigation by KetFit; a provider's is among the options.
        head: Configuration of the head.
        classes: Labels of the logits.
        labels: True labels, or None.
        temperature: Divisor of the logits.
        sentences, distinct: Number of sentences, and of different circuits for them and the mitigation.
        batches: Number of jobs; each has one canary besides.
        cost: Cost of all jobs, canaries included.
        device: Prices and profile behind the cost.
        max_cost: Limit on money for all submissions from this folder.
        circuits_sha256: Hash of the keys of all circuits, in order.
        inputs_sha256: Hash of ``inputs.safetensors``.
        facts: Metadata: the model and the data.
    """

    run_id: str
    backend: str
    options: dict[str, Scalar]
    seed: int
    described: dict[str, Any]
    shots: int
    mitigation: tuple[Mitigation, ...]
    head: HeadConfig
    classes: list[str] | list[int]
    labels: list[str] | list[int] | None
    temperature: float
    sentences: int
    distinct: int
    batches: int
    cost: Cost
    device: DeviceCost
    max_cost: float | None
    circuits_sha256: str
    inputs_sha256: str
    facts: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``plan.json``."""
        table = {name: value for name, value in vars(self).items() if name not in ("head", "device")}
        table["cost"] = asdict(self.cost)
        return {
            "version": VERSION,
            **table,
            "head": self.head.model_dump(mode="json", exclude_defaults=True),
            "device": self.device.model_dump(mode="json", exclude_none=True),
        }


@dataclass(frozen=True)
class PreparedRun:
    """A plan, its measurements and their circuits, and the tensors that the circuits are made of."""

    plan: RunPlan
    measurement: MeasurementPlan
    circuits: list[BoundCircuit]
    tensors: dict[str, Tensor]

    @property
    def encoder_expectations(self) -> Tensor:
        """The encoders' output, shape (sentences, qubits)."""
        return self.tensors["z"]

    @property
    def output_layer(self) -> OutputLayer:
        """The last layer of the head."""
        weight, bias = self.tensors["linear.weight"], self.tensors["linear.bias"]
        return OutputLayer(weight, bias, self.plan.head.skip_connection, self.plan.temperature)


@torch.no_grad()
def plan_run(
    classifier: QuantumHeadClassifier,
    embeddings: Any,
    backend: Backend,
    *,
    name: str,
    options: dict[str, Scalar] | None = None,
    labels: Sequence[Any] | None = None,
    shots: int = 1000,
    mitigation: Sequence[Mitigation] = (),
    device: DeviceCost | None = None,
    max_cost: float | None = None,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
    retry: RetryPolicy | None = None,
) -> PreparedRun:
    """Plan the run of a fitted head on a backend. The encoders are computed here; nothing is sent.

    Args:
        classifier: Fitted classifier.
        embeddings: Embeddings of the sentences, shape (n, embedding_dim).
        backend: Backend that will run the circuits.
        name: Name from which `load_backend` makes the backend, with `options` and `seed`.
        options: Options of the backend.
        labels: True labels, or None.
        shots: Shots per circuit.
        mitigation: See `MeasurementPlan`.
        device: Prices and times; None loads the device that the backend names.
        max_cost: Limit on money, in the currency of the prices.
        seed: Seed of a simulator's shots, and of the intervals.
        metadata: Names of the model and the data, stored in the plan.
        retry: Retry policy for requests about the machine; None uses the default one.

    Raises:
        CostLimitError: The run would cost more than `max_cost`.
        ConfigError: The head is classical; shots, limits or mitigation do not fit the backend; or the seed, an option
            or the limit is invalid.
        BackendError: The provider does not describe the machine.
        InputError: The number of labels is wrong, or embeddings or circuits do not fit.
    """
    head = require_quantum_head(classifier, "run on hardware").module_
    description = backend.describe()
    shots = _check_backend(description, shots, mitigation)
    seed, budget = as_integer(seed, "seed", minimum=0), Budget(money=max_cost)
    options = checked_options(options or {})
    tensors = _tensors(head, embeddings)
    sentences = len(tensors["z"])
    if labels is not None and len(labels) != sentences:
        raise InputError(f"{len(labels)} labels for {sentences} sentences; give one for each")
    measurement, circuits = _prepare(head.config, tuple(mitigation), tensors)
    identity = backend_identity(description)
    keys = [result_key(circuit, shots, identity) for circuit in circuits]
    distinct = list(dict(zip(keys, circuits, strict=True)).values())
    jobs = split_into_jobs(distinct, description.limits.circuits)
    for job in jobs:
        check_submission(description, job, shots, "plan")
    prices = device or load_device(description.device)
    gates = [each for counted in count_gates(backend, jobs, retry or RetryPolicy()) for each in counted]
    cost = estimate(gates, shots, prices, mitigated=description.is_mitigated)
    check_budget(budget, estimate([], shots, prices), cost)
    plan = RunPlan(
        run_id=secrets.token_hex(6),
        backend=name,
        options=options,
        seed=seed,
        described=identity,
        shots=shots,
        mitigation=tuple(mitigation),
        head=head.config,
        classes=classifier.classes_.tolist(),
        labels=None if labels is None else [x.item() if isinstance(x, np.generic) else x for x in labels],
        temperature=float(classifier.temperature_),
        sentences=sentences,
        distinct=len(distinct),
        batches=len(jobs),
        cost=cost,
        device=prices,
        max_cost=max_cost,
        circuits_sha256=hashlib.sha256("".join(keys).encode()).hexdigest(),
        inputs_sha256="",
        facts=dict(metadata or {}),
    )
    return PreparedRun(plan, measurement, circuits, tensors)


def _check_backend(description: Description, shots: int, mitigation: Sequence[Mitigation]) -> int:
    """Return the shots; raise an error, before anything is computed, if the backend cannot do the run."""
    if "zero_noise" in mitigation and not description.keeps_gates:
        raise ConfigError(
            f"{description.name} compiles circuits, and would cancel the folded gates of zero_noise; leave it out"
        )
    if "readout" in mitigation and not description.keeps_qubits:
        raise ConfigError(
            f"{description.name} does not say that it keeps the physical qubits of a circuit (keeps_qubits), so that "
            "readout could calibrate others; leave it out (on a QPU of IonQ's, --option gateset=native keeps them)"
        )
    limits = description.limits
    return check_range(shots, "shots", limits.min_shots, limits.shots, description.name)


def _tensors(head: QuantumHead, embeddings: Any) -> dict[str, Tensor]:
    """Return the encoders' output for every sentence and the trained parameters after it, in double precision."""
    x = torch.as_tensor(embeddings, dtype=head.weights.dtype)
    return {
        "z": torch.cat([head.encode(part) for part in torch.split(x, 512)]).double(),
        "angle_scale": head.angle_scale.detach().double(),
        "weights": head.weights.detach().double(),
        "linear.weight": head.linear.weight.detach().double(),
        "linear.bias": head.linear.bias.detach().double(),
    }


def _prepare(
    config: HeadConfig, mitigation: tuple[Mitigation, ...], tensors: dict[str, Tensor]
) -> tuple[MeasurementPlan, list[BoundCircuit]]:
    """Return the measurements of a head, and the circuits of its sentences."""
    measurement = MeasurementPlan.of_head(config, mitigation)
    return measurement, measurement.circuits(tensors["weights"].tolist(), tensors["angle_scale"] * tensors["z"])


def write_plan(folder: Path, prepared: PreparedRun) -> RunPlan:
    """Write a plan and its tensors into the folder of a run, and return the plan.

    Raises:
        LedgerError: The folder has a run of which something was submitted, or another process works on it.
        StorageError: The folder cannot be written.
    """
    with Ledger(folder) as ledger:
        if ledger.state.submissions:
            raise LedgerError(f"{folder} has a run of which something was submitted; name another folder")
        path = folder / INPUTS
        write_tensors(path, prepared.tensors, {})
        plan = replace(prepared.plan, inputs_sha256=hash_file(path))
        write_file(folder / PLAN, (dump_json(plan.to_json(), "the plan", indent=1) + "\n").encode())
    return plan


def read_plan(folder: Path) -> PreparedRun:
    """Read the plan of a run, build its circuits again and check that they are the planned ones.

    Raises:
        LedgerError: The folder has no plan, it is damaged, or this version makes other circuits from it.
    """
    path = folder / PLAN
    try:
        table = parse_json(path.read_text(encoding="utf-8"))
        if table.pop("version") != VERSION:
            raise ValueError("it was written by another version")
        cost: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in table["cost"].items()
        }
        table["mitigation"], table["cost"] = tuple(table["mitigation"]), Cost(**cost)
        table["head"] = HeadConfig.from_mapping(table["head"])
        table["device"] = read_device(table["device"], str(path))
        plan = RunPlan(**table)
        tensors, _ = read_tensors(folder / INPUTS, sha256=plan.inputs_sha256)
        measurement, circuits = _prepare(plan.head, plan.mitigation, tensors)
    except FileNotFoundError as error:
        raise LedgerError(f"{folder} has no {PLAN}; begin with ketfit hardware plan") from error
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LedgerError(f"{path} is damaged ({error}); restore it, or plan anew in another folder") from error
    keys = [result_key(circuit, plan.shots, plan.described) for circuit in circuits]
    if hashlib.sha256("".join(keys).encode()).hexdigest() != plan.circuits_sha256:
        raise LedgerError(
            f"{path}: these are not the circuits that were planned: the file was changed, or an earlier version of "
            "KetFit planned them with mitigation, and only that version fetches them; plan anew in another folder"
        )
    return PreparedRun(plan, measurement, circuits, tensors)
