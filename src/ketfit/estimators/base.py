"""A torch head on embeddings as a scikit-learn estimator."""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn
from typing_extensions import Self

from ketfit.bodies.device import available_device, check_device
from ketfit.data.sequences import as_groups, as_labels, as_weights, unpack_validation
from ketfit.data.splits import check_fraction, fold_splits, holdout_split
from ketfit.errors import ConfigError, ConfigWarning, DataError, DataWarning, InputError
from ketfit.estimators.class_weights import ClassWeight, weights_by_class
from ketfit.estimators.configured import ConfiguredEstimator
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.rng import chosen_seed, torch_stream
from ketfit.training.calibration import effective_counts, fit_temperature
from ketfit.training.callbacks import Callback, observe_fit
from ketfit.training.cross_validation import CrossValidation, train_fold
from ketfit.training.loop import Epoch, Samples, predict_logits, train

RandomState = int | np.random.RandomState | None
ValidationMethod = Literal["holdout", "cross"]
Validation = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None]
FLOAT_DTYPES = [np.float64, np.float32]
NO_CALIBRATION_SAMPLES = "calibrate=True takes validation samples, and there are none; raise validation_fraction"
HOLDOUT_BESIDE_CROSS = (
    "validation='cross' divides the samples of fit itself; leave out the validation samples, or use "
    "validation='holdout'"
)
UNKNOWN_VALIDATION_LABEL = "the validation labels hold {!r}, which the training labels do not"


@dataclass(frozen=True)
class EmbeddingSource:
    """The body and the sentences behind embeddings; a checkpoint compares them in place of `x`, see `Samples`.

    Attributes:
        body: Identity of the body.
        sentences: Identity of each sentence, shape (n,).
        validation: Identity of each validation sentence if these are passed separately, else None.
    """

    body: str
    sentences: NDArray[np.str_]
    validation: NDArray[np.str_] | None

    def attach(self, samples: Samples, sentences: NDArray[np.str_] | None) -> Samples:
        """Return samples with the identity of their body and of their sentences."""
        assert sentences is not None
        return replace(samples, body=self.body, sentences=tuple(sentences.tolist()))

    def divide(self, train: NDArray[np.int64], validation: NDArray[np.int64]) -> EmbeddingSource:
        """Return the source of the rows to train on and to validate on."""
        return EmbeddingSource(self.body, self.sentences[train], self.sentences[validation])


@dataclass(frozen=True, eq=False)
class FitData:
    """The data arguments of `TorchHeadClassifier.fit`, unchecked, and the source of the embeddings if it is known."""

    X: ArrayLike
    y: ArrayLike
    sample_weight: ArrayLike | None = None
    groups: ArrayLike | None = None
    validation: Validation | None = None
    source: EmbeddingSource | None = None


@dataclass(frozen=True, eq=False)
class PreparedFit:
    """A new module with the samples to train and to validate it on; `class_weights` has one weight per class."""

    module: nn.Module
    classes: NDArray[Any]
    class_weights: NDArray[Any]
    samples: Samples
    validation: Samples


@dataclass(frozen=True)
class FitSettings:
    """The parameters of the last `fit`; parameters set afterwards change neither predictions nor files."""

    seed: int
    validation_fraction: float
    class_weight: ClassWeight
    calibrate: bool
    n_folds: int | None = None  # of cross-validation; None is one split


class TorchHeadClassifier(ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A torch module on embeddings with scikit-learn's interface; subclasses build the module.

    Attributes after `fit`: ``classes_``, ``module_``, ``history_`` (one `Epoch` each), ``best_epoch_``,
    ``n_parameters_``, ``train_size_``, ``validation_size_``, ``n_features_in_``, ``class_weights_``,
    ``temperature_``, ``seed_``, ``fit_settings_``, ``fold_histories_``; and ``feature_names_in_`` if `X` has named
    columns.

    With ``validation="cross"``, ``fold_histories_`` has the history of each fold (it is empty otherwise). ``history_``
    has the epochs of the last training, on all samples: their training loss, and the means of the validation metrics
    over the folds. ``best_epoch_`` is its last one, and ``validation_size_`` counts every sample, once.

    A head pickled on a GPU is restored on the CPU, with a UserWarning, where there is no such GPU.
    """

    fold_histories_: tuple[tuple[Epoch, ...], ...]

    def __init__(
        self,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
        calibrate: bool = False,
        random_state: RandomState = None,
        validation: ValidationMethod = "holdout",
        n_folds: int = 5,
    ) -> None:
        self.train = train
        self.seed = seed
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.device = device
        self.calibrate = calibrate
        self.random_state = random_state
        self.validation = validation
        self.n_folds = n_folds

    @abstractmethod
    def _build(self, embedding_dim: int, n_classes: int, generator: torch.Generator, dtype: torch.dtype) -> nn.Module:
        """Return a new module with `n_classes` logits that computes in `dtype`."""

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
        callbacks: Sequence[Callback] = (),
    ) -> Self:
        """Train the head.

        A stratified share of the samples (`validation_fraction`) is held out to choose the best epoch; every class
        keeps at least one sample in training. With ``validation_fraction=0``, or too few samples to hold one out, the
        last epoch is used. Samples of weight zero are left out. A fit that fails leaves the estimator unchanged.

        With ``validation="cross"``, the samples are divided into `n_folds` stratified folds. A head is trained for all
        epochs on all folds but one, and validated on that one, for each fold. The epoch with the best mean over the
        folds is chosen, and the head is trained on all samples up to that epoch.

        Labels, weights and groups are sequences of any kind (lists, arrays, pandas, Arrow, `datasets`), and are taken
        by position. Labels of floats and booleans can be fitted, but not saved.

        Args:
            X: Embeddings, shape (n, embedding_dim). The head computes in float32 if they are float32, else in float64.
            y: Labels, strings or integers, shape (n,).
            sample_weight: Weights of the samples, shape (n,), zero or more.
            groups: Samples of one group, such as copies of one sentence, stay on one side of the split; shape (n,).
            validation: Embeddings, labels and, optionally, weights to validate on, in place of a share of `X`.
            checkpoint: A file written after every epoch; the same call resumes from it. Cross-validation writes another
                file after each fold, with ``.fold-1`` and so on appended to the name.
            progress: Show a bar on stderr.
            callbacks: Observers of every epoch, such as a `TensorBoardCallback`; see `Callback`.

        Warns:
            ConfigWarning: The head has too few readouts for the number of classes.
            DataWarning: Two labels differ by surrounding space only; or the validation samples cannot calibrate.

        Raises:
            InputError: An embedding is zero, or labels, weights or groups are not one usable value per sample.
            DataError: There is only one class, a validation label is missing from `y`, or a class has too few samples
                for the folds.
            ConfigError: The settings do not fit the data.
            TrainingError, ModelFileError, StorageError: As in `train`.
            ValueError: scikit-learn refuses an array.
        """
        if validation is not None:
            self._check_holdout()
        before = dict(self.__dict__)
        try:
            with observe_fit(callbacks, self._plain_settings()) as report:
                data = FitData(X, y, sample_weight, groups, validation)
                return self._fit(data, checkpoint, progress, on_epoch_end=partial(report, "head"))
        except BaseException:
            self.__dict__ = before
            raise

    def _fit(
        self,
        data: FitData,
        checkpoint: str | Path | None,
        progress: bool,
        warn: bool = True,
        folds: Sequence[FitData] | None = None,
        on_epoch_end: Callable[[Epoch], None] | None = None,
    ) -> Self:
        """Train on `data`.

        Args:
            data: The data.
            checkpoint: See `fit`.
            progress: See `fit`.
            warn: False if the caller has already warned about labels and readouts.
            folds: The folds of a cross-validation, the validation part of each in `FitData.validation`; None divides
                `data` itself.
            on_epoch_end: Called after every epoch of the last training.
        """
        self._check_settings()
        seed = chosen_seed(self.random_state, self.seed)
        check_fraction("validation_fraction", self.validation_fraction)
        prepared = self._prepare(data, seed)
        module, classes, held_out = prepared.module, prepared.classes, prepared.validation
        if warn:
            warn_similar_labels(classes)
            if message := self._capacity_warning(module, len(classes)):
                warnings.warn(message, ConfigWarning, stacklevel=3)
        config = self.train or TrainConfig()
        cross = None
        if self.validation == "cross":
            folds = self._divide(data, seed) if folds is None else folds
            cross = self._cross_validate(folds, config, seed, checkpoint, progress)
        elif self.calibrate and not len(held_out):
            raise ConfigError(NO_CALIBRATION_SAMPLES)
        result = train(
            module,
            prepared.samples,
            held_out if len(held_out) else None,
            config,
            seed=seed,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            progress=progress,
            epochs=None if cross is None else cross.best_epoch + 1,
            on_epoch_end=on_epoch_end,
        )
        self.classes_, self.module_, self.train_config_ = classes, module, config
        self.class_weights_ = prepared.class_weights
        self.history_, self.best_epoch_ = result.history, result.best_epoch
        self.train_size_, self.validation_size_ = len(prepared.samples), len(held_out)
        self.temperature_, self.fold_histories_ = 1.0, ()
        self.fit_settings_ = self._current_settings(seed)
        if cross is not None:
            self._use_cross_validation(cross)
        elif self.calibrate:
            self.temperature_ = calibrated_temperature(module, held_out, config.batch_size)
        return self

    def _divide(self, data: FitData, seed: int) -> list[FitData]:
        """Return the folds of `data`, without the samples of weight zero."""
        x, labels = self._as_arrays(data.X, data.y, reset=False)
        weight = _checked_weights(data.sample_weight, x)
        rows = np.flatnonzero(weight > 0)
        groups = None if data.groups is None else as_groups(data.groups, length=len(x))[rows]
        splits = fold_splits(labels[rows], self.n_folds, seed, groups)
        folds = []
        for train_rows, held_rows in ((rows[part], rows[held]) for part, held in splits):
            validation = x[held_rows], labels[held_rows], weight[held_rows]
            source = data.source and data.source.divide(train_rows, held_rows)
            fold = FitData(x[train_rows], labels[train_rows], weight[train_rows], None, validation, source)
            folds.append(fold)
        return folds

    def _cross_validate(
        self,
        folds: Sequence[FitData],
        config: TrainConfig,
        seed: int,
        checkpoint: str | Path | None,
        progress: bool,
    ) -> CrossValidation:
        """Train a new module on every fold, and return the results."""
        results = []
        for number, fold in enumerate(folds):
            prepared = copy.copy(self)._prepare(fold, seed)
            result = train_fold(
                prepared.module,
                prepared.samples,
                prepared.validation,
                config,
                seed=seed,
                keep_logits=self.calibrate,
                checkpoint=fold_file(checkpoint, number),
                progress=progress,
            )
            results.append(result)
        return CrossValidation(tuple(results), config.selection)

    def _use_cross_validation(self, cross: CrossValidation) -> None:
        """Set the fitted attributes that depend on the folds."""
        self.history_ = cross.describe(self.history_)
        self.fold_histories_ = tuple(fold.history for fold in cross.folds)
        self.validation_size_ = cross.size
        self.fit_settings_ = replace(self.fit_settings_, calibrate=bool(self.calibrate))
        if self.calibrate:
            self.temperature_ = cross.temperature()

    def _fit_epochs(self, data: FitData, checkpoint: Path | None, progress: bool) -> Self:
        """Return a copy of this cross-validated head that is fitted on `data` alone, for the same number of epochs."""
        fitted, seed = copy.copy(self), self.seed_
        prepared = fitted._prepare(replace(data, validation=None), seed)
        fitted.module_, fitted.class_weights_ = prepared.module, prepared.class_weights
        train(
            prepared.module,
            prepared.samples,
            None,
            self.train_config_,
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
            epochs=self.best_epoch_ + 1,
        )
        return fitted

    def _prepare(self, data: FitData, seed: int) -> PreparedFit:
        """Check the data, build the module and divide the samples into training and validation."""
        x, labels = self._as_arrays(data.X, data.y, reset=True)
        check_classification_targets(labels)
        weight = _checked_weights(data.sample_weight, x)
        positive = weight > 0
        rows = np.flatnonzero(positive)
        groups = None if data.groups is None else as_groups(data.groups, length=len(positive))[positive]
        x, labels, weight = x[positive], labels[positive], weight[positive]
        classes, codes, class_weights = encode_labels(labels, self.class_weight)
        weight = weight * class_weights[codes]
        dtype = torch.from_numpy(x[:0]).dtype
        module = self._build(x.shape[1], len(classes), torch_stream(seed, "init"), dtype)
        module.to(device=self.device, dtype=dtype)
        validation, source = data.validation, data.source
        if validation is None:
            fraction = 0.0 if self.validation == "cross" else self.validation_fraction
            train_side, held_out_side = holdout_split(codes, fraction, seed, groups)
        else:
            train_side, held_out_side = np.arange(len(x)), np.arange(0)
        self._fit_projection(module, x[train_side])
        self._check_embeddings(module, x, rows)
        samples = _as_samples(module, x[train_side], codes[train_side], weight[train_side])
        if validation is None:
            held_out = _as_samples(module, x[held_out_side], codes[held_out_side], weight[held_out_side])
            held_out_sentences = None if source is None else source.sentences[rows[held_out_side]]
        else:
            held_out = self._validation_samples(module, classes, class_weights, validation)
            held_out_sentences = None if source is None else source.validation
        if source is not None:
            samples = source.attach(samples, source.sentences[rows[train_side]])
            held_out = source.attach(held_out, held_out_sentences)
        return PreparedFit(module, classes, class_weights, samples, held_out)

    @property
    def seed_(self) -> int:
        """The seed that `fit` used, from `seed` or `random_state`."""
        check_is_fitted(self, "fit_settings_")
        return self.fit_settings_.seed

    def _current_settings(self, seed: int) -> FitSettings:
        """Return the current parameters, with a copy of the class weights."""
        weight = dict(self.class_weight) if isinstance(self.class_weight, Mapping) else self.class_weight
        folds = self.n_folds if self.validation == "cross" else None
        return FitSettings(seed, float(self.validation_fraction), weight, bool(self.calibrate), folds)

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
        """Return the probability of each of `classes_`, shape (n, n_classes); each row sums to one.

        Args:
            X: Embeddings, shape (n, embedding_dim).

        Raises:
            InputError: An embedding is zero.
            ValueError: scikit-learn refuses the array, or its width is not that of `fit`.
        """
        check_is_fitted(self, "module_")
        x = validate_data(self, X, dtype=FLOAT_DTYPES, reset=False)
        self._check_embeddings(self.module_, x, np.arange(len(x)))
        logits = predict_logits(self.module_, _as_tensor(self.module_, x), self.train_config_.batch_size)
        probabilities: NDArray[np.float64] = (logits.double() / self.temperature_).softmax(dim=1).cpu().numpy()
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable of `classes_` for each embedding, shape (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    @property
    def n_parameters_(self) -> int:
        """The number of trained parameters."""
        check_is_fitted(self, "module_")
        return sum(parameter.numel() for parameter in self.module_.parameters() if parameter.requires_grad)

    def _as_arrays(self, X: ArrayLike, y: ArrayLike, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return embeddings in one of `FLOAT_DTYPES`, and labels; `reset` stores the width and the column names."""
        if not (y is None or (isinstance(y, np.ndarray) and (y.ndim != 1 or y.dtype.kind == "c"))):
            y = as_labels(y, "y" if reset else "validation y")  # scikit-learn itself refuses the other arrays
        x, labels = validate_data(self, X, y, dtype=FLOAT_DTYPES, reset=reset)
        return x, labels

    def _check_embeddings(self, module: nn.Module, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Refuse embeddings that the head cannot take; `rows` are their positions in the user's array."""

    def _fit_projection(self, module: nn.Module, x: NDArray[Any]) -> None:
        """Fit what the module computes from the training embeddings before it is trained, if anything."""

    def _capacity_warning(self, module: nn.Module, n_classes: int) -> str:
        """Return a warning if the head can hardly learn `n_classes` classes, else ""."""
        return ""

    def _check_settings(self) -> None:
        """Refuse parameters of the wrong type."""
        for name, config in (("head", HeadConfig), ("train", TrainConfig)):
            value = getattr(self, name, None)
            if not (value is None or isinstance(value, config)):
                raise ConfigError(f"{name}={value!r} is of the wrong type; pass a {config.__name__}, or None")
        as_integer(self.seed, "seed", minimum=0)
        if self.validation not in get_args(ValidationMethod):
            raise ConfigError(f"validation={self.validation!r}: it is holdout or cross")
        as_integer(self.n_folds, "n_folds", minimum=2)
        check_device(self.device)

    def _check_holdout(self) -> None:
        """Refuse validation samples beside cross-validation."""
        if self.validation == "cross":
            raise ConfigError(HOLDOUT_BESIDE_CROSS)

    def _validation_samples(
        self, module: nn.Module, classes: NDArray[Any], class_weights: NDArray[Any], validation: Validation
    ) -> Samples:
        X, y, sample_weight = unpack_validation(validation)
        x, labels = self._as_arrays(X, y, reset=False)
        weight = _checked_weights(sample_weight, x, "validation sample_weight")
        positive = weight > 0
        x, labels = x[positive], labels[positive]
        self._check_embeddings(module, x, np.flatnonzero(positive))
        codes = class_indices(labels, classes, UNKNOWN_VALIDATION_LABEL)
        return _as_samples(module, x, codes, weight[positive] * class_weights[codes])


def fold_file(checkpoint: str | Path | None, number: int) -> Path | None:
    """Return the checkpoint of a fold, counted from 0: ``.fold-1`` after the name for the first one."""
    return None if checkpoint is None else Path(f"{checkpoint}.fold-{number + 1}")


def calibrated_temperature(module: nn.Module, samples: Samples, batch_size: int) -> float:
    """Return the temperature that calibrates `module` on validation samples; see `fit_temperature`."""
    return fit_temperature(predict_logits(module, samples.x, batch_size), samples.y, effective_counts(samples.weight))


def encode_labels(labels: NDArray[Any], class_weight: ClassWeight) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the sorted classes of the training labels, the class index of each label, and each class's weight.

    Raises:
        InputError: There are no labels.
        DataError: There is only one class.
        ConfigError: `class_weight` does not fit.
    """
    if not len(labels):
        raise InputError("found 0 sample(s); a classifier needs samples of at least two classes")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"these labels hold 1 class: {classes.tolist()[0]!r}; a classifier needs two classes or more")
    class_weights = np.ones(len(classes))
    class_weights[codes] = weights_by_class(class_weight, labels)
    return classes, codes, class_weights


def class_indices(labels: NDArray[Any], classes: NDArray[Any], message: str) -> NDArray[np.int64]:
    """Return the index of each label among the sorted `classes`, shape (n,).

    >>> class_indices(np.array(["b", "a"]), np.array(["a", "b"]), "unknown label {!r}").tolist()
    [1, 0]

    Raises:
        DataError: A label is not among `classes`; `message` is formatted with the first such label.
    """
    unknown = set(labels.tolist()) - set(classes.tolist())
    if unknown:
        raise DataError(message.format(min(unknown, key=str)))
    return np.searchsorted(classes, labels)


def warn_similar_labels(classes: NDArray[Any]) -> None:
    """Warn about two classes that differ by surrounding space only."""
    seen: dict[str, str] = {}
    for name in classes.tolist():
        if isinstance(name, str) and (twin := seen.setdefault(name.strip(), name)) != name:
            warnings.warn(
                f"the labels {twin!r} and {name!r} differ by surrounding space only and are two classes; strip them if "
                "they are meant to be one",
                DataWarning,
                stacklevel=4,
            )


def capacity_warning(n_inputs: int, n_classes: int, fix: str) -> str:
    """Return a warning if the last linear layer has too few inputs to separate so many classes, else "".

    The signs of n inputs make 2**n regions that a linear layer separates, and one more lies in their middle. A head
    with more classes than that hardly learns its own training samples.

    Args:
        n_inputs: Inputs of the last linear layer.
        n_classes: Number of classes.
        fix: The change that removes the warning.

    >>> capacity_warning(2, 6, "raise hidden")
    'this head tells 6 classes apart by 2 numbers, where 3 or more are needed; raise hidden'
    >>> capacity_warning(3, 6, "raise hidden")
    ''
    """
    if n_classes <= 2**n_inputs + 1:
        return ""
    return (
        f"this head tells {n_classes} classes apart by {n_inputs} number{'s' if n_inputs > 1 else ''}, where "
        f"{(n_classes - 2).bit_length()} or more are needed; {fix}"
    )


def _checked_weights(sample_weight: Any, x: NDArray[Any], name: str = "sample_weight") -> NDArray[Any]:
    """Return one weight per row of `x`, of its dtype, at least one of them positive."""
    weights = as_weights(sample_weight, name)
    weight: NDArray[Any] = _check_sample_weight(weights, x, dtype=np.float64, ensure_non_negative=True)
    largest, limits = weight.max(initial=0.0), np.finfo(x.dtype)
    if not largest:
        raise DataError(f"{name} is zero for every sample; give some of each class a positive weight")
    if not math.sqrt(limits.tiny) <= largest <= math.sqrt(limits.max / len(weight)):  # their squares are summed
        raise DataError(
            f"{name} goes up to {largest:g}, which is too {'large' if largest > 1 else 'small'} for {limits.dtype}; "
            "divide all weights by it, since only their ratios count"
        )
    return weight.astype(x.dtype)


def _device_of(module: nn.Module | None) -> str:
    parameter = None if module is None else next(module.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


def _as_samples(module: nn.Module, X: NDArray[Any], codes: NDArray[Any], weight: NDArray[Any]) -> Samples:
    x = _as_tensor(module, X)
    return Samples(x, torch.as_tensor(codes, dtype=torch.int64, device=x.device), _as_tensor(module, weight))


def _as_tensor(module: nn.Module, array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor on the module's device and of its dtype."""
    parameter = next(module.parameters())
    return torch.as_tensor(np.ascontiguousarray(array), dtype=parameter.dtype, device=parameter.device)
