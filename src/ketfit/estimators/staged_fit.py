"""One fit of a body and a head: contrastive tuning, the head, then end-to-end training, as far as asked for."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from ketfit.bodies.body import Body
from ketfit.data.labelled import LabelledTexts
from ketfit.data.splits import duplicate_groups, split_groups
from ketfit.errors import ConfigError, DataError, DataWarning
from ketfit.estimators.base import EmbeddingSource, FitData, TorchHeadClassifier, fold_file
from ketfit.estimators.choice import EmbeddedLabels
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead
from ketfit.estimators.end_to_end import train_end_to_end_fold, tune_end_to_end
from ketfit.estimators.heads import HeadEstimator, NewHead
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, TuneConfig
from ketfit.rng import numpy_stream
from ketfit.training.callbacks import Stage
from ketfit.training.cross_validation import CrossValidation
from ketfit.training.loop import Epoch

if TYPE_CHECKING:
    from ketfit.bodies.contrastive import TuningEpoch

_Stage = TypeVar("_Stage", ContrastiveConfig, EndToEndConfig)
_Sides = Sequence[tuple[LabelledTexts, LabelledTexts]]  # the training and the validation sentences of each fold


def _ignore(stage: Stage, epoch: Epoch) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class StagedFit:
    """The stages of a fit, its files and its progress bars.

    Attributes:
        stages: Stages of the tuning in their order; none for a frozen body.
        cache: Cache embeddings on disk.
        checkpoint: The checkpoint of the head; each stage has one of its own, see `stage_file`. None writes none.
        progress: Show bars on stderr.
        pairs: Pairs of the user's own for the contrastive stage, or None; see `tune_body`.
        report: Called with the stage and the record of every epoch.
        teacher: The body whose cosine similarities contrastive tuning learns; None has 1 for a label and 0 for two.
    """

    stages: tuple[TuneConfig, ...]
    cache: bool
    checkpoint: str | Path | None
    progress: bool
    report: Callable[[Stage, Epoch], None] = _ignore
    pairs: Sequence[tuple[str, str, float]] | None = None
    teacher: Body | None = None

    def run(
        self,
        body: Body,
        head: NewHead,
        data: LabelledTexts,
        held_out: LabelledTexts | None,
        class_weights: NDArray[Any],
    ) -> tuple[Body, HeadEstimator]:
        """Tune the body and fit the head; return the tuned body and the fitted head.

        Args:
            body: The body to start from.
            head: The head; it is fitted in place, and end-to-end training returns a copy.
            data: Sentences to train on.
            held_out: Sentences to validate on, or None; a frozen body's head then holds out a share itself.
            class_weights: One weight per class.
        """
        end_to_end = self._find(EndToEndConfig)
        body = self.tune(body, data, held_out, head.seed)
        fitted = self._fit_head(head, self.embed(body, data, held_out), calibrate=end_to_end is None)
        if end_to_end is None:
            return body, fitted
        if isinstance(fitted, LogisticRegressionHead):
            device = str(body.transformer.device)
            fitted = MLPHead.from_regression(fitted, head.fit_settings(), class_weights, end_to_end, device)
        assert isinstance(fitted, TorchHeadClassifier)
        fitted.calibrate = head.calibrate
        return tune_end_to_end(
            body,
            fitted,
            data.texts,
            data.labels,
            end_to_end,
            validation=None if held_out is None else held_out.as_validation(),
            sample_weight=data.weight,
            checkpoint=self.stage_file(end_to_end),
            progress=self.progress,
            on_epoch_end=partial(self.report, "end-to-end"),
        )

    def _fit_head(self, head: NewHead, data: FitData, *, calibrate: bool) -> HeadEstimator:
        """Fit the head on embeddings; end-to-end training calibrates at its end, and not here."""
        estimator = head.estimator
        if isinstance(estimator, TorchHeadClassifier):
            estimator.calibrate = head.calibrate and calibrate
            on_epoch_end = partial(self.report, "head")
            return estimator._fit(data, self.checkpoint, self.progress, warn=False, on_epoch_end=on_epoch_end)
        return estimator.fit(data.X, data.y, data.sample_weight, validation=data.validation)

    def run_folds(self, body: Body, new: NewHead, data: LabelledTexts) -> tuple[Body, HeadEstimator]:
        """Choose the epochs by cross-validation, then tune the body and fit the head on all sentences.

        The contrastive stage has no validation and runs all its epochs, whatever its patience. It tunes one body on the
        training side of each fold, which is not reported. These bodies choose the epochs of the head; then the heads of
        the folds, fitted for so many epochs, choose those of the end-to-end stage.

        Args:
            body: The body to start from.
            new: The head, of a kind that is trained in epochs; see `run`.
            data: All sentences.

        Raises:
            DataError: A label has too few sentences for the folds, or for pairs in one of them.
        """
        contrastive = self._find(ContrastiveConfig)
        if contrastive is not None and contrastive.patience is not None:
            stages = [stage.updated(patience=None) if stage is contrastive else stage for stage in self.stages]
            return replace(self, stages=tuple(stages)).run_folds(body, new, data)
        head, end_to_end = new.estimator, self._find(EndToEndConfig)
        assert isinstance(head, TorchHeadClassifier)
        calibrate, seed = head.calibrate, head.seed
        sides = data.folds(head.n_folds, seed)
        if contrastive is not None and self.pairs is None:
            _check_fold_pairs([train for train, _ in sides])
        folds = [
            self.embed(self.tune(body, train, held, seed, number), train, held)
            for number, (train, held) in enumerate(sides)
        ]
        tuned = self.tune(body, data, None, seed)
        head.calibrate = calibrate and end_to_end is None
        on_epoch_end, embedded = partial(self.report, "head"), self.embed(tuned, data, None)
        head._fit(embedded, self.checkpoint, self.progress, warn=False, folds=folds, on_epoch_end=on_epoch_end)
        head.calibrate = calibrate
        if end_to_end is None:
            return tuned, head
        cross = self._validate_end_to_end(body, head, sides, folds, end_to_end)
        tuned, head = tune_end_to_end(
            tuned,
            head,
            data.texts,
            data.labels,
            end_to_end,
            sample_weight=data.weight,
            checkpoint=self.stage_file(end_to_end),
            progress=self.progress,
            epochs=cross.best_epoch + 1,
            on_epoch_end=partial(self.report, "end-to-end"),
        )
        head._use_cross_validation(cross)
        return tuned, head

    def _validate_end_to_end(
        self, body: Body, head: TorchHeadClassifier, sides: _Sides, folds: Sequence[FitData], stage: EndToEndConfig
    ) -> CrossValidation:
        """Run the end-to-end stage on each fold, from the fold's own body and a head of as many epochs as `head`."""
        file, results = self.stage_file(stage), []
        for number, ((train, held), fold) in enumerate(zip(sides, folds, strict=True)):
            head_file = None if self.checkpoint is None else fold_file(f"{self.checkpoint}.head", number)
            fold_head = head._fit_epochs(fold, head_file, self.progress)
            fold_body = self.tune(body, train, held, head.seed, number)  # from the cache
            result = train_end_to_end_fold(
                fold_body, fold_head, train, held, stage, checkpoint=fold_file(file, number), progress=self.progress
            )
            results.append(result)
        return CrossValidation(tuple(results), stage.selection)

    def tune(
        self, body: Body, data: LabelledTexts, held_out: LabelledTexts | None, seed: int, fold: int | None = None
    ) -> Body:
        """Return the body after its contrastive stage, if there is one; `fold` is counted from 0, and not reported."""
        stage = self._find(ContrastiveConfig)
        if stage is None:
            return body
        from ketfit.bodies.contrastive import tune_body  # the trainer takes seconds to import

        file = self.stage_file(stage)
        return tune_body(
            body,
            data.texts,
            data.labels,
            stage,
            seed=seed,
            pairs=self._pairs(data, held_out, stage, seed),
            validation=None if held_out is None or fold is not None else held_out.as_validation(),
            checkpoint=file if fold is None else fold_file(file, fold),
            progress=self.progress,
            on_epoch_end=self._report_tuning if fold is None else None,
        )

    def _report_tuning(self, epoch: TuningEpoch) -> None:
        self.report("contrastive", Epoch(*epoch, validation_accuracy=None))

    def _pairs(
        self, data: LabelledTexts, held_out: LabelledTexts | None, stage: ContrastiveConfig, seed: int
    ) -> list[tuple[str, str, float]] | None:
        """Return the teacher's pairs, or the user's own without those that have a copy of a held-out sentence.

        Raises:
            ConfigError: No pair is left.
        """
        if self.teacher is not None:
            return self._teacher_pairs(self.teacher, data, stage, seed)
        if self.pairs is None:
            return None
        from ketfit.bodies.contrastive_sampling import checked_pairs

        pairs = checked_pairs(self.pairs)
        held = [] if held_out is None else held_out.texts
        groups = duplicate_groups([*held, *(text for pair in pairs for text in pair[:2])])
        is_held = np.isin(groups[len(held) :], groups[: len(held)]).reshape(len(pairs), 2)
        kept = [pair for pair, copies in zip(pairs, is_held, strict=True) if not copies.any()]
        if not kept:
            raise ConfigError(
                "every one of the pairs has a sentence that is held out for validation; pass other sentences as "
                "validation, or pairs of other sentences"
            )
        if len(kept) < len(pairs):
            warnings.warn(
                f"{len(pairs) - len(kept)} of {len(pairs)} pairs have a sentence that is held out for validation; they "
                "do not tune the body",
                DataWarning,
                stacklevel=2,
            )
        return kept

    def _teacher_pairs(
        self, teacher: Body, data: LabelledTexts, stage: ContrastiveConfig, seed: int
    ) -> list[tuple[str, str, float]]:
        """Return pairs as tuning by labels draws them, with the cosines of the teacher's embeddings."""
        from ketfit.bodies.contrastive_sampling import draw_pairs

        embeddings = teacher.encode(data.texts, progress=self.progress, cache=self.cache)
        unit = normalize(embeddings)
        codes = np.unique(data.labels, return_inverse=True)[1]
        drawn = draw_pairs(codes, stage.pairs_per_sentence, numpy_stream(seed, "distillation"))
        return [
            (data.texts[one], data.texts[other], float((unit[one] @ unit[other]).clip(-1, 1))) for one, other in drawn
        ]

    def embed_labels(self, body: Body, data: LabelledTexts) -> EmbeddedLabels:
        """Return the embeddings of sentences with their labels, to choose a head on."""
        X = body.encode(data.texts, progress=self.progress, cache=self.cache)
        return EmbeddedLabels(X, data.labels, data.weight, split_groups(data.texts, data.groups))

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


def _check_fold_pairs(training: Sequence[LabelledTexts]) -> None:
    """Refuse folds that leave contrastive tuning one sentence of a label, which makes no pair.

    Raises:
        DataError: The message names the first such label.
    """
    for data in training:
        names, counts = np.unique(data.labels, return_counts=True)
        if counts.min() < 2:
            label = names[counts.argmin()].item()
            raise DataError(
                f"a fold leaves one sentence of label {label!r} to train on, and contrastive tuning pairs two of one "
                "label; add sentences of that label, or use more folds"
            )


def _hash_sentences(texts: Sequence[str]) -> NDArray[np.str_]:
    return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=np.str_)
