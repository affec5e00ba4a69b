"""The scikit-learn transformer of a body: its contract and its use in pipelines."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import check_estimator

from ketfit import BodyTransformer
from ketfit.bodies.body import Body
from ketfit.errors import BodyError, InputError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig

TEXTS = ["good film", "the good", "fine film", "bad film", "dull", "not good"]
LABELS = ["positive"] * 3 + ["negative"] * 3


@pytest.fixture
def transformer(tiny_body_folder: Path) -> BodyTransformer:
    return BodyTransformer(str(tiny_body_folder))


@pytest.fixture
def table() -> pd.DataFrame:
    """Return sentences and numbers with a shuffled index."""
    return pd.DataFrame({"review": TEXTS, "stars": [5.0, 4, 4, 1, 2, 1]}, index=[3, 1, 5, 0, 2, 4])


# Those of scikit-learn's checks that do not fit a table of numbers; its own selection leaves out all but the first.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
    "check_estimators_unfitted",
)


@pytest.mark.parametrize("check", CHECKS)
def test_body_transformer_passes_check_estimator(check: str, transformer: BodyTransformer) -> None:
    getattr(estimator_checks, check)("BodyTransformer", transformer)


def test_body_transformer_passes_selected_scikit_learn_checks(transformer: BodyTransformer) -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):
        check_estimator(transformer)


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, lambda texts: np.array(texts, dtype=object)])
def test_transform_returns_embeddings_of_the_body(
    kind: Callable[[Any], Any], transformer: BodyTransformer, tiny_body: Body
) -> None:
    texts = kind(TEXTS)
    result = transformer.fit(texts).transform(texts)
    assert (result.dtype, result.shape) == (np.float32, (6, 16))
    np.testing.assert_array_equal(result, tiny_body.encode(TEXTS))
    np.testing.assert_array_equal(clone(transformer).fit_transform(texts, LABELS), result)


def test_transform_before_fit_raises(transformer: BodyTransformer) -> None:
    for use in (lambda: transformer.transform(TEXTS), transformer.get_feature_names_out):
        with pytest.raises(NotFittedError):
            use()


def test_settings_are_passed_to_the_body(transformer: BodyTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer.set_params(dtype="bfloat16", batch_size=np.int64(2), cache=False).fit(TEXTS)
    assert transformer.body_.dtype == "bfloat16"
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Body, "encode", lambda body, texts, **options: (seen.append(options), np.zeros((6, 16)))[1])
    transformer.transform(TEXTS)
    assert seen == [{"batch_size": 2, "cache": False}]


@pytest.mark.parametrize(
    ("settings", "texts", "error", "message"),
    [
        ({}, "a film", InputError, "not str"),
        ({}, ["a film", None], InputError, r"texts\[1\]: the text is missing"),
        ({}, ["a film", " "], InputError, r"texts\[1\]: the text is empty"),
        ({"batch_size": 0}, TEXTS, InputError, "batch_size=0: it must be a whole number of at least 1"),
        ({"body": "/nowhere"}, TEXTS, BodyError, "There is no folder '/nowhere'"),
    ],
)
def test_fit_invalid_input_raises(
    settings: dict[str, Any], texts: Any, error: type[Exception], message: str, transformer: BodyTransformer
) -> None:
    with pytest.raises(error, match=message):
        transformer.set_params(**settings).fit(texts)


def test_fit_table_raises_with_the_fix(transformer: BodyTransformer, table: pd.DataFrame) -> None:
    message = r"X has shape \(6, 1\); .* table\['column'\], and in a ColumnTransformer name the column by a string"
    for one_column in (table[["review"]], table[["review"]].to_numpy()):
        with pytest.raises(InputError, match=message):
            transformer.fit(one_column)
    with pytest.raises(InputError, match=message):
        ColumnTransformer([("text", transformer, ["review"])]).fit(table)


def test_column_transformer_joins_sentences_and_numbers(
    transformer: BodyTransformer, table: pd.DataFrame, tiny_body: Body
) -> None:
    columns = ColumnTransformer([("text", transformer, "review"), ("numbers", StandardScaler(), ["stars"])])
    expected = np.hstack([tiny_body.encode(TEXTS), StandardScaler().fit_transform(table[["stars"]])])
    np.testing.assert_array_equal(columns.fit_transform(table), expected)
    names = [*(f"text__bodytransformer{number}" for number in range(16)), "numbers__stars"]
    assert columns.get_feature_names_out().tolist() == names
    framed = clone(columns).set_output(transform="pandas").fit_transform(table)
    assert framed.columns.tolist() == names
    assert framed.index.tolist() == table.index.tolist()
    np.testing.assert_array_equal(framed.to_numpy(), expected)
    head = QuantumHeadClassifier(HeadConfig(n_qubits=5, encoder_layers=1, main_layers=1), TrainConfig(epochs=1))
    pipeline = make_pipeline(columns, head).fit(table, LABELS)
    loaded = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(loaded.predict_proba(table), pipeline.predict_proba(table))
    assert len(pickle.dumps(pipeline[0])) < 10_000


def test_feature_union_joins_body_and_words(transformer: BodyTransformer) -> None:
    union = FeatureUnion([("body", transformer), ("words", TfidfVectorizer())]).fit(TEXTS)
    assert union.transform(TEXTS).shape == (6, 16 + len(union["words"].vocabulary_))


def test_pandas_output_keeps_the_index(transformer: BodyTransformer, table: pd.DataFrame) -> None:
    transformer.set_output(transform="pandas")
    result = transformer.fit_transform(table["review"])
    assert result.index.tolist() == table.index.tolist()
    assert set(result.dtypes) == {np.dtype(np.float32)}
    assert transformer.fit_transform(TEXTS).columns.tolist() == [f"bodytransformer{number}" for number in range(16)]


def test_tags_declare_text_input(transformer: BodyTransformer) -> None:
    tags = get_tags(transformer)
    assert (tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array) == (True, True, False)
    assert tags.requires_fit
