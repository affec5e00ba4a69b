"""A body as a scikit-learn transformer."""

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
from ketfit.model.tuning import EmbeddingPrecision


class BodyTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Sentence embeddings as a step of a scikit-learn pipeline.

    The input is a list, array or Series of sentences, as for `CountVectorizer`. In a `ColumnTransformer` name the
    column by a string, ``("text", BodyTransformer(), "review")``; a list, ``["review"]``, selects a table and raises.

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        revision: Branch, tag or commit of a body on the Hub.
        device: A torch device.
        dtype: What the body embeds with, see `load_body`.
        cache: Store embeddings on disk.
        batch_size: Number of sentences embedded at once.

    Attributes:
        body_: The loaded `Body`, after `fit`. A pickle contains its name, not its weights; see `Body`.

    >>> BodyTransformer("all-MiniLM-L6-v2").fit_transform(["a good film", "a dull film"]).shape
    (2, 384)
    """

    def __init__(
        self,
        body: str = "all-MiniLM-L6-v2",
        revision: str | None = None,
        device: str = "cpu",
        dtype: EmbeddingPrecision = "float32",
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
        """Check the sentences and load the body.

        Raises:
            InputError: `X` is not a sequence of sentences, or `batch_size` is not a positive integer.
            BodyError: the body cannot be found or loaded.
        """
        as_integer(self.batch_size, "batch_size", minimum=1, error=InputError)
        _sentences(X)
        self.body_ = load_body(self.body, revision=self.revision, device=self.device, dtype=self.dtype)
        return self

    def transform(self, X: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of the sentences, shape (n, dimension).

        Raises:
            InputError: `X` is not a sequence of sentences.
            BodyError: the body failed; see `Body.encode`.
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
