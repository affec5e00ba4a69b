"""The classical heads that a quantum head must stand beside, behind the same interface.

Each has ``fit(X, y, sample_weight=None, *, validation=None, progress=False)``, ``predict``, ``predict_proba``,
``score`` and ``n_parameters_``, the number of numbers that it needs to predict. Rows of weight zero are left out.
"""

from __future__ import annotations

import warnings
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
from ketfit.estimators.base import ClassWeight, RandomState, TorchHeadClassifier, Validation, too_few_numbers
from ketfit.integers import as_integer
from ketfit.model.config import TrainConfig
from ketfit.model.head import seeded_linear
from ketfit.rng import chosen_seed

Directions = Literal["random", "principal"]

RAISE_HIDDEN = "raise hidden, or take hidden=0 for a single linear layer"

PAPER_HIDDEN_SIZES = (0, 48, 96, 144, 192)
"""Hidden units of the paper's classical heads: at 768 dimensions and two classes, 1,538 to 148,034 parameters."""


class LogisticRegressionHead(LogisticRegression):  # type: ignore[misc]
    """scikit-learn's logistic regression; it has no epochs to choose from `validation` or to show as `progress`."""

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        progress: bool = False,
    ) -> Self:
        """Fit on the rows of `X` and `y` whose weight is not zero."""
        super().fit(*drop_zero_weights(X, y, sample_weight))
        return self

    @property
    def n_parameters_(self) -> int:
        """Coefficients and intercepts: embedding_dim + 1 for two classes, k (embedding_dim + 1) for k."""
        check_is_fitted(self)
        return int(self.coef_.size + self.intercept_.size)


class ProjectedLogisticRegressionHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression on fixed directions: a linear head with as few parameters as another head has.

    Random directions are drawn from the seed and owe nothing to the data, as the CNOTs of a quantum head do not; they
    keep the angles between embeddings as well as so few numbers can (Johnson and Lindenstrauss). Principal ones are
    those in which the training embeddings, whatever their labels, vary most: the stronger control, whose directions
    are themselves numbers that come from data, and are not drop_zero_weights.

    Args:
        n_components: Directions, at least 1.
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

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        progress: bool = False,
    ) -> Self:
        """Project the rows of `X` whose weight is not zero, and fit on the projections and `y`.

        Raises:
            ConfigError: there are no such directions, or fewer principal ones than `n_components`.
        """
        X, y, sample_weight = drop_zero_weights(X, y, sample_weight)
        regression = LogisticRegression(C=self.C)
        self.pipeline_ = make_pipeline(self._projection(np.asarray(X)), regression)
        self.pipeline_.fit(X, y, logisticregression__sample_weight=sample_weight)
        self.classes_, self.n_features_in_ = regression.classes_, self.pipeline_.n_features_in_
        return self

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
        """The most probable of `classes_` for each embedding, shape (n,)."""
        check_is_fitted(self)
        labels: NDArray[Any] = self.pipeline_.predict(X)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each of `classes_`, shape (n, n_classes)."""
        check_is_fitted(self)
        probabilities: NDArray[np.float64] = self.pipeline_.predict_proba(X)
        return probabilities

    @property
    def n_parameters_(self) -> int:
        """Coefficients and intercepts: n_components + 1 for two classes, k (n_components + 1) for k."""
        check_is_fitted(self)
        regression = self.pipeline_[-1]
        return int(regression.coef_.size + regression.intercept_.size)


class SVCHead(SVC):  # type: ignore[misc]
    """scikit-learn's support vector machine with an RBF kernel.

    `predict_proba` is calibrated on the validation samples that `fit` was given (Platt scaling); it needs two of each
    class.
    """

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        progress: bool = False,
    ) -> Self:
        """Fit on the rows of `X` and `y` whose weight is not zero; calibrate probabilities on those of `validation`."""
        super().fit(*drop_zero_weights(X, y, sample_weight))
        self.calibrated_ = None
        held = None if validation is None else drop_zero_weights(*unpack_validation(validation))
        if held is not None and _two_of_each(held[1], self.classes_):
            calibrated = CalibratedClassifierCV(FrozenEstimator(self), cv=2, ensemble=False)
            with warnings.catch_warnings():  # the weights are for the calibration alone, as it should be
                warnings.filterwarnings("ignore", "Since FrozenEstimator does not appear to accept sample_weight")
                self.calibrated_ = calibrated.fit(*held)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (n, n_classes).

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
        """Support vectors, their coefficients, and intercepts."""
        check_is_fitted(self)
        return int(self.support_vectors_.size + self.dual_coef_.size + self.intercept_.size)


class MLPHead(TorchHeadClassifier):
    """A perceptron with one hidden layer, trained by the same loop as the quantum head.

    Args:
        hidden: Hidden units; 0 is a single linear layer.
        match_parameters: In place of `hidden`: take as many hidden units, at least one, as come closest to so many
            parameters in total.
        activation: Of the hidden units: "gelu", or "none" for two linear layers through a bottleneck.
        train, seed, validation_fraction, class_weight, device, calibrate, random_state: As in `QuantumHeadClassifier`.

    Attributes after `fit`: those of `TorchHeadClassifier`, and ``hidden_``.
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
    ) -> None:
        super().__init__(train, seed, validation_fraction, class_weight, device, calibrate, random_state)
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

    def _advice(self, module: nn.Module, n_classes: int) -> str:
        if not isinstance(module, nn.Sequential):
            return ""
        last = module[-1]
        assert isinstance(last, nn.Linear)
        return too_few_numbers(last.in_features, n_classes, RAISE_HIDDEN)

    @property
    def hidden_(self) -> int:
        """Hidden units of the fitted perceptron."""
        check_is_fitted(self, "module_")
        layers = [layer for layer in self.module_.modules() if isinstance(layer, nn.Linear)]
        return layers[0].out_features if len(layers) == 2 else 0


def _two_of_each(labels: ArrayLike, classes: NDArray[Any]) -> bool:
    labels = np.asarray(labels)
    return all((labels == label).sum() >= 2 for label in classes)


def matching_hidden_units(n_parameters: int, embedding_dim: int, n_classes: int) -> int:
    """Hidden units, at least one, with which a perceptron comes closest to `n_parameters` in total.

    It has hidden (embedding_dim + 1) + (hidden + 1) n_classes of them.

    Raises:
        ConfigError: a number is not an integer, or a width or number of classes less than 1.
    """
    n_parameters = as_integer(n_parameters, "match_parameters")
    embedding_dim = as_integer(embedding_dim, "embedding_dim", minimum=1)
    n_classes = as_integer(n_classes, "n_classes", minimum=1)
    return max(1, round((n_parameters - n_classes) / (embedding_dim + 1 + n_classes)))
