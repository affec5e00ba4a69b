"""Choose a kind of head by its validation loss over repeated splits."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from ketfit.data.splits import check_fraction, holdout_split
from ketfit.errors import ConfigError, ConfigWarning
from ketfit.estimators.base import FitData, TorchHeadClassifier
from ketfit.estimators.class_weights import ClassWeight, weights_by_class
from ketfit.estimators.classical import SVCHead
from ketfit.estimators.heads import HEADS, HeadEstimator, NewHead, new_head, settings_for
from ketfit.model.classical import HeadKind
from ketfit.model.head_choice import HeadChoice, HeadLoss
from ketfit.rng import chosen_seed, numpy_stream

N_SPLITS = 5
"""Repeated splits that heads are compared on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EmbeddedLabels:
    """Embeddings with their labels, weights and groups.

    Attributes:
        X: Embeddings, shape (n, embedding_dim).
        y: Labels, shape (n,).
        weight: Positive weights, shape (n,), or None.
        groups: Rows of one group stay on one side of a split, shape (n,), or None.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    weight: NDArray[Any] | None
    groups: NDArray[np.int64] | None

    def take(self, rows: NDArray[np.int64]) -> EmbeddedLabels:
        """Return these rows."""
        weight = None if self.weight is None else self.weight[rows]
        return EmbeddedLabels(self.X[rows], self.y[rows], weight, None if self.groups is None else self.groups[rows])

    def hold_out(self, fraction: float, seed: int) -> tuple[EmbeddedLabels, EmbeddedLabels]:
        """Return the training side and the validation side of a stratified split."""
        codes = np.unique(self.y, return_inverse=True)[1]
        train, held_out = holdout_split(codes, fraction, seed, self.groups)
        return self.take(train), self.take(held_out)


def fit_head(head: NewHead, data: EmbeddedLabels) -> HeadEstimator:
    """Fit a head on embeddings, of which it holds out its own validation share if it needs one."""
    estimator = head.estimator
    if isinstance(estimator, TorchHeadClassifier):
        return estimator._fit(FitData(data.X, data.y, data.weight, data.groups), None, False, warn=False)
    if not isinstance(estimator, SVCHead):
        return estimator.fit(data.X, data.y, data.weight)
    train, held_out = data.hold_out(head.validation_fraction, head.seed)
    return estimator.fit(train.X, train.y, train.weight, validation=(held_out.X, held_out.y, held_out.weight))


def choose_head(data: EmbeddedLabels, settings: Mapping[str, Any], kinds: Sequence[HeadKind]) -> HeadChoice:
    """Return the validation losses of kinds of head over repeated splits, and with them the choice.

    Each split holds out a stratified share of the samples (``validation_fraction``), and every head is fitted on the
    rest as it would be on all samples, with its own validation share of that rest if it needs one. The loss is the
    weighted mean of the negative log-probability of the label, in nats.

    Args:
        data: The samples.
        settings: As in `new_head`.
        kinds: Kinds of head, the simplest first.

    Warns:
        ConfigWarning: A head is left out, because a share has too few samples to calibrate it on.

    Raises:
        ConfigError: A share would be empty, or a setting does not fit.
    """
    seed, fraction = chosen_seed(settings["random_state"], settings["seed"]), settings["validation_fraction"]
    check_fraction("validation_fraction", fraction)
    losses: dict[HeadKind, list[float]] = {kind: [] for kind in kinds}
    for number in range(N_SPLITS):
        train, held_out = data.hold_out(fraction, int(numpy_stream(seed, "choice", number).integers(2**31)))
        if not len(held_out.y):
            raise ConfigError(
                f"head='auto' compares heads on validation shares, and validation_fraction={fraction!r} of "
                f"{len(data.y)} samples is none; raise it, or name a kind of head"
            )
        for kind in list(losses):
            # A temperature is left out: it belongs to some kinds only.
            own = {**settings_for(kind, settings), "seed": seed, "random_state": None, "calibrate": False}
            own["validation"] = "holdout"  # also where the chosen head has cross-validation: a share has few samples
            head = new_head(kind, own)
            fitted = fit_head(head, train)
            if isinstance(fitted, SVCHead) and fitted.platt_ is None:
                warnings.warn(
                    "head='auto' leaves out 'svc': a validation share has fewer than two samples of a class to "
                    "calibrate it on; add samples, or raise validation_fraction",
                    ConfigWarning,
                    stacklevel=3,
                )
                del losses[kind]
                continue
            losses[kind].append(_loss(fitted, held_out, settings["class_weight"]))
            _log.info("split %d of %d: %s has the validation loss %.4f", number + 1, N_SPLITS, kind, losses[kind][-1])
    return HeadChoice(n_splits=N_SPLITS, losses=[_summary(kind, values) for kind, values in losses.items()])


def simplest_kinds(*, end_to_end: bool) -> list[HeadKind]:
    """Return the kinds of head, the simplest first; with `end_to_end` those that gradients can train."""
    return [kind for kind in HEADS if not (end_to_end and kind == "svc")]


def _loss(head: HeadEstimator, held_out: EmbeddedLabels, class_weight: ClassWeight) -> float:
    if isinstance(class_weight, Mapping):  # a share may lack a rare label
        present = set(held_out.y.tolist())
        class_weight = {label: weight for label, weight in class_weight.items() if label in present}
    weight = weights_by_class(class_weight, held_out.y)
    if held_out.weight is not None:
        weight = weight * held_out.weight
    return float(log_loss(held_out.y, head.predict_proba(held_out.X), sample_weight=weight, labels=head.classes_))


def _summary(kind: HeadKind, losses: list[float]) -> HeadLoss:
    return HeadLoss(
        kind=kind, mean=float(np.mean(losses)), standard_error=float(np.std(losses, ddof=1)) / math.sqrt(len(losses))
    )
