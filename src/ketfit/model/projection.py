"""Project embeddings on the principal components of the training embeddings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ketfit.errors import ConfigError, InputError


class Projection(nn.Module):
    """The first principal components of embeddings. It is fitted once and has no trained parameters.

    Args:
        embedding_dim: Width of the embeddings.
        components: Number of components.

    Attributes:
        mean: Mean of the training embeddings, shape (embedding_dim,); NaN until `fit`.
        directions: Orthonormal directions, by decreasing variance, shape (components, embedding_dim); NaN until `fit`.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, embedding_dim: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((embedding_dim,), torch.nan))
        self.register_buffer("directions", torch.full((components, embedding_dim), torch.nan))

    @property
    def size(self) -> int:
        """The number of fitted values."""
        return self.mean.numel() + self.directions.numel()

    def fit(self, embeddings: NDArray[np.floating]) -> None:
        """Compute the components of training embeddings, shape (n, embedding_dim), by a full SVD in double precision.

        They are those of scikit-learn's `PCA`. The largest entry of each direction is positive.

        Raises:
            ConfigError: The embeddings, less their mean, span fewer directions than there are components.
        """
        components, x = len(self.directions), embeddings.astype(np.float64)
        mean = x.mean(axis=0)
        _, spread, directions = np.linalg.svd(x - mean, full_matrices=False)
        rounding = max(spread[0], np.abs(x).max()) * max(x.shape) * np.finfo(embeddings.dtype).eps
        rank = int((spread > rounding).sum())
        if rank < components:
            raise ConfigError(
                f"components={components}: the {len(embeddings)} training embeddings have only {rank} principal "
                "components, because some of them are equal or depend on each other; use fewer components"
            )
        directions = directions[:components]
        largest = np.abs(directions).argmax(axis=1)
        directions = directions * np.sign(directions[np.arange(components), largest])[:, None]
        self.mean.copy_(torch.from_numpy(mean))
        self.directions.copy_(torch.from_numpy(directions))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the components, shape (batch, components), of embeddings of shape (batch, embedding_dim).

        Raises:
            InputError: The projection is not fitted.
        """
        if torch.isnan(self.mean[0]):
            raise InputError(
                "the projection of this head is not fitted; fit a QuantumHeadClassifier, or call "
                "head.projection.fit(embeddings) with the training embeddings"
            )
        return (embeddings - self.mean) @ self.directions.T

    def extra_repr(self) -> str:
        """Return the widths before and after, for `repr`."""
        return f"{len(self.mean)} -> {len(self.directions)}"
