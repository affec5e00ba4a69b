"""A quantum head on embeddings as a scikit-learn estimator."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn
from typing_extensions import Self

from ketfit.errors import ConfigError, InputError
from ketfit.estimators.base import RandomState, ValidationMethod, capacity_warning
from ketfit.estimators.class_weights import ClassWeight
from ketfit.estimators.pretrained import PretrainedTorchHead
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.persistence.model_files import SavedHead, build_head
from ketfit.persistence.schema import ModelMetadata
from ketfit.rng import torch_stream


def readout_warning(config: HeadConfig, embedding_dim: int, n_classes: int) -> str:
    """Return a warning if a quantum head has too few readouts for so many classes, else ""; see `capacity_warning`."""
    n_measured = min(n_classes, config.qpu_qubits)
    fix = f"set n_measured={n_measured}" + ("" if config.skip_connection else " and skip_connection=True")
    return capacity_warning(
        config.n_readouts, n_classes, f"{fix}, or use HeadConfig.recommended({embedding_dim}, n_classes={n_classes})"
    )


class QuantumHeadClassifier(PretrainedTorchHead):
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
        validation: "holdout" chooses the best epoch on the share `validation_fraction`. "cross" chooses it by
            cross-validation and then trains on all samples; the temperature is that of the logits of the folds.
        n_folds: Number of folds of the cross-validation.

    Attributes after `fit`: those of `TorchHeadClassifier`, and ``head_config_``. After `from_pretrained` also
    ``commit_``, the commit of the Hub that the model was loaded from, or None for a folder.

    >>> classifier = QuantumHeadClassifier(train=TrainConfig(epochs=2))
    >>> classifier.fit([[0.1, 0.9], [0.9, 0.1]] * 5, ["dog", "cat"] * 5).predict_proba([[0.2, 0.8]]).shape
    (1, 2)
    """

    kind = "quantum"
    module_: QuantumHead

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
        validation: ValidationMethod = "holdout",
        n_folds: int = 5,
    ) -> None:
        super().__init__(
            train, seed, validation_fraction, class_weight, device, calibrate, random_state, validation, n_folds
        )
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

    def to_saved(self) -> SavedHead:
        """Return the fitted head as settings and tensors."""
        check_is_fitted(self, "module_")
        return SavedHead.from_module(self.module_)

    @classmethod
    def from_saved(cls, saved: SavedHead, metadata: ModelMetadata, device: str = "cpu") -> Self:
        """Return the fitted head of a saved model on a torch device."""
        head = build_head(saved, len(metadata.classes))
        classifier = cls._restored(metadata, head, device, head=head.config)
        classifier.module_.generator = torch_stream(classifier.seed_, "shots")
        return classifier


def require_quantum_head(classifier: object, purpose: str) -> QuantumHeadClassifier:
    """Return a classifier that is a quantum head.

    Args:
        classifier: A fitted head.
        purpose: What the circuit is needed for, such as "run on hardware".

    Raises:
        ConfigError: The head is classical.
    """
    if isinstance(classifier, QuantumHeadClassifier):
        return classifier
    raise ConfigError(
        f"{type(classifier).__name__} is a classical head and has no circuit to {purpose}; use a quantum head"
    )
