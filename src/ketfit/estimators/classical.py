"""Classical heads to compare a quantum head with, behind the same interface.

Each has ``fit(X, y, sample_weight=None, *, validation=None, progress=False)``, ``predict``, ``predict_proba``,
``score`` and ``n_parameters_``, the number of parameters that a prediction needs. Rows of weight zero are left out.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.random_projection import GaussianRandomProjection
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted
from torch import nn
from typing_extensions import Self

from ketfit.data.sequences import drop_zero_weights, unpack_validation
from ketfit.errors import ConfigError
from ketfit.estimators.base import (
    ClassWeight,
    RandomState,
    TorchHeadClassifier,
    Validation,
    ValidationMethod,
    capacity_warning,
)
from ketfit.integers import as_integer
from ketfit.model.config import TrainConfig
from ketfit.model.head import seeded_linear
from ketfit.rng import chosen_seed

Directions = Literal["random", "principal"]

RAISE_HIDDEN = "raise hidden, or take hidden=0 for a single linear layer"


class _ScikitLearnHead:
    """A head that scikit-learn fits, with the arguments of the heads that are trained in epochs."""

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        progress: bool = False,
    ) -> Self:
        """Fit on the rows whose weight is not zero.

        Args:
            X: Embeddings, shape (n, embedding_dim).
            y: Labels, shape (n,).
            sample_weight: Weights of the samples, shape (n,), zero or more.
            validation: Samples to calibrate the probabilities of an `SVCHead` on; the other heads ignore them.
            progress: Ignored: there are no epochs to show.

        Raises:
            ConfigError: A parameter of the head is out of range.
        """
        self._fit(*drop_zero_weights(X, y, sample_weight), validation)
        return self

    @abstractmethod
    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Validation | None) -> None:
        """Fit on rows of positive weight."""


class LogisticRegressionHead(_ScikitLearnHead, LogisticRegression):  # type: ignore[misc]
    """scikit-learn's logistic regression.

    >>> LogisticRegressionHead().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"]).n_parameters_
    3
    """

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Validation | None) -> None:
        LogisticRegression.fit(self, X, y, sample_weight)

    @property
    def n_parameters_(self) -> int:
        """Coefficients and intercepts: embedding_dim + 1 for two classes, k (embedding_dim + 1) for k."""
        check_is_fitted(self)
        return int(self.coef_.size + self.intercept_.size)


class ProjectedLogisticRegressionHead(_ScikitLearnHead, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression on fixed directions: a linear head with as few parameters as another head has.

    Random directions depend on the seed and not on the data, as the CNOTs of a quantum head do; they preserve the
    angles between embeddings as well as so few dimensions can (Johnson and Lindenstrauss). Principal directions are
    those of the largest variance of the training embeddings. They are the stronger control: they are themselves
    estimated from data, and `n_parameters_` does not count them.

    Args:
        n_components: Number of directions, at least 1.
        C: Inverse strength of the regularisation, as in scikit-learn.
        seed: Source of random directions.
        directions: "random" or "principal".
        random_state: As in `QuantumHeadClassifier`.
    """

    def __init__(
        self,
        n_components: int = 100,
        C: float = 1.0,
        seed: int = 0,
        directions: Directions = "random",
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.C = C
        self.seed = seed
        self.directions = directions
        self.random_state = random_state

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Validation | None) -> None:
        regression = LogisticRegressionHead(C=self.C)
        self.pipeline_ = make_pipeline(self._projection(np.asarray(X)), regression)
        self.pipeline_.fit(X, y, logisticregressionhead__sample_weight=sample_weight)
        self.classes_, self.n_features_in_ = regression.classes_, self.pipeline_.n_features_in_

    def _projection(self, X: NDArray[Any]) -> PCA | GaussianRandomProjection:
        n_components = as_integer(self.n_components, "n_components", minimum=1)
        if self.directions == "random":
            return GaussianRandomProjection(n_components, random_state=chosen_seed(self.random_state, self.seed))
        if self.directions != "principal":
            raise ConfigError(f"directions={self.directions!r}: they are random or principal")
        if X.ndim == 2 and n_components > min(X.shape):
            raise ConfigError(
                f"n_components={n_components}: {len(X)} embeddings of width {X.shape[1]} have "
                f"{min(X.shape)} principal directions; use fewer"
            )
        return PCA(n_components, svd_solver="full")

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable of `classes_` for each embedding, shape (n,)."""
        check_is_fitted(self)
        labels: NDArray[Any] = self.pipeline_.predict(X)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each of `classes_`, shape (n, n_classes)."""
        check_is_fitted(self)
        probabilities: NDArray[np.float64] = self.pipeline_.predict_proba(X)
        return probabilities

    @property
    def n_parameters_(self) -> int:
        """Coefficients and intercepts: n_components + 1 for two classes, k (n_components + 1) for k."""
        check_is_fitted(self)
        return int(self.pipeline_[-1].n_parameters_)


class SVCHead(_ScikitLearnHead, SVC):  # type: ignore[misc]
    """scikit-learn's support vector machine with an RBF kernel.

    `predict_proba` is calibrated on the validation samples of `fit` (Platt scaling), which needs two of each class.
    """

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Validation | None) -> None:
        SVC.fit(self, X, y, sample_weight)
        self.calibrated_ = None
        if validation is None:
            return
        held_out = drop_zero_weights(*unpack_validation(validation))
        if all((np.asarray(held_out[1]) == label).sum() >= 2 for label in self.classes_):
            calibrated = CalibratedClassifierCV(FrozenEstimator(self), cv=2, ensemble=False)
            with warnings.catch_warnings():  # the weights are for the calibration alone, as intended
                warnings.filterwarnings("ignore", "Since FrozenEstimator does not appear to accept sample_weight")
                self.calibrated_ = calibrated.fit(*held_out)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (n, n_classes).

        Raises:
            ConfigError: `fit` had too few validation samples to calibrate on.
        """
        check_is_fitted(self)
        if self.calibrated_ is None:
            raise ConfigError(
                "a support vector machine has no probabilities of its own; give fit validation samples, two of a class"
            )
        probabilities: NDArray[np.float64] = self.calibrated_.predict_proba(X)
        return probabilities

    @property
    def n_parameters_(self) -> int:
        """The number of entries of the support vectors, their coefficients, and intercepts."""
        check_is_fitted(self)
        return int(self.support_vectors_.size + self.dual_coef_.size + self.intercept_.size)


class MLPHead(TorchHeadClassifier):
    """A perceptron with one hidden layer, trained by the same loop as the quantum head.

    Args:
        hidden: Hidden units; 0 is a single linear layer.
        match_parameters: Choose the number of hidden units, at least one, whose total number of parameters comes
            closest to this one; `hidden` is ignored then.
        activation: Activation of the hidden units: "gelu", or "none" for two linear layers through a bottleneck.
        train, seed, validation_fraction, class_weight, device, calibrate, random_state, validation, n_folds: As in
            `QuantumHeadClassifier`.

    Attributes after `fit`: those of `TorchHeadClassifier`.
    """

    def __init__(
        self,
        hidden: int = 48,
        match_parameters: int | None = None,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
        activation: Literal["gelu", "none"] = "gelu",
        calibrate: bool = False,
        random_state: RandomState = None,
        validation: ValidationMethod = "holdout",
        n_folds: int = 5,
    ) -> None:
        super().__init__(
            train, seed, validation_fraction, class_weight, device, calibrate, random_state, validation, n_folds
        )
        self.hidden = hidden
        self.match_parameters = match_parameters
        self.activation = activation

    def _build(self, embedding_dim: int, n_classes: int, generator: torch.Generator, dtype: torch.dtype) -> nn.Module:
        hidden = as_integer(self.hidden, "hidden")
        if self.match_parameters is not None:
            size = as_integer(self.match_parameters, "match_parameters", minimum=1)
            hidden = matching_hidden_units(size, embedding_dim, n_classes)
        if hidden < 0:
            raise ConfigError(f"hidden={hidden}: it cannot be negative; 0 is a single linear layer")
        if self.activation not in ("gelu", "none"):
            raise ConfigError(f"activation={self.activation!r}: it is gelu or none")
        if hidden == 0:
            return seeded_linear(embedding_dim, n_classes, generator)
        first = seeded_linear(embedding_dim, hidden, generator)
        unit = nn.GELU() if self.activation == "gelu" else nn.Identity()
        return nn.Sequential(first, unit, seeded_linear(hidden, n_classes, generator))

    def _capacity_warning(self, module: nn.Module, n_classes: int) -> str:
        if not isinstance(module, nn.Sequential):
            return ""
        last = module[-1]
        assert isinstance(last, nn.Linear)
        return capacity_warning(last.in_features, n_classes, RAISE_HIDDEN)


def matching_hidden_units(n_parameters: int, embedding_dim: int, n_classes: int) -> int:
    """Return the number of hidden units, at least one, that brings a perceptron closest to `n_parameters`.

    A perceptron has hidden (embedding_dim + 1) + (hidden + 1) n_classes parameters.

    >>> matching_hidden_units(1000, embedding_dim=384, n_classes=2)
    3

    Raises:
        ConfigError: A number is not an integer, or a width or number of classes less than 1.
    """
    n_parameters = as_integer(n_parameters, "match_parameters")
    embedding_dim = as_integer(embedding_dim, "embedding_dim", minimum=1)
    n_classes = as_integer(n_classes, "n_classes", minimum=1)
    return max(1, round((n_parameters - n_classes) / (embedding_dim + 1 + n_classes)))
