"""Heads that can be saved in a model folder, loaded from it, and pushed to the Hub."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn
from typing_extensions import Self

import ketfit
from ketfit.data.sequences import check_saveable_labels
from ketfit.errors import ModelFileError
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.model.classical import HeadKind
from ketfit.persistence.hub import HubMixin
from ketfit.persistence.model_files import SavedHead, fetch_model, load_head, save_model
from ketfit.persistence.schema import ESTIMATORS, BodyMetadata, ModelMetadata


class PretrainedHead(HubMixin):
    """A classifier on embeddings with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Attributes after `fit`: ``classes_``, ``n_features_in_``, ``train_size_``, ``validation_size_``. After
    `from_pretrained` also ``commit_``, the commit of the Hub that the model was loaded from, or None for a folder.
    """

    kind: ClassVar[HeadKind]
    classes_: NDArray[Any]
    n_features_in_: int
    train_size_: int
    validation_size_: int
    commit_: str | None

    if TYPE_CHECKING:  # at run time these would hide the methods of scikit-learn

        def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
            """Return the probability of each of `classes_`, shape (n, n_classes)."""

        @property
        def n_parameters_(self) -> int:
            """The number of parameters that a prediction needs."""

    @abstractmethod
    def to_saved(self) -> SavedHead:
        """Return the fitted head as settings and tensors.

        Raises:
            ConfigError: A model file cannot hold a parameter of the head.
        """

    @classmethod
    @abstractmethod
    def from_saved(cls, saved: SavedHead, metadata: ModelMetadata, device: str = "cpu") -> Self:
        """Return the fitted head of a saved model."""

    @abstractmethod
    def _training_fields(self) -> dict[str, Any]:
        """Return the fields of `ModelMetadata` about the training."""

    def metadata_fields(
        self, data: str | None, metrics: Mapping[str, float] | None, body: BodyMetadata | None
    ) -> dict[str, Any]:
        """Return the fields of `ModelMetadata` that `to_saved` does not have.

        Raises:
            DataError: The labels are neither strings nor integers.
        """
        check_saveable_labels(self.classes_, "classes_")
        names = getattr(self, "feature_names_in_", None)
        return {
            "ketfit_version": ketfit.__version__,
            "classes": self.classes_.tolist(),
            "feature_names": None if names is None else [str(name) for name in names],
            "train_size": self.train_size_,
            "validation_size": self.validation_size_,
            "body": body,
            "data": data,
            "metrics": {} if metrics is None else {name: float(value) for name, value in metrics.items()},
            **self._training_fields(),
        }

    def save_pretrained(
        self, folder: str | Path, *, data: str | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the model folder: ``model.safetensors``, ``config.json`` and a model card.

        Args:
            folder: The folder to write. A model in it is replaced as a whole.
            data: The name of the training data, for the card.
            metrics: Measured values by name, for the card. ``NAME_low`` and ``NAME_high`` are the ends of the 95 %
                interval of the metric NAME.

        Raises:
            StorageError: The folder holds other files, or cannot be written.
            DataError: The labels are neither strings nor integers.
            ConfigError: A model file cannot hold a parameter of the head.
        """
        check_is_fitted(self)
        save_model(folder, self.to_saved(), self.metadata_fields(data, metrics, body=None))

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """Load a model folder or a repository of the Hub; a model for sentences is loaded without its body.

        Args:
            name: A folder, or ``user/name`` on the Hub.
            revision: Branch, tag or commit on the Hub.

        Raises:
            ModelFileError: There is no such model, it was changed since it was saved, or its head is of another kind.
        """
        return cls._load(name, revision, "cpu")

    @classmethod
    def _load(cls, name: str | Path, revision: str | None, device: str) -> Self:
        snapshot = fetch_model(name, revision)
        saved, metadata = load_head(snapshot.folder)
        if metadata.head_kind != cls.kind:
            raise ModelFileError(
                f"{name} has a head of kind {metadata.head_kind!r}; load it with {ESTIMATORS[metadata.head_kind]}"
            )
        head = cls.from_saved(saved, metadata, device)
        head.commit_ = snapshot.commit
        return head

    def _restore(self, metadata: ModelMetadata) -> None:
        """Set the attributes of a fitted head that all kinds have."""
        self.commit_ = None
        self.classes_ = np.array(metadata.classes)
        self.n_features_in_ = metadata.embedding_dim
        self.train_size_, self.validation_size_ = metadata.train_size, metadata.validation_size
        if metadata.feature_names is not None:
            self.feature_names_in_ = np.array(metadata.feature_names, dtype=object)


def class_weights_to_save(weight: Any, classes: NDArray[Any]) -> Any:
    """Return class weights as a list in the order of the classes, or "balanced", or None."""
    if not isinstance(weight, Mapping):
        return weight
    return [float(weight.get(name, 1.0)) for name in classes.tolist()]


def saved_class_weights(metadata: ModelMetadata) -> Any:
    """Return the class weights of a saved model by label, or "balanced", or None."""
    weight = metadata.class_weight
    return dict(zip(metadata.classes, weight, strict=True)) if isinstance(weight, list) else weight


class PretrainedTorchHead(PretrainedHead, TorchHeadClassifier):
    """A torch module on embeddings that can be saved and loaded."""

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, device: str = "cpu") -> Self:
        """Load a model folder or a repository of the Hub; a model for sentences is loaded without its body.

        Args:
            name: A folder, or ``user/name`` on the Hub.
            revision: Branch, tag or commit on the Hub.
            device: A torch device.

        Raises:
            ModelFileError: There is no such model, it was changed since it was saved, or its head is of another kind.
        """
        return cls._load(name, revision, device)

    @classmethod
    def _restored(cls, metadata: ModelMetadata, module: nn.Module, device: str, **parameters: Any) -> Self:
        """Return a fitted classifier with a module; `parameters` are those of this kind of head alone."""
        assert metadata.train is not None
        assert metadata.best_epoch is not None
        assert metadata.seed is not None
        assert metadata.validation_fraction is not None
        folds = metadata.validation_folds
        classifier = cls(
            train=metadata.train,
            seed=metadata.seed,
            validation_fraction=metadata.validation_fraction,
            class_weight=saved_class_weights(metadata),
            device=device,
            calibrate=metadata.temperature is not None,
            validation="holdout" if folds is None else "cross",
            n_folds=folds or 5,
            **parameters,
        )
        classifier._restore(metadata)
        classifier.temperature_ = metadata.temperature or 1.0
        classifier.module_ = module.to(device)
        classifier.train_config_ = metadata.train
        classifier.best_epoch_ = metadata.best_epoch
        classifier.fit_settings_ = classifier._current_settings(metadata.seed)
        weight = metadata.class_weight
        if weight != "balanced":  # the metadata do not have the balanced weights
            classifier.class_weights_ = np.ones(len(metadata.classes)) if weight is None else np.array(weight)
        return classifier

    def _training_fields(self) -> dict[str, Any]:
        settings = self.fit_settings_
        return {
            "train": self.train_config_,
            "seed": settings.seed,
            "validation_fraction": settings.validation_fraction,
            "validation_folds": settings.n_folds,
            "class_weight": self.class_weights_.tolist()
            if isinstance(settings.class_weight, Mapping)
            else settings.class_weight,
            "best_epoch": self.best_epoch_,
            "temperature": self.temperature_ if settings.calibrate else None,
        }
