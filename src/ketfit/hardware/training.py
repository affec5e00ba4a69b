"""Training on hardware: the last layer alone, or the QPU's angles too, by parameter shift or SPSA, within a budget.

The loss and its gradients come from measured values only. The ledger is the only checkpoint: every step is determined
by the settings and the counts, so the same call repeats the paid steps with their counts from the ledger, and continues
where it was killed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from ketfit.base_config import Config, Finite, Positive
from ketfit.data.sequences import as_labels
from ketfit.errors import InputError, LedgerError
from ketfit.estimators.quantum import QuantumHeadClassifier, require_quantum_head
from ketfit.hardware.backends.base import Backend, BoundCircuit, backend_identity
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost, DeviceCost
from ketfit.hardware.runs.jobs import Budget
from ketfit.hardware.runs.postprocessing import MeasurementPlan, OutputLayer
from ketfit.hardware.runs.session import Session
from ketfit.integers import as_integer
from ketfit.rng import numpy_stream
from ketfit.simulate.evolution import AffineAngles
from ketfit.simulate.shots import SHIFT_RULES, rotation_angles, rotations_as_inputs, shift_counts
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import dump_json, parse_json

RECORD = "training.json"

Samples = tuple[NDArray[Any], Sequence[Any]]
"""Embeddings of shape (n, embedding_dim), and their n labels."""


class HardwareTraining(Config):
    """Settings of a training on measured values. The encoders are not trained.

    A head that reads Pauli words has one circuit for each group of words that commute qubit by qubit where another head
    has one. A shifted circuit whose group does not depend on the rotation is the circuit without the shift, and is not
    sent again.
    """

    method: Annotated[
        Literal["linear", "spsa", "parameter_shift"],
        Field(description="The last layer only, one circuit per sample; two per sample and step; or two per rotation"),
    ] = "spsa"
    steps: Annotated[Positive, Field(description="Steps of the optimizer")] = 20
    batch_size: Annotated[Positive, Field(description="Samples per step, drawn at random")] = 32
    shots: Annotated[Positive, Field(description="Shots per circuit")] = 500
    learning_rate: Annotated[
        Finite, Field(gt=0, description="Learning rate of Adam for parameter_shift; first gain of SPSA")
    ] = 0.05
    perturbation: Annotated[Finite, Field(gt=0, description="First perturbation of SPSA in radians")] = 0.2
    rotations: Annotated[
        Positive | None, Field(description="Rotations per step of parameter_shift, drawn at random; None is all")
    ] = None
    train_linear: Annotated[bool, Field(description="Train the last layer too, on the same measured values")] = True
    linear_rate: Annotated[Finite, Field(gt=0, description="Learning rate of Adam for the last layer")] = 0.01
    validate_every: Annotated[Positive, Field(description="Steps between two validations, if there are samples")] = 10
    max_circuits: Annotated[Positive | None, Field(description="Budget, canaries included; None is no limit")] = None
    max_shots: Annotated[Positive | None, Field(description="Budget of shots; None is no limit")] = None
    max_cost: Annotated[Annotated[Finite, Field(ge=0)] | None, Field(description="Budget of money")] = None

    @model_validator(mode="after")
    def _trains_something(self) -> HardwareTraining:
        if self.method == "linear" and not self.train_linear:
            raise ValueError("method='linear' trains the linear layer and nothing else; leave train_linear=False out")
        return self


@dataclass(frozen=True)
class HardwareTarget:
    """The backend and the folder of a training.

    Attributes:
        backend: Backend that runs the circuits.
        folder: Folder of the settings and the ledger; the same folder continues the same training.
        seed: Seed of the batches and of SPSA's directions.
        wait_s: Seconds to wait for the jobs of each step.
        device: Prices and times; None loads the device that the backend names.
        retry: Retry policy for calls that buy nothing.

    Raises:
        ConfigError: `seed` is not a whole number of at least 0.
    """

    backend: Backend
    folder: Path
    seed: int = 0
    wait_s: float = 3600.0
    device: DeviceCost | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_integer(self.seed, "seed", minimum=0))


@dataclass(frozen=True)
class TrainingStep:
    """One training step: its mean loss, the validation loss after it, if any, and the totals of all steps so far."""

    loss: float
    validation_loss: float | None
    circuits: int
    shots: int
    price: float | None


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        classifier: The classifier after `best_step` steps.
        best_step: The last step, or the one with the lowest validation loss; 0 is the classifier before training.
        steps: All steps.
        spent: Cost of the whole training.
    """

    classifier: QuantumHeadClassifier
    best_step: int
    steps: tuple[TrainingStep, ...]
    spent: Cost


def train_on_hardware(
    classifier: QuantumHeadClassifier,
    samples: Samples,
    target: HardwareTarget,
    config: HardwareTraining,
    *,
    validation: Samples | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
    again: bool = False,
) -> Trained:
    """Train a fitted head further on a backend. After a kill, the same call continues and buys nothing twice.

    Args:
        classifier: Fitted classifier; it is not changed.
        samples: Embeddings of shape (n, embedding_dim) and n labels that the head knows.
        target: Backend, folder, seed, prices and retries.
        config: Settings of the training.
        validation: Samples to choose the step by their loss on the device, measured before the first step, at every
            `validate_every`-th and at the last. Without them the last step is chosen.
        on_step: Called after each step.
        again: Buy again what failed, was cancelled or was rejected in earlier calls. Nothing that has a result or is
            under way is bought again, and a job that fails in this call ends it.

    Raises:
        CostLimitError: The next step would exceed the budget; nothing was sent for it.
        LedgerError: The folder belongs to another training.
        ResultsPendingError, BackendError, ResultError, SubmissionStateUnknownError: As in `Session.run`.
        InputError: The head does not know a label.
        ConfigError: The head is classical.
    """
    require_quantum_head(classifier, "train on hardware")
    run_id = _open_folder(target, classifier, [samples, *filter(None, [validation])], config)
    budget = Budget(config.max_cost, config.max_circuits, config.max_shots)
    with Session(target.folder, target.backend, run_id, target.retry, target.device, budget) as session:
        trainer = _HardwareTrainer(classifier, samples, session, config, target, again)
        checkpoint = _BestCheckpoint(trainer, validation)
        steps = []
        for number in range(config.steps):
            loss = trainer.step(number)
            is_validated = (number + 1) % config.validate_every == 0 or number + 1 == config.steps
            validation_loss = checkpoint.evaluate(number + 1) if is_validated else None
            spent = session.spent()
            steps.append(TrainingStep(loss, validation_loss, spent.circuits, spent.shots, spent.price))
            if on_step is not None:
                on_step(steps[-1])
        checkpoint.restore()
        return Trained(trainer.classifier, checkpoint.step, tuple(steps), session.spent())


def _open_folder(
    target: HardwareTarget, classifier: QuantumHeadClassifier, samples: Sequence[Samples], config: HardwareTraining
) -> str:
    """Return the id of a training's folder, which is created, or must hold the same settings and data."""
    digest = hashlib.sha256()
    for embeddings, labels in samples:
        digest.update(np.ascontiguousarray(embeddings).tobytes() + json.dumps(list(map(str, labels))).encode())
    for name, tensor in classifier.module_.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    budget = {"max_circuits", "max_shots", "max_cost", "steps"}  # may be raised later
    record = {
        "settings": config.model_dump(mode="json", exclude=budget),
        "seed": target.seed,
        "content": digest.hexdigest(),
        **backend_identity(target.backend.describe()),
    }
    path = target.folder / RECORD
    if path.exists():
        try:
            known = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LedgerError(f"{path} is damaged ({error}); restore it, or name another folder") from error
        run_id = str(known.pop("run_id", ""))
        if known != record:
            changed = ", ".join(sorted(name for name in record if known.get(name) != record[name]))
            raise LedgerError(f"{target.folder} belongs to another training: {changed} differ; name another folder")
    else:
        run_id = secrets.token_hex(6)
        write_file(path, (dump_json({"run_id": run_id, **record}, "the training", indent=1) + "\n").encode())
    return run_id


class _HardwareTrainer:
    """The state of a training: a head whose QPU angles and last layer change."""

    def __init__(
        self,
        classifier: QuantumHeadClassifier,
        samples: Samples,
        session: Session,
        config: HardwareTraining,
        target: HardwareTarget,
        again: bool = False,
    ) -> None:
        self.session, self.config, self.seed, self.wait_s = session, config, target.seed, target.wait_s
        self.again = again
        self.classifier = copy.copy(classifier)
        self.head = copy.deepcopy(classifier.module_)
        self.classifier.module_ = self.head
        self.encoder_expectations, self.codes = self.encode(samples)
        self.measurement = MeasurementPlan.of_head(self.head.config)
        self.weights = torch.nn.Parameter(self.head.weights.detach().double())
        self.linear = copy.deepcopy(self.head.linear).double()
        self._optimizer = torch.optim.Adam([self.weights], lr=config.learning_rate)
        self._linear_optimizer = torch.optim.Adam(self.linear.parameters(), lr=config.linear_rate)
        self._measured_expectations: dict[bytes, Tensor] = {}

    def encode(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return the encoders' output of each sample, and the index of its label."""
        embeddings, known, labels = samples[0], self.classifier.classes_.tolist(), as_labels(samples[1]).tolist()
        unknown = [label for label in labels if label not in known]
        if unknown:
            raise InputError(f"the label {unknown[0]!r} is none of {known}; train on labels that the head knows")
        if len(labels) != len(embeddings):
            raise InputError(f"{len(labels)} labels for {len(embeddings)} embeddings; give one for each")
        with torch.no_grad():
            encoded = self.head.encode(torch.as_tensor(embeddings, dtype=self.head.weights.dtype)).double()
        return encoded, torch.tensor([known.index(label) for label in labels])

    def step(self, number: int) -> float:
        """Take one step and return the mean loss that it measured."""
        rng = numpy_stream(self.seed, "batches", number)
        rows = torch.from_numpy(rng.permutation(len(self.codes))[: self.config.batch_size])
        steps = {"linear": self._linear_step, "spsa": self._spsa_step, "parameter_shift": self._parameter_shift_step}
        loss = steps[self.config.method](number, rows, rng)
        with torch.no_grad():
            self.head.weights.copy_(self.weights)
            self.head.linear.load_state_dict(self.linear.state_dict())
        return loss

    def _measure(self, circuits: list[BoundCircuit]) -> Tensor:
        counts = self.session.run(circuits, self.config.shots, wait_s=self.wait_s, again=self.again)
        return self.measurement.expectations(self.measurement.distributions(counts))

    def _input_angles(self, encoder_expectations: Tensor) -> Tensor:
        return self.head.angle_scale.detach().double() * encoder_expectations

    def _losses(self, qpu_expectations: Tensor, encoder_expectations: Tensor, codes: Tensor) -> Tensor:
        layer = OutputLayer(self.linear.weight, self.linear.bias, self.head.config.skip_connection, temperature=1.0)
        logits = layer.logits(qpu_expectations, encoder_expectations)
        return torch.nn.functional.cross_entropy(logits, codes, reduction="none")

    @torch.no_grad()
    def loss(self, encoder_expectations: Tensor, codes: Tensor) -> float:
        """Return the mean loss of samples with the current parameters."""
        measured = self._measure_once(encoder_expectations)
        return float(self._losses(measured, encoder_expectations, codes).mean())

    def _measure_once(self, encoder_expectations: Tensor) -> Tensor:
        """Return what is read out of the samples; with the same angles, each sample is measured once only."""
        weights = self.weights.tolist()
        keys = [np.asarray([*weights, *row]).tobytes() for row in encoder_expectations.tolist()]
        new = [index for index, key in enumerate(keys) if key not in self._measured_expectations]
        if new:
            circuits = self.measurement.circuits(weights, self._input_angles(encoder_expectations[new]))
            self._measured_expectations |= zip([keys[index] for index in new], self._measure(circuits), strict=True)
        return torch.stack([self._measured_expectations[key] for key in keys])

    def _linear_step(self, number: int, rows: Tensor, rng: np.random.Generator) -> float:
        """Take a step of Adam on the last layer; the angles stay."""
        encoded = self.encoder_expectations[rows]
        loss = self._losses(self._measure_once(encoded), encoded, self.codes[rows]).mean()
        self._train_linear(loss)
        return float(loss.detach())

    def _spsa_step(self, number: int, rows: Tensor, rng: np.random.Generator) -> float:
        """Take a step from two losses along a random direction (Spall 1992), with the usual decay of both gains."""
        config = self.config
        width = config.perturbation / (number + 1) ** 0.101
        gain = config.learning_rate / (number + 1) ** 0.602
        direction = torch.from_numpy(rng.choice([-1.0, 1.0], size=len(self.weights)))
        both = [self.weights.detach() + sign * width * direction for sign in (1, -1)]
        inputs = self._input_angles(self.encoder_expectations[rows])
        circuits = [each for weights in both for each in self.measurement.circuits(weights.tolist(), inputs)]
        twice = rows.repeat(2)
        losses = self._losses(self._measure(circuits), self.encoder_expectations[twice], self.codes[twice]).view(2, -1)
        slope = float((losses[0] - losses[1]).detach().mean()) / (2 * width)
        # The slope is noisy, so a step is at most as wide as the perturbation.
        with torch.no_grad():
            self.weights.sub_(max(-width, min(width, gain * slope)) * direction)
        self._train_linear(losses.mean())
        return float(losses.detach().mean())

    def _parameter_shift_step(self, number: int, rows: Tensor, rng: np.random.Generator) -> float:
        """Take a step of Adam with the gradient of every chosen rotation from its shifted circuits."""
        circuit, originals = rotations_as_inputs(self.head.config.light_cone())
        chosen = self._choose_rotations(originals, rng)
        counts = torch.tensor(shift_counts(circuit))[chosen]
        by_rule = [(rule, chosen[counts == count]) for count, rule in SHIFT_RULES.items()]
        encoded = self.encoder_expectations[rows]
        angles = rotation_angles(originals, self.weights.detach(), self._input_angles(encoded), len(rows))
        unit = torch.eye(angles.shape[1], dtype=torch.float64)
        shifted = [
            angles + torch.stack([shift * unit[some] for shift, _ in rule])[:, :, None] for rule, some in by_rule
        ]
        inputs = torch.cat([angles, *(each.flatten(0, 2) for each in shifted)])
        values = self._measure(replace(self.measurement, circuit=circuit).circuits((), inputs))
        plain, *parts = torch.split(values, [len(rows), *(each.shape[:3].numel() for each in shifted)])
        plain = plain.clone().requires_grad_(True)
        loss = self._losses(plain, encoded, self.codes[rows]).mean()
        (slope,) = torch.autograd.grad(loss, plain, retain_graph=True)
        slopes = torch.zeros(angles.shape[1], dtype=torch.float64)
        for (rule, some), part in zip(by_rule, parts, strict=True):
            by_shift = part.view(len(rule), len(some), *plain.shape)
            derivative = sum(factor * each for (_, factor), each in zip(rule, by_shift, strict=True))
            slopes[some] = (derivative * slope).sum(dim=(1, 2))
        self.weights.grad = self._weight_gradient(originals, slopes)
        self._optimizer.step()
        self._train_linear(loss)
        return float(loss.detach())

    def _choose_rotations(self, originals: AffineAngles, rng: np.random.Generator) -> Tensor:
        rows, columns = (torch.tensor(each, dtype=torch.long) for each in (originals.rows, originals.columns))
        trained: Tensor = torch.unique(rows[columns < len(self.weights)])
        limit = self.config.rotations
        if limit is None or limit >= len(trained):
            return trained
        return trained[torch.from_numpy(np.sort(rng.permutation(len(trained))[:limit]))]

    def _weight_gradient(self, originals: AffineAngles, slopes: Tensor) -> Tensor:
        """Return the gradient of the weights from the slopes of the rotations, whose angles may be sums."""
        rows, columns = (torch.tensor(each, dtype=torch.long) for each in (originals.rows, originals.columns))
        own = columns < len(self.weights)
        terms = slopes[rows[own]] * torch.tensor(originals.factors, dtype=torch.float64)[own]
        return torch.zeros_like(self.weights).index_add(0, columns[own], terms)

    def _train_linear(self, loss: Tensor) -> None:
        if self.config.train_linear:
            self._linear_optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._linear_optimizer.step()


class _BestCheckpoint:
    """The parameters with the lowest validation loss so far; without validation samples the last ones."""

    def __init__(self, trainer: _HardwareTrainer, validation: Samples | None) -> None:
        self.trainer, self.step, self.best_loss = trainer, 0, math.inf
        self.samples = None if validation is None else trainer.encode(validation)
        self.evaluate(0)

    def evaluate(self, step: int) -> float | None:
        """Measure the validation samples after so many steps, keep the parameters if best, and return the loss."""
        loss = None if self.samples is None else self.trainer.loss(*self.samples)
        if loss is None or loss < self.best_loss:
            self.step, self.best_loss = step, math.inf if loss is None else loss
            self.state = copy.deepcopy(self.trainer.head.state_dict())
        return loss

    def restore(self) -> None:
        """Load the kept parameters into the trainer's head."""
        self.trainer.head.load_state_dict(self.state)
