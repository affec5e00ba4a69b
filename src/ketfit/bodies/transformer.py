"""A sentence transformer as a scikit-learn transformer: texts in, embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from ketfit.bodies.body import load_body
from ketfit.data.sequences import as_texts
from ketfit.errors import InputError
from ketfit.integers import as_integer
from ketfit.model.tuning import Precision


class BodyTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Sentence embeddings as a step of a scikit-learn pipeline.

    It takes a list, array or Series of sentences, as `CountVectorizer` does. In a `ColumnTransformer` name the column
    by a string, ``("text", BodyTransformer(), "review")``: a list, ``["review"]``, gives a table and is refused.

    ::

        columns = ColumnTransformer([("text", BodyTransformer(), "review"), ("numbers", StandardScaler(), ["stars"])])
        make_pipeline(columns, LogisticRegression())

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        revision: Branch, tag or commit of a body on the Hub.
        device: A torch device.
        dtype: What the body embeds with, see `load_body`.
        cache: Whether embeddings are kept on disk, so that no sentence is embedded twice.
        batch_size: Sentences that go through the body at once.

    Attributes after `fit`: ``body_``, the loaded `Body`. A pickle names it and holds none of its weights, see `Body`.
    """

    def __init__(
        self,
        body: str = "all-MiniLM-L6-v2",
        revision: str | None = None,
        device: str = "cpu",
        dtype: Precision = "float32",
        cache: bool = True,
        batch_size: int = 64,
    ) -> None:
        self.body = body
        self.revision = revision
        self.device = device
        self.dtype = dtype
        self.cache = cache
        self.batch_size = batch_size

    def fit(self, X: Sequence[str], y: ArrayLike | None = None) -> Self:
        """Check the sentences and load the body; nothing is learned from either argument.

        Raises:
            InputError: `X` is not a sequence of sentences, or `batch_size` is not a positive integer.
            BodyError: the body cannot be had.
        """
        as_integer(self.batch_size, "batch_size", minimum=1, error=InputError)
        _sentences(X)
        self.body_ = load_body(self.body, revision=self.revision, device=self.device, dtype=self.dtype)
        return self

    def transform(self, X: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of the sentences, shape (n, dimension).

        Raises:
            InputError: `X` is not a sequence of sentences.
            BodyError: as `Body.encode`.
        """
        check_is_fitted(self, "body_")
        return self.body_.encode(_sentences(X), batch_size=self.batch_size, cache=self.cache)

    @property
    def _n_features_out(self) -> int:
        return self.body_.dimension

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _sentences(X: Any) -> list[str]:
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) != 1:
        raise InputError(
            f"X has shape {tuple(shape)}; a BodyTransformer takes one column of sentences. Pass table['column'], and "
            'in a ColumnTransformer name the column by a string: ("text", BodyTransformer(), "column")'
        )
    return as_texts(X)
