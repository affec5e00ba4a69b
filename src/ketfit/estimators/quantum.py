"""A quantum head on embeddings as a scikit-learn estimator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn
from typing_extensions import Self

import ketfit
from ketfit.data.sequences import check_saveable_labels
from ketfit.errors import InputError
from ketfit.estimators.base import ClassWeight, RandomState, TorchHeadClassifier, capacity_warning
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.persistence.hub import HubMixin
from ketfit.persistence.model_files import fetch_model, load_model, save_model
from ketfit.persistence.schema import BodyMetadata, ModelMetadata
from ketfit.rng import torch_stream


def readout_warning(config: HeadConfig, embedding_dim: int, n_classes: int) -> str:
    """Return a warning if a quantum head has too few readouts for so many classes, else ""; see `capacity_warning`."""
    n_measured = min(n_classes, config.qpu_qubits)
    fix = f"set n_measured={n_measured}" + ("" if config.skip_connection else " and skip_connection=True")
    return capacity_warning(
        config.n_readouts, n_classes, f"{fix}, or use HeadConfig.recommended({embedding_dim}, n_classes={n_classes})"
    )


class QuantumHeadClassifier(HubMixin, TorchHeadClassifier):
    """A quantum head on embeddings, for a pipeline, a grid search, or the head of a SetFit model.

    Args:
        head: Configuration of the head; None is `HeadConfig.recommended` for the data. Its `components` are fitted on
            the training samples of positive weight, regardless of the size of the weights, before the training.
        train: Training settings; None is `TrainConfig()`.
        seed: Source of all randomness: the validation share, the initial parameters, the order of the batches.
        random_state: scikit-learn's name for the seed, by which ensembles such as `BaggingClassifier` give each member
            another one. An integer replaces `seed`; a `numpy.random.RandomState` gives each fit another seed; None
            means `seed`. The attribute ``seed_`` is the seed that was used; a saved model contains it.
        validation_fraction: Share of the samples of `fit` that is held out to choose the best epoch.
        class_weight: Weights by label, "balanced", or None.
        device: A torch device.
        calibrate: Divide the logits by a temperature that is fitted on the validation samples, which calibrates the
            probabilities; the predicted labels do not change.

    Attributes after `fit`: those of `TorchHeadClassifier`, and ``head_config_``. After `from_pretrained` also
    ``commit_``, the commit of the Hub that the model was loaded from, or None for a folder.

    >>> classifier = QuantumHeadClassifier(train=TrainConfig(epochs=2))
    >>> classifier.fit([[0.1, 0.9], [0.9, 0.1]] * 5, ["dog", "cat"] * 5).predict_proba([[0.2, 0.8]]).shape
    (1, 2)
    """

    module_: QuantumHead
    commit_: str | None

    def __init__(
        self,
        head: HeadConfig | None = None,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
        calibrate: bool = False,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(train, seed, validation_fraction, class_weight, device, calibrate, random_state)
        self.head = head

    def _build(self, embedding_dim: int, n_classes: int, generator: torch.Generator, dtype: torch.dtype) -> QuantumHead:
        config = self.head or HeadConfig.recommended(embedding_dim, n_classes)
        return QuantumHead(config, embedding_dim, n_classes, generator, dtype)

    def _fit_projection(self, module: nn.Module, x: NDArray[Any]) -> None:
        assert isinstance(module, QuantumHead)
        if module.projection is not None:
            module.config.check_training_size(len(x))
            module.projection.fit(x)

    @torch.no_grad()
    def _check_embeddings(self, module: nn.Module, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        assert isinstance(module, QuantumHead)
        config, projected = module.config, ""
        ends = np.cumsum(config.slice_widths(x.shape[1]))
        if module.projection is not None:
            weights = module.weights
            rows_of_x = torch.as_tensor(np.ascontiguousarray(x), dtype=weights.dtype, device=weights.device)
            x, projected = module.project(rows_of_x).cpu().numpy(), "projected "
        parts = np.split(x, ends[:-1], axis=1) if config.encoder_input == "slices" else [x]
        for number, part in enumerate(parts):
            zero = rows[~part.any(axis=1)]
            if len(zero):
                kind = f"slice {number} of {projected}embedding" if len(parts) > 1 else f"{projected}embedding"
                raise InputError(
                    f"{kind} {zero[0]} is all zeros and has no direction to load into amplitudes; remove it"
                )

    def _capacity_warning(self, module: nn.Module, n_classes: int) -> str:
        assert isinstance(module, QuantumHead)
        return readout_warning(module.config, module.embedding_dim, n_classes)

    @property
    def head_config_(self) -> HeadConfig:
        """The configuration of the fitted head."""
        check_is_fitted(self, "module_")
        return self.module_.config

    def with_measurement(self, **settings: Any) -> Self:
        """Return a fitted copy whose QPU circuit runs with other shots and noise.

        Args:
            settings: As in `QuantumHead.with_measurement`.

        Raises:
            ConfigError: A setting is not about measurement, or does not fit.
        """
        check_is_fitted(self, "module_")
        measured = copy.copy(self)
        measured.module_ = self.module_.with_measurement(**settings)
        measured.module_.generator = torch_stream(self.seed_, "shots")
        measured.head = measured.module_.config
        return measured

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
        """
        check_is_fitted(self, "module_")
        save_model(folder, self.module_, self._metadata(data, metrics, body=None))

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, device: str = "cpu") -> Self:
        """Load a model folder or a repository of the Hub; a model for sentences is loaded without its body.

        Args:
            name: A folder, or ``user/name`` on the Hub.
            revision: Branch, tag or commit on the Hub.
            device: A torch device.

        Raises:
            ModelFileError: There is no such model, or it was changed since it was saved.
        """
        snapshot = fetch_model(name, revision)
        classifier = cls._from_metadata(*load_model(snapshot.folder), device=device)
        classifier.commit_ = snapshot.commit
        return classifier

    @classmethod
    def _from_metadata(cls, head: QuantumHead, metadata: ModelMetadata, device: str) -> Self:
        weight = metadata.class_weight
        classifier = cls(
            head=metadata.head,
            train=metadata.train,
            seed=metadata.seed,
            validation_fraction=metadata.validation_fraction,
            class_weight=dict(zip(metadata.classes, weight, strict=True)) if isinstance(weight, list) else weight,
            device=device,
            calibrate=metadata.temperature is not None,
        )
        classifier.commit_ = None
        classifier.temperature_ = metadata.temperature or 1.0
        classifier.classes_ = np.array(metadata.classes)
        classifier.n_features_in_ = metadata.embedding_dim
        classifier.module_ = head.to(device)
        classifier.module_.generator = torch_stream(metadata.seed, "shots")
        classifier.train_config_ = metadata.train
        classifier.train_size_, classifier.validation_size_ = metadata.train_size, metadata.validation_size
        classifier.best_epoch_ = metadata.best_epoch
        classifier.fit_settings_ = classifier._current_settings(metadata.seed)
        if weight != "balanced":  # the metadata do not have the balanced weights
            classifier.class_weights_ = np.ones(len(metadata.classes)) if weight is None else np.array(weight)
        if metadata.feature_names is not None:
            classifier.feature_names_in_ = np.array(metadata.feature_names, dtype=object)
        return classifier

    def _metadata(
        self, data: str | None, metrics: Mapping[str, float] | None, body: BodyMetadata | None
    ) -> dict[str, Any]:
        """Return the fields of `ModelMetadata` that the module does not have."""
        check_saveable_labels(self.classes_, "classes_")
        settings, names = self.fit_settings_, getattr(self, "feature_names_in_", None)
        return {
            "ketfit_version": ketfit.__version__,
            "train": self.train_config_,
            "seed": settings.seed,
            "validation_fraction": settings.validation_fraction,
            "class_weight": self.class_weights_.tolist()
            if isinstance(settings.class_weight, Mapping)
            else settings.class_weight,
            "classes": self.classes_.tolist(),
            "feature_names": None if names is None else [str(name) for name in names],
            "train_size": self.train_size_,
            "validation_size": self.validation_size_,
            "best_epoch": self.best_epoch_,
            "temperature": self.temperature_ if settings.calibrate else None,
            "body": body,
            "data": data,
            "metrics": {} if metrics is None else {name: float(value) for name, value in metrics.items()},
        }
