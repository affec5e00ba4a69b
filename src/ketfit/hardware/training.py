"""Training on hardware: the last layer alone, or the QPU's angles too, by parameter shift or SPSA, within a budget.

All of it on measured values. There is no checkpoint but the ledger. Every step is fixed by the settings and by the
counts it got, so the same call goes over the steps that were paid for, reading their counts from the ledger, and goes
on where it was killed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from ketfit.base_config import Config, Finite, Positive
from ketfit.circuit.circuit import Circuit
from ketfit.data.sequences import as_labels
from ketfit.errors import ConfigError, InputError, LedgerError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.hardware.backends.base import Backend, BoundCircuit, backend_identity
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost, DeviceCost
from ketfit.hardware.runs.postprocessing import MeasurementPlan, OutputLayer
from ketfit.hardware.runs.session import Budget, Session
from ketfit.integers import as_integer
from ketfit.rng import numpy_stream
from ketfit.simulate.shots import rotation_angles, rotations_as_inputs
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import dump_json, parse_json

RECORD = "training.json"


Samples = tuple[NDArray[Any], Sequence[Any]]
"""Embeddings of shape (n, embedding_dim), and a label of each."""


class HardwareTraining(Config):
    """How a head is trained on measured values. The encoders stay as they are."""

    method: Annotated[
        Literal["linear", "spsa", "parameter_shift"],
        Field(description="The linear layer alone, a circuit a sample; two a sample and step; or two a rotation"),
    ] = "spsa"
    steps: Annotated[Positive, Field(description="Steps of the optimiser")] = 20
    batch_size: Annotated[Positive, Field(description="Samples of each step, drawn anew")] = 32
    shots: Annotated[Positive, Field(description="Of each circuit")] = 500
    learning_rate: Annotated[Finite, Field(gt=0, description="Of Adam by parameter shift; the first gain of SPSA")] = (
        0.05
    )
    perturbation: Annotated[Finite, Field(gt=0, description="Radians of SPSA's first step to both sides")] = 0.2
    rotations: Annotated[
        Positive | None, Field(description="Parameter shift: so many rotations a step, drawn at random; None is all")
    ] = None
    train_linear: Annotated[bool, Field(description="Train the linear layer, too, on the same measured values")] = True
    linear_rate: Annotated[Finite, Field(gt=0, description="Learning rate of the linear layer, of Adam")] = 0.01
    validate_every: Annotated[Positive, Field(description="Steps between two looks at validation samples, if any")] = 10
    max_circuits: Annotated[Positive | None, Field(description="Budget, canaries included; None is no limit")] = None
    max_shots: Annotated[Positive | None, Field(description="Budget of shots; None is no limit")] = None
    max_cost: Annotated[Annotated[Finite, Field(ge=0)] | None, Field(description="Budget of money")] = None

    @model_validator(mode="after")
    def _trains_something(self) -> HardwareTraining:
        if self.method == "linear" and not self.train_linear:
            raise ValueError("method='linear' trains the linear layer and nothing else; leave train_linear=False out")
        return self


@dataclass(frozen=True)
class TrainingStep:
    """What one step saw: the mean loss over its measured samples, and what all steps so far have taken.

    `validation_loss` is that of the validation samples after the step, where they were measured.
    """

    loss: float
    validation_loss: float | None
    circuits: int
    shots: int
    price: float | None


@dataclass(frozen=True)
class Trained:
    """A classifier with other parameters, and how it went there.

    It is the one after `kept` steps: the last, or that with the lowest validation loss, which may be the one that came.
    """

    classifier: QuantumHeadClassifier
    kept: int
    steps: tuple[TrainingStep, ...]
    spent: Cost


def train_on_hardware(
    classifier: QuantumHeadClassifier,
    embeddings: NDArray[Any],
    labels: Sequence[Any],
    backend: Backend,
    folder: Path,
    config: HardwareTraining,
    *,
    validation: Samples | None = None,
    seed: int = 0,
    wait_s: float = 3600.0,
    device: DeviceCost | None = None,
    patience: RetryPolicy | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> Trained:
    """Go on training a fitted head where it will run. Killed at any time, the same call goes on and buys nothing twice.

    Args:
        classifier: Fitted; it is left as it is.
        embeddings: To train on, shape (n, embedding_dim).
        labels: As many, of the classes that the head knows.
        backend: Where the circuits run.
        folder: Of this training: its settings and its ledger.
        config: How to train.
        validation: Embeddings and labels to choose the step on, by their loss on the device, before the first step, at
            every `validate_every`-th and at the last. Without them the last step stands, better or worse.
        seed: Source of the batches and of SPSA's directions.
        wait_s: Seconds to wait for each step's jobs.
        device: Prices and times; None is the file that the backend names.
        patience: How questions are asked again.
        on_step: Called after each step.

    Raises:
        CostLimitError: the next step would go beyond the budget; nothing was sent for it.
        LedgerError: the folder belongs to another training.
        ResultsPendingError, BackendError, ResultError, SubmissionStateUnknownError: as in `Session.run`.
        InputError: a label that the head does not know.
    """
    seed = as_integer(seed, "seed", minimum=0)
    run_id = _begin(folder, classifier, [(embeddings, labels), *filter(None, [validation])], backend, config, seed)
    budget = Budget(config.max_cost, config.max_circuits, config.max_shots)
    with Session(folder, backend, run_id, patience or RetryPolicy(), device, budget) as session:
        trainer = _HardwareTrainer(classifier, embeddings, labels, session, config, seed, wait_s)
        kept = _BestCheckpoint(trainer, validation)
        steps = []
        for number in range(config.steps):
            loss = trainer.step(number)
            looks = (number + 1) % config.validate_every == 0 or number + 1 == config.steps
            validation_loss = kept.look(number + 1) if looks else None
            spent = session.spent()
            steps.append(TrainingStep(loss, validation_loss, spent.circuits, spent.shots, spent.price))
            if on_step is not None:
                on_step(steps[-1])
        kept.restore()
        return Trained(trainer.classifier, kept.number, tuple(steps), session.spent())


def _begin(
    folder: Path,
    classifier: QuantumHeadClassifier,
    samples: Sequence[Samples],
    backend: Backend,
    config: HardwareTraining,
    seed: int,
) -> str:
    """The id of a training's folder, whose settings and data have to be those it was begun with."""
    digest = hashlib.sha256()
    for embeddings, labels in samples:
        digest.update(np.ascontiguousarray(embeddings).tobytes() + json.dumps(list(map(str, labels))).encode())
    for name, tensor in classifier.module_.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    budget = {"max_circuits", "max_shots", "max_cost", "steps"}  # may be raised on the way
    settings = config.model_dump(mode="json", exclude=budget)
    facts = {"settings": settings, "seed": seed, "content": digest.hexdigest(), **backend_identity(backend.describe())}
    path = folder / RECORD
    if path.exists():
        try:
            known = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LedgerError(f"{path} is damaged ({error}); restore it, or name another folder") from error
        run_id = str(known.pop("run_id", ""))
        if known != facts:
            changed = sorted(name for name in facts if known.get(name) != facts[name])
            raise LedgerError(f"{folder} belongs to another training: {', '.join(changed)} differ; name another folder")
    else:
        run_id = secrets.token_hex(6)
        write_file(path, (dump_json({"run_id": run_id, **facts}, "the training", indent=1) + "\n").encode())
    return run_id


class _HardwareTrainer:
    """The state of a training: a head whose QPU angles move."""

    def __init__(
        self,
        classifier: QuantumHeadClassifier,
        embeddings: NDArray[Any],
        labels: Sequence[Any],
        session: Session,
        config: HardwareTraining,
        seed: int,
        wait_s: float,
    ) -> None:
        self.classifier = copy.copy(classifier)
        self.classifier.module_ = self.head = copy.deepcopy(classifier.module_)
        self.session, self.config, self.seed, self.wait_s = session, config, seed, wait_s
        self.z, self.codes = self.encode(embeddings, labels)
        self.measured = tuple(range(self.head.config.n_measured))
        self.measurement = MeasurementPlan(self.head.circuit, self.measured)
        self.weights = torch.nn.Parameter(self.head.weights.detach().double())
        self.linear = torch.nn.Linear(self.head.linear.in_features, self.head.linear.out_features).double()
        self.linear.load_state_dict({name: tensor.double() for name, tensor in self.head.linear.state_dict().items()})
        self._optimizer = torch.optim.Adam([self.weights], lr=config.learning_rate)
        self._linear_optimizer = torch.optim.Adam(self.linear.parameters(), lr=config.linear_rate)
        self._read: dict[bytes, Tensor] = {}

    def encode(self, embeddings: NDArray[Any], labels: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """The encoders' output of each sample, and the number of its label."""
        known, labels = self.classifier.classes_.tolist(), as_labels(labels).tolist()
        strange = [label for label in labels if label not in known]
        if strange:
            raise InputError(f"the label {strange[0]!r} is none of {known}; train on labels that the head knows")
        if len(labels) != len(embeddings):
            raise InputError(f"{len(labels)} labels for {len(embeddings)} embeddings; give one for each")
        with torch.no_grad():
            z = self.head.encoder(torch.as_tensor(embeddings, dtype=self.head.weights.dtype)).double()
        return z, torch.tensor([known.index(label) for label in labels])

    def step(self, number: int) -> float:
        """One step; the mean loss that it measured."""
        rng = numpy_stream(self.seed, "batches", number)
        rows = torch.from_numpy(rng.permutation(len(self.z))[: self.config.batch_size])
        steps = {"linear": self._linear, "spsa": self._spsa, "parameter_shift": self._parameter_shift}
        loss = steps[self.config.method](number, rows, rng)
        with torch.no_grad():
            self.head.weights.copy_(self.weights)
            for name, parameter in self.head.linear.named_parameters():
                parameter.copy_(dict(self.linear.named_parameters())[name])
        return loss

    def _values(self, circuits: list[BoundCircuit]) -> Tensor:
        counts = self.session.run(circuits, self.config.shots, wait_s=self.wait_s)
        return self.measurement.values(self.measurement.distributions(counts))

    def _inputs(self, z: Tensor) -> Tensor:
        return self.head.angle_scale.detach().double() * z

    def _losses(self, values: Tensor, z: Tensor, codes: Tensor) -> Tensor:
        last = OutputLayer(self.linear.weight, self.linear.bias, self.head.config.skip_connection, temperature=1.0)
        return torch.nn.functional.cross_entropy(last.logits(values, z), codes, reduction="none")

    @torch.no_grad()
    def loss(self, z: Tensor, codes: Tensor) -> float:
        """The mean loss of samples with the parameters as they are now."""
        return float(self._losses(self._values_of(z), z, codes).mean())

    def _values_of(self, z: Tensor) -> Tensor:
        """What the samples read. As long as the angles are the same, each is measured once."""
        weights = self.weights.tolist()
        names = [np.asarray([*weights, *row]).tobytes() for row in z.tolist()]
        new = [place for place, name in enumerate(names) if name not in self._read]
        if new:
            values = self._values(self.measurement.circuits(weights, self._inputs(z[new])))
            self._read |= {names[place]: value for place, value in zip(new, values, strict=True)}
        return torch.stack([self._read[name] for name in names])

    def _linear(self, number: int, rows: Tensor, rng: np.random.Generator) -> float:
        """A step of Adam on the linear layer; the angles stay."""
        loss = self._losses(self._values_of(self.z[rows]), self.z[rows], self.codes[rows]).mean()
        self._train_linear(loss)
        return float(loss.detach())

    def _spsa(self, number: int, rows: Tensor, rng: np.random.Generator) -> float:
        """Two values of the loss along a random direction (Spall 1992), with his usual decay of both gains."""
        config = self.config
        width = config.perturbation / (number + 1) ** 0.101
        gain = config.learning_rate / (number + 1) ** 0.602
        direction = torch.from_numpy(rng.choice([-1.0, 1.0], size=len(self.weights)))
        both = [self.weights.detach() + sign * width * direction for sign in (1, -1)]
        inputs = self._inputs(self.z[rows])
        circuits = [each for weights in both for each in self.measurement.circuits(weights.tolist(), inputs)]
        twice = rows.repeat(2)
        losses = self._losses(self._values(circuits), self.z[twice], self.codes[twice]).view(2, -1)
        slope = float((losses[0] - losses[1]).detach().mean()) / (2 * width)
        # The slope is noisy; a step is at most as wide as the look to both sides.
        with torch.no_grad():
            self.weights.sub_(max(-width, min(width, gain * slope)) * direction)
        self._train_linear(losses.mean())
        return float(losses.detach().mean())

    def _parameter_shift(self, number: int, rows: Tensor, rng: np.random.Generator) -> float:
        """The gradient of every rotation from two shifted circuits, and a step of Adam."""
        circuit, columns = rotations_as_inputs(self.measurement.circuit.light_cone(self.measured))
        chosen = self._chosen_rotations(columns, rng)
        angles = rotation_angles(columns, self.weights.detach(), self._inputs(self.z[rows]), len(rows))
        shift = (math.pi / 2) * torch.eye(angles.shape[1], dtype=torch.float64)[chosen]
        shifted = (angles + torch.stack([shift, -shift])[:, :, None]).flatten(0, 2)
        values = self._values(self._bound(circuit, torch.cat([angles, shifted])))
        plain = values[: len(rows)].clone().requires_grad_(True)
        loss = self._losses(plain, self.z[rows], self.codes[rows]).mean()
        (slope,) = torch.autograd.grad(loss, plain, retain_graph=True)
        up, down = values[len(rows) :].view(2, len(chosen), len(rows), -1)
        of_rotation = ((up - down) / 2 * slope).sum(dim=(1, 2))
        self.weights.grad = torch.zeros_like(self.weights).index_add(0, columns[chosen], of_rotation)
        self._optimizer.step()
        self._train_linear(loss)
        return float(loss.detach())

    def _chosen_rotations(self, columns: Tensor, rng: np.random.Generator) -> Tensor:
        trained = torch.nonzero(columns < len(self.weights))[:, 0]
        most = self.config.rotations
        if most is None or most >= len(trained):
            return trained
        return trained[torch.from_numpy(np.sort(rng.permutation(len(trained))[:most]))]

    def _bound(self, circuit: Circuit, angles: Tensor) -> list[BoundCircuit]:
        return [BoundCircuit(circuit, (), tuple(row), self.measured) for row in angles.tolist()]

    def _train_linear(self, loss: Tensor) -> None:
        if self.config.train_linear:
            self._linear_optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._linear_optimizer.step()


class _BestCheckpoint:
    """The best parameters so far by validation loss; without validation samples the last."""

    def __init__(self, trainer: _HardwareTrainer, validation: Samples | None) -> None:
        self.trainer, self.number, self.best = trainer, 0, math.inf
        self.samples = None if validation is None else trainer.encode(*validation)
        self.state = trainer.head.state_dict()
        self.look(0)

    def look(self, number: int) -> float | None:
        """Measure the validation samples after so many steps; their loss."""
        loss = None if self.samples is None else self.trainer.loss(*self.samples)
        if loss is None or loss < self.best:
            self.number, self.best = number, math.inf if loss is None else loss
            self.state = copy.deepcopy(self.trainer.head.state_dict())
        return loss

    def restore(self) -> None:
        """Go back to them."""
        self.trainer.head.load_state_dict(self.state)


def count_circuits(
    config: HardwareTraining, classifier: QuantumHeadClassifier, *, samples: int | None = None, validation: int = 0
) -> int:
    """Circuits that a training asks for, before equal ones are sent once and without canaries.

    Args:
        config: Of the training.
        classifier: To be trained.
        samples: How many there are to train on; None is at least a batch of each step's own.
        validation: How many there are to validate on.

    Raises:
        ConfigError: none of the circuit's rotations can be trained.
    """
    batches = config.steps * min(config.batch_size, samples or config.batch_size)
    if config.method == "linear":
        return min(batches, samples or batches) + validation
    looks = 1 + math.ceil(config.steps / config.validate_every)
    head = classifier.module_
    _, columns = rotations_as_inputs(head.circuit.light_cone(range(head.config.n_measured)))
    trained = int((columns < head.circuit.n_weights).sum())
    if not trained:
        raise ConfigError("no trained rotation reaches the measured qubits, so there is nothing to train")
    per_sample = 2 if config.method == "spsa" else 1 + 2 * min(trained, config.rotations or trained)
    return batches * per_sample + looks * validation
