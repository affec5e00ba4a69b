"""Pairs and batches of contrastive tuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ketfit.bodies.contrastive_sampling import (
    PairSampler,
    balanced_batches,
    batch_by_length,
    draw_pairs,
    interleave_labels,
)
from ketfit.errors import ConfigError, DataError, InputError
from ketfit.model.tuning import ContrastiveConfig

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["yes"] * 4 + ["no"] * 4
COSINE = ContrastiveConfig(loss="cosine", batch_size=4, pairs_per_sentence=2)


class TestPairs:
    @pytest.mark.parametrize("count", [1, 3, 9])
    def test_draw_pairs_gives_each_sentence_partners_but_not_itself(self, count: int) -> None:
        codes = np.array([0, 1, 1, 2, 0, 2, 2])
        pairs = draw_pairs(codes, count, np.random.default_rng(0))
        assert len(pairs) == 2 * count * len(codes)
        assert all(one != other for one, other in pairs)
        for row in range(len(codes)):
            partners = [other for one, other in pairs if one == row]
            assert sum(codes[other] == codes[row] for other in partners) == count
            assert len(partners) == 2 * count

    def test_draw_pairs_repeats_partners_only_if_needed(self) -> None:
        pairs = draw_pairs(np.array([0] * 5 + [1] * 5), 4, np.random.default_rng(0))
        assert len(set(pairs)) == len(pairs) == 80

    def test_draw_pairs_shuffles_pairs(self) -> None:
        pairs = draw_pairs(np.repeat([0, 1], 20), 2, np.random.default_rng(0))
        assert [one for one, _ in pairs] != sorted(one for one, _ in pairs)
        again = draw_pairs(np.repeat([0, 1], 20), 2, np.random.default_rng(0))
        assert pairs == again
        assert pairs != draw_pairs(np.repeat([0, 1], 20), 2, np.random.default_rng(1))

    def test_interleave_labels_spreads_labels_evenly(self) -> None:
        codes = np.repeat([0, 1, 2], [40, 40, 20])
        order = interleave_labels(codes, np.random.default_rng(0))
        assert sorted(order.tolist()) == list(range(100))
        counts = np.array([np.bincount(codes[batch], minlength=3) for batch in np.split(order, 5)])
        assert (abs(counts - [8, 8, 4]) <= 1).all()
        assert order.tolist() != interleave_labels(codes, np.random.default_rng(1)).tolist()

    def test_batch_by_length_keeps_pairs_and_reduces_padding(self) -> None:
        rng = np.random.default_rng(0)
        sentences = ["x" * int(size) for size in rng.integers(5, 200, 60)]
        pairs = draw_pairs(np.repeat([0, 1], 30), 2, rng)
        grouped = batch_by_length(pairs, sentences, 16, np.random.default_rng(0))
        assert sorted(grouped) == sorted(pairs)
        assert grouped == batch_by_length(pairs, sentences, 16, np.random.default_rng(0))
        assert grouped != batch_by_length(pairs, sentences, 16, np.random.default_rng(1))

        def read(order: list[tuple[int, int]]) -> int:
            batches = [order[start : start + 16] for start in range(0, len(order), 16)]
            return sum(len(batch) * max(len(sentences[pair[k]]) for pair in batch) for batch in batches for k in (0, 1))

        assert read(grouped) < 0.75 * read(pairs)

    def test_columns_have_new_pairs_per_epoch(self) -> None:
        sampler = PairSampler.from_labels(TEXTS, np.array(LABELS), COSINE)
        columns = sampler.rows(COSINE.updated(epochs=2), seed=0).columns
        half = len(columns["label"]) // 2
        pairs = list(zip(columns["sentence1"], columns["sentence2"], columns["label"], strict=True))
        assert pairs[:half] != pairs[half:]
        assert all((LABELS[TEXTS.index(one)] == LABELS[TEXTS.index(other)]) == label for one, other, label in pairs)


class TestOwnPairs:
    PAIRS = (("good film", "fine film", 1.0), ("good film", "dull", 0.25))

    def test_columns_repeat_own_pairs_every_epoch(self) -> None:
        sampler = PairSampler.from_labels(TEXTS, np.array(LABELS), COSINE, self.PAIRS)
        columns = sampler.rows(COSINE.updated(epochs=3), seed=0).columns
        pairs = list(zip(columns["sentence1"], columns["sentence2"], columns["label"], strict=True))
        assert sorted(pairs) == sorted(self.PAIRS * 3)

    def test_unlike_labels_limit_the_unlike_pairs(self) -> None:
        labels = np.array(["a", "a", "b", "b", "c", "c", "d", "d"])
        config = COSINE.updated(unlike_labels=(("a", "c"),))
        columns = PairSampler.from_labels(TEXTS, labels, config).rows(config, seed=0).columns
        label_of = dict(zip(TEXTS, labels.tolist(), strict=True))
        found = {
            frozenset((label_of[one], label_of[other]))
            for one, other, similarity in zip(*columns.values(), strict=True)
            if not similarity
        }
        assert found == {frozenset("ac")}
        assert set(map(label_of.get, columns["sentence1"])) == set("abcd")

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            ([], "pairs is empty"),
            ([("good", "bad")], r"pairs\[0\]=\('good', 'bad'\) is not two sentences and a similarity"),
            (["abc"], "is not two sentences"),
            ([1], r"pairs\[0\]=1 is not two sentences"),
            ([("good", "bad", None)], r"pairs\[0\] has the similarity None; it is a number from -1 to 1"),
            ([("good", " ", 1.0)], r"pairs\[0\]\[1\]: the text is empty"),
            ([("good", "bad", -1.5)], r"pairs\[0\] has the similarity -1.5; it is a number from -1 to 1"),
            ([("good", "bad", 1.5)], r"pairs\[0\] has the similarity 1.5; it is a number from -1 to 1"),
            ([("good", "bad", float("nan"))], "has the similarity nan"),
            ([("good", "bad", "1")], "has the similarity '1'"),
        ],
    )
    def test_own_pairs_that_are_invalid_raise(self, pairs: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            PairSampler.from_labels(TEXTS, np.array(LABELS), COSINE, pairs)

    def test_group_by_length_groups_own_pairs(self) -> None:
        config = COSINE.updated(group_by_length=True, batch_size=4)
        pairs = [("x" * size, "y" * size, 0.5) for size in (1, 50) * 4]
        columns = PairSampler.from_labels(TEXTS, np.array(LABELS), config, pairs).rows(config, seed=0).columns
        lengths = [len(sentence) for sentence in columns["sentence1"]][:8]
        assert sorted(lengths) == [1] * 4 + [50] * 4
        assert len(set(lengths[:4])) == len(set(lengths[4:])) == 1

    def test_own_pairs_with_another_loss_raise(self) -> None:
        with pytest.raises(ConfigError, match="pairs of your own are for loss='cosine'"):
            PairSampler.from_labels(TEXTS, np.array(LABELS), ContrastiveConfig(loss="supervised"), self.PAIRS)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (
                (("yes", "maybe"),),
                "unlike_labels names 'maybe', which is not a label of these sentences; known: 'no', 'yes'",
            ),
            ((("yes", "yes"),), "unlike_labels pairs 'yes' with itself"),
        ],
    )
    def test_unlike_labels_that_are_unknown_raise(self, labels: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            PairSampler.from_labels(TEXTS, np.array(LABELS), COSINE.updated(unlike_labels=labels))


class TestBatchSize:
    @pytest.mark.parametrize(
        ("n_sentences", "n_labels", "expected"),
        [(4, 2, 16), (54, 2, 16), (109, 2, 16), (218, 2, 40), (326, 6, 64), (435, 2, 64), (100, 10, 24), (500, 77, 64)],
    )
    def test_default_batch_size_grows_with_sentences_and_labels(
        self, n_sentences: int, n_labels: int, expected: int
    ) -> None:
        assert ContrastiveConfig().batch_size_for(n_sentences, n_labels) == expected
        assert ContrastiveConfig(batch_size=48).batch_size_for(n_sentences, n_labels) == 48
        assert ContrastiveConfig(loss="cosine", batch_size=None).batch_size_for(n_sentences, n_labels) == 16

    @pytest.mark.parametrize("batch_size", [2, 3])
    def test_supervised_batches_of_one_label_raise(self, batch_size: int) -> None:
        config = ContrastiveConfig(batch_size=batch_size)
        sampler = PairSampler.from_labels([f"film {number}" for number in range(12)], np.arange(12) % 2, config)
        with pytest.raises(ConfigError, match=f"batch_size={batch_size} leaves batches of one label only; raise it"):
            sampler.rows(config, seed=0)

    def test_rows_of_few_sentences_have_small_batches(self) -> None:
        texts, labels = [f"film {number}" for number in range(60)], np.arange(60) % 2
        for config, steps in ((ContrastiveConfig(), 32), (ContrastiveConfig(batch_size=64), 8)):
            rows = PairSampler.from_labels(texts, labels, config).rows(config, seed=0)
            assert rows.n_steps == steps


class TestBalancedBatches:
    @pytest.mark.parametrize(
        ("counts", "batch_size", "expected"),
        [
            ([20, 20], 8, [4, 4]),
            ([20, 20, 20], 8, [2, 3]),
            ([3, 40], 16, [3, 13]),
            ([4, 4], 64, [4, 4]),
        ],
    )
    def test_balanced_batches_have_equal_numbers_of_each_label(
        self, counts: list[int], batch_size: int, expected: list[int]
    ) -> None:
        codes = np.repeat(np.arange(len(counts)), counts)
        batches = balanced_batches(codes, batch_size, 6, np.random.default_rng(0))
        assert len(batches) == 6 * round(len(codes) / min(batch_size, len(codes)))
        for batch in batches:
            assert len(set(batch.tolist())) == len(batch) == min(batch_size, len(codes))
            found = np.bincount(codes[batch], minlength=len(counts))
            assert (min(found), max(found)) == (min(expected), max(expected))

    @pytest.mark.parametrize(("batch_size", "steps"), [(64, 3), (8, 3), (4, 6), (5, 6)])
    def test_rows_have_the_batches_of_the_sampler(self, batch_size: int, steps: int) -> None:
        config = ContrastiveConfig(loss="supervised", batch_size=batch_size, epochs=3)
        rows = PairSampler.from_labels(TEXTS, np.array(LABELS), config).rows(config, seed=0)
        assert rows.n_steps == steps
        assert len(rows) == steps * rows.batch_size
        for step in range(steps):
            batch = rows.columns["sentence"][step * rows.batch_size : (step + 1) * rows.batch_size]
            assert len(set(batch)) == rows.batch_size

    def test_balanced_batches_read_every_sentence_equally_often(self) -> None:
        batches = balanced_batches(np.repeat([0, 1], 16), 8, 5, np.random.default_rng(0))
        assert np.bincount(batches.ravel()).tolist() == [5] * 32

    def test_balanced_batches_of_many_labels_have_pairs_of_each(self) -> None:
        codes = np.repeat(np.arange(30), 3)
        batches = balanced_batches(codes, 11, 4, np.random.default_rng(0))
        assert batches.shape[1] == 10
        for batch in batches:
            assert set(np.bincount(codes[batch]).tolist()) <= {0, 2}

    def test_balanced_batches_depend_on_the_seed_alone(self) -> None:
        codes = np.repeat([0, 1], 20)
        one, again, other = (balanced_batches(codes, 8, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert (one == again).all()
        assert (one != other).any()
