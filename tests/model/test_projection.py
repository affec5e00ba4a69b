"""The projection of a head: scikit-learn's principal components, and errors where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ketfit.errors import ConfigError, InputError
from ketfit.model.projection import Projection

X = np.random.default_rng(0).normal(size=(20, 6)) * [3, 1, 5, 2, 0.5, 4] + 7


def fitted(x: np.ndarray = X, components: int = 3, dtype: torch.dtype = torch.float64) -> Projection:
    projection = Projection(x.shape[1], components).to(dtype)
    projection.fit(x)
    return projection


@pytest.mark.parametrize("components", [1, 3, 6])
def test_projection_equals_pca_up_to_signs(components: int) -> None:
    projection, pca = fitted(components=components), PCA(components, svd_solver="full").fit(X)
    np.testing.assert_allclose(projection.mean, X.mean(axis=0), rtol=1e-14)
    signs = (projection.directions.numpy() * pca.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(signs), 1, rtol=1e-12)
    np.testing.assert_allclose(projection(torch.from_numpy(X)), pca.transform(X) * signs, atol=1e-12)


def test_projection_signs_make_largest_entry_positive() -> None:
    directions = fitted(components=6).directions.numpy()
    assert (directions[np.arange(6), np.abs(directions).argmax(axis=1)] > 0).all()
    np.testing.assert_allclose(fitted(X[::-1].copy(), 6).directions, directions, atol=1e-12)


def test_projection_of_float32_is_computed_in_double_precision() -> None:
    single = fitted(X.astype(np.float32), dtype=torch.float32)
    assert single.directions.dtype == torch.float32
    np.testing.assert_allclose(single.directions, fitted().directions, atol=1e-6)


def test_projection_has_no_parameters_and_passes_gradients_on() -> None:
    projection = fitted()
    assert not list(projection.parameters())
    assert projection.size == 6 + 3 * 6
    assert list(projection.state_dict()) == ["mean", "directions"]
    x = torch.from_numpy(X).requires_grad_()
    slopes = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (slopes * projection(x)).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, slopes @ projection.directions)


def test_projection_before_fit_raises() -> None:
    with pytest.raises(InputError, match=r"the projection of this head is not fitted; .*head.projection.fit"):
        Projection(6, 3)(torch.zeros(1, 6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_of_dependent_embeddings_raises(dtype: type) -> None:
    x = np.repeat(X[:4], 5, axis=0).astype(dtype)
    assert fitted(x, 3).directions.isfinite().all()
    with pytest.raises(ConfigError, match="components=4: the 20 training embeddings have only 3 principal components"):
        fitted(x, 4)
    with pytest.raises(ConfigError, match="have only 0 principal components"):
        fitted(np.full((20, 6), 0.1, dtype), 2)
