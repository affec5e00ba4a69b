"""Data sets: checks, columns and labels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ketfit.data.dataset import Dataset, load_dataset
from ketfit.errors import DataError
from tests.data.example_data import (
    write,
)


class TestDataset:
    def test_dataset_equal_columns_compare_equal(self) -> None:
        data = Dataset("d", ["b", "a"], ["y", "x"])  # type: ignore[arg-type]
        assert data == Dataset("d", ("b", "a"), ("y", "x"))
        assert len(data) == 2
        assert data.classes == ("x", "y")
        with pytest.raises(AttributeError):
            data.name = "e"  # type: ignore[misc]

    def test_classes_of_integers_are_sorted_numerically(self) -> None:
        assert Dataset("d", ("a", "b", "c"), (10, 9, -1)).classes == (-1, 9, 10)

    def test_numpy_labels_become_python_values(self) -> None:
        data = Dataset("d", ("a", "b"), tuple(np.array([1, 0])))
        assert [type(label) for label in data.labels] == [int, int]
        assert Dataset("d", ("a", "b"), tuple(np.array(["x", "y"]))).labels == ("x", "y")

    def test_fingerprint_depends_on_contents_only(self) -> None:
        data = Dataset("d", ("a", "b"), (1, 2))
        assert data.fingerprint == "742ede1bf9da54b03bd4307732772e7d350e9cbaf973bc4296a36f2febb8adec"
        assert data.fingerprint == Dataset("other name", ("a", "b"), (1, 2)).fingerprint
        others = [
            Dataset("d", ("b", "a"), (1, 2)),
            Dataset("d", ("a", "b"), ("1", "2")),
            Dataset("d", ("a", "b"), (2, 1)),
            Dataset("d", ("ab", "b"), (1, 2)),
            Dataset("d", ("a",), (1,)),
        ]
        assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 6

    def test_take_returns_rows_in_given_order(self) -> None:
        data = Dataset("d", ("a", "b", "c"), (1, 2, 3))
        assert data.take([2, 0]) == Dataset("d", ("c", "a"), (3, 1))
        assert data.take(np.array([1])).texts == ("b",)

    @pytest.mark.parametrize(
        ("indices", "message"),
        [
            ([], "no rows to take"),
            ([3], "positions run from 0 to 2, got 3 to 3"),
            ([-1, 0], "positions run from 0 to 2, got -1 to 0"),
            ([True, False, True], "for a mask use np.flatnonzero"),
            ([0.0], "whole numbers"),
            ([[0]], "1-d array"),
        ],
    )
    def test_take_invalid_indices_raises(self, indices: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Dataset("d", ("a", "b", "c"), (1, 2, 3)).take(indices)

    @pytest.mark.parametrize(
        ("texts", "labels", "message"),
        [
            ((), (), "d: the data set is empty"),
            (("a", "b"), (1,), "d: 2 texts but 1 labels"),
            ("ab", (1, 2), "not one string"),
            (("a", "b"), "xy", "not one string"),
            (("a", "b", ""), (1, 2, 3), "d: row 3: the text is empty; remove the row or fill it"),
            (("a", " \t\n\u3000"), (1, 2), "row 2: the text is empty"),
            (("a", None), (1, 2), "row 2: the text is missing"),
            (("a", math.nan), (1, 2), "row 2: the text is missing"),
            ((b"a",), (1,), "row 1: the text is bytes, not str"),
            ((7,), (1,), "row 1: the text is int, not str"),
            (("ok \ud83d",), (1,), "row 1: the text has half of a surrogate pair at character 3"),
            (("a", "b"), (1, None), "d: row 2 has no label"),
            (("a", "b"), (1, math.nan), "row 2 has no label"),
            (("a", "b"), (np.float64("nan"), 1), "row 1 has no label"),
            (("a", "b"), ("x", ""), "row 2 has no label"),
            (("a", "b"), ("x", "  "), "row 2 has no label"),
            (("a",), (1.0,), "row 1 has the label 1.0 of type float; labels are str or int"),
            (("a",), (True,), "row 1 has the label True of type bool"),
            (("a",), (np.True_,), "of type bool"),
            (("a",), (np.float32(2),), "of type float"),
            (("a",), (("x",),), "of type tuple"),
            (("a", "b", "c"), ("x", "y", 3), "row 3 has the label 3, row 1 has 'x'; use all str or all int"),
            (("a", "b"), (1, "1"), "row 2 has the label '1', row 1 has 1"),
        ],
    )
    def test_dataset_invalid_columns_raises(self, texts: Any, labels: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Dataset("d", texts, labels)


class TestWeightsAndGroups:
    def test_weights_and_groups_are_read_from_their_columns(self, tmp_path: Path) -> None:
        rows = [("a", "x", "1", "g1"), ("b", "y", "0.5", "g1"), ("c", "x", "2e1", "7")]
        text = "text,label,weight,group\n" + "".join(",".join(row) + "\n" for row in rows)
        data = load_dataset(write(tmp_path / "a.csv", text), weight_column="weight", group_column="group")
        assert (data.weights, data.groups) == ((1.0, 0.5, 20.0), ("g1", "g1", "7"))
        assert data.take([2, 0]) == Dataset("a.csv", ("c", "a"), ("x", "x"), (20.0, 1.0), ("7", "g1"))
        assert load_dataset(tmp_path / "a.csv").weights is None

    @pytest.mark.parametrize("kind", ["jsonl", "parquet"])
    def test_groups_keep_the_types_of_the_format(self, tmp_path: Path, kind: str) -> None:
        rows = {"text": ["a", "b"], "label": ["x", "y"], "weight": [1, 3], "group": [5, 6]}
        if kind == "jsonl":
            lines = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
            write(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        else:
            pq.write_table(pa.table({**rows, "weight": pa.array([1, 3], pa.decimal128(5, 2))}), tmp_path / "a.parquet")
        data = load_dataset(tmp_path / f"a.{kind}", weight_column="weight", group_column="group")
        assert (data.weights, data.groups) == ((1.0, 3.0), (5, 6))

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            ("", r"row 2 \(line 3\) has no weight"),
            ("heavy", r"row 2 \(line 3\) has the weight 'heavy' of type str"),
            ("-1", r"row 2 \(line 3\) has the weight -1.0; weights are finite and not negative"),
            ("nan", "of type str"),
            ("1_0", "of type str"),
            ("1e400", "has the weight inf"),
            ("1e39", "weights are finite"),
        ],
    )
    def test_invalid_weight_raises(self, tmp_path: Path, weight: str, message: str) -> None:
        path = write(tmp_path / "a.csv", f"text,label,w\na,x,1\nb,y,{weight}\n")
        with pytest.raises(DataError, match=message):
            load_dataset(path, weight_column="w")

    def test_only_zero_weights_raises(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="every weight in 'w' is zero"):
            load_dataset(write(tmp_path / "a.csv", "text,label,w\na,x,0\nb,y,0\n"), weight_column="w")

    def test_missing_group_raises(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"row 2 \(line 3\) has no group"):
            load_dataset(write(tmp_path / "a.csv", "text,label,g\na,x,1\nb,y,\n"), group_column="g")

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"weights": (1.0,)}, "2 texts but 1 weights"),
            ({"weights": (1.0, True)}, "row 2 has the weight True of type bool"),
            ({"weights": (1.0, None)}, "row 2 has no weight"),
            ({"groups": (1.0, 2)}, "row 1 has the group 1.0 of type float"),
            ({"groups": ("a", None)}, "row 2 has no group"),
        ],
    )
    def test_dataset_invalid_weights_or_groups_raises(self, columns: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Dataset("d", ("a", "b"), (1, 2), **columns)


class TestLabelsOf:
    @pytest.mark.parametrize(
        ("labels", "classes", "expected"),
        [
            (("1", "0"), (0, 1), (1, 0)),
            ((1, 0), ("0", "1"), ("1", "0")),
            ((1, -2), (-2, 1, 3), (1, -2)),
            (("b", "a"), ("a", "b"), ("b", "a")),
            (("01", "1"), ("01", "1"), ("01", "1")),
        ],
    )
    def test_with_labels_of_converts_to_the_type_of_the_classes(self, labels: Any, classes: Any, expected: Any) -> None:
        assert Dataset("d", ("t", "u"), labels).with_labels_of(classes).labels == expected

    @pytest.mark.parametrize(
        ("labels", "classes", "unknown"),
        [
            (("1", "n/a"), (0, 1), "'n/a'"),
            (("1", "01"), (0, 1), "'01'"),
            ((1, 7), ("0", "1"), "7"),
            (("1", "1.0"), (0, 1), "'1.0'"),
        ],
    )
    def test_with_labels_of_unknown_label_raises_with_its_row(self, labels: Any, classes: Any, unknown: str) -> None:
        with pytest.raises(DataError, match=rf"d: row 2 has the label {unknown}; the model knows "):
            Dataset("d", ("t", "u"), labels).with_labels_of(classes)

    def test_with_labels_of_unknown_label_raises_with_its_line(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\n"a\nb",1\nc,x\n')
        with pytest.raises(DataError, match=r"row 2 \(line 4\) has the label 'x'; the model knows 0, 1"):
            load_dataset(path).with_labels_of([0, 1])
