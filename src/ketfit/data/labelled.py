"""The sentences, labels, weights and groups passed to `fit`, without the rows of weight zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ketfit.data.sequences import (
    ONE_SENTENCE,
    as_groups,
    as_labels,
    as_list,
    check_texts,
    is_numpy_column,
    positive_weights,
    unpack_validation,
)
from ketfit.data.splits import fold_splits, holdout_split, split_groups
from ketfit.errors import InputError

SentenceValidation = tuple[Sequence[str], ArrayLike] | tuple[Sequence[str], ArrayLike, ArrayLike | None]
"""Sentences, labels and, optionally, weights to validate on."""


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Sentences with positive weight, and their labels, weights and groups.

    Attributes:
        texts: Sentences, none of them blank, length n.
        labels: Labels, shape (n,).
        weight: Positive weights, shape (n,), or None.
        groups: Group numbers, shape (n,), equal for rows of one group, or None.
        rows: The index of each sentence in the argument, length n.
    """

    texts: list[str]
    labels: NDArray[Any]
    weight: NDArray[np.float64] | None
    groups: NDArray[np.int64] | None
    rows: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def from_columns(
        cls, texts: Any, labels: Any, sample_weight: Any = None, groups: Any = None, prefix: str = ""
    ) -> LabelledTexts:
        """Return the rows whose weight is not zero.

        Args:
            texts: Sentences, length n; any sequence that `as_list` accepts, like the other columns.
            labels: Labels, length n.
            sample_weight: Weights, length n, or None.
            groups: Hashable values, length n, or None.
            prefix: Prefix of the column names in errors, such as "validation ".

        Raises:
            InputError: a column is not a sequence or has another length, or an entry cannot be used.
            ValueError: scikit-learn rejects the weights.
        """
        sentences = as_list(texts, f"{prefix}texts", "a list of sentences", string_hint=ONE_SENTENCE)
        column = labels if is_numpy_column(labels) else as_list(labels, f"{prefix}labels", "a list of labels")
        if len(column) != len(sentences):
            raise InputError(
                f"inconsistent numbers of samples: {prefix}labels have shape ({len(column)},); there are "
                f"{len(sentences)} sentences"
            )
        codes = None if groups is None else as_groups(groups, f"{prefix}groups", len(sentences))
        weight, rows = None, list(range(len(sentences)))
        if sample_weight is not None and sentences:
            positive, weight = positive_weights(sample_weight, sentences, f"{prefix}sample_weight")
            rows = positive.tolist()
        sentences = [sentences[row] for row in rows]
        check_texts(sentences, f"{prefix}texts", rows)
        column = column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        codes = None if codes is None else codes[rows]
        return cls(sentences, as_labels(column, f"{prefix}labels", rows), weight, codes, rows)

    @classmethod
    def from_validation(cls, validation: Any) -> LabelledTexts:
        """Return the sentences, labels and weights of a `validation` argument.

        Raises:
            InputError: `validation` is not a tuple of two or three, or see `from_columns`.
            ValueError: scikit-learn rejects the weights.
        """
        texts, labels, weight = unpack_validation(validation)
        held = cls.from_columns(texts, labels, weight, prefix="validation ")
        if not len(held):
            raise InputError("validation holds no sentence; leave it out to validate on a share of the texts")
        return held

    def take(self, rows: NDArray[np.int64]) -> LabelledTexts:
        """Return the rows at these indices, in that order."""
        return LabelledTexts(
            [self.texts[row] for row in rows],
            self.labels[rows],
            None if self.weight is None else self.weight[rows],
            None if self.groups is None else self.groups[rows],
            [self.rows[row] for row in rows],
        )

    def hold_out(self, fraction: float, seed: int) -> tuple[LabelledTexts, LabelledTexts | None]:
        """Return the training part and the validation part, which is None if it would be empty."""
        codes = np.unique(self.labels, return_inverse=True)[1]
        train, held = holdout_split(codes, fraction, seed, split_groups(self.texts, self.groups))
        return self.take(train), self.take(held) if len(held) else None

    def folds(self, n_folds: int, seed: int) -> list[tuple[LabelledTexts, LabelledTexts]]:
        """Return the training part and the validation part of each fold; see `fold_splits`."""
        splits = fold_splits(self.labels, n_folds, seed, split_groups(self.texts, self.groups))
        return [(self.take(train), self.take(held)) for train, held in splits]

    def as_validation(self) -> tuple[list[str], NDArray[Any], NDArray[np.float64] | None]:
        """Return the sentences, labels and weights as a `validation` argument."""
        return self.texts, self.labels, self.weight
