"""Splits: sizes, stratification, duplicates and groups."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketfit.data.dataset import Dataset
from ketfit.data.splits import (
    duplicate_groups,
    few_shot_split,
    fold_splits,
    holdout_split,
    split_groups,
    stratified_split,
)
from ketfit.errors import ConfigError, DataError, InputError
from tests.data.example_data import (
    parts,
    toy,
)


def test_duplicate_groups_ignore_case_and_white_space() -> None:
    texts = ["A film .", "a  film\t.\n", "Another", "STRASSE", "straße", " a film ."]
    groups = duplicate_groups(texts)
    assert groups.dtype == np.int64
    assert groups.tolist() == [0, 0, 1, 2, 2, 0]
    assert duplicate_groups([]).shape == (0,)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_split_groups_are_connected_components(rows: list[tuple[int, int]]) -> None:
    graph = nx.Graph((("text", text), ("group", group)) for text, group in rows)
    number = {node: i for i, part in enumerate(nx.connected_components(graph)) for node in part}
    found = split_groups([f"Text {text}" for text, _ in rows], [group for _, group in rows])
    expected = [number["text", text] for text, _ in rows]
    assert [[a == b for b in expected] for a in expected] == (found[:, None] == found).tolist()


def test_split_groups_of_another_length_raise() -> None:
    with pytest.raises(InputError, match=r"needs one value per sample, \(2,\)"):
        split_groups(["a", "b"], [1])


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 9), min_size=8, max_size=20), per_label=st.integers(2, 8), seed=st.integers(0, 99))
def test_few_shot_split_keeps_groups_together(sizes: list[int], per_label: int, seed: int) -> None:
    rows = [(group, member, member % 2) for group, size in enumerate(sizes) for member in range(size)]
    rows += [(100 + code, member, code) for code in (0, 1) for member in range(per_label)]  # enough to draw
    data = Dataset(
        "d",
        tuple(f"{group} {member} {code}" for group, member, code in rows),
        tuple(code for _, _, code in rows),
        groups=tuple(group for group, _, _ in rows),
    )
    split = few_shot_split(data, per_label, 0.25, seed)
    groups, labels = np.array(data.groups), np.array(data.labels)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(len(data)))
    drawn = np.concatenate([split.train, split.validation])
    assert np.bincount(labels[drawn]).tolist() == [per_label] * 2
    assert not set(groups[drawn]) & set(groups[split.test])
    assert not set(groups[split.train]) & set(groups[split.validation])


def test_few_shot_split_draws_from_few_groups() -> None:
    texts = tuple(f"{group} {member}" for group in range(10) for member in range(20))
    data = Dataset("d", texts, (0, 1) * 100, groups=tuple(np.repeat(np.arange(10), 20)))
    for seed in range(5):
        split = few_shot_split(data, 20, 0.0, seed)
        assert len({data.groups[i] for i in split.train}) == 2  # type: ignore[index]
        assert len(split.test) == 160


class TestFewShotSplit:
    def test_few_shot_split_has_the_sizes_of_the_paper(self) -> None:
        data = toy(400, 300)
        split = few_shot_split(data)
        assert [len(part) for part in parts(split)] == [435, 77, 188, 0]
        assert Counter(data.labels[i] for i in split.validation) == {"c0": 39, "c1": 38}
        assert Counter(data.labels[i] for i in split.train) == {"c0": 217, "c1": 218}
        assert all(np.issubdtype(part.dtype, np.integer) for part in parts(split))

    @settings(deadline=None, max_examples=50)
    @given(
        rows=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2), st.booleans()), min_size=60, max_size=120),
        per_label=st.integers(2, 6),
        fraction=st.floats(0, 0.99),
        seed=st.integers(0, 2**31),
    )
    def test_few_shot_split_parts_are_disjoint_and_stratified(
        self, rows: list[tuple[int, int, bool]], per_label: int, fraction: float, seed: int
    ) -> None:
        rows += [(100 * (k + 1) + i, k, False) for k in range(3) for i in range(per_label)]  # always enough to draw
        texts = [f"Sentence  {word} " if odd else f"sentence {word}" for word, _, odd in rows]
        data = Dataset("d", tuple(texts), tuple(label for _, label, _ in rows))
        split = few_shot_split(data, per_label, fraction, seed)

        together = np.concatenate(parts(split))
        assert sorted(together.tolist()) == list(range(len(data)))
        assert all(np.all(np.diff(part) > 0) for part in parts(split))
        labels, groups = np.array(data.labels), duplicate_groups(data.texts)
        drawn = np.concatenate([split.train, split.validation])
        assert np.bincount(labels[drawn]).tolist() == [per_label] * 3
        assert len(set(groups[drawn])) == len(drawn)
        assert not set(groups[drawn]) & set(groups[split.test])
        assert set(groups[split.excluded]) <= set(groups[drawn])
        assert len(split.validation) == min(round(3 * per_label * fraction), 3 * (per_label - 1))
        held = np.bincount(labels[split.validation], minlength=3)
        assert held.max() - held.min() <= 1
        assert np.bincount(labels[split.train], minlength=3).min() >= 1

        again = few_shot_split(data, per_label, fraction, seed)
        assert all(np.array_equal(a, b) for a, b in zip(parts(split), parts(again), strict=True))

    def test_few_shot_split_seeds_differ(self) -> None:
        data = toy(50, 50)
        assert len({tuple(few_shot_split(data, 10, seed=seed).train) for seed in range(20)}) == 20

    def test_few_shot_split_is_unchanged_between_versions(self) -> None:
        """Published results name a seed: another draw for the same seed would break them."""
        split = few_shot_split(toy(8, 8), 4, 0.25, seed=0)
        assert [part.tolist() for part in parts(split)] == [
            [3, 6, 7, 8, 10, 13],
            [14, 15],
            [0, 1, 2, 4, 5, 9, 11, 12],
            [],
        ]

    def test_few_shot_split_depends_on_label_order_not_names(self) -> None:
        data = toy(20, 20)
        renamed = Dataset("d", data.texts, tuple({"c0": 0, "c1": 1}[str(label)] for label in data.labels))
        assert np.array_equal(few_shot_split(data, 5).train, few_shot_split(renamed, 5).train)

    def test_few_shot_split_ignores_order_of_appearance_of_labels(self) -> None:
        a = Dataset("d", ("p0", "n0", "p1", "n1", "n2", "p2"), ("p", "n", "p", "n", "n", "p"))
        b = Dataset("d", ("n0", "p0", "n1", "p1", "p2", "n2"), ("n", "p", "n", "p", "p", "n"))
        for seed in range(10):
            drawn = [few_shot_split(data, 2, 0, seed).train for data in (a, b)]
            assert {a.texts[i] for i in drawn[0]} == {b.texts[i] for i in drawn[1]}

    def test_copies_of_drawn_sentences_are_excluded_for_any_label(self) -> None:
        data = Dataset("d", ("a", "b", " A ", "c", "d", "a"), ("x", "x", "x", "y", "y", "y"))
        split = few_shot_split(data, 2, 0)
        first = int(split.train[0])
        assert first in (0, 2)
        assert split.train.tolist() == sorted([first, 1, 3, 4])
        assert split.excluded.tolist() == sorted({0, 2, 5} - {first})
        assert split.validation.size == split.test.size == 0

    def test_copies_of_other_sentences_stay_in_the_test_part(self) -> None:
        data = Dataset("d", ("same", *"abc", "same", *"defg"), ("x",) * 4 + ("y",) * 5)
        sizes = {len(few_shot_split(data, 2, 0, seed).test) for seed in range(30)}
        assert sizes == {4, 5}

    @pytest.mark.parametrize(
        ("data", "options", "error", "message"),
        [
            (toy(9), {}, DataError, "toy: every label is 'c0'; a classifier needs two or more classes"),
            (toy(5, 4), {"per_label": 5}, DataError, "toy: the label 'c1' has only 4 different .*per_label=5"),
            (
                Dataset("d", ("a", "b", "c", "C", " c"), ("x", "x", "y", "y", "y")),
                {"per_label": 2},
                DataError,
                "the label 'y' has only 1 different sentences",
            ),
            (toy(9, 9), {"per_label": 1}, ConfigError, "per_label must be at least 2, .*got 1"),
            (toy(9, 9), {"per_label": 2, "validation_fraction": 1.0}, ConfigError, "validation_fraction=1.*below 1"),
            (toy(9, 9), {"per_label": 2, "validation_fraction": -0.1}, ConfigError, "must be a number of at least 0"),
            (toy(9, 9), {"per_label": 2, "validation_fraction": math.nan}, ConfigError, "fraction=nan: it must"),
        ],
    )  # fmt: skip
    def test_few_shot_split_invalid_arguments_raise(
        self, data: Dataset, options: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            few_shot_split(data, **options)


class TestHoldoutSplit:
    @settings(deadline=None)
    @given(
        y=st.lists(st.sampled_from([-3, 0, 7, 8]), min_size=1, max_size=80),
        fraction=st.floats(0, 0.999),
        seed=st.integers(0, 2**31),
    )
    def test_holdout_split_parts_are_disjoint_and_complete(self, y: list[int], fraction: float, seed: int) -> None:
        codes = np.array(y)
        train, validation = holdout_split(codes, fraction, seed)
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(y)))
        assert np.all(np.diff(train) > 0) and np.all(np.diff(validation) > 0)
        assert set(codes[train]) == set(y)
        assert len(validation) == min(round(fraction * len(y)), len(y) - len(set(y)))
        again = holdout_split(codes, fraction, seed)
        assert np.array_equal(train, again[0]) and np.array_equal(validation, again[1])

    @settings(deadline=None)
    @given(sizes=st.lists(st.integers(4, 40), min_size=1, max_size=5), fraction=st.floats(0, 0.7))
    def test_holdout_split_is_stratified(self, sizes: list[int], fraction: float) -> None:
        y = np.repeat(np.arange(len(sizes)), sizes)
        _, validation = holdout_split(y, fraction, 0)
        held = np.bincount(y[validation], minlength=len(sizes))
        share = round(fraction * len(y)) / len(y)
        assert np.all(np.abs(held - share * np.array(sizes)) < 1)

    @settings(deadline=None)
    @given(
        rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), min_size=1, max_size=60),
        fraction=st.floats(0, 0.999),
        seed=st.integers(0, 2**31),
    )
    def test_holdout_split_keeps_groups_together(self, rows: list[tuple[int, int]], fraction: float, seed: int) -> None:
        y, groups = np.array([label for label, _ in rows]), np.array([f"g{group}" for _, group in rows])
        train, validation = holdout_split(y, fraction, seed, groups)
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(y)))
        assert not set(groups[train]) & set(groups[validation])
        assert set(y[train]) == set(y)
        assert len(validation) <= round(fraction * len(y))

    def test_holdout_split_with_single_groups_has_the_full_fraction(self) -> None:
        y = np.arange(100) % 2
        groups = [("pair", 0), ("pair", 0), *range(98)]
        assert len(holdout_split(y, 0.15, 0, groups)[1]) == 15

    def test_holdout_split_uses_largest_remainder(self) -> None:
        y = np.repeat([0, 1, 2], [10, 10, 4])  # 6 of 24: 2.5, 2.5 and 1
        assert np.bincount(y[holdout_split(y, 0.25, 0)[1]]).tolist() == [3, 2, 1]

    def test_holdout_split_keeps_class_of_one_in_training(self) -> None:
        y = np.array([0, 1, 1, 1])
        train, validation = holdout_split(y, 0.5, 3)
        assert 0 in train
        assert len(validation) == 2

    def test_holdout_split_validation_may_be_empty(self) -> None:
        for y, fraction in ((np.array([0, 1, 2]), 0.9), (np.array([0, 0, 1, 1]), 0.0)):
            train, validation = holdout_split(y, fraction, 0)
            assert train.tolist() == list(range(len(y)))
            assert validation.size == 0

    def test_holdout_split_seeds_differ_and_reach_every_sample(self) -> None:
        y = np.arange(40) % 2
        draws = {tuple(holdout_split(y, 0.25, seed)[1]) for seed in range(50)}
        assert len(draws) == 50
        assert {i for draw in draws for i in draw} == set(range(40))

    @pytest.mark.parametrize(
        ("y", "fraction", "groups", "error", "message"),
        [
            ([0, 1], 1.0, None, ConfigError, "fraction=1.0: it must be a number of at least 0 and below 1"),
            ([0, 1], -0.5, None, ConfigError, "fraction=-0.5: it must be"),
            ([], 0.5, None, InputError, "y must hold integer class codes"),
            ([[0, 1]], 0.5, None, InputError, r"got int64 in shape \(1, 2\)"),
            ([0.0, 1.0], 0.5, None, InputError, "got float64"),
            (["a", "b"], 0.5, None, InputError, "integer class codes"),
            ([0, 1], 0.5, [1, 2, 3], InputError, r"groups has shape \(3,\); it needs one value per sample, \(2,\)"),
            ([0, 1], 0.5, np.zeros((2, 1)), InputError, "groups must be a list of one hashable value per sample"),
        ],
    )
    def test_holdout_split_invalid_arguments_raise(
        self, y: Any, fraction: float, groups: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            holdout_split(np.array(y), fraction, 0, groups)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(3, 20), min_size=2, max_size=4),
    n_folds=st.integers(2, 3),
    seed=st.integers(0, 99),
)
def test_fold_splits_are_stratified_and_cover_every_sample_once(sizes: list[int], n_folds: int, seed: int) -> None:
    labels = np.repeat([f"label {code}" for code in range(len(sizes))], sizes)
    splits = fold_splits(labels, n_folds, seed)
    assert sorted(np.concatenate([held for _, held in splits]).tolist()) == list(range(len(labels)))
    for train, held in splits:
        assert sorted([*train, *held]) == list(range(len(labels)))
        for name, size in Counter(labels.tolist()).items():
            assert (labels[held] == name).sum() in (size // n_folds, -(-size // n_folds))
    again = fold_splits(labels, n_folds, seed)
    assert [held.tolist() for _, held in splits] == [held.tolist() for _, held in again]


def test_fold_splits_keep_groups_together_and_depend_on_the_seed() -> None:
    labels = np.tile([0, 1], 30)
    groups = np.repeat(np.arange(15), 4)
    splits = fold_splits(labels, 5, 0, groups)
    for train, held in splits:
        assert not set(groups[train]) & set(groups[held])
        assert len(held) == 12
        assert labels[held].mean() == 0.5
    others = {str([held.tolist() for _, held in fold_splits(labels, 5, seed, groups)]) for seed in range(5)}
    assert len(others) > 1


@pytest.mark.parametrize(
    ("labels", "n_folds", "groups", "message"),
    [
        (["a"] * 9 + ["b"] * 2, 3, None, "the label 'b' has 2 samples, and n_folds=3 needs one for each fold; lower"),
        (["a"] * 9 + ["b"] * 3, 3, [*range(10), 9, 10], "label 'b' has 2 different sentences or groups, and n_folds=3"),
    ],
)
def test_fold_splits_with_too_few_samples_of_a_label_raise(
    labels: list[str], n_folds: int, groups: list[int] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fold_splits(np.array(labels), n_folds, 0, groups)


def test_fold_splits_with_groups_that_hold_a_label_together_raise() -> None:
    """Two groups have all samples of both labels, and a third fold has nothing to validate on."""
    with pytest.raises(DataError, match="has 2 different sentences or groups, and n_folds=3"):
        fold_splits(np.array(["a", "b"] * 6), 3, 0, [0, 0] * 3 + [1, 1] * 3)


@pytest.mark.parametrize(("n_folds", "message"), [(1, "n_folds"), (2.5, "n_folds"), ("two", "n_folds")])
def test_fold_splits_with_invalid_number_of_folds_raise(n_folds: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fold_splits(np.array([0, 0, 1, 1]), n_folds, 0)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(8, 60), min_size=2, max_size=4),
    test=st.sampled_from([0.1, 0.25, 0.5]),
    validation=st.sampled_from([0.0, 0.15, 0.4]),
    seed=st.integers(0, 99),
)
def test_stratified_split_has_shares_of_every_class(
    sizes: list[int], test: float, validation: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    data = Dataset("d", tuple(f"text {n}" for n in range(len(labels))), tuple(labels.tolist()))
    split = stratified_split(data, test, validation, seed)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(len(data)))
    assert len(split.excluded) == 0
    assert len(split.test) == round(test * len(data))
    assert len(split.validation) == round(validation * (len(data) - len(split.test)))
    for code, size in enumerate(sizes):
        assert abs((labels[split.test] == code).sum() - test * size) <= 1
        assert (labels[split.train] == code).sum() >= 1
    again = stratified_split(data, test, validation, seed)
    assert all((one == other).all() for one, other in zip(parts(split), parts(again), strict=True))


def test_stratified_split_keeps_copies_and_groups_together() -> None:
    texts = tuple(f"text {n // 2}" for n in range(80))
    data = Dataset("d", texts, tuple(n // 2 % 2 for n in range(80)), groups=tuple(n // 4 for n in range(80)))
    split = stratified_split(data, 0.25, 0.2, seed=3)
    places = {row: place for place, part in enumerate(parts(split)) for row in part.tolist()}
    assert len(split.test) and len(split.validation)
    assert all(len({places[row] for row in range(first, first + 4)}) == 1 for first in range(0, 80, 4))


def test_stratified_split_refuses_fractions_and_one_class() -> None:
    data = Dataset("d", ("a", "b", "c", "d"), (0, 1, 0, 1))
    with pytest.raises(ConfigError, match="test_fraction=1.0"):
        stratified_split(data, 1.0)
    with pytest.raises(ConfigError, match="validation_fraction=-0.1"):
        stratified_split(data, 0.5, -0.1)
    with pytest.raises(DataError, match="two or more classes"):
        stratified_split(Dataset("d", ("a", "b"), (0, 0)), 0.5)
