"""Few-shot and hold-out splits that keep duplicates and groups together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ketfit.data.dataset import Dataset, Positions
from ketfit.data.sequences import as_groups, as_texts
from ketfit.errors import ConfigError, DataError, DataOptionError, InputError
from ketfit.integers import as_integer
from ketfit.rng import numpy_stream


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted row indices, from 0, of a data set; the four parts are disjoint and cover it.

    Attributes:
        train: Rows to train on.
        validation: Rows to validate on.
        test: Rows to test on.
        excluded: Copies of drawn sentences, and the other rows of drawn groups; they are used nowhere.
    """

    train: Positions
    validation: Positions
    test: Positions
    excluded: Positions


def duplicate_groups(texts: Sequence[str]) -> Positions:
    """Return one number per text, shape (n,), equal for texts that differ only in white space and letter case.

    Raises:
        InputError: `texts` is not a sequence of strings.

    >>> duplicate_groups(["A good film", "a  good film", "dull"]).tolist()
    [0, 0, 1]
    """
    return as_groups([" ".join(text.split()).casefold() for text in as_texts(texts, allow_blank=True)])


def split_groups(texts: Sequence[str], groups: Sequence[Hashable] | NDArray[Any] | None = None) -> Positions:
    """Return one number per text, shape (n,), equal for texts that a split must keep together.

    These are copies of one sentence (see `duplicate_groups`) and texts of one group; a copy in another group joins the
    two groups.

    Raises:
        InputError: `groups` is not a sequence of one hashable value per text.
    """
    copies = duplicate_groups(texts)
    if groups is None or not len(copies):
        return copies
    codes = as_groups(groups, length=len(copies))
    # A bipartite graph of sentences and groups; each text is an edge.
    first = int(copies.max()) + 1
    size = first + int(codes.max()) + 1
    edges = coo_array((np.ones(len(copies)), (copies, first + codes)), shape=(size, size))
    connected: Positions = connected_components(edges, directed=False)[1][copies].astype(np.int64)
    return connected


def few_shot_split(dataset: Dataset, per_label: int = 256, validation_fraction: float = 0.15, seed: int = 0) -> Split:
    """Split as in the paper: `per_label` sentences of each label to train and validate, the other ones to test.

    Two labels with 256 sentences each give 435 to train and 77 to validate, stratified. At most one copy of a sentence
    (see `duplicate_groups`) is drawn; the other copies, whatever their label, are excluded.

    If the data set has groups, they are drawn from one after the other, so that few groups are used. The other rows of
    such a group are excluded. Groups are not divided between training and validation, so that the validation part may
    be smaller.

    Args:
        dataset: The data set; at least two classes.
        per_label: Number of sentences drawn of each label, at least 2.
        validation_fraction: Fraction of the drawn sentences to validate on, at least 0 and below 1.
        seed: Seed of the random draw.

    Raises:
        ConfigError: `per_label` or `validation_fraction` is out of range, or `per_label` or `seed` is not an integer.
        DataError: the data set has only one class.
        DataOptionError: a label has too few different sentences.

    >>> films = Dataset("films", tuple(f"film {i}" for i in range(10)), (0, 1) * 5)
    >>> split = few_shot_split(films, per_label=2, validation_fraction=0.5)
    >>> len(split.train), len(split.validation), len(split.test)
    (2, 2, 6)
    """
    per_label = as_integer(per_label, "per_label")
    if per_label < 2:
        raise ConfigError(f"per_label must be at least 2, one to train and one to validate; got {per_label}")
    check_fraction("validation_fraction", validation_fraction)
    check_classes(dataset)
    rng = numpy_stream(seed, "split")
    copies = duplicate_groups(dataset.texts)
    groups = split_groups(dataset.texts, dataset.groups)
    numbers = {label: code for code, label in enumerate(dataset.classes)}
    codes = np.array([numbers[label] for label in dataset.labels], dtype=np.int64)
    pool = _draw(dataset, codes, copies, groups, per_label, rng)
    train, validation = _cut(codes[pool], validation_fraction, groups[pool], rng)
    used = np.isin(groups, groups[pool])
    return Split(
        train=pool[train],
        validation=pool[validation],
        test=np.flatnonzero(~used),
        excluded=np.setdiff1d(np.flatnonzero(used), pool),
    )


def stratified_split(dataset: Dataset, test_fraction: float, validation_fraction: float = 0.15, seed: int = 0) -> Split:
    """Split all sentences into stratified parts to train, to validate and to test on.

    Copies of a sentence (see `duplicate_groups`) and rows of one group stay in one part, and every class keeps a
    sentence in training. No sentence is excluded.

    Args:
        dataset: The data set; at least two classes.
        test_fraction: Fraction of the sentences to test on, at least 0 and below 1.
        validation_fraction: Fraction of the others to validate on, at least 0 and below 1.
        seed: Seed of the random draw.

    Raises:
        ConfigError: A fraction is out of range, or `seed` is not an integer.
        DataError: the data set has only one class.

    >>> films = Dataset("films", tuple(f"film {i}" for i in range(20)), (0, 1) * 10)
    >>> split = stratified_split(films, test_fraction=0.2, validation_fraction=0.25)
    >>> len(split.train), len(split.validation), len(split.test)
    (12, 4, 4)
    """
    check_fraction("test_fraction", test_fraction)
    check_fraction("validation_fraction", validation_fraction)
    check_classes(dataset)
    rng = numpy_stream(seed, "split")
    groups = split_groups(dataset.texts, dataset.groups)
    codes = np.unique(np.asarray(dataset.labels), return_inverse=True)[1]
    rest, test = _cut(codes, test_fraction, groups, rng)
    train, validation = _cut(codes[rest], validation_fraction, groups[rest], rng)
    return Split(rest[train], rest[validation], test, excluded=np.array([], dtype=np.int64))


def check_classes(dataset: Dataset) -> None:
    """Check that a data set has at least two classes.

    Raises:
        DataError: every row has the same label.
    """
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.name}: every label is {dataset.classes[0]!r}; a classifier needs two or more classes"
        )


def _draw(
    dataset: Dataset, codes: Positions, copies: Positions, groups: Positions, per_label: int, rng: np.random.Generator
) -> Positions:
    """Return sorted indices of `per_label` rows of every class, at most one copy of a sentence, from few groups."""
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
        if dataset.groups is not None:  # group by group, groups already in use first
            order = np.unique(groups[rows], return_index=True, return_inverse=True)
            rows = rows[np.lexsort((order[1][order[2]], ~np.isin(groups[rows], groups[drawn])))]
        drawn = np.append(drawn, rows[:per_label])
    return np.sort(drawn)


def holdout_split(
    y: NDArray[np.integer[Any]], fraction: float, seed: int, groups: Sequence[Hashable] | NDArray[Any] | None = None
) -> tuple[Positions, Positions]:
    """Split samples into a training part and a stratified validation part.

    The validation part has ``round(fraction * n)`` samples in proportion to the classes; every class keeps at least one
    sample in training. With `groups`, whole groups are drawn, and the part is smaller if the groups are large.

    Args:
        y: Integer class codes, shape (n,).
        fraction: Fraction of the samples to validate on, at least 0 and below 1.
        seed: Seed of the random draw.
        groups: One hashable value per sample; samples of equal value stay together.

    Returns:
        The sorted indices to train on and to validate on; the latter may be empty.

    Raises:
        ConfigError: `fraction` is out of range.
        InputError: `y` or `groups` has the wrong shape or type.
    """
    check_fraction("fraction", fraction)
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"y must hold integer class codes in shape (n,), n > 0; got {y.dtype} in shape {y.shape}")
    numbers = np.arange(len(y)) if groups is None else as_groups(groups, length=len(y))
    codes = np.unique(y, return_inverse=True)[1]
    return _cut(codes, fraction, numbers, numpy_stream(seed, "validation"))


def fold_splits(
    labels: NDArray[Any], n_folds: int, seed: int, groups: Sequence[Hashable] | NDArray[Any] | None = None
) -> list[tuple[Positions, Positions]]:
    """Divide samples into stratified folds; each is the validation part once, and the others are the training part.

    With `groups`, a group is in one fold, so that folds may differ in size.

    Args:
        labels: Labels, shape (n,).
        n_folds: Number of folds, at least 2.
        seed: Seed of the random division.
        groups: One hashable value per sample; samples of equal value stay together.

    Returns:
        For each fold, the sorted indices to train on and to validate on.

    Raises:
        ConfigError: `n_folds` is not an integer, or below 2.
        DataError: A label has fewer samples, or groups of samples, than folds.
        InputError: `groups` has the wrong shape or type.

    >>> [held.tolist() for _, held in fold_splits(np.array([0, 0, 1, 1]), 2, seed=0)]
    [[1, 2], [0, 3]]
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # most commands need no folds

    n_folds = as_integer(n_folds, "n_folds", minimum=2)
    names, codes = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(codes)) if groups is None else as_groups(groups, length=len(codes))
    for code, name in enumerate(names.tolist()):
        size = len(np.unique(numbers[codes == code]))
        if size < n_folds:
            kind = "samples" if groups is None else "different sentences or groups"
            raise DataError(
                f"the label {name!r} has {size} {kind}, and n_folds={n_folds} needs one for each fold; "
                "lower n_folds, or add some"
            )
    divided = len(np.unique(numbers)) < len(numbers)
    splitter = (StratifiedGroupKFold if divided else StratifiedKFold)(
        n_folds, shuffle=True, random_state=int(numpy_stream(seed, "folds").integers(2**32))
    )
    splits = [(train, held) for train, held in splitter.split(codes, codes, numbers if divided else None)]
    for train, held in splits:
        if not len(held) or len(np.unique(codes[train])) < len(names):
            raise DataError(
                f"the groups are too large for n_folds={n_folds}: a fold is empty, or has all samples of a label; "
                "lower n_folds"
            )
    return splits


def check_fraction(name: str, fraction: float) -> None:
    """Check that a fraction is a number of at least 0 and below 1; raise ConfigError if it is not."""
    if not isinstance(fraction, Real) or not 0 <= fraction < 1:
        raise ConfigError(f"{name}={fraction!r}: it must be a number of at least 0 and below 1")


def _cut(codes: Positions, fraction: float, groups: Positions, rng: np.random.Generator) -> tuple[Positions, Positions]:
    """Return indices to train and to validate on: whole groups in random order, while every class has room."""
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
    """Distribute `total` over classes by largest remainder, ties to the first, and leave one sample of each class."""
    whole, limits = sizes.sum(), sizes - 1
    total = min(total, limits.sum())
    counts: Positions = np.minimum(total * sizes // whole, limits)
    while counts.sum() < total:
        owed = np.where(counts < limits, total * sizes - counts * whole, np.iinfo(np.int64).min)
        counts[np.argmax(owed)] += 1
    return counts
