"""The quantum head on embeddings, as an estimator."""

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
from ketfit.estimators.base import ClassWeight, RandomState, TorchHeadClassifier, too_few_numbers
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.persistence.hub import HubMixin
from ketfit.persistence.model_files import fetch_model, load_model, save_model
from ketfit.persistence.schema import BodyMetadata, ModelMetadata
from ketfit.rng import torch_stream


def readout_advice(config: HeadConfig, embedding_dim: int, n_classes: int) -> str:
    """Return a warning if a quantum head reads too few numbers for so many classes, else ""; see `too_few_numbers`."""
    most = min(n_classes, config.qpu_qubits)
    fix = f"set n_measured={most}" + ("" if config.skip_connection else " and skip_connection=True")
    return too_few_numbers(
        config.n_readouts, n_classes, f"{fix}, or use HeadConfig.recommended({embedding_dim}, n_classes={n_classes})"
    )


class QuantumHeadClassifier(HubMixin, TorchHeadClassifier):
    """A quantum head on embeddings, for a pipeline, a grid search, or the head of a SetFit model.

    Args:
        head: The head's shape; None is `HeadConfig.recommended` for the data at hand.
        train: How to train; None is `TrainConfig()`.
        seed: Source of all chance: the validation share, the initial parameters, the order of the batches.
        random_state: scikit-learn's name for the seed, by which ensembles such as `BaggingClassifier` give each member
            its own. An integer takes the place of `seed`; a `numpy.random.RandomState` gives each fit another seed;
            None leaves it to `seed`. The attribute ``seed_`` has the one that was used, and it is saved.
        validation_fraction: Share of what `fit` gets that is kept to choose the best epoch on.
        class_weight: Weights by label, "balanced", or None.
        device: A torch device.
        calibrate: Divide the logits by a temperature that is fitted on the validation samples, so that probabilities
            mean more; the labels stay what they are.

    Attributes after `fit`: those of `TorchHeadClassifier`, and ``head_config_``. After `from_pretrained` also
    ``commit_``, the commit of the Hub that it was loaded from, or None for a folder.
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

    def _check_embeddings(self, module: nn.Module, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        assert isinstance(module, QuantumHead)
        config = module.config
        ends = np.cumsum(config.slice_widths(x.shape[1])) if config.encoder_input == "slices" else [x.shape[1]]
        for number, part in enumerate(np.split(x, ends[:-1], axis=1)):
            zero = rows[~part.any(axis=1)]
            if len(zero):
                what = f"slice {number} of embedding" if len(ends) > 1 else "embedding"
                raise InputError(f"{what} {zero[0]} is all zeros, which has no direction to load into amplitudes")

    def _advice(self, module: nn.Module, n_classes: int) -> str:
        assert isinstance(module, QuantumHead)
        return readout_advice(module.config, module.embedding_dim, n_classes)

    @property
    def head_config_(self) -> HeadConfig:
        """The shape of the fitted head."""
        check_is_fitted(self, "module_")
        return self.module_.config

    def with_measurement(self, **settings: Any) -> Self:
        """A fitted copy whose QPU circuit runs under other shots and noise; see `QuantumHead.with_measurement`.

        Raises:
            ConfigError: a setting that is not about measurement, or does not fit.
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
            folder: Where to. A model that stands there is replaced as a whole.
            data: The name of the training data, for the card.
            metrics: Measured figures by name, for the card. ``NAME_low`` and ``NAME_high`` are the ends of the 95 %
                interval of the figure NAME.

        Raises:
            StorageError: the folder holds other files, or cannot be written.
            DataError: the labels are neither strings nor integers.
        """
        check_is_fitted(self, "module_")
        save_model(folder, self.module_, self._facts(data, metrics, body=None))

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, device: str = "cpu") -> Self:
        """Load a model folder or a repository of the Hub; of a model for sentences, its head alone.

        Args:
            name: A folder, or ``user/name`` on the Hub.
            revision: Branch, tag or commit on the Hub.
            device: A torch device.

        Raises:
            ModelFileError: there is no such model, or it is not as it was saved.
        """
        found = fetch_model(name, revision)
        classifier = cls._from_record(*load_model(found.folder), device=device)
        classifier.commit_ = found.commit
        return classifier

    @classmethod
    def _from_record(cls, head: QuantumHead, record: ModelMetadata, device: str) -> Self:
        weight = record.class_weight
        classifier = cls(
            head=record.head,
            train=record.train,
            seed=record.seed,
            validation_fraction=record.validation_fraction,
            class_weight=dict(zip(record.classes, weight, strict=True)) if isinstance(weight, list) else weight,
            device=device,
            calibrate=record.temperature is not None,
        )
        classifier.commit_ = None
        classifier.temperature_ = record.temperature or 1.0
        classifier.classes_ = np.array(record.classes)
        classifier.n_features_in_ = record.embedding_dim
        classifier.module_ = head.to(device)
        classifier.module_.generator = torch_stream(record.seed, "shots")
        classifier.train_config_ = record.train
        classifier.train_size_, classifier.validation_size_ = record.train_size, record.validation_size
        classifier.best_epoch_ = record.best_epoch
        classifier.fit_settings_ = classifier._fit_settings(record.seed)
        if weight != "balanced":  # what was balanced then is not in the record
            classifier.class_weights_ = np.ones(len(record.classes)) if weight is None else np.array(weight)
        if record.feature_names is not None:
            classifier.feature_names_in_ = np.array(record.feature_names, dtype=object)
        return classifier

    def _facts(
        self, data: str | None, metrics: Mapping[str, float] | None, body: BodyMetadata | None
    ) -> dict[str, Any]:
        """The fields of a `ModelMetadata` that the head itself does not know."""
        check_saveable_labels(self.classes_, "classes_")
        fitted, names = self.fit_settings_, getattr(self, "feature_names_in_", None)
        return {
            "ketfit_version": ketfit.__version__,
            "train": self.train_config_,
            "seed": fitted.seed,
            "validation_fraction": fitted.validation_fraction,
            "class_weight": self.class_weights_.tolist()
            if isinstance(fitted.class_weight, Mapping)
            else fitted.class_weight,
            "classes": self.classes_.tolist(),
            "feature_names": None if names is None else [str(name) for name in names],
            "train_size": self.train_size_,
            "validation_size": self.validation_size_,
            "best_epoch": self.best_epoch_,
            "temperature": self.temperature_ if fitted.calibrate else None,
            "body": body,
            "data": data,
            "metrics": {} if metrics is None else {name: float(value) for name, value in metrics.items()},
        }
