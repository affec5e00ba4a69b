"""Predict blocks of rows, each with random streams of its own, so that the order and the place do not matter."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ketfit.data.tables import Block, TableWriter
from ketfit.estimators.heads import HeadEstimator
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.head import MEASUREMENT
from ketfit.rng import torch_stream

LABEL, PROBABILITY = "predicted_label", "probability_"


@dataclass(frozen=True, eq=False)
class BlockTask:
    """A block of rows to predict.

    Attributes:
        block: The rows.
        writer: Encodes the rows with their predictions.
        counters: Counters of the random stream: the number of the block, after that of its shard in a folder.
        part: The file for the encoded rows.
        name: Name of the block for messages.
    """

    block: Block
    writer: TableWriter
    counters: tuple[int, ...]
    part: Path
    name: str


@dataclass(frozen=True)
class PredictedBlock:
    """The encoded rows of a block, and the first warning about them."""

    content: bytes
    warning: str | None


class BlockPredictor:
    """Predicts blocks of rows with a fitted classifier; it can be pickled."""

    def __init__(self, classifier: TextClassifier) -> None:
        fitted = classifier.classifier_
        self.head: HeadEstimator = fitted
        if isinstance(fitted, QuantumHeadClassifier):  # a copy: its generator is set below
            settings = {name: getattr(fitted.head_config_, name) for name in MEASUREMENT}
            self.head = fitted.with_measurement(**settings)
        self.body, self.classes = classifier.body_, classifier.classes_

    def predict_block(self, task: BlockTask) -> PredictedBlock:
        """Return the encoded rows of a block with their predictions."""
        if isinstance(self.head, QuantumHeadClassifier):
            self.head.module_.generator = torch_stream(self.head.seed_, "shots", *task.counters)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            embeddings = self.body.encode(task.block.texts, cache=False)
        probabilities = self.head.predict_proba(embeddings)
        columns: dict[str, list[Any]] = {LABEL: self.classes[probabilities.argmax(axis=1)].tolist()}
        columns |= {
            f"{PROBABILITY}{name}": probabilities[:, index].tolist() for index, name in enumerate(self.classes.tolist())
        }
        content = task.writer.encode_block(task.block, columns)
        return PredictedBlock(content, str(caught[0].message) if caught else None)
