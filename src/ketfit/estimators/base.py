"""A torch head on embeddings as a scikit-learn estimator."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn
from typing_extensions import Self

from ketfit.base_config import Config
from ketfit.bodies.device import available_device
from ketfit.data.sequences import as_groups, as_labels, as_weights, unpack_validation
from ketfit.data.splits import check_fraction, holdout_split
from ketfit.errors import ConfigError, ConfigWarning, DataError, DataWarning, InputError
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.rng import chosen_seed, torch_stream
from ketfit.training.calibration import effective_counts, fit_temperature
from ketfit.training.loop import Samples, predict_logits, train

ClassWeight = Mapping[Any, float] | Literal["balanced"] | None
Parts = tuple[Samples, Samples]
RandomState = int | np.random.RandomState | None
FLOATS = [np.float64, np.float32]


@dataclass(frozen=True)
class Origin:
    """The sentences and the body behind embeddings, which stand for them in a checkpoint; see `Samples`.

    Attributes:
        body: Identity of the body.
        sentences: Identity of each sentence, shape (n,).
        validation: Those of the validation samples if they are given apart.
    """

    body: str
    sentences: NDArray[np.str_]
    validation: NDArray[np.str_] | None

    def named(self, samples: Samples, held: Samples, kept: NDArray[Any], held_out: NDArray[Any] | None) -> Parts:
        """Return both sides with their origin; `kept` and `held_out` are the rows that they came from."""
        apart = self.validation if held_out is None else self.sentences[held_out]
        assert apart is not None
        return (
            replace(samples, body=self.body, sentences=tuple(self.sentences[kept].tolist())),
            replace(held, body=self.body, sentences=tuple(apart.tolist())),
        )


class ConfiguredEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator some of whose parameters are `Config` values: their settings are parameters, too.

    ``head__n_qubits`` in a grid search names the setting ``n_qubits`` of the parameter ``head``.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name and, if `deep`, each setting of a `Config` among them as ``name__setting``."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            configs = {name: value for name, value in params.items() if isinstance(value, Config)}
            params |= {f"{name}__{key}": setting for name, config in configs.items() for key, setting in config}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ``name__setting`` replaces one setting of the `Config` there.

        Raises:
            ConfigError: the setting does not exist or does not fit, or there is no `Config` to change.
            ValueError: the parameter does not exist.
        """
        nested: dict[str, dict[str, Any]] = defaultdict(dict)
        for key in [key for key in params if "__" in key]:
            name, _, setting = key.partition("__")
            nested[name][setting] = params.pop(key)
        super().set_params(**params)
        for name, settings in nested.items():
            config = getattr(self, name, None)
            if not isinstance(config, Config):
                key = next(iter(settings))
                raise ConfigError(
                    f"{name}__{key} has no configuration to change; pass {name}=... to the estimator first"
                )
            setattr(self, name, config.updated(**settings))
        return self


Validation = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None]


@dataclass(frozen=True)
class FitSettings:
    """The parameters that a head was fitted with; what is set afterwards changes neither predictions nor files."""

    seed: int
    validation_fraction: float
    class_weight: ClassWeight
    calibrate: bool


class TorchHeadClassifier(ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A torch module on embeddings behind scikit-learn's interface. Subclasses say which module.

    Attributes after `fit`: ``classes_``, ``module_``, ``history_`` (rows, see `Epoch`), ``best_epoch_``,
    ``n_parameters_``, ``train_size_``, ``validation_size_``, ``n_features_in_``, ``class_weights_``,
    ``temperature_``, ``seed_``, ``fit_settings_``; and ``feature_names_in_`` if `X` has named columns.

    A pickle of a head on a GPU comes back on the CPU, with a UserWarning, where there is no such GPU.
    """

    def __init__(
        self,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
        calibrate: bool = False,
        random_state: RandomState = None,
    ) -> None:
        self.train = train
        self.seed = seed
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.device = device
        self.calibrate = calibrate
        self.random_state = random_state

    @abstractmethod
    def _build(self, embedding_dim: int, n_classes: int, generator: torch.Generator, dtype: torch.dtype) -> nn.Module:
        """A fresh module with `n_classes` logits that computes in `dtype`."""

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        validation: Validation | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Train the head.

        A stratified share of the samples (`validation_fraction`) is kept for choosing the best epoch; every class
        keeps at least one sample in training. With ``validation_fraction=0``, or too few samples to spare one, the
        last epoch stands. Samples of weight zero are left out. A fit that fails leaves the estimator as it was.

        Labels, weights and groups are sequences of any kind (lists, arrays, pandas, Arrow, `datasets`), and are taken
        by position. Labels of floats and booleans can be fitted, but not saved.

        Args:
            X: Embeddings, shape (n, embedding_dim). The head computes in float32 if they are float32, else in float64.
            y: Labels, strings or integers, shape (n,).
            sample_weight: Weights of the samples, shape (n,), not negative.
            groups: Samples of one group, such as copies of one sentence, stay on one side of the split; shape (n,).
            validation: Embeddings, labels and, if there are any, weights to validate on, in place of a share of `X`.
            checkpoint: A file written after every epoch; the same call resumes from it.
            progress: Show a bar on stderr.

        Warns:
            ConfigWarning: the head reads too few numbers for so many classes.
            DataWarning: two labels differ by surrounding space only; or the validation samples cannot calibrate.

        Raises:
            InputError: an embedding is zero, or labels, weights or groups are not one usable value per sample.
            DataError: there is only one class, or the validation labels hold one that `y` does not.
            ConfigError: the settings do not fit the data.
            TrainingError, ModelFileError, StorageError: as in `train`.
            ValueError: an array that scikit-learn would refuse.
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y, sample_weight, groups, validation, checkpoint, progress)
        except BaseException:
            self.__dict__ = before
            raise

    def _fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        validation: Validation | None,
        checkpoint: str | Path | None,
        progress: bool,
        origin: Origin | None = None,
        advise: bool = True,
    ) -> Self:
        self._check_settings()
        seed = chosen_seed(self.random_state, self.seed)
        check_fraction("validation_fraction", self.validation_fraction)
        x, labels = self._checked(X, y, reset=True)
        check_classification_targets(labels)
        weight = _weights(sample_weight, x)
        counts = weight > 0
        numbers = None if groups is None else as_groups(groups, length=len(counts))[counts]
        x, labels, weight = x[counts], labels[counts], weight[counts]
        classes, codes, of_class = self._classes(labels)
        weight = weight * of_class[codes]
        dtype = torch.from_numpy(x[:0]).dtype
        module = self._build(x.shape[1], len(classes), torch_stream(seed, "init"), dtype)
        module.to(device=self.device, dtype=dtype)
        rows = np.flatnonzero(counts)
        self._check_embeddings(module, x, rows)
        if advise:
            warn_of_lookalikes(classes)
            if advice := self._advice(module, len(classes)):
                warnings.warn(advice, ConfigWarning, stacklevel=3)
        sides: tuple[NDArray[Any], NDArray[Any] | None] = rows, None
        if validation is None:
            kept, held_out = holdout_split(codes, self.validation_fraction, seed, numbers)
            samples, held = (_samples(module, x[i], codes[i], weight[i]) for i in (kept, held_out))
            sides = rows[kept], rows[held_out]
        else:
            samples, held = _samples(module, x, codes, weight), self._validation(module, classes, of_class, validation)
        if self.calibrate and not len(held):
            raise ConfigError(NOTHING_TO_CALIBRATE_ON)
        if origin is not None:
            samples, held = origin.named(samples, held, *sides)
        config = self.train or TrainConfig()
        file = None if checkpoint is None else Path(checkpoint)
        result = train(
            module, samples, held if len(held) else None, config, seed=seed, checkpoint=file, progress=progress
        )
        self.classes_, self.module_, self.train_config_ = classes, module, config
        self.class_weights_ = of_class
        self.history_, self.best_epoch_ = result.history, result.best_epoch
        self.train_size_, self.validation_size_ = len(samples), len(held)
        self.temperature_ = temperature_of(module, held, config.batch_size) if self.calibrate else 1.0
        self.fit_settings_ = self._fit_settings(seed)
        return self

    @property
    def seed_(self) -> int:
        """The seed that `fit` used, of `seed` or `random_state`."""
        check_is_fitted(self, "fit_settings_")
        return self.fit_settings_.seed

    def _fit_settings(self, seed: int) -> FitSettings:
        """Return the parameters as they are now, with a copy of the class weight."""
        weight = dict(self.class_weight) if isinstance(self.class_weight, Mapping) else self.class_weight
        return FitSettings(seed, float(self.validation_fraction), weight, bool(self.calibrate))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        device = _device_of(state.get("module_"))
        if device == "cpu":
            return state
        return {**state, "module_": copy.deepcopy(state["module_"]).cpu(), "_device": device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = state.get("_device", "cpu")
        super().__setstate__({name: value for name, value in state.items() if name != "_device"})
        if device != "cpu":
            self.module_.to(available_device(device))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each of `classes_`, shape (n, n_classes), rows that sum to one."""
        check_is_fitted(self, "module_")
        x = validate_data(self, X, dtype=FLOATS, reset=False)
        self._check_embeddings(self.module_, x, np.arange(len(x)))
        logits = predict_logits(self.module_, _like(self.module_, x), self.train_config_.batch_size)
        probabilities: NDArray[np.float64] = (logits.double() / self.temperature_).softmax(dim=1).cpu().numpy()
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable of `classes_` for each embedding, shape (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    @property
    def n_parameters_(self) -> int:
        """How many numbers were trained."""
        check_is_fitted(self, "module_")
        return sum(parameter.numel() for parameter in self.module_.parameters() if parameter.requires_grad)

    def _checked(self, X: ArrayLike, y: ArrayLike, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Embeddings in one of `FLOATS` and labels, as scikit-learn would take them; `reset` learns the width."""
        if not (y is None or (isinstance(y, np.ndarray) and (y.ndim != 1 or y.dtype.kind == "c"))):
            y = as_labels(y, "y" if reset else "validation y")  # what scikit-learn itself has to refuse goes there
        x, labels = validate_data(self, X, y, dtype=FLOATS, reset=reset)
        return x, labels

    def _check_embeddings(self, module: nn.Module, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Refuse embeddings that the head cannot take; `rows` are their numbers in what the user gave."""

    def _advice(self, module: nn.Module, n_classes: int) -> str:
        """Return a warning if the head can hardly learn so many classes, else ""."""
        return ""

    def _check_settings(self) -> None:
        """Refuse parameters of the wrong kind before anything is done with them."""
        for name, config in (("head", HeadConfig), ("train", TrainConfig)):
            value = getattr(self, name, None)
            if not (value is None or isinstance(value, config)):
                raise ConfigError(f"{name}={value!r}: pass a {config.__name__}, or None")
        as_integer(self.seed, "seed", minimum=0)

    def _classes(self, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the sorted classes of the training labels, the class number of each label, and each class's weight.

        Raises:
            InputError: there are no labels.
            DataError: there is only one class.
            ConfigError: `class_weight` does not fit.
        """
        if not len(labels):
            raise InputError("found 0 sample(s); a classifier needs some of two classes or more")
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(
                f"a classifier needs two classes or more; these labels hold 1 class: {classes.tolist()[0]!r}"
            )
        of_sample = compute_sample_weight(self.class_weight, labels)
        if not (np.isfinite(of_sample) & (of_sample > 0)).all():
            raise ConfigError(f"class_weight={self.class_weight!r}: weights of classes are positive numbers")
        of_class = np.ones(len(classes))
        of_class[codes] = of_sample
        return classes, codes, of_class

    def _validation(
        self, module: nn.Module, classes: NDArray[Any], of_class: NDArray[Any], validation: Validation
    ) -> Samples:
        X, y, sample_weight = unpack_validation(validation)
        x, labels = self._checked(X, y, reset=False)
        weight = _weights(sample_weight, x, "validation sample_weight")
        counts = weight > 0
        x, labels = x[counts], labels[counts]
        self._check_embeddings(module, x, np.flatnonzero(counts))
        codes = class_numbers(labels, classes, UNKNOWN_TO_TRAINING)
        return _samples(module, x, codes, weight[counts] * of_class[codes])


UNKNOWN_TO_TRAINING = "the validation labels hold {!r}, which the training labels do not"
NOTHING_TO_CALIBRATE_ON = "calibrate=True takes validation samples, and there are none; raise validation_fraction"


def temperature_of(module: nn.Module, held: Samples, batch_size: int) -> float:
    """Return the temperature that the validation samples ask for; see `fit_temperature`."""
    return fit_temperature(predict_logits(module, held.x, batch_size), held.y, effective_counts(held.weight))


def class_numbers(labels: NDArray[Any], classes: NDArray[Any], message: str) -> NDArray[np.int64]:
    """Return the place of each label among the sorted `classes`, shape (n,).

    Raises:
        DataError: a label is none of them; `message` is formatted with the first such label.
    """
    unknown = set(labels.tolist()) - set(classes.tolist())
    if unknown:
        raise DataError(message.format(min(unknown, key=str)))
    return np.searchsorted(classes, labels)


def warn_of_lookalikes(classes: NDArray[Any]) -> None:
    """Warn of two classes that are the same text but for surrounding space."""
    seen: dict[str, str] = {}
    for name in classes.tolist():
        if isinstance(name, str) and (twin := seen.setdefault(name.strip(), name)) != name:
            warnings.warn(
                f"the labels {twin!r} and {name!r} differ by surrounding space only and are two classes; strip them if "
                "they are meant to be one",
                DataWarning,
                stacklevel=4,
            )


def too_few_numbers(n_numbers: int, n_classes: int, fix: str) -> str:
    """Return a warning if too few numbers go into the last linear layer to tell so many classes apart, else "".

    The signs of n numbers make 2**n regions that a linear layer tells apart, and one more lies in their middle. A head
    with more classes than that hardly learns its own training samples.
    """
    if n_classes <= 2**n_numbers + 1:
        return ""
    return (
        f"this head tells {n_classes} classes apart by {n_numbers} number{'s' if n_numbers > 1 else ''}, where "
        f"{(n_classes - 2).bit_length()} or more are needed; {fix}"
    )


def _weights(sample_weight: Any, x: NDArray[Any], name: str = "sample_weight") -> NDArray[Any]:
    """Return a weight for each row of `x`, of its dtype, one of them positive at least."""
    given = as_weights(sample_weight, name)
    weight: NDArray[Any] = _check_sample_weight(given, x, dtype=x.dtype, ensure_non_negative=True)
    if not (weight > 0).any():
        raise DataError(f"{name} is zero for every sample; give some of each class a positive weight")
    return weight


def _device_of(module: nn.Module | None) -> str:
    parameter = None if module is None else next(module.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


def _samples(module: nn.Module, X: NDArray[Any], codes: NDArray[Any], weight: NDArray[Any]) -> Samples:
    x = _like(module, X)
    return Samples(x, torch.as_tensor(codes, dtype=torch.int64, device=x.device), _like(module, weight))


def _like(module: nn.Module, array: NDArray[Any]) -> Tensor:
    """An array as a tensor on the module's device and of its dtype."""
    parameter = next(module.parameters())
    return torch.as_tensor(np.ascontiguousarray(array), dtype=parameter.dtype, device=parameter.device)
