"""Few-shot and hold-out splits that never separate duplicates or groups."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ketfit.data.dataset import Dataset, Positions
from ketfit.data.sequences import as_groups, as_texts, check_texts
from ketfit.errors import ConfigError, DataError, DataOptionError, InputError
from ketfit.integers import as_integer
from ketfit.rng import numpy_stream


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted positions (from 0) of a data set's rows; the four parts are disjoint and cover it.

    `left_out` are the copies of drawn sentences: they may stand neither in training nor in the test set.
    """

    train: Positions
    validation: Positions
    test: Positions
    left_out: Positions


def duplicate_groups(texts: Sequence[str]) -> Positions:
    """Return a number per text, equal for texts that are the same but for white space and letter case; shape (n,).

    Raises:
        InputError: `texts` is not a sequence of strings.
    """
    sentences = as_texts(texts)
    check_texts(sentences, "texts", range(len(sentences)), blank=True)
    return as_groups([" ".join(text.split()).casefold() for text in sentences])


def split_groups(texts: Sequence[str], groups: Sequence[Hashable] | NDArray[Any] | None = None) -> Positions:
    """Return one number per text, equal for texts that a split must keep together; shape (n,).

    Copies of one sentence (see `duplicate_groups`) are kept together, and so are texts of one group; a copy in another
    group joins the two groups.

    Raises:
        InputError: `groups` does not hold one hashable value per text.
    """
    copies = duplicate_groups(texts)
    if groups is None or not len(copies):
        return copies
    codes = _group_numbers(groups, len(copies))
    # A graph with two kinds of vertices, sentences and groups; each text joins one of each.
    first = int(copies.max()) + 1
    size = first + int(codes.max()) + 1
    edges = coo_array((np.ones(len(copies)), (copies, first + codes)), shape=(size, size))
    connected: Positions = connected_components(edges, directed=False)[1][copies].astype(np.int64)
    return connected


def few_shot_split(dataset: Dataset, per_label: int = 256, validation_fraction: float = 0.15, seed: int = 0) -> Split:
    """The paper's protocol: `per_label` sentences of each label, cut into training and validation; the rest is test.

    Two labels with 256 sentences each give 435 to train and 77 to validate. The cut is stratified. Of the copies of
    one sentence (see `duplicate_groups`) at most one is drawn, and the others, whatever their label, are left out.

    If the data set has groups, they are drawn one after the other, each as far as it is needed, so that few of them are
    touched; the rest of a group that was drawn from is left out, and the cut keeps groups whole, so that fewer
    sentences may validate.

    Args:
        dataset: What is split; at least two classes.
        per_label: How many sentences of each label are drawn, at least 2.
        validation_fraction: The share of the drawn sentences that validates, at least 0 and below 1.
        seed: Fixes the draw and the cut.

    Raises:
        ConfigError: `per_label` or `validation_fraction` is out of range, or `per_label` or `seed` not an integer.
        DataError: only one class.
        DataOptionError: too few different sentences of a label.
    """
    per_label = as_integer(per_label, "per_label")
    if per_label < 2:
        raise ConfigError(f"per_label must be at least 2, one to train and one to validate; got {per_label}")
    _check_fraction("validation_fraction", validation_fraction)
    check_classes(dataset)
    rng = numpy_stream(seed, "split")
    copies = duplicate_groups(dataset.texts)
    groups = split_groups(dataset.texts, dataset.groups)
    numbers = {label: code for code, label in enumerate(dataset.classes)}
    codes = np.array([numbers[label] for label in dataset.labels], dtype=np.int64)
    pool = _draw(dataset, codes, copies, groups, per_label, rng)
    train, validation = _cut(codes[pool], validation_fraction, groups[pool], rng)
    touched = np.isin(groups, groups[pool])
    return Split(
        train=pool[train],
        validation=pool[validation],
        test=np.flatnonzero(~touched),
        left_out=np.setdiff1d(np.flatnonzero(touched), pool),
    )


def check_classes(dataset: Dataset) -> None:
    """Refuse a data set of one class.

    Raises:
        DataError: with its label.
    """
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.name}: every label is {dataset.classes[0]!r}; a classifier needs two or more classes"
        )


def _draw(
    dataset: Dataset, codes: Positions, copies: Positions, groups: Positions, per_label: int, rng: np.random.Generator
) -> Positions:
    """Sorted positions of `per_label` rows of every class, at most one of each sentence, from few groups."""
    drawn = np.array([], dtype=np.int64)
    for code, label in enumerate(dataset.classes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        rows = rows[~np.isin(copies[rows], copies[drawn])]
        rows = rows[np.sort(np.unique(copies[rows], return_index=True)[1])]  # the first copy of every sentence
        if len(rows) < per_label:
            raise DataOptionError(
                f"{dataset.name}: the label {label!r} has only {len(rows)} different sentences to draw from; "
                f"lower per_label={per_label} or add sentences"
            )
        if dataset.groups is not None:  # group by group, those first that were drawn from
            order = np.unique(groups[rows], return_index=True, return_inverse=True)
            rows = rows[np.lexsort((order[1][order[2]], ~np.isin(groups[rows], groups[drawn])))]
        drawn = np.append(drawn, rows[:per_label])
    return np.sort(drawn)


def holdout_split(
    y: NDArray[np.integer[Any]], fraction: float, seed: int, groups: Sequence[Hashable] | NDArray[Any] | None = None
) -> tuple[Positions, Positions]:
    """Keep a stratified share of what a classifier is fitted on for validation.

    The share is ``round(fraction * n)``, spread over the classes in proportion; every class keeps at least one
    sample in training. With `groups`, whole groups are drawn, and the share may come out smaller where they are large.

    Args:
        y: Integer-coded classes, shape (n,).
        fraction: The share that validates, at least 0 and below 1.
        seed: Fixes the draw.
        groups: One hashable value per sample; samples of equal value never fall on both sides.

    Returns:
        The sorted positions to train on and to validate on; the latter may be empty.

    Raises:
        ConfigError: `fraction` is out of range.
        InputError: `y` or `groups` has the wrong shape or type.
    """
    _check_fraction("fraction", fraction)
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"y must hold integer class codes in shape (n,), n > 0; got {y.dtype} in shape {y.shape}")
    numbers = np.arange(len(y)) if groups is None else _group_numbers(groups, len(y))
    codes = np.unique(y, return_inverse=True)[1]
    return _cut(codes, fraction, numbers, numpy_stream(seed, "validation"))


def _check_fraction(name: str, fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ConfigError(f"{name} must be at least 0 and below 1, got {fraction}")


def _group_numbers(groups: Sequence[Hashable] | NDArray[Any], samples: int) -> Positions:
    numbers = as_groups(groups)
    if len(numbers) != samples:
        raise InputError(f"groups must hold one value per sample: {samples} samples, {len(numbers)} groups")
    return numbers


def _cut(codes: Positions, fraction: float, groups: Positions, rng: np.random.Generator) -> tuple[Positions, Positions]:
    """Positions to train and to validate: whole groups in random order, while every class has room for them."""
    room = _apportion(round(fraction * len(codes)), np.bincount(codes))
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    held = np.zeros(len(codes), dtype=bool)
    for pick in rng.permutation(len(members)):
        counts = np.bincount(codes[members[pick]], minlength=len(room))
        if (counts <= room).all():
            room -= counts
            held[members[pick]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _apportion(total: int, sizes: Positions) -> Positions:
    """Spread `total` over classes by largest remainder, ties to the first, leaving one sample of each class."""
    whole, limits = sizes.sum(), sizes - 1
    total = min(total, limits.sum())
    counts: Positions = np.minimum(total * sizes // whole, limits)
    while counts.sum() < total:
        owed = np.where(counts < limits, total * sizes - counts * whole, np.iinfo(np.int64).min)
        counts[np.argmax(owed)] += 1
    return counts
