"""Sentences with labels, weights and groups as `fit` takes them: by position, without the rows of weight zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight

from ketfit.data.sequences import (
    as_groups,
    as_labels,
    as_list,
    as_texts,
    as_weights,
    check_texts,
    is_column,
    validation_parts,
)
from ketfit.data.splits import holdout_split, split_groups
from ketfit.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Sentences that count, with what belongs to them.

    Attributes:
        texts: Sentences, none of them blank.
        labels: Shape (n,).
        weight: Shape (n,), positive; None if none were given.
        groups: Shape (n,), equal for rows of one group; None if none were given.
        rows: The position of each in what was given.
    """

    texts: list[str]
    labels: NDArray[Any]
    weight: NDArray[np.float64] | None
    groups: NDArray[np.int64] | None
    rows: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(
        cls, texts: Any, labels: Any, sample_weight: Any = None, groups: Any = None, prefix: str = ""
    ) -> LabelledTexts:
        """Return the rows whose weight is not zero, as if the others had not been given.

        Args:
            texts: Sentences, a sequence of any kind that `as_list` takes; the same holds for the other columns.
            labels: As many labels.
            sample_weight: As many weights, or None.
            groups: As many hashable values, or None.
            prefix: What stands before the names of the columns in errors, such as "validation ".

        Raises:
            InputError: a column is not a sequence or of another length, or an entry cannot be used.
            ValueError: scikit-learn refuses the weights.
        """
        sentences = as_texts(texts, f"{prefix}texts")
        column = labels if is_column(labels) else as_list(labels, f"{prefix}labels", must="must be a list of labels")
        if len(column) != len(sentences):
            raise InputError(
                f"inconsistent numbers of samples: {prefix}labels have shape ({len(column)},); there are "
                f"{len(sentences)} sentences"
            )
        codes = None if groups is None else as_groups(groups, f"{prefix}groups", len(sentences))
        weight = as_weights(sample_weight, f"{prefix}sample_weight")
        if weight is None or not len(sentences):
            rows = list(range(len(sentences)))
        else:
            weight = _check_sample_weight(weight, sentences, ensure_non_negative=True)
            rows = np.flatnonzero(weight > 0).tolist()
            if not rows:
                raise DataError(
                    f"{prefix}sample_weight is zero for every row; give some of each class a positive weight"
                )
            weight = weight[rows]
        kept = [sentences[row] for row in rows]
        check_texts(kept, f"{prefix}texts", rows)
        column = column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        codes = None if codes is None else codes[rows]
        return cls(kept, as_labels(column, f"{prefix}labels", rows), weight, codes, rows)

    @classmethod
    def of_validation(cls, validation: Any) -> LabelledTexts:
        """Return what a `validation` argument holds: sentences and labels, and weights if there are any.

        Raises:
            InputError, ValueError: as in `of`, or it is not a tuple of two or three.
        """
        texts, labels, weight = validation_parts(validation)
        held = cls.of(texts, labels, weight, prefix="validation ")
        if not len(held):
            raise InputError("validation holds no sentence; leave it out to validate on a share of the texts")
        return held

    def take(self, rows: NDArray[np.int64]) -> LabelledTexts:
        """Return the rows at these positions, in that order."""
        return LabelledTexts(
            [self.texts[row] for row in rows],
            self.labels[rows],
            None if self.weight is None else self.weight[rows],
            None if self.groups is None else self.groups[rows],
            [self.rows[row] for row in rows],
        )

    def hold_out(self, fraction: float, seed: int) -> tuple[LabelledTexts, LabelledTexts | None]:
        """Return the training side and the validation side; the latter is None if there is nothing to spare."""
        codes = np.unique(self.labels, return_inverse=True)[1]
        kept, held = holdout_split(codes, fraction, seed, split_groups(self.texts, self.groups))
        return self.take(kept), self.take(held) if len(held) else None

    def as_validation(self) -> tuple[list[str], NDArray[Any], NDArray[np.float64] | None]:
        """Return sentences, labels and weights, as a `validation` argument."""
        return self.texts, self.labels, self.weight
