"""Trace one sentence through a model: every intermediate value that the demo shows."""

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
from ketfit.circuit.observable import read_pauli_word
from ketfit.data.dataset import Dataset
from ketfit.errors import ConfigError, DataError, InputError
from ketfit.estimators.classical import LogisticRegressionHead
from ketfit.estimators.quantum import QuantumHeadClassifier, require_quantum_head
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig
from ketfit.model.head import QuantumHead
from ketfit.persistence.schema import HEAD_NAMES
from ketfit.rng import torch_stream
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.measurement import MeasurementContext, ObservableContext, group_words
from ketfit.simulate.mitigation import mitigated_expectation
from ketfit.simulate.native import MAX_JOINT
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.shots import expectations, sample_outcomes

MAX_CHARACTERS = 2000
"""Longest sentence; a body truncates its input after a few hundred tokens."""

MAX_EXACT_QUBITS = 11
"""Widest circuit whose exact noise follows a slider without delay; wider ones are simulated by trajectories.

Noise that is not a mixture of Pauli errors, such as amplitude damping, has no trajectories and stays exact.
"""

TRAJECTORIES = 1000
_CACHED_EMBEDDINGS = 64  # in memory only: the sentences of visitors are not written to disk


@dataclass(frozen=True)
class MeasurementSettings:
    """Shots and noise of the QPU circuit.

    Attributes:
        shots: Shots per circuit; None for the exact expectation.
        two_qubit_error: Probability of depolarizing after each two-qubit gate, which replaces the model's own; the rest
            of the noise that the model was trained with, if any, stays.
        draw: Index of the sample; another index gives other shots of the same circuit.
    """

    shots: int | None = None
    two_qubit_error: float = 0.0
    draw: int = 0


@dataclass(frozen=True)
class EmbeddedText:
    """A sentence and its embedding; `notice` is the warning that the body gave, such as truncation."""

    sentence: str
    embedding: tuple[float, ...]
    notice: str | None = None


@dataclass(frozen=True)
class Outcome:
    """A bit string of the measured qubits, the first qubit first.

    Attributes:
        bits: The bit string.
        probability: Its probability with noise.
        count: Shots that gave it; None without shots.
        share: `count` divided by the shots, or `probability` without shots.
    """

    bits: str
    probability: float
    count: int | None
    share: float


@dataclass(frozen=True)
class BaselinePrediction:
    """The prediction of a classical head from the same embedding."""

    name: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class BatchProbabilities:
    """The probabilities of the classes for each of many sentences; `notice` is the warning that the body gave."""

    rows: list[list[float]]
    notice: str | None = None


@dataclass(frozen=True)
class PredictionTrace:
    """All intermediate values of one prediction, in order.

    Attributes:
        embedded: The sentence and its embedding.
        components: The principal components that the encoders see; None if they see the embedding itself.
        encoder_expectations: <Z> of each qubit of each encoder, one row per encoder (one row if they are averaged).
        circuit: The QPU circuit.
        weights, inputs: Its angles in radians: the trained ones, and the scaled encoder expectations.
        settings: Shots and noise.
        trajectories: Trajectories that the noise was averaged over; None if it is exact or there is none.
        mitigation: Error mitigation of the expectations; the outcomes are not mitigated.
        outcomes: Outcomes of the measured qubits; empty if more than 12 are measured, or words are read.
        words: The Pauli words that the head reads; None if it reads <Z> of the first qubits.
        expectations: <Z> of each measured qubit, or of each word, under the settings.
        exact_expectations: The same without shots and noise.
        classes: The labels.
        probabilities: Probabilities of the classes, from `expectations`.
        exact_probabilities: Probabilities of the classes, from `exact_expectations`.
        baseline: The prediction of the classical head, if there is one.
    """

    embedded: EmbeddedText
    components: tuple[float, ...] | None
    encoder_expectations: tuple[tuple[float, ...], ...]
    circuit: Circuit
    weights: tuple[float, ...]
    inputs: tuple[float, ...]
    settings: MeasurementSettings
    trajectories: int | None
    mitigation: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    words: tuple[str, ...] | None
    expectations: tuple[float, ...]
    exact_expectations: tuple[float, ...]
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    exact_probabilities: tuple[float, ...]
    baseline: BaselinePrediction | None

    @property
    def head(self) -> str:
        """The name of the kind of head."""
        return HEAD_NAMES["quantum"]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the expectations: the qubits, or the words."""
        return self.words or tuple(f"q{qubit}" for qubit in range(len(self.expectations)))

    @property
    def n_groups(self) -> int:
        """The number of circuits that are measured: one, or one for each group of words that commute qubit by qubit."""
        return 1 if self.words is None else len(group_words([read_pauli_word(word) for word in self.words]))

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(np.argmax(self.probabilities))]

    @property
    def exact_label(self) -> str:
        """The most probable class without shots and noise."""
        return self.classes[int(np.argmax(self.exact_probabilities))]


@dataclass(frozen=True)
class ClassicalTrace:
    """All values of the prediction of a classical head.

    Attributes:
        embedded: The sentence and its embedding.
        head: The name of the kind of head.
        n_parameters: The number of parameters of the head.
        classes: The labels.
        probabilities: Probabilities of the classes.
        baseline: The prediction of the head to compare with, if there is one.
    """

    embedded: EmbeddedText
    head: str
    n_parameters: int
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    baseline: BaselinePrediction | None

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(np.argmax(self.probabilities))]

    @property
    def exact_label(self) -> str:
        """The label; there are neither shots nor noise."""
        return self.label


class TracePredictor:
    """A fitted model whose predictions can be traced; it keeps the last embeddings in memory.

    Args:
        classifier: A fitted classifier.
        baseline: A head fitted on embeddings of the same body, to compare with.
    """

    def __init__(self, classifier: TextClassifier, baseline: LogisticRegressionHead | None = None) -> None:
        self.classifier = classifier
        self.baseline = baseline
        self.embed = lru_cache(_CACHED_EMBEDDINGS)(self._embed)

    def _embed(self, sentence: str) -> EmbeddedText:
        """Return the embedding of a sentence.

        Raises:
            InputError: the sentence is blank, longer than 2,000 characters, or not valid Unicode.
            BodyError: the body failed.
        """
        check_length(sentence)
        embeddings, notice = self._encode([sentence])
        return EmbeddedText(sentence, tuple(embeddings[0].tolist()), notice)

    def _encode(self, sentences: Sequence[str]) -> tuple[NDArray[np.float32], str | None]:
        """Return the embeddings of sentences, and the warning of the body, such as truncation."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embeddings = self.classifier.body_.encode(sentences, cache=False)
        notices = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        return embeddings, notices[0] if notices else None

    @property
    def trained_settings(self) -> MeasurementSettings | None:
        """The shots and the two-qubit error of the training; None for a classical head."""
        fitted = self.classifier.classifier_
        return trained_settings(fitted.module_) if isinstance(fitted, QuantumHeadClassifier) else None

    def trace(self, sentence: str, settings: MeasurementSettings) -> PredictionTrace | ClassicalTrace:
        """Return all intermediate values of the prediction of a sentence.

        Raises:
            InputError, BodyError: as in `embed`.
            ConfigError: the settings do not fit the model, such as shots of a classical head.
            InsufficientMemoryError: the circuit does not fit into the free memory.
        """
        embedded = self.embed(sentence)
        traced = self._trace(embedded, settings)
        if self.baseline is None:
            return traced
        row = self.baseline.predict_proba(np.array([embedded.embedding], dtype=np.float32))[0]
        label = str(self.baseline.classes_[row.argmax()])
        return replace(traced, baseline=BaselinePrediction("logistic regression", label, tuple(row.tolist())))

    def _trace(self, embedded: EmbeddedText, settings: MeasurementSettings) -> PredictionTrace | ClassicalTrace:
        fitted = self.classifier.classifier_
        if isinstance(fitted, QuantumHeadClassifier) or settings != MeasurementSettings(draw=settings.draw):
            return trace(self.classifier, embedded, settings)
        row = fitted.predict_proba(np.array([embedded.embedding], dtype=np.float32))[0]
        name = HEAD_NAMES[fitted.kind]
        return ClassicalTrace(embedded, name, fitted.n_parameters_, self.classes, tuple(row.tolist()), None)

    def probabilities(self, sentences: Sequence[str], settings: MeasurementSettings) -> BatchProbabilities:
        """Return the probabilities of `classes` for each sentence.

        Raises:
            InputError, BodyError, ConfigError, InsufficientMemoryError: as in `trace`.
        """
        embeddings, notice = self._encode(sentences)
        fitted = self.classifier.classifier_
        if isinstance(fitted, QuantumHeadClassifier) or settings != MeasurementSettings():
            fitted = _with_settings(require_quantum_head(fitted, "run with shots or noise"), settings)
        return BatchProbabilities(fitted.predict_proba(embeddings).tolist(), notice)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return tuple(map(str, self.classifier.classes_.tolist()))


@torch.no_grad()
def trace(classifier: TextClassifier, embedded: EmbeddedText, settings: MeasurementSettings) -> PredictionTrace:
    """Return all intermediate values of the prediction of an embedded sentence.

    Raises:
        ConfigError: the head is classical, or the settings do not fit the model.
        InsufficientMemoryError: the circuit does not fit into the free memory.
    """
    fitted = require_quantum_head(classifier.classifier_, "run with shots or noise")
    head = fitted.module_
    embedding = torch.tensor([embedded.embedding], dtype=head.weights.dtype, device=head.weights.device)
    encoder_expectations = head.encode(embedding)
    components = None if head.projection is None else tuple(head.project(embedding)[0].tolist())
    inputs = head.angle_scale * encoder_expectations
    config = _with_settings(fitted, settings).head_config_
    generator = torch_stream(fitted.seed_, "shots", settings.draw)
    context = MeasurementContext(config.read_qubits, config.noise, config.trajectories, generator)
    batch = CircuitBatch(head.circuit, head.weights, inputs)
    outcomes: tuple[Outcome, ...] = ()
    if config.observables is None:
        measured_values, outcomes = _measure(context, batch, settings.shots, generator)
        exact = MeasurementContext(context.measured).expectations(batch)
    else:
        words = ObservableContext(config.observables, context)
        measured_values = words.expectations(batch) if settings.shots is None else words.sample(batch, settings.shots)
        exact = ObservableContext(words.observables, MeasurementContext(context.measured)).expectations(batch)
    if config.mitigation:
        # From the start of the stream again: the first run has the shots of the outcomes.
        measured_values = _mitigate(config, batch, torch_stream(fitted.seed_, "shots", settings.draw))
    rows = 1 if head.config.merge == "mean" else head.config.n_encoders
    return PredictionTrace(
        embedded=embedded,
        components=components,
        encoder_expectations=tuple(tuple(row) for row in encoder_expectations.reshape(rows, -1).tolist()),
        circuit=head.circuit,
        weights=tuple(head.weights.tolist()),
        inputs=tuple(inputs[0].tolist()),
        settings=settings,
        trajectories=config.trajectories,
        mitigation=config.mitigation,
        outcomes=outcomes,
        words=head.config.readout,
        expectations=tuple(measured_values[0].tolist()),
        exact_expectations=tuple(exact[0].tolist()),
        classes=tuple(map(str, classifier.classes_.tolist())),
        probabilities=_probabilities(head, measured_values, encoder_expectations, fitted.temperature_),
        exact_probabilities=_probabilities(head, exact, encoder_expectations, fitted.temperature_),
        baseline=None,
    )


def fit_baseline(classifier: TextClassifier, data: Dataset) -> LogisticRegressionHead:
    """Return logistic regression fitted on the embeddings of labelled sentences.

    Raises:
        DataError: a label is not one of the classifier's, or one of these has no sentence.
    """
    data = classifier.match_labels(data)
    present = set(data.labels)
    for label in classifier.classes_.tolist():
        if label not in present:
            raise DataError(
                f"{data.name} has no sentence labelled {label!r}; the comparison needs every label of the model"
            )
    embeddings = classifier.body_.encode(data.texts, progress=True, cache=classifier.cache)
    return LogisticRegressionHead().fit(embeddings, np.asarray(data.labels))


def trained_settings(head: QuantumHead) -> MeasurementSettings:
    """Return the shots and the two-qubit error that a head was trained with."""
    noise = head.config.noise
    return MeasurementSettings(head.config.shots, 0.0 if noise is None else noise.depolarizing_2q)


def check_length(sentence: str) -> None:
    """Raise InputError if a sentence is blank or too long."""
    if not sentence.strip():
        raise InputError("the sentence is blank; type one")
    if len(sentence) > MAX_CHARACTERS:
        raise InputError(f"the sentence has {len(sentence):,} characters; shorten it to {MAX_CHARACTERS:,}")


def _with_settings(fitted: QuantumHeadClassifier, settings: MeasurementSettings) -> QuantumHeadClassifier:
    """Return a copy that measures under the settings, with the model's mitigation if any noise is left."""
    config = fitted.head_config_
    noise = (config.noise or NoiseConfig()).updated(depolarizing_2q=settings.two_qubit_error)
    if noise == NoiseConfig():
        return fitted.with_measurement(shots=settings.shots)
    trajectories = _choose_trajectories(config, noise)
    return fitted.with_measurement(
        shots=settings.shots, noise=noise, trajectories=trajectories, mitigation=config.mitigation
    )


def _choose_trajectories(config: HeadConfig, noise: NoiseConfig) -> int | None:
    """Return the number of trajectories for the noise; None for no noise of gates, and for the density matrix."""
    if noise.is_gate_noiseless:
        return None
    if config.trajectories is not None or config.qpu_qubits <= MAX_EXACT_QUBITS:
        return config.trajectories
    try:
        noise.check_pauli_channel()
    except ConfigError:
        return None
    return TRAJECTORIES


def _mitigate(config: HeadConfig, batch: CircuitBatch, generator: torch.Generator) -> Tensor:
    """Return what the head reads with its mitigation, shape (1, measured or words)."""
    assert config.noise is not None
    read: dict[str, Any] = {"qubits": config.read_qubits}
    if config.observables is not None:
        read = {"observables": config.observables}
    return mitigated_expectation(
        batch.circuit,
        batch.weights,
        batch.inputs,
        **read,
        mitigation=config.mitigation,
        noise=config.noise,
        trajectories=config.trajectories,
        shots=config.shots,
        generator=generator,
    )


def _measure(
    context: MeasurementContext, batch: CircuitBatch, shots: int | None, generator: torch.Generator
) -> tuple[Tensor, tuple[Outcome, ...]]:
    """Return <Z> of the measured qubits, shape (1, measured), and their outcomes."""
    bits = len(context.measured)
    if bits > MAX_JOINT:
        if shots is not None:
            raise ConfigError(f"shots are drawn of at most {MAX_JOINT} qubits together; set the shots to 0")
        return context.expectations(batch), ()
    distribution = context.distribution(batch)
    probabilities = distribution[0].double().clamp(0, 1).tolist()
    if shots is None:
        return expectations(distribution), tuple(
            Outcome(f"{index:0{bits}b}", probability, None, probability)
            for index, probability in enumerate(probabilities)
        )
    counts = sample_outcomes(distribution.double(), shots, generator)
    return expectations((counts / shots).to(distribution)), tuple(
        Outcome(f"{index:0{bits}b}", probability, int(count), float(count) / shots)
        for index, (probability, count) in enumerate(zip(probabilities, counts[0].tolist(), strict=True))
    )


def _probabilities(
    head: QuantumHead, values: Tensor, encoder_expectations: Tensor, temperature: float
) -> tuple[float, ...]:
    logits = head.classify(values, encoder_expectations)
    return tuple((logits.double() / temperature).softmax(dim=1)[0].tolist())
