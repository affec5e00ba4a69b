"""The path of one sentence through a model, as a value: all that the demo shows of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.data.dataset import Dataset
from ketfit.errors import ConfigError, InputError
from ketfit.estimators.classical import LogisticRegressionHead
from ketfit.estimators.text import TextClassifier
from ketfit.model.head import QuantumHead
from ketfit.rng import torch_stream
from ketfit.simulate.expectation import MeasurementContext
from ketfit.simulate.native import MAX_JOINT
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.shots import expectations, sample_outcomes

LONGEST = 2000
"""Characters of a sentence. A body reads some hundred words, and the rest would be tokenized for nothing."""

WIDEST_EXACT = 11
"""Qubits up to which a sentence's noise is exact at the speed of a slider; wider circuits take trajectories."""

TRAJECTORIES = 1000
_REMEMBERED = 64  # embeddings, in memory alone: what visitors type is not written to the disk


@dataclass(frozen=True)
class MeasurementSettings:
    """How the QPU circuit is read.

    Attributes:
        shots: None is the exact mean.
        two_qubit_error: Probability of depolarizing after each CNOT, in place of the model's own; the rest of the
            noise that the model was trained with, if any, stays.
        draw: Number of the draw; another number gives other shots of the same circuit.
    """

    shots: int | None = None
    two_qubit_error: float = 0.0
    draw: int = 0


@dataclass(frozen=True)
class EmbeddedText:
    """A sentence as the body has it; `notice` tells if the body did not read all of it."""

    sentence: str
    embedding: tuple[float, ...]
    notice: str | None = None


@dataclass(frozen=True)
class MeasuredExpectation:
    """One reading of the measured qubits, the first qubit first: its probability, and how often it came."""

    bits: str
    probability: float
    count: int | None


@dataclass(frozen=True)
class BaselinePrediction:
    """What a classical head makes of the same embedding."""

    name: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class PredictionTrace:
    """All stations of one sentence, in order.

    Attributes:
        embedded: The sentence and its embedding.
        readouts: <Z> of each qubit of each encoder, one row for each circuit side by side (one row if they are
            averaged).
        circuit: The QPU circuit.
        weights, inputs: Its angles in radians: the trained ones, and the scaled readouts.
        settings: How it was read.
        trajectories: How many the noise was averaged over; None if it is exact or there is none.
        readings: Of the measured qubits, by their bits; empty if more than 12 are measured.
        values: <Z> of each measured qubit, as the settings have it.
        exact_values: The same without noise and from infinitely many shots.
        classes: The labels.
        probabilities: Of the classes, from `values`.
        exact_probabilities: Of the classes, from `exact_values`.
        classical: What the classical head says; None if there is none.
    """

    embedded: EmbeddedText
    readouts: tuple[tuple[float, ...], ...]
    circuit: Circuit
    weights: tuple[float, ...]
    inputs: tuple[float, ...]
    settings: MeasurementSettings
    trajectories: int | None
    readings: tuple[MeasuredExpectation, ...]
    values: tuple[float, ...]
    exact_values: tuple[float, ...]
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    exact_probabilities: tuple[float, ...]
    classical: BaselinePrediction | None

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(np.argmax(self.probabilities))]


class TracePredictor:
    """Sends sentences through one model, and remembers the last embeddings.

    Args:
        classifier: Fitted.
        classical: A head fitted on embeddings of the same body, to compare with.
    """

    def __init__(self, classifier: TextClassifier, classical: LogisticRegressionHead | None = None) -> None:
        self.classifier = classifier
        self.classical = classical
        self.embed = lru_cache(_REMEMBERED)(self._embed)

    def _embed(self, sentence: str) -> EmbeddedText:
        """The embedding of a sentence.

        Raises:
            InputError: it is blank, longer than 2,000 characters, or not valid Unicode.
            BodyError: the body failed.
        """
        check_length(sentence)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            row = self.classifier.body_.encode([sentence], cache=False)[0]
        notices = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        return EmbeddedText(sentence, tuple(row.tolist()), notices[0] if notices else None)

    def travel(self, sentence: str, settings: MeasurementSettings) -> PredictionTrace:
        """The whole path of a sentence.

        Raises:
            InputError, BodyError: as in `embed`.
            ConfigError: the settings do not fit the model.
            InsufficientMemoryError: the circuit does not fit into the memory that is free.
        """
        embedded = self.embed(sentence)
        journey = trace(self.classifier, embedded, settings)
        if self.classical is None:
            return journey
        row = self.classical.predict_proba(np.array([embedded.embedding], dtype=np.float32))[0]
        opinion = BaselinePrediction(
            "logistic regression", str(self.classical.classes_[row.argmax()]), tuple(row.tolist())
        )
        return replace(journey, classical=opinion)

    def probabilities(self, sentences: Sequence[str], settings: MeasurementSettings) -> list[list[float]]:
        """Probabilities of `classes` for each sentence, without their paths.

        Raises:
            InputError, BodyError, ConfigError, InsufficientMemoryError: as in `travel`.
        """
        embeddings = self.classifier.body_.encode(sentences, cache=False)
        fitted = self.classifier.classifier_
        _, noise, trajectories = _measured_by(fitted.module_, settings)
        measured = fitted.with_measurement(shots=settings.shots, noise=noise, trajectories=trajectories)
        rows: list[list[float]] = measured.predict_proba(embeddings).tolist()
        return rows

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return tuple(map(str, self.classifier.classes_.tolist()))


@torch.no_grad()
def trace(classifier: TextClassifier, embedded: EmbeddedText, settings: MeasurementSettings) -> PredictionTrace:
    """The path of an embedded sentence through the head, read as `settings` say.

    Raises:
        ConfigError: the settings do not fit the model.
        InsufficientMemoryError: the circuit does not fit into the memory that is free.
    """
    fitted = classifier.classifier_
    head = fitted.module_
    embedding = torch.tensor([embedded.embedding], dtype=head.weights.dtype, device=head.weights.device)
    readouts = head.encoder(embedding)
    inputs = head.angle_scale * readouts
    measured, noise, trajectories = _measured_by(head, settings)
    generator = torch_stream(fitted.seed_, "shots", settings.draw)
    width = measured.config.n_measured
    device = MeasurementContext(tuple(range(width)), noise, trajectories, generator)
    values, readings = _read(device, measured, inputs, settings.shots, generator)
    exact = MeasurementContext(tuple(range(width))).expectations(head.circuit, head.weights, inputs, None, 1)
    rows = 1 if head.config.merge == "mean" else head.config.n_encoders
    return PredictionTrace(
        embedded=embedded,
        readouts=tuple(tuple(row) for row in readouts.reshape(rows, -1).tolist()),
        circuit=head.circuit,
        weights=tuple(head.weights.tolist()),
        inputs=tuple(inputs[0].tolist()),
        settings=settings,
        trajectories=trajectories,
        readings=readings,
        values=tuple(values[0].tolist()),
        exact_values=tuple(exact[0].tolist()),
        classes=tuple(map(str, classifier.classes_.tolist())),
        probabilities=_probabilities(head, values, readouts, fitted.temperature_),
        exact_probabilities=_probabilities(head, exact, readouts, fitted.temperature_),
        classical=None,
    )


def fit_classical(classifier: TextClassifier, data: Dataset) -> LogisticRegressionHead:
    """Logistic regression on the embeddings that the classifier's body makes of labelled sentences.

    Raises:
        DataError: the labels are not those of the classifier.
    """
    data = classifier.match_labels(data)
    embeddings = classifier.body_.encode(data.texts, progress=True, cache=classifier.cache)
    return LogisticRegressionHead().fit(embeddings, np.asarray(data.labels))


def own_settings(head: QuantumHead) -> MeasurementSettings:
    """The shots and the two-qubit error that a head was trained with."""
    noise = head.config.noise
    return MeasurementSettings(head.config.shots, 0.0 if noise is None else noise.depolarizing_2q)


def check_length(sentence: str) -> None:
    """Refuse a sentence that is blank or too long to be one.

    Raises:
        InputError: with its length.
    """
    if not sentence.strip():
        raise InputError("the sentence is blank; type one")
    if len(sentence) > LONGEST:
        raise InputError(f"the sentence has {len(sentence):,} characters; the most is {LONGEST:,}: shorten it")


def _measured_by(
    head: QuantumHead, settings: MeasurementSettings
) -> tuple[QuantumHead, NoiseConfig | None, int | None]:
    """The head under the settings, its noise, and the trajectories that it takes."""
    noise = (head.config.noise or NoiseConfig()).updated(depolarizing_2q=settings.two_qubit_error)
    if noise == NoiseConfig():
        return head.with_measurement(shots=settings.shots), None, None
    trajectories = None
    if not noise.is_gate_noiseless:
        trajectories = head.config.trajectories or (TRAJECTORIES if head.config.qpu_qubits > WIDEST_EXACT else None)
    return (
        head.with_measurement(shots=settings.shots, noise=noise, trajectories=trajectories),
        noise,
        trajectories,
    )


def _read(
    device: MeasurementContext, head: QuantumHead, inputs: Tensor, shots: int | None, generator: torch.Generator
) -> tuple[Tensor, tuple[MeasuredExpectation, ...]]:
    """<Z> of the measured qubits, shape (1, measured), and their readings."""
    circuit = (head.circuit, head.weights, inputs, None, 1)
    if len(device.measured) > MAX_JOINT:
        if shots is not None:
            raise ConfigError(f"shots are drawn of at most {MAX_JOINT} qubits together; set the shots to 0")
        return device.expectations(*circuit), ()
    distribution = device.distribution(*circuit)
    counts: NDArray[Any] | list[None] = [None] * distribution.shape[1]
    if shots is None:
        values = expectations(distribution)
    else:
        drawn = sample_outcomes(distribution.double(), shots, generator)
        values = expectations((drawn / shots).to(distribution))
        counts = drawn[0].numpy()
    chances = distribution[0].double().clamp(0, 1).tolist()
    bits = len(device.measured)
    return values, tuple(
        MeasuredExpectation(f"{place:0{bits}b}", chance, None if count is None else int(count))
        for place, (chance, count) in enumerate(zip(chances, counts, strict=True))
    )


def _probabilities(head: QuantumHead, values: Tensor, readouts: Tensor, temperature: float) -> tuple[float, ...]:
    logits = head.classify(values, readouts)
    return tuple((logits.double() / temperature).softmax(dim=1)[0].tolist())
