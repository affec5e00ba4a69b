"""What a run of a trained head on a backend will send, and what it costs, before anything is sent."""

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
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.hardware.backends.base import (
    Backend,
    BoundCircuit,
    Description,
    Scalar,
    backend_identity,
    check_range,
    check_submission,
    plain_options,
)
from ketfit.hardware.pricing import Cost, DeviceCost, estimate, load_device, read_device
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.postprocessing import MeasurementPlan, Mitigation, OutputLayer
from ketfit.hardware.runs.session import Budget, check_budget, plan_submissions, result_key
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
    """The content of ``plan.json``: what will be sent where, what it costs, and what the answers mean.

    Attributes:
        run_id: No other run has it.
        backend: As `load_backend` takes it, with its `options` and `seed`.
        described: The backend's name and options as they count for results.
        shots: Of each circuit.
        mitigation: Ours; a provider's stands among the options.
        head: The head's shape.
        classes: The labels that the logits stand for.
        labels: The true labels, or None.
        temperature: What the logits are divided by.
        sentences, distinct: How many sentences, and how many different circuits they and the mitigation make.
        batches: Jobs; each has a canary besides.
        cost: Of all of it, canaries included.
        device: Prices and profile that the cost was worked out with.
        max_cost: The limit on money for everything that is ever submitted from this folder.
        circuits_sha256: Of the keys of all circuits, in order.
        inputs_sha256: Of ``inputs.safetensors``.
        facts: Where it comes from: model, data.
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

    @property
    def is_mitigated_by_provider(self) -> bool:
        """Whether the provider was asked to mitigate errors."""
        return bool(self.options.get("mitigation") not in (None, "none"))

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
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
    """A plan and what it was made from."""

    plan: RunPlan
    circuits: list[BoundCircuit]
    tensors: dict[str, Tensor]

    @property
    def z(self) -> Tensor:
        """The encoders' output, shape (sentences, qubits)."""
        return self.tensors["z"]

    @property
    def measurement(self) -> MeasurementPlan:
        """What makes the circuits, and values of their counts."""
        return _measurement(self.plan.head, self.plan.mitigation)

    @property
    def linear(self) -> OutputLayer:
        """The last layer of the head."""
        parts = (self.tensors["linear.weight"], self.tensors["linear.bias"])
        return OutputLayer(*parts, self.plan.head.skip_connection, self.plan.temperature)


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
    facts: dict[str, str] | None = None,
) -> PreparedRun:
    """What a fitted head takes on a backend for these sentences. The encoders are computed here; nothing is sent.

    Args:
        classifier: Fitted.
        embeddings: Of the sentences, shape (n, embedding_dim).
        backend: Where it will run.
        name: What `load_backend` makes it from, with `options` and `seed`.
        options: Of the backend.
        labels: The true ones, or None.
        shots: Of each circuit.
        mitigation: See `MeasurementPlan`.
        device: Prices and times; None is the file that the backend names.
        max_cost: The limit on money, in the price's own currency.
        seed: Source of a simulator's shots, and of the intervals.
        facts: Where model and data come from, for the record.

    Raises:
        CostLimitError: it would cost more than `max_cost`.
        ConfigError: shots, limits or mitigation that do not fit the backend; or a seed, an option or `max_cost` that is
            not what it may be.
        InputError: labels of another number, or embeddings or circuits that do not fit.
    """
    head, description = classifier.module_, backend.describe()
    shots = _check(description, shots, mitigation)
    seed, budget = as_integer(seed, "seed", minimum=0), Budget(money=max_cost)
    options = plain_options(options or {})
    tensors = _tensors(head, embeddings)
    sentences = len(tensors["z"])
    if labels is not None and len(labels) != sentences:
        raise InputError(f"{len(labels)} labels for {sentences} sentences; give one for each")
    config = head.config
    circuits = _circuits(config, tuple(mitigation), tensors)
    described = backend_identity(description)
    keys = [result_key(circuit, shots, described) for circuit in circuits]
    once = list(dict(zip(keys, circuits, strict=True)).values())
    batches = plan_submissions(once, description.limits.circuits)
    for batch in batches:
        check_submission(description, batch, shots, "plan")
    chosen = device or load_device(description.device)
    gates = [each for batch in batches for each in backend.count_gates(batch)]
    provider = options.get("mitigation") not in (None, "none")
    cost = estimate(gates, shots, chosen, mitigated=provider)
    check_budget(budget, estimate([], shots, chosen), cost)
    plan = RunPlan(
        run_id=secrets.token_hex(6),
        backend=name,
        options=options,
        seed=seed,
        described=described,
        shots=shots,
        mitigation=tuple(mitigation),
        head=config,
        classes=classifier.classes_.tolist(),
        labels=None if labels is None else [_plain_label(label) for label in labels],
        temperature=float(classifier.temperature_),
        sentences=sentences,
        distinct=len(once),
        batches=len(batches),
        cost=cost,
        device=chosen,
        max_cost=max_cost,
        circuits_sha256=hashlib.sha256("".join(keys).encode()).hexdigest(),
        inputs_sha256="",
        facts=dict(facts or {}),
    )
    return PreparedRun(plan, circuits, tensors)


def _check(description: Description, shots: int, mitigation: Sequence[Mitigation]) -> int:
    """Refuse what this backend cannot do, before anything is computed; the shots."""
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


def _plain_label(label: Any) -> Any:
    """A label as JSON holds it: an array of labels has NumPy's scalars."""
    return label.item() if isinstance(label, np.generic) else label


def _tensors(head: QuantumHead, embeddings: Any) -> dict[str, Tensor]:
    """The encoders' output for every sentence, and the trained numbers behind it, in double precision."""
    x = torch.as_tensor(embeddings, dtype=head.weights.dtype)
    return {
        "z": torch.cat([head.encoder(part) for part in torch.split(x, 512)]).double(),
        "angle_scale": head.angle_scale.detach().double(),
        "weights": head.weights.detach().double(),
        "linear.weight": head.linear.weight.detach().double(),
        "linear.bias": head.linear.bias.detach().double(),
    }


def _circuits(config: HeadConfig, mitigation: tuple[Mitigation, ...], tensors: dict[str, Tensor]) -> list[BoundCircuit]:
    inputs = tensors["angle_scale"] * tensors["z"]
    return _measurement(config, mitigation).circuits(tensors["weights"].tolist(), inputs)


def _measurement(config: HeadConfig, mitigation: tuple[Mitigation, ...]) -> MeasurementPlan:
    return MeasurementPlan(config.qpu_circuit(), tuple(range(config.n_measured)), mitigation)


def write_plan(folder: Path, planned: PreparedRun) -> RunPlan:
    """Begin a run's folder.

    Raises:
        LedgerError: a run was begun there already, and something was submitted.
        StorageError: it cannot be written.
    """
    if read_ledger_state(folder).batches:
        raise LedgerError(f"{folder} has a run of which something was submitted; name another folder")
    path = folder / INPUTS
    write_tensors(path, planned.tensors, {})
    plan = replace(planned.plan, inputs_sha256=hash_file(path))
    write_file(folder / PLAN, (dump_json(plan.to_json(), "the plan", indent=1) + "\n").encode())
    return plan


def read_plan(folder: Path) -> PreparedRun:
    """The plan of a run's folder, its circuits built again and found to be the planned ones.

    Raises:
        LedgerError: there is none, it is damaged, or this version makes other circuits from it.
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
        circuits = _circuits(plan.head, plan.mitigation, tensors)
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
    return PreparedRun(plan, circuits, tensors)
