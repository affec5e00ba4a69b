"""Training on hardware: the QPU's angles by parameter shift or SPSA, on measured values, within a budget.

There is no checkpoint but the ledger. Every step is fixed by the settings and by the counts it got, so the same call
goes over the steps that were paid for, reading their counts from the ledger, and goes on where it was killed.
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
from pydantic import Field
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.errors import ConfigError, InputError, LedgerError
from ketfit.hardware.backend import Backend, BoundCircuit, options_key
from ketfit.hardware.cost import Cost, DeviceCost
from ketfit.hardware.patience import Patience
from ketfit.hardware.readout import Linear, Measurement
from ketfit.hardware.session import Budget, Session
from ketfit.learn.classifier import QuantumHeadClassifier
from ketfit.learn.data_sources import parse_json
from ketfit.learn.files import write_file
from ketfit.seeds import numpy_stream
from ketfit.settings import Config, Finite, Positive
from ketfit.simulate.shots import rotation_angles, rotations_as_inputs

RECORD = "training.json"


class HardwareTraining(Config):
    """How the QPU's angles are trained on measured values. The encoders stay as they are."""

    method: Annotated[
        Literal["spsa", "parameter_shift"], Field(description="Two circuits a sample and step, or two a rotation")
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
    max_circuits: Annotated[Positive | None, Field(description="Budget, canaries included; None is no limit")] = None
    max_shots: Annotated[Positive | None, Field(description="Budget of shots; None is no limit")] = None
    max_cost: Annotated[Annotated[Finite, Field(ge=0)] | None, Field(description="Budget of money")] = None


@dataclass(frozen=True)
class Step:
    """What one step saw: the mean loss over its measured samples, and what all steps so far have taken."""

    loss: float
    circuits: int
    shots: int
    price: float | None


@dataclass(frozen=True)
class Trained:
    """A classifier with other QPU angles, and how it went there."""

    classifier: QuantumHeadClassifier
    steps: tuple[Step, ...]
    spent: Cost


def train_on_hardware(
    classifier: QuantumHeadClassifier,
    embeddings: NDArray[Any],
    labels: Sequence[Any],
    backend: Backend,
    folder: Path,
    config: HardwareTraining,
    *,
    seed: int = 0,
    wait_s: float = 3600.0,
    device: DeviceCost | None = None,
    patience: Patience | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Trained:
    """Go on training a fitted head where it will run. Killed at any time, the same call goes on and buys nothing twice.

    Args:
        classifier: Fitted; it is left as it is.
        embeddings: To train on, shape (n, embedding_dim).
        labels: As many, of the classes that the head knows.
        backend: Where the circuits run.
        folder: Of this training: its settings and its ledger.
        config: How to train.
        seed: Source of the batches and of SPSA's directions.
        wait_s: Seconds to wait for each step's jobs.
        device: Prices and times; None is the file that the backend names.
        patience: How questions are asked again.
        on_step: Called after each step.

    Raises:
        CostLimitError: the next step would go beyond the budget; nothing was sent for it.
        LedgerError: the folder belongs to another training.
        NotReadyError, BackendError, ResultError, UnresolvedIntentError: as in `Session.run`.
        InputError: a label that the head does not know.
    """
    run_id = _begin(folder, classifier, embeddings, labels, backend, config, seed)
    budget = Budget(config.max_cost, config.max_circuits, config.max_shots)
    with Session(folder, backend, run_id, patience or Patience(), device, budget) as session:
        trainer = _Trainer(classifier, embeddings, labels, session, config, seed, wait_s)
        steps = []
        for number in range(config.steps):
            loss = trainer.step(number)
            spent = session.spent()
            steps.append(Step(loss, spent.circuits, spent.shots, spent.price))
            if on_step is not None:
                on_step(steps[-1])
        return Trained(trainer.classifier, tuple(steps), session.spent())


def _begin(
    folder: Path,
    classifier: QuantumHeadClassifier,
    embeddings: NDArray[Any],
    labels: Sequence[Any],
    backend: Backend,
    config: HardwareTraining,
    seed: int,
) -> str:
    """The id of a training's folder, whose settings and data have to be those it was begun with."""
    digest = hashlib.sha256()
    for part in (np.ascontiguousarray(embeddings).tobytes(), json.dumps(list(map(str, labels))).encode()):
        digest.update(part)
    for name, tensor in classifier.module_.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    budget = {"max_circuits", "max_shots", "max_cost", "steps"}  # may be raised on the way
    settings = config.model_dump(mode="json", exclude=budget)
    facts = {"settings": settings, "seed": seed, "content": digest.hexdigest(), **options_key(backend.describe())}
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
        write_file(path, (json.dumps({"run_id": run_id, **facts}, indent=1) + "\n").encode())
    return run_id


class _Trainer:
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
        known = classifier.classes_.tolist()
        strange = [label for label in labels if label not in known]
        if strange:
            raise InputError(f"the label {strange[0]!r} is none of {known}; train on labels that the head knows")
        if len(labels) != len(embeddings):
            raise InputError(f"{len(labels)} labels for {len(embeddings)} embeddings; give one for each")
        self.codes = torch.tensor([known.index(label) for label in labels])
        with torch.no_grad():
            x = torch.as_tensor(embeddings, dtype=self.head.weights.dtype)
            self.z = self.head.encoder(x).double()
        self.measured = tuple(range(self.head.config.n_measured))
        self.measurement = Measurement(self.head.circuit, self.measured)
        self.weights = torch.nn.Parameter(self.head.weights.detach().double())
        self.linear = torch.nn.Linear(self.head.linear.in_features, self.head.linear.out_features).double()
        self.linear.load_state_dict({name: tensor.double() for name, tensor in self.head.linear.state_dict().items()})
        self._optimizer = torch.optim.Adam([self.weights], lr=config.learning_rate)
        self._linear_optimizer = torch.optim.Adam(self.linear.parameters(), lr=config.linear_rate)

    def step(self, number: int) -> float:
        """One step; the mean loss that it measured."""
        rng = numpy_stream(self.seed, "batches", number)
        rows = torch.from_numpy(rng.permutation(len(self.z))[: self.config.batch_size])
        inputs = self.head.angle_scale.detach().double() * self.z[rows]
        step = self._spsa if self.config.method == "spsa" else self._parameter_shift
        loss = step(number, rows, inputs, rng)
        with torch.no_grad():
            self.head.weights.copy_(self.weights)
            for name, parameter in self.head.linear.named_parameters():
                parameter.copy_(dict(self.linear.named_parameters())[name])
        return loss

    def _values(self, circuits: list[BoundCircuit]) -> Tensor:
        counts = self.session.run(circuits, self.config.shots, wait_s=self.wait_s)
        return self.measurement.values(self.measurement.distributions(counts))

    def _losses(self, values: Tensor, rows: Tensor) -> Tensor:
        last = Linear(self.linear.weight, self.linear.bias, self.head.config.skip_connection, temperature=1.0)
        return torch.nn.functional.cross_entropy(last.logits(values, self.z[rows]), self.codes[rows], reduction="none")

    def _spsa(self, number: int, rows: Tensor, inputs: Tensor, rng: np.random.Generator) -> float:
        """Two values of the loss along a random direction (Spall 1992), with his usual decay of both gains."""
        config = self.config
        width = config.perturbation / (number + 1) ** 0.101
        gain = config.learning_rate / (number + 1) ** 0.602
        direction = torch.from_numpy(rng.choice([-1.0, 1.0], size=len(self.weights)))
        both = [self.weights.detach() + sign * width * direction for sign in (1, -1)]
        circuits = [each for weights in both for each in self.measurement.circuits(weights.tolist(), inputs)]
        values = self._values(circuits)
        losses = self._losses(values, rows.repeat(2)).view(2, -1)
        slope = float((losses[0] - losses[1]).detach().mean()) / (2 * width)
        # The slope is noisy; a step is at most as wide as the look to both sides.
        with torch.no_grad():
            self.weights.sub_(max(-width, min(width, gain * slope)) * direction)
        self._train_linear(losses.mean())
        return float(losses.detach().mean())

    def _parameter_shift(self, number: int, rows: Tensor, inputs: Tensor, rng: np.random.Generator) -> float:
        """The gradient of every rotation from two shifted circuits, and a step of Adam."""
        circuit, columns = rotations_as_inputs(self.measurement.circuit.light_cone(self.measured))
        chosen = self._chosen_rotations(columns, rng)
        angles = rotation_angles(columns, self.weights.detach(), inputs, len(rows))
        shift = (math.pi / 2) * torch.eye(angles.shape[1], dtype=torch.float64)[chosen]
        shifted = (angles + torch.stack([shift, -shift])[:, :, None]).flatten(0, 2)
        values = self._values(self._bound(circuit, torch.cat([angles, shifted])))
        plain = values[: len(rows)].clone().requires_grad_(True)
        loss = self._losses(plain, rows).mean()
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


def count_circuits(config: HardwareTraining, classifier: QuantumHeadClassifier) -> int:
    """Circuits that a training asks for, before equal ones are sent once and without canaries.

    Raises:
        ConfigError: none of the circuit's rotations can be trained.
    """
    head = classifier.module_
    _, columns = rotations_as_inputs(head.circuit.light_cone(range(head.config.n_measured)))
    trained = int((columns < head.circuit.n_weights).sum())
    if not trained:
        raise ConfigError("no trained rotation reaches the measured qubits, so there is nothing to train")
    per_sample = 2 if config.method == "spsa" else 1 + 2 * min(trained, config.rotations or trained)
    return config.steps * config.batch_size * per_sample
