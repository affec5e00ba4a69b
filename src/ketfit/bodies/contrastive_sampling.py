"""Pairs and label-balanced batches of sentences for the steps of contrastive tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from ketfit.data.sequences import check_texts
from ketfit.errors import ConfigError, DataError, InputError
from ketfit.model.tuning import ContrastiveConfig
from ketfit.rng import numpy_stream

Columns = dict[str, list[Any]]  # columns of a data set, by the names that the losses use


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows of a training in the order of its steps, all epochs.

    Attributes:
        columns: Their columns, by the names that the losses use.
        batch_size: Rows of a step; the last step may have fewer.
    """

    columns: Columns
    batch_size: int

    def __len__(self) -> int:
        return len(self.columns["label"])

    @property
    def n_steps(self) -> int:
        """The number of steps."""
        return math.ceil(len(self) / self.batch_size)

    @property
    def sentences(self) -> list[str]:
        """All sentences, with repetitions."""
        return [sentence for name, column in self.columns.items() if name != "label" for sentence in column]


@dataclass(frozen=True, eq=False)
class PairSampler:
    """Labelled sentences, and how they are paired.

    Attributes:
        sentences: Sentences, length n.
        codes: Label number of each sentence in the order of appearance, shape (n,), so that the names of the labels do
            not affect the result.
        unlike: For each label number, those of the labels that its unlike pairs are drawn from, shape (labels, labels).
        pairs: Pairs of the user's own, in place of drawn ones: two sentences and their similarity, or None.
    """

    sentences: list[str]
    codes: NDArray[np.int64]
    unlike: NDArray[np.bool_]
    pairs: list[tuple[str, str, float]] | None

    @classmethod
    def from_labels(
        cls, sentences: list[str], labels: NDArray[Any], config: ContrastiveConfig, pairs: Any = None
    ) -> Self:
        """Return the sampler of checked sentences and labels.

        Raises:
            ConfigError: pairs are passed with another loss than the cosine one, or `unlike_labels` beside them.
            DataError: `unlike_labels` names an unknown label, or one label twice.
            InputError: a pair is not two sentences and a similarity from -1 to 1.
        """
        names, first, codes = np.unique(labels, return_index=True, return_inverse=True)
        position = first.argsort().argsort()
        code_of = dict(zip(names.tolist(), position.tolist(), strict=True))
        if pairs is not None:
            if config.loss != "cosine" or config.unlike_labels is not None:
                raise ConfigError("pairs of your own are for loss='cosine' without unlike_labels; change the settings")
            pairs = checked_pairs(pairs)
        return cls(sentences, position[codes], _unlike(config, code_of), pairs)

    @property
    def n_labels(self) -> int:
        """The number of labels."""
        return len(self.unlike)

    def rows(self, config: ContrastiveConfig, seed: int) -> TrainingRows:
        """Return the rows of all epochs.

        Raises:
            ConfigError: a batch would have sentences of one label only.
        """
        rngs = [numpy_stream(seed, "pairs", epoch) for epoch in range(config.epochs)]
        batch_size = config.batch_size_for(len(self.sentences), self.n_labels)
        if self.pairs is not None:
            pairs = [pair for rng in rngs for pair in self._own_pairs(self.pairs, config, batch_size, rng)]
            columns = {name: list(column) for name, column in zip(_PAIR_COLUMNS, zip(*pairs, strict=True), strict=True)}
            return TrainingRows(columns, batch_size)
        if config.loss == "cosine":
            return TrainingRows(self._pair_columns(config, batch_size, rngs), batch_size)
        if config.loss == "supervised":
            batches = balanced_batches(self.codes, batch_size, config.epochs, rngs[0])
            self._check_labels(batches, batch_size)
            return TrainingRows(self._labelled(batches.ravel()), batches.shape[1])
        order = np.concatenate([interleave_labels(self.codes, rng) for rng in rngs])
        order = order[: len(order) // batch_size * batch_size or None]
        self._check_labels(np.split(order, range(batch_size, len(order), batch_size)), batch_size)
        return TrainingRows(self._labelled(order), batch_size)

    def _check_labels(self, batches: Iterable[NDArray[np.int64]], batch_size: int) -> None:
        """Raise an error if a batch of sentence numbers has one label, which leaves nothing to contrast."""
        for batch in batches:
            if len(set(self.codes[batch].tolist())) < 2:
                raise ConfigError(f"batch_size={batch_size} leaves batches of one label only; raise it")

    def _labelled(self, rows: NDArray[np.int64]) -> Columns:
        return {"sentence": [self.sentences[row] for row in rows], "label": self.codes[rows].tolist()}

    @staticmethod
    def _own_pairs(
        pairs: Sequence[tuple[str, str, float]], config: ContrastiveConfig, batch_size: int, rng: np.random.Generator
    ) -> list[tuple[str, str, float]]:
        """Return the pairs of the user's own in the order of an epoch."""
        order = [(2 * index, 2 * index + 1) for index in rng.permutation(len(pairs)).tolist()]
        if config.group_by_length:
            sentences = [sentence for pair in pairs for sentence in pair[:2]]
            order = batch_by_length(order, sentences, batch_size, rng)
        return [pairs[one // 2] for one, _ in order]

    def _pair_columns(self, config: ContrastiveConfig, batch_size: int, rngs: Sequence[np.random.Generator]) -> Columns:
        pairs = []
        for rng in rngs:
            drawn = draw_pairs(self.codes, config.pairs_per_sentence, rng, self.unlike)
            grouped = config.group_by_length
            pairs += batch_by_length(drawn, self.sentences, batch_size, rng) if grouped else drawn
        labels = [float(self.codes[one] == self.codes[other]) for one, other in pairs]
        sentences = ([self.sentences[pair[side]] for pair in pairs] for side in (0, 1))
        return dict(zip(_PAIR_COLUMNS, [*sentences, labels], strict=True))


_PAIR_COLUMNS = ("sentence1", "sentence2", "label")


def checked_pairs(pairs: Any) -> list[tuple[str, str, float]]:
    """Return pairs of the user's own as tuples of two sentences and their similarity.

    Raises:
        InputError: A pair is not two sentences and a similarity from -1 to 1, or there is none.
    """
    checked = []
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 3:
            raise InputError(f"pairs[{number}]={pair!r} is not two sentences and a similarity")
        one, other, similarity = pair
        check_texts([one, other], f"pairs[{number}]", (0, 1))
        if not isinstance(similarity, Real) or not -1 <= float(similarity) <= 1:
            raise InputError(f"pairs[{number}] has the similarity {similarity!r}; it is a number from -1 to 1")
        checked.append((one, other, float(similarity)))
    if not checked:
        raise InputError("pairs is empty; leave it out to draw pairs by the labels")
    return checked


def _unlike(config: ContrastiveConfig, code_of: dict[Any, int]) -> NDArray[np.bool_]:
    if config.unlike_labels is None:
        return ~np.eye(len(code_of), dtype=bool)
    unlike = np.zeros((len(code_of), len(code_of)), dtype=bool)
    for pair in config.unlike_labels:
        for name in pair:
            if name not in code_of:
                known = ", ".join(map(repr, code_of))
                raise DataError(
                    f"unlike_labels names {name!r}, which is not a label of these sentences; known: {known}"
                )
        one, other = (code_of[name] for name in pair)
        if one == other:
            raise DataError(f"unlike_labels pairs {pair[0]!r} with itself; name two labels")
        unlike[one, other] = unlike[other, one] = True
    return unlike


def draw_pairs(
    codes: NDArray[np.int64], count: int, rng: np.random.Generator, unlike: NDArray[np.bool_] | None = None
) -> list[tuple[int, int]]:
    """Return `count` pairs of each sentence with its own label and `count` with other labels, in random order.

    `unlike`, shape (labels, labels), says which labels are paired; a label with none has pairs of its own only.
    """
    pairs = []
    for row, code in enumerate(codes):
        own = np.flatnonzero(codes == code)
        others = codes != code if unlike is None else unlike[code][codes]
        for partners in (own[own != row], np.flatnonzero(others)):
            if not len(partners):
                continue
            chosen = rng.choice(partners, count, replace=len(partners) < count)
            pairs += [(row, int(partner)) for partner in chosen]
    return [pairs[index] for index in rng.permutation(len(pairs))]


def batch_by_length(
    pairs: list[tuple[int, int]], sentences: Sequence[str], batch_size: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Sort pairs into batches of sentences of similar length, and shuffle the batches.

    A batch is padded to its longest sentence; in random batches of reviews half of the tokens are padding.
    """
    one, other = (np.array([len(sentences[pair[side]]) for pair in pairs]) for side in (0, 1))
    by_first = np.argsort(one, kind="stable")
    stripes = np.array_split(by_first, max(1, round(math.sqrt(len(pairs) / batch_size))))
    order = np.concatenate([stripe[np.argsort(other[stripe], kind="stable")] for stripe in stripes])
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    shuffled = np.concatenate([batches[rng.permutation(len(batches))].ravel(), order[whole:]])
    return [pairs[index] for index in shuffled]


def interleave_labels(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random order of all sentences, shape (n,), in which every label is spread evenly."""
    positions = np.empty(len(codes))
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        positions[rng.permutation(own)] = (np.arange(len(own)) + rng.random(len(own))) / len(own)
    return np.argsort(positions, kind="stable")


def balanced_batches(
    codes: NDArray[np.int64], batch_size: int, epochs: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rows of each batch, shape (steps, rows), with as equal a number of each label as there is.

    A batch has at least two sentences of each of its labels, and none twice. Successive batches go through the
    sentences of a label in random order before any is repeated. An epoch has as many batches as come closest to one
    pass through the sentences.

    Args:
        codes: Label number of each sentence, shape (n,), each at least twice.
        batch_size: Largest number of sentences in a batch.
        epochs: Number of passes.
        rng: Source of the order.
    """
    own = {code: np.flatnonzero(codes == code) for code in np.unique(codes)}
    rows = min(batch_size, len(codes))
    n_labels = min(len(own), rows // 2)
    rows = rows if n_labels == len(own) else 2 * n_labels
    order = {code: _shuffled_forever(members, rng) for code, members in own.items()}
    labels = _shuffled_forever(np.array(list(own)), rng)
    batches = np.empty((epochs * max(1, round(len(codes) / rows)), rows), dtype=np.int64)
    for batch in batches:
        chosen = _take_distinct(labels, n_labels)
        share = _equal_shares([len(own[code]) for code in chosen], rows)
        members = [_take_distinct(order[code], count) for code, count in zip(chosen, share, strict=True)]
        drawn = np.concatenate(members)
        batch[:] = drawn[interleave_labels(codes[drawn], rng)]
    return batches


def _shuffled_forever(members: NDArray[Any], rng: np.random.Generator) -> Iterator[Any]:
    while True:
        yield from rng.permutation(members).tolist()


def _take_distinct(stream: Iterator[Any], count: int) -> list[Any]:
    """Return the next `count` different values of an endless stream, without those that it repeats meanwhile."""
    taken: dict[Any, None] = {}
    while len(taken) < count:
        taken[next(stream)] = None
    return list(taken)


def _equal_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` among groups as equally as their sizes allow; the first groups get what is left over.

    >>> _equal_shares([3, 40, 40], 16)
    [3, 7, 6]
    """
    shares = [0] * len(sizes)
    while total > 0:
        open_groups = [index for index, size in enumerate(sizes) if shares[index] < size][:total]
        if not open_groups:
            break
        for index in open_groups:
            shares[index] += 1
        total -= len(open_groups)
    return shares
