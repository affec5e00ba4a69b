"""One fit of a body and a head: contrastive tuning, the head, then end-to-end training, as far as asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ketfit.bodies.body import Body
from ketfit.data.labelled import LabelledTexts
from ketfit.data.splits import split_groups
from ketfit.estimators.base import EmbeddingSource, FitData
from ketfit.estimators.end_to_end import tune_end_to_end
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, TuneConfig

_Stage = TypeVar("_Stage", ContrastiveConfig, EndToEndConfig)


@dataclass(frozen=True)
class StagedFit:
    """The stages of a fit, its files and its progress bars.

    Attributes:
        stages: Stages of the tuning in their order; none for a frozen body.
        cache: Cache embeddings on disk.
        checkpoint: The checkpoint of the head; each stage has one of its own, see `stage_file`. None writes none.
        progress: Show bars on stderr.
    """

    stages: tuple[TuneConfig, ...]
    cache: bool
    checkpoint: str | Path | None
    progress: bool

    def run(
        self, body: Body, head: QuantumHeadClassifier, data: LabelledTexts, held_out: LabelledTexts | None
    ) -> tuple[Body, QuantumHeadClassifier]:
        """Tune the body and fit the head; return the tuned body and the fitted head.

        Args:
            body: The body to start from.
            head: The head, whose settings are checked; it is fitted in place, and end-to-end training returns a copy.
            data: Sentences to train on.
            held_out: Sentences to validate on, or None; a frozen body's head then holds out a share itself.
        """
        calibrate, end_to_end = head.calibrate, self._find(EndToEndConfig)
        body = self.tune(body, data, held_out, head.seed)
        head.calibrate = calibrate and end_to_end is None  # end-to-end training calibrates at its end
        head._fit(self.embed(body, data, held_out), self.checkpoint, self.progress, warn=False)
        head.calibrate = calibrate
        if end_to_end is None:
            return body, head
        return tune_end_to_end(
            body,
            head,
            data.texts,
            data.labels,
            end_to_end,
            validation=None if held_out is None else held_out.as_validation(),
            sample_weight=data.weight,
            checkpoint=self.stage_file(end_to_end),
            progress=self.progress,
        )

    def tune(self, body: Body, data: LabelledTexts, held_out: LabelledTexts | None, seed: int) -> Body:
        """Return the body after its contrastive stage, if there is one."""
        stage = self._find(ContrastiveConfig)
        if stage is None:
            return body
        from ketfit.bodies.contrastive import tune_body  # the trainer takes seconds to import

        return tune_body(
            body,
            data.texts,
            data.labels,
            stage,
            seed=seed,
            validation=None if held_out is None else held_out.as_validation(),
            checkpoint=self.stage_file(stage),
            progress=self.progress,
        )

    def embed(self, body: Body, data: LabelledTexts, held_out: LabelledTexts | None) -> FitData:
        """Return the embeddings to fit the head on, with the identity of the body and of each sentence."""
        embeddings = body.encode(data.texts, progress=self.progress, cache=self.cache)
        identity = f"{body.fingerprint} {body.dtype}"
        if held_out is None:
            groups = split_groups(data.texts, data.groups)
            source = EmbeddingSource(identity, _hash_sentences(data.texts), None)
            return FitData(embeddings, data.labels, data.weight, groups, source=source)
        held = body.encode(held_out.texts, progress=self.progress, cache=self.cache)
        source = EmbeddingSource(identity, _hash_sentences(data.texts), _hash_sentences(held_out.texts))
        validation = held, held_out.labels, held_out.weight
        return FitData(embeddings, data.labels, data.weight, validation=validation, source=source)

    def stage_file(self, stage: TuneConfig) -> Path | None:
        """Return the checkpoint of a stage: ``.tuning`` after the name for the first one, ``.tuning-2`` for the second.

        >>> stages = ContrastiveConfig(), EndToEndConfig()
        >>> StagedFit(stages, cache=True, checkpoint="run", progress=False).stage_file(stages[1]).name
        'run.tuning-2'
        """
        if self.checkpoint is None:
            return None
        number = self.stages.index(stage) + 1
        return Path(f"{self.checkpoint}.tuning" + (f"-{number}" if number > 1 else ""))

    def _find(self, kind: type[_Stage]) -> _Stage | None:
        return next((stage for stage in self.stages if isinstance(stage, kind)), None)


def _hash_sentences(texts: Sequence[str]) -> NDArray[np.str_]:
    return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=np.str_)
