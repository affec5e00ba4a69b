"""Classical heads to compare a quantum head with, behind the same interface.

Each has ``fit(X, y, sample_weight=None, *, validation=None, progress=False)``, ``predict``, ``predict_proba``,
``score`` and ``n_parameters_``, the number of parameters that a prediction needs. Rows of weight zero are left out.
All but the projected logistic regression, a control for studies, can be saved and loaded as the quantum head is.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.random_projection import GaussianRandomProjection
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from typing_extensions import Self

from ketfit.data.sequences import drop_zero_weights, is_numpy_column, unpack_validation
from ketfit.errors import ConfigError
from ketfit.estimators.base import (
    UNKNOWN_VALIDATION_LABEL,
    FitData,
    FitSettings,
    PreparedFit,
    RandomState,
    Validation,
    ValidationMethod,
    capacity_warning,
    class_indices,
)
from ketfit.estimators.class_weights import ClassWeight, weights_by_class
from ketfit.estimators.pretrained import (
    PretrainedHead,
    PretrainedTorchHead,
    class_weights_to_save,
    saved_class_weights,
)
from ketfit.integers import as_integer
from ketfit.model.classical import LogisticRegressionConfig, MLPConfig, SVCConfig
from ketfit.model.config import TrainConfig
from ketfit.model.head import seeded_linear
from ketfit.model.tuning import EndToEndConfig
from ketfit.persistence.model_files import SavedHead
from ketfit.persistence.schema import ModelMetadata
from ketfit.rng import chosen_seed

Directions = Literal["random", "principal"]

UNCALIBRATED = "a support vector machine has no probabilities of its own; give fit validation samples, two of a class"
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


class _PretrainedScikitLearnHead(_ScikitLearnHead, PretrainedHead):
    """A head that scikit-learn fits, and whose parameters a model file can hold."""

    saved_parameters: ClassVar[tuple[str, ...]]
    get_params: Callable[..., dict[str, Any]]
    class_weight: ClassWeight

    def _fit_as(self, estimator: type[Any], X: Any, y: Any, sample_weight: Any) -> None:
        """Fit as `estimator` of scikit-learn, with a table of class weights as sample weights (`weights_by_class`)."""
        class_weight = self.class_weight
        if not isinstance(class_weight, Mapping) or not is_numpy_column(y):
            estimator.fit(self, X, y, sample_weight)
            return
        weight = weights_by_class(class_weight, y)
        self.class_weight = None
        try:
            estimator.fit(self, X, y, weight if sample_weight is None else weight * sample_weight)
        finally:
            self.class_weight = class_weight

    def _after_fit(self, train_size: int, validation_size: int) -> None:
        """Store what a model file holds besides the arrays; parameters set after `fit` do not change it."""
        self.fit_params_ = copy.deepcopy(self.get_params(deep=False))
        self.train_size_, self.validation_size_ = train_size, validation_size

    def _as_fitted(self) -> Self:
        """Return this head with the parameters of `fit`, which scikit-learn also reads in predictions."""
        check_is_fitted(self)
        head = copy.copy(self)
        vars(head).update(self.fit_params_)
        return head

    def check_saveable(self) -> None:
        """Refuse parameters that a model file cannot hold.

        Raises:
            ConfigError: A parameter other than `saved_parameters`, ``class_weight`` and ``random_state`` does not have
                its default.
        """
        self._settings_to_save(self.get_params(deep=False))

    def _settings_to_save(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        defaults = type(self)().get_params(deep=False)
        saved = {*self.saved_parameters, "class_weight", "random_state", *_WITHOUT_EFFECT}
        for name, value in parameters.items():
            if name not in saved and value != defaults[name]:
                raise ConfigError(
                    f"{type(self).__name__}({name}={value!r}): a model file holds {', '.join(self.saved_parameters)} "
                    f"and class_weight; leave {name} at {defaults[name]!r}"
                )
        return {name: parameters[name] for name in self.saved_parameters}

    def _training_fields(self) -> dict[str, Any]:
        weight = class_weights_to_save(self.fit_params_["class_weight"], self.classes_)
        none = dict.fromkeys(("train", "seed", "validation_fraction", "best_epoch", "temperature"))
        return {**none, "class_weight": weight}

    @classmethod
    def _restored(cls, saved: SavedHead, metadata: ModelMetadata) -> tuple[Self, dict[str, NDArray[Any]]]:
        """Return a head with the parameters and the common attributes of a saved one, and the arrays."""
        settings = {name: getattr(saved.config, name) for name in cls.saved_parameters}
        head = cls(**settings, class_weight=saved_class_weights(metadata))  # type: ignore[call-arg]
        head._restore(metadata)
        head._after_fit(metadata.train_size, metadata.validation_size)
        return head, {name: tensor.numpy() for name, tensor in saved.tensors.items()}


_WITHOUT_EFFECT = ("n_jobs", "verbose", "cache_size")
"""Parameters of scikit-learn that change neither the fit nor the predictions."""


class LogisticRegressionHead(_PretrainedScikitLearnHead, LogisticRegression):  # type: ignore[misc]
    """scikit-learn's logistic regression.

    >>> LogisticRegressionHead().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"]).n_parameters_
    3
    """

    kind = "logistic-regression"
    saved_parameters = ("C", "fit_intercept", "solver", "tol", "max_iter")
    intercept_: NDArray[Any]

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Validation | None) -> None:
        self._fit_as(LogisticRegression, X, y, sample_weight)
        if np.ndim(self.intercept_) == 0:  # of liblinear without an intercept
            self.intercept_ = np.full(len(self.coef_), self.intercept_, dtype=self.coef_.dtype)
        self._after_fit(len(y), 0)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each of `classes_`, shape (n, n_classes)."""
        probabilities: NDArray[np.float64] = LogisticRegression.predict_proba(self._as_fitted(), X)
        return probabilities

    @property
    def n_parameters_(self) -> int:
        """Coefficients and intercepts: embedding_dim + 1 for two classes, k (embedding_dim + 1) for k."""
        check_is_fitted(self)
        return int(self.coef_.size + self.intercept_.size)

    def to_saved(self) -> SavedHead:
        """Return the fitted head as settings and tensors."""
        rows, width = self.coef_.shape
        intercept = np.broadcast_to(self.intercept_, rows)  # one zero for all classes without fit_intercept
        config = LogisticRegressionConfig(**self._settings_to_save(self.fit_params_))
        return SavedHead(config, _tensors(coef=self.coef_, intercept=intercept), width, _dtype(self.coef_))

    @classmethod
    def from_saved(cls, saved: SavedHead, metadata: ModelMetadata, device: str = "cpu") -> Self:
        """Return the fitted head of a saved model; scikit-learn computes on the CPU."""
        head, arrays = cls._restored(saved, metadata)
        # In the order of the default solver, so that the products round as before.
        head.coef_, head.intercept_ = np.asfortranarray(arrays["coef"]), arrays["intercept"]
        return head


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


@dataclass(frozen=True, eq=False)
class PlattScaling:
    """The probabilities 1 / (1 + exp(slope * decision + intercept)) of each class, normalised (Platt, 1999).

    Attributes:
        slopes: Shape (n_classes,), or (1,) for two classes.
        intercepts: Shape as `slopes`.
    """

    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def probabilities(self, decisions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities, shape (n, n_classes), from decisions: (n,) for two classes, else (n, n_classes).

        >>> PlattScaling(np.array([-1.0]), np.array([0.0])).probabilities(np.array([0.0])).tolist()
        [[0.5, 0.5]]
        """
        if decisions.ndim == 1:
            second = expit(-(self.slopes * decisions + self.intercepts))
            return np.column_stack([1.0 - second, second])
        each = np.column_stack(
            [
                expit(-(slope * column + intercept))
                for slope, intercept, column in zip(self.slopes, self.intercepts, decisions.T, strict=True)
            ]
        )
        total = each.sum(axis=1, keepdims=True)
        uniform = np.full_like(each, 1 / each.shape[1])
        shares: NDArray[np.float64] = np.minimum(np.divide(each, total, out=uniform, where=total != 0), 1.0)
        return shares


class SVCHead(_PretrainedScikitLearnHead, SVC):  # type: ignore[misc]
    """scikit-learn's support vector machine with an RBF kernel.

    `predict_proba` is calibrated on the validation samples of `fit` (Platt scaling), which needs two of each class.
    As in scikit-learn, the most probable class may differ from that of `predict`, which compares pairs of classes.

    Attributes after `fit`: those of scikit-learn, and ``platt_``, the `PlattScaling`, or None without such samples.
    """

    kind = "svc"
    saved_parameters = ("C", "kernel", "degree", "gamma", "coef0", "tol")

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Validation | None) -> None:
        held_out = None if validation is None else drop_zero_weights(*unpack_validation(validation))
        if held_out is not None and is_numpy_column(y) and is_numpy_column(held_out[1]):
            class_indices(held_out[1], np.unique(y), UNKNOWN_VALIDATION_LABEL)
        self._fit_as(SVC, X, y, sample_weight)
        self._after_fit(len(y), 0 if held_out is None else len(held_out[1]))
        self.platt_ = None if held_out is None else self._calibrate(held_out)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return one of `classes_` for each embedding, shape (n,)."""
        labels: NDArray[Any] = SVC.predict(self._as_fitted(), X)
        return labels

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return signed distances, shape (n,) for two classes, else (n, n_classes)."""
        decisions: NDArray[np.float64] = SVC.decision_function(self._as_fitted(), X)
        return decisions

    def _calibrate(self, held_out: tuple[Any, Any, Any]) -> PlattScaling | None:
        """Return the calibration on samples, which are used for nothing else; None if a class has fewer than two."""
        if not all((np.asarray(held_out[1]) == label).sum() >= 2 for label in self.classes_):
            return None
        calibrated = CalibratedClassifierCV(FrozenEstimator(self), cv=2, ensemble=False)
        with warnings.catch_warnings():  # the weights are for the calibration alone, as intended
            warnings.filterwarnings("ignore", "Since FrozenEstimator does not appear to accept sample_weight")
            calibrated.fit(*held_out)
        sigmoids = calibrated.calibrated_classifiers_[0].calibrators
        return PlattScaling(np.array([each.a_ for each in sigmoids]), np.array([each.b_ for each in sigmoids]))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (n, n_classes).

        Raises:
            ConfigError: `fit` had too few validation samples to calibrate on.
        """
        check_is_fitted(self)
        if self.platt_ is None:
            raise ConfigError(UNCALIBRATED)
        return self.platt_.probabilities(self.decision_function(X))

    @property
    def n_parameters_(self) -> int:
        """The number of entries of the support vectors, their coefficients, and intercepts."""
        check_is_fitted(self)
        return int(self.support_vectors_.size + self.dual_coef_.size + self.intercept_.size)

    def to_saved(self) -> SavedHead:
        """Return the fitted head as settings and tensors."""
        settings = self._settings_to_save(self.fit_params_)
        config = SVCConfig(**settings, calibrated=self.platt_ is not None, n_support=tuple(self.n_support_.tolist()))
        tensors = _tensors(
            support=self.support_,
            support_vectors=self.support_vectors_,
            dual_coef=self.dual_coef_,
            intercept=self.intercept_,
            gamma=np.float64(self._gamma),
        )
        if self.platt_ is not None:
            tensors |= _tensors(**{"platt.slopes": self.platt_.slopes, "platt.intercepts": self.platt_.intercepts})
        return SavedHead(config, tensors, self.support_vectors_.shape[1], torch.float64)

    @classmethod
    def from_saved(cls, saved: SavedHead, metadata: ModelMetadata, device: str = "cpu") -> Self:
        """Return the fitted head of a saved model; scikit-learn computes on the CPU."""
        assert isinstance(saved.config, SVCConfig)
        head, arrays = cls._restored(saved, metadata)
        head.support_, head.support_vectors_ = arrays["support"], arrays["support_vectors"]
        head.dual_coef_, head.intercept_ = arrays["dual_coef"], arrays["intercept"]
        # What scikit-learn's predictions read, under the names of its own fit; libsvm has the sign of the first class.
        sign = -1 if len(head.classes_) == 2 else 1
        head._dual_coef_, head._intercept_ = sign * head.dual_coef_, sign * head.intercept_
        head._n_support = np.array(saved.config.n_support, dtype=np.int32)
        head._gamma = float(arrays["gamma"])
        head._probA = head._probB = np.empty(0)
        head._sparse = False
        head.shape_fit_ = (metadata.train_size, metadata.embedding_dim)
        calibrated = saved.config.calibrated
        head.platt_ = PlattScaling(arrays["platt.slopes"], arrays["platt.intercepts"]) if calibrated else None
        return head


def _tensors(**arrays: Any) -> dict[str, Tensor]:
    """Return arrays as tensors of their own, in C order, by the same names."""
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}


def _dtype(array: NDArray[Any]) -> torch.dtype:
    return torch.float64 if array.dtype == np.float64 else torch.float32


class MLPHead(PretrainedTorchHead):
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

    kind = "mlp"

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
        return _perceptron(first, self.activation, seeded_linear(hidden, n_classes, generator))

    def _capacity_warning(self, module: nn.Module, n_classes: int) -> str:
        if not isinstance(module, nn.Sequential):
            return ""
        last = module[-1]
        assert isinstance(last, nn.Linear)
        return capacity_warning(last.in_features, n_classes, RAISE_HIDDEN)

    def _prepare(self, data: FitData, seed: int) -> PreparedFit:
        self.fit_shape_ = {name: getattr(self, name) for name in ("hidden", "match_parameters", "activation")}
        return super()._prepare(data, seed)

    @classmethod
    def from_regression(
        cls,
        regression: LogisticRegressionHead,
        settings: FitSettings,
        class_weights: NDArray[Any],
        tune: EndToEndConfig,
        device: str,
    ) -> Self:
        """Return a single linear layer with the probabilities of a logistic regression, to train it further.

        Args:
            regression: The fitted regression.
            settings: The settings of the training to come.
            class_weights: One weight per class.
            tune: The training to come.
            device: A torch device.
        """
        weight, bias = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
        if len(weight) == 1:  # the logit of the second class; half of it for each
            weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
        common = {"epochs", "batch_size", "weight_decay", "schedule", "selection", "patience"}
        train = TrainConfig(
            learning_rate=tune.linear_learning_rate, **{name: getattr(tune, name) for name in sorted(common)}
        )
        head = cls(
            hidden=0,
            train=train,
            seed=settings.seed,
            validation_fraction=settings.validation_fraction,
            class_weight=settings.class_weight,
            device=device,
            calibrate=settings.calibrate,
        )
        head.module_ = _linear({"output.weight": weight, "output.bias": bias.to(weight.dtype)}, "output").to(device)
        head.classes_, head.n_features_in_ = regression.classes_, regression.n_features_in_
        head.class_weights_, head.fit_settings_, head.train_config_ = class_weights, settings, train
        head.train_size_, head.validation_size_, head.temperature_ = regression.train_size_, 0, 1.0
        head.history_, head.best_epoch_, head.fold_histories_ = (), 0, ()
        head.fit_shape_ = {"hidden": 0, "match_parameters": None, "activation": "gelu"}
        return head

    def to_saved(self) -> SavedHead:
        """Return the fitted head as settings and tensors."""
        check_is_fitted(self, "module_")
        layers = [layer for layer in self.module_.modules() if isinstance(layer, nn.Linear)]
        config = MLPConfig(**self.fit_shape_, units=layers[0].out_features if len(layers) > 1 else 0)
        tensors = {
            f"{name}.{part}": tensor.detach()
            for name, layer in zip(("hidden", "output")[-len(layers) :], layers, strict=True)
            for part, tensor in layer.state_dict().items()
        }
        return SavedHead(config, tensors, self.n_features_in_, layers[0].weight.dtype)

    @classmethod
    def from_saved(cls, saved: SavedHead, metadata: ModelMetadata, device: str = "cpu") -> Self:
        """Return the fitted head of a saved model on a torch device."""
        config, tensors = saved.config, saved.tensors
        assert isinstance(config, MLPConfig)
        module: nn.Module = _linear(tensors, "output")
        if config.units:
            module = _perceptron(_linear(tensors, "hidden"), config.activation, _linear(tensors, "output"))
        shape = config.model_dump(exclude={"units"})
        head = cls._restored(metadata, module.eval(), device, **shape)
        head.fit_shape_ = shape
        return head


def _linear(tensors: Mapping[str, Tensor], name: str) -> nn.Linear:
    """Return a linear layer with the tensors ``NAME.weight`` and ``NAME.bias``."""
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], dtype=weight.dtype)  # type: ignore[no-untyped-call]
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _perceptron(first: nn.Linear, activation: str, last: nn.Linear) -> nn.Sequential:
    return nn.Sequential(first, nn.GELU() if activation == "gelu" else nn.Identity(), last)


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
