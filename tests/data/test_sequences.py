"""Sequences of any library give the same results as lists; other values raise an error with the argument's name."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import cross_val_predict, cross_val_score

from ketfit.bodies.body import Body
from ketfit.bodies.contrastive import tune_body
from ketfit.data.dataset import Dataset
from ketfit.data.sequences import as_groups, as_labels, as_list, as_texts, as_weights, is_missing
from ketfit.data.splits import Split, duplicate_groups, few_shot_split, holdout_split
from ketfit.errors import ConfigError, DataError, InputError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, ProjectedLogisticRegressionHead, SVCHead
from ketfit.estimators.end_to_end import tune_end_to_end
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.evaluation.compare import compare_heads, evaluate_head
from ketfit.evaluation.metrics import calibration
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig

# Labels that pair with the wrong sentences as soon as an index decides.
TEXTS = ["good film", "dull", "fine film", "bad film", "the good", "not good", "good fine", "the dull film"]
LABELS = ["yes", "no"] * 4
WEIGHTS = [1.0, 2.0, 0.5, 1.5, 3.0, 1.0, 0.25, 2.0]
GROUPS = [0, 1, 2, 3, 4, 5, 0, 1]
HELD = (["a fine film", "the bad film", "a good film"], ["yes", "no", "yes"], [1.0, 3.0, 2.0])
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
SHORT = TrainConfig(epochs=3, learning_rate=0.1)
FULL = EndToEndConfig(epochs=1, batch_size=4, learning_rate=1e-3)
CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=4)


def shuffled(size: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(size)


def _indexed(values: list[Any]) -> pd.Series:
    levels = pd.MultiIndex.from_arrays([np.zeros(len(values), int), shuffled(len(values))])
    return pd.Series(values, index=levels)


def _arrow_strings(values: list[Any]) -> pd.Series:
    kind = "string[pyarrow]" if isinstance(values[0], str) else "double[pyarrow]"
    return pd.Series(values, index=shuffled(len(values)), dtype=kind if not isinstance(values[0], int) else "Int64")


KINDS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "deque": deque,
    "array": np.array,
    "object array": lambda values: np.array(values, dtype=object),
    "Series with a shuffled index": lambda values: pd.Series(values, index=shuffled(len(values))),
    "Series with strings for an index": lambda values: pd.Series(values, index=[f"row {i}" for i in values]),
    "Series with one index for all": lambda values: pd.Series(values, index=[0] * len(values)),
    "Series with two levels": _indexed,
    "Series of an extension type": _arrow_strings,
    "categories": lambda values: pd.Series(values, index=shuffled(len(values)), dtype="category"),
    "Index": pd.Index,
    "column of datasets": lambda values: datasets.Dataset.from_dict({"column": values})["column"],
    "Arrow array": pa.array,
    "chunked Arrow array": lambda values: pa.chunked_array([values[:2], values[2:]]),
    "polars Series": lambda values: SimpleSeries(values),
    "list of scalars": lambda values: list(np.array(values)),
}


class SimpleSeries:
    """The interface of a polars Series, without polars."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.shape = (len(values),)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> Any:
        return self.values[row]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype)

    def to_list(self) -> list[Any]:
        return list(self.values)


NO_COLUMNS: dict[str, Any] = {
    "a number": 3,
    "a string": "good film",
    "bytes": b"good film",
    "a dict": {0: "good film", 1: "bad film"},
    "a set": {"good film", "bad film"},
    "a generator": (text for text in TEXTS),
    "the values of a dict": dict(enumerate(TEXTS)).values(),
    "a table": pd.DataFrame({"column": TEXTS}),
    "an Arrow table": pa.table({"column": TEXTS}),
    "a data set": datasets.Dataset.from_dict({"column": TEXTS}),
    "an array of two axes": np.array([TEXTS]).T,
    "a scalar array": np.array("good film"),
}

kinds = pytest.mark.parametrize("kind", KINDS)
no_columns = pytest.mark.parametrize("value", NO_COLUMNS.values(), ids=NO_COLUMNS.keys())


# --- the module itself -----------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("values", [TEXTS, LABELS, WEIGHTS, GROUPS], ids=["texts", "labels", "weights", "groups"])
def test_as_list_of_any_kind_returns_python_values_by_position(kind: str, values: list[Any]) -> None:
    found = as_list(KINDS[kind](values), "column")
    assert found == values
    assert {type(entry) for entry in found} == {type(values[0])}


def test_as_list_of_tensor_returns_python_integers() -> None:
    assert as_list(torch.tensor(GROUPS), "labels") == GROUPS
    assert as_list(list(torch.tensor(GROUPS)), "labels") == GROUPS
    assert as_list(list(pa.array(TEXTS)), "texts") == TEXTS


def test_as_list_of_enum_members_returns_their_values() -> None:
    class Label(str, Enum):
        """Strings with names."""

        GOOD = "good"

    assert as_list([Label.GOOD], "labels") == ["good"]
    assert {type(entry) for entry in as_list([Label.GOOD], "labels")} == {str}


def test_as_list_of_nanoseconds_keeps_times() -> None:
    times = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[ns]")
    assert as_list(times, "groups") == list(times)


@no_columns
def test_as_list_of_non_column_raises(value: Any) -> None:
    with pytest.raises(InputError, match=r"^texts must be a list, not "):
        as_list(value, "texts")


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (NO_COLUMNS["a table"], r"a table \(DataFrame\); pass one column: frame\['column'\]"),
        (NO_COLUMNS["a data set"], r"a table \(Dataset\); pass one column: frame\['column'\]"),
        (NO_COLUMNS["an array of two axes"], r"an array of shape \(8, 1\); pass one column: array\[:, 0\]"),
        (NO_COLUMNS["a generator"], r"generator; pass list\(\.\.\.\) of it"),
        (NO_COLUMNS["the values of a dict"], r"dict_values; pass list\(\.\.\.\) of it"),
        (NO_COLUMNS["a dict"], r"dict; pass one of its entries, or list\(values\.values\(\)\)"),
        (NO_COLUMNS["a set"], "set, which has no order; pass a list"),
        (3, "not int$"),
    ],
)
def test_as_list_error_names_the_fix(value: Any, fix: str) -> None:
    with pytest.raises(InputError, match=fix):
        as_list(value, "texts")


@pytest.mark.parametrize(
    "value", [None, float("nan"), np.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), Decimal("nan")]
)
def test_is_missing_of_missing_values_is_true(value: Any) -> None:
    assert is_missing(value)


@pytest.mark.parametrize("value", ["", "nan", 0, 0.0, False, np.zeros(2), (), [None]])
def test_is_missing_of_other_values_is_false(value: Any) -> None:
    assert not is_missing(value)


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (pd.Series([1, 0, 1], dtype="Int64"), np.array([1, 0, 1])),
            (pd.Series([1, 0, 1], dtype="UInt8"), np.array([1, 0, 1])),
            (pd.Series([1, 0, 1], dtype="int64[pyarrow]"), np.array([1, 0, 1])),
            (pd.Series([1, 0, 1], dtype="category"), np.array([1, 0, 1])),
            (pd.Series(["b", "a"], dtype="category"), np.array(["b", "a"])),
            (pd.Series(["b", "a"], dtype="string"), np.array(["b", "a"])),
            (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
            (pd.Series([1.5, 2.5], dtype="Float64"), np.array([1.5, 2.5])),
            (torch.tensor([1, 0]), np.array([1, 0])),
            (np.array([1, 0], dtype=object), np.array([1, 0])),
            ([np.int8(1), 0], np.array([1, 0])),
            ([2**63], np.array([2**63], dtype=np.uint64)),
        ],
    )
    def test_as_labels_keeps_the_type_of_the_values(self, labels: Any, expected: np.ndarray) -> None:
        found = as_labels(labels)
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()

    def test_as_labels_of_object_array_keeps_its_dtype(self) -> None:
        assert as_labels(np.array(["b", "a"], dtype=object)).dtype == object

    def test_as_labels_keeps_trailing_null_character(self) -> None:
        assert as_labels(["a", "a\0"]).tolist() == ["a", "a\0"]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (pd.Series([1, None, 0], dtype="Int64"), r"labels\[1\] is missing \(<NA>\); fill it, or remove the row"),
            (pd.Series(["a", "b", None]), r"labels\[2\] is missing \(nan\)"),
            (pd.Series(["a", None], dtype="category"), r"labels\[1\] is missing"),
            (np.array([0.0, np.nan]), r"labels\[1\] is missing \(nan\)"),
            (np.ma.array([1, 0], mask=[False, True]), r"labels\[1\] is missing \(None\)"),
            (pa.array(["a", None]), r"labels\[1\] is missing \(None\)"),
            (["a", 1], r"labels mix types: 'a' and 1 \(index 1\); use all strings or all integers"),
            ([True, 2], r"labels mix types: True and 2 \(index 1\)"),
            ([b"a", b"b"], r"labels\[0\] is of type bytes; labels are strings or integers"),
            (np.array([b"a", b"b"]), r"labels\[0\] is of type bytes"),
            (pd.Series(pd.to_datetime(["2020-01-01"])), r"labels\[0\] is of type Timestamp"),
            ([[1], [0]], r"labels should be a 1d array"),
            ([2**70, 1], "labels hold integers of more than 64 bits; use strings"),
            ([2**63, -1], "labels hold integers of more than 64 bits; use strings"),
        ],
    )
    def test_as_labels_invalid_label_raises_with_its_index(self, labels: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            as_labels(labels)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["1", "2"], r"sample_weight\[0\] is '1'; weights are numbers"),
        ([1.0, None], r"sample_weight\[1\] is missing"),
        (pd.Series([1, None], dtype="Int64"), r"sample_weight\[1\] is missing"),
        (np.ma.array([1, 2], mask=[False, True]), r"sample_weight\[1\] is missing"),
        ([1j], r"weights are numbers"),
        (2.0, "sample_weight must be a list of numbers, not float"),
    ],
)
def test_as_weights_invalid_weight_raises_with_its_index(weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_weights(weights)


def test_as_groups_missing_or_unhashable_entry_raises() -> None:
    with pytest.raises(InputError, match=r"groups\[1\] is missing \(nan\)"):
        as_groups([1, float("nan")])
    with pytest.raises(InputError, match="groups must be a list of one hashable value per sample"):
        as_groups([[1], [2]])
    assert as_groups(torch.tensor([5, 3, 5])).tolist() == [0, 1, 0]
    assert as_groups(pd.MultiIndex.from_tuples([("a", 1), ("b", 1), ("a", 1)])).tolist() == [0, 1, 0]


# --- all arguments of all public functions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def body_name(tiny_body_folder: Path) -> str:
    return str(tiny_body_folder)


def text(body: str, **settings: Any) -> TextClassifier:
    return TextClassifier(body, HEAD, SHORT, validation_fraction=0.25, **settings)


def probabilities(fitted: Any) -> np.ndarray:
    found: np.ndarray = fitted.predict_proba(TEXTS)
    return found


@pytest.fixture(scope="module")
def expected(body_name: str) -> dict[str, np.ndarray]:
    return {
        "split": probabilities(text(body_name).fit(TEXTS, LABELS, WEIGHTS, groups=GROUPS)),
        "held": probabilities(text(body_name).fit(TEXTS, LABELS, WEIGHTS, validation=HELD)),
    }


@kinds
class TestEveryKind:
    @pytest.mark.slow
    def test_text_classifier_accepts_any_kind_of_sequence(
        self, kind: str, body_name: str, expected: dict[str, np.ndarray]
    ) -> None:
        make = KINDS[kind]
        fitted = text(body_name).fit(make(TEXTS), make(LABELS), make(WEIGHTS), groups=make(GROUPS))
        np.testing.assert_array_equal(probabilities(fitted), expected["split"])
        held = tuple(map(make, HELD))
        fitted = text(body_name).fit(make(TEXTS), make(LABELS), make(WEIGHTS), validation=held)
        np.testing.assert_array_equal(probabilities(fitted), expected["held"])
        np.testing.assert_array_equal(fitted.predict_proba(make(TEXTS)), expected["held"])
        assert fitted.predict(make(TEXTS)).tolist() == fitted.predict(TEXTS).tolist()
        assert fitted.score(make(TEXTS), make(LABELS)) == fitted.score(TEXTS, LABELS)

    @pytest.mark.slow
    @pytest.mark.parametrize("make_head", [QuantumHeadClassifier, MLPHead])
    def test_head_classifier_accepts_any_kind_of_sequence(self, kind: str, make_head: Any, tiny_body: Body) -> None:
        make = KINDS[kind]
        x, held = tiny_body.encode(TEXTS), tiny_body.encode(HELD[0])
        fits = [
            make_head(train=SHORT, validation_fraction=0.25).fit(
                x, column(LABELS), column(WEIGHTS), groups=column(GROUPS)
            )
            for column in (list, make)
        ]
        fits += [
            make_head(train=SHORT).fit(x, column(LABELS), column(WEIGHTS), validation=(held, *map(column, HELD[1:])))
            for column in (list, make)
        ]
        for one, other in (fits[:2], fits[2:]):
            np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(x))
            assert one.history_ == other.history_

    @pytest.mark.parametrize(
        "head",
        [LogisticRegressionHead(), ProjectedLogisticRegressionHead(3), SVCHead()],
        ids=lambda head: type(head).__name__,
    )
    def test_scikit_learn_head_accepts_any_kind_of_sequence(self, kind: str, head: Any, tiny_body: Body) -> None:
        make, x = KINDS[kind], tiny_body.encode(TEXTS)
        one, other = (
            clone(head).fit(x, column(LABELS), column(WEIGHTS), validation=(x, column(LABELS), column(WEIGHTS)))
            for column in (list, make)
        )
        np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(x))

    def test_functions_of_sentences_accept_any_kind_of_sequence(self, kind: str, tiny_body: Body) -> None:
        make = KINDS[kind]
        np.testing.assert_array_equal(tiny_body.encode(make(TEXTS)), tiny_body.encode(TEXTS))
        assert duplicate_groups(make(TEXTS)).tolist() == list(range(8))
        assert Dataset("d", make(TEXTS), make(LABELS)) == Dataset("d", tuple(TEXTS), tuple(LABELS))
        codes = np.arange(8) % 2
        for one, other in zip(
            holdout_split(codes, 0.25, 0, make(GROUPS)), holdout_split(codes, 0.25, 0, GROUPS), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def test_compare_heads_accepts_any_kind_of_sequence(self, kind: str, tiny_body: Body) -> None:
        x, rows = tiny_body.encode(TEXTS), np.arange(8)
        split = Split(rows[:4], rows[:0], rows[4:], rows[:0])
        results = [
            next(compare_heads({"one": LogisticRegressionHead()}, x, labels, split)).test_accuracy
            for labels in (np.array(LABELS), KINDS[kind](LABELS))
        ]
        assert results[0] == results[1]
        head = QuantumHeadClassifier(HEAD, SHORT).fit(x, LABELS)
        assert evaluate_head(head, x, KINDS[kind](LABELS), 1) == evaluate_head(head, x, np.array(LABELS), 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Series with a shuffled index", "column of datasets", "Arrow array", "object array"])
def test_tune_body_any_kind_of_sequence_gives_the_same_body(kind: str, tiny_body: Body, fresh_cache: Path) -> None:
    make = KINDS[kind]
    bodies = [tune_body(tiny_body, column(TEXTS), column(LABELS), CONTRASTIVE) for column in (list, make)]
    assert bodies[0].folder == bodies[1].folder
    head = MLPHead(hidden=0, train=SHORT).fit(tiny_body.encode(TEXTS), LABELS)
    result = [
        tune_end_to_end(
            tiny_body,
            head,
            column(TEXTS),
            column(LABELS),
            FULL,
            validation=tuple(map(column, HELD)),  # type: ignore[arg-type]
            sample_weight=column(WEIGHTS),
        )
        for column in (list, make)
    ]
    assert result[0][0].fingerprint == result[1][0].fingerprint
    assert result[0][1].history_ == result[1][1].history_


@no_columns
class TestRefused:
    def test_text_classifier_rejects_non_sequences(self, value: Any, body_name: str) -> None:
        for name, change in {
            "texts": {"texts": value},
            "labels": {"labels": value},
            "sample_weight": {"sample_weight": value},
            "groups": {"groups": value},
            "validation texts": {"validation": (value, *HELD[1:])},
            "validation labels": {"validation": (HELD[0], value, HELD[2])},
            "validation sample_weight": {"validation": (*HELD[:2], value)},
        }.items():
            given = {"texts": TEXTS, "labels": LABELS, **change}
            with pytest.raises(InputError, match=f"^{name} must "):
                text(body_name).fit(**given)

    def test_head_classifier_rejects_non_sequences(self, value: Any) -> None:
        x = np.random.default_rng(0).normal(size=(8, 16))
        for name, change in {
            "y": {"y": value},
            "sample_weight": {"sample_weight": value},
            "groups": {"groups": value},
            "validation y": {"validation": (x, value)},
            "validation sample_weight": {"validation": (x, LABELS, value)},
        }.items():
            given = {"X": x, "y": LABELS, **change}
            # Arrays of other axes and of strings are what scikit-learn's own checks have to refuse.
            message = rf"^{name} must |1d array|Sample weights must be 1D|could not convert string"
            for head in (QuantumHeadClassifier(HEAD, SHORT), MLPHead(train=SHORT)):
                with pytest.raises((ValueError, DataConversionWarning), match=message):
                    head.fit(**given)

    def test_functions_of_sentences_reject_non_sequences(self, value: Any, tiny_body: Body) -> None:
        for function in (tiny_body.encode, duplicate_groups, as_texts):
            with pytest.raises(InputError, match="^texts must be a list of sentences"):
                function(value)
        with pytest.raises(InputError, match="^texts must be a list of sentences"):
            tune_body(tiny_body, value, LABELS)
        with pytest.raises(InputError, match="^labels must be a list of labels"):
            tune_body(tiny_body, TEXTS, value)
        with pytest.raises(InputError, match="^groups must be a list of one hashable value"):
            holdout_split(np.arange(8) % 2, 0.25, 0, value)
        with pytest.raises(DataError, match="^d: texts (must be|and labels are)"):
            Dataset("d", value, LABELS)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="^d: (labels must be|texts and labels are)"):
            Dataset("d", tuple(TEXTS), value)

    def test_predict_rejects_non_sequences(self, value: Any, body_name: str) -> None:
        fitted = text(body_name).fit(TEXTS, LABELS)
        for method in (fitted.predict, fitted.predict_proba):
            with pytest.raises(InputError, match="^texts must be a list of sentences"):
                method(value)


@pytest.mark.parametrize("validation", [TEXTS, "held", 3, (TEXTS,), (TEXTS, LABELS, None, None), {"texts": TEXTS}])
def test_validation_that_is_no_pair_raises(validation: Any, body_name: str, tiny_body: Body) -> None:
    message = r"^validation is .*; pass \(samples, labels\) or \(samples, labels, sample_weight\)"
    with pytest.raises(InputError, match=message):
        text(body_name).fit(TEXTS, LABELS, validation=validation)
    with pytest.raises(InputError, match=message):
        MLPHead().fit(tiny_body.encode(TEXTS), LABELS, validation=validation)
    with pytest.raises(InputError, match=message):
        SVCHead().fit(tiny_body.encode(TEXTS), LABELS, validation=validation)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_entry_raises_with_its_index(missing: Any, body_name: str) -> None:
    for name, place in (("texts", 3), ("labels", 2), ("groups", 5)):
        columns = {"texts": list(TEXTS), "labels": list(LABELS), "groups": list(GROUPS)}
        columns[name][place] = missing
        with pytest.raises(InputError, match=rf"^{name}\[{place}\].* is missing"):
            text(body_name).fit(**columns)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.5] * 4, r"labels\[0\] has the label 0.5 of type float"),
        (pd.Series([0.0, 1.0] * 4, dtype="Float64"), r"labels\[0\] has the label 0.0 of type float"),
        ([True, False] * 4, r"labels\[0\] has the label True of type bool"),
        (np.array([True, False] * 4), "label True of type bool"),
        (pd.Series([True, False] * 4, dtype="boolean"), "label True of type bool"),
        (["a", "b\ud800"] * 4, r"labels\[1\] has the label 'b\\ud800' with half of a surrogate pair"),
        (["a", "b\0"] * 4, r"labels\[1\] has the label 'b\\x00', which ends in a null character"),
        (["a", 1] * 4, "labels mix types"),
        ([b"a", b"b"] * 4, "of type bytes"),
    ],
)
def test_unsaveable_labels_raise_before_fitting(
    labels: Any, message: str, body_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ketfit.estimators import text as module

    monkeypatch.setattr(module, "load_body", lambda *_, **__: pytest.fail("a body was loaded"))
    with pytest.raises(ValueError, match=message):
        text(body_name).fit(TEXTS, labels)


@pytest.mark.parametrize("labels", [[0.0, 1.0] * 4, [True, False] * 4, ["a", "b\ud800"] * 4, ["a", "b\0"] * 4])
def test_head_classifier_fits_unsaveable_labels(labels: Any, tiny_body: Body, tmp_path: Path) -> None:
    fitted = QuantumHeadClassifier(HEAD, SHORT).fit(tiny_body.encode(TEXTS), labels)
    assert set(fitted.predict(tiny_body.encode(TEXTS)).tolist()) <= set(labels)
    with pytest.raises(DataError, match="these labels cannot be saved"):
        fitted.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("dtype", ["Int64", "int32[pyarrow]", "category", "UInt8"])
def test_pandas_integers_stay_integers_in_memory_and_files(dtype: str, body_name: str, tmp_path: Path) -> None:
    labels = pd.Series([1, 0] * 4, index=shuffled(8), dtype=dtype)
    fitted = text(body_name).fit(TEXTS, labels)
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.classes_.dtype.kind == "i"
    fitted.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    assert loaded.predict(TEXTS).tolist() == fitted.predict(TEXTS).tolist()


@pytest.mark.parametrize("jobs", [cross_val_score, cross_val_predict])
def test_cross_validation_of_shuffled_series_equals_lists(jobs: Any, body_name: str) -> None:
    order = shuffled(8)
    series = [pd.Series(column, index=order) for column in (TEXTS, LABELS)]
    np.testing.assert_array_equal(jobs(text(body_name), *series, cv=2), jobs(text(body_name), TEXTS, LABELS, cv=2))


@pytest.mark.parametrize("count", [2.5, True, "2"])
def test_non_integer_counts_raise(count: Any, tiny_body: Body) -> None:
    x = tiny_body.encode(TEXTS)
    for head, name in (
        (MLPHead(hidden=count), "hidden"),
        (MLPHead(match_parameters=count), "match_parameters"),
        (ProjectedLogisticRegressionHead(count), "n_components"),
    ):
        with pytest.raises(ConfigError, match=f"{name}={count!r}: it must be a whole number"):
            head.fit(x, LABELS)
    fitted = LogisticRegressionHead().fit(x, LABELS)
    for call, name in (
        (lambda: few_shot_split(Dataset("d", tuple(TEXTS), tuple(LABELS)), count), "per_label"),
        (lambda: evaluate_head(fitted, x, np.array(LABELS), count), "draws"),
        (lambda: calibration(fitted.predict_proba(x), np.zeros(8, int), count), "bins"),
    ):
        with pytest.raises(ConfigError, match=f"{name}={count!r}: it must be a whole number"):
            call()
