"""The estimators that users meet: a quantum head on embeddings, and a body with a quantum head on raw sentences."""

from __future__ import annotations

import copy
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

import ketfit
from ketfit.errors import BodyError, ConfigError, DataError, InputError, ModelFileError
from ketfit.learn import hub
from ketfit.learn.body import Body, load_body
from ketfit.learn.data import duplicate_groups
from ketfit.learn.estimator import ClassWeight, ConfiguredEstimator, TorchHeadClassifier
from ketfit.learn.files import BodyRecord, ModelRecord, find_model, load_model, save_model
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.encoder import slice_widths
from ketfit.model.head import QuantumHead
from ketfit.seeds import torch_stream


class HubMixin:
    """An estimator that can be saved can be pushed to the Hugging Face Hub."""

    @abstractmethod
    def save_pretrained(
        self, folder: str | Path, *, data: str | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the model folder."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        data: str | None = None,
        metrics: Mapping[str, float] | None = None,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload a KetFit model",
    ) -> str:
        """Save the model and upload it as one commit of ``repo_id``, made if it does not exist.

        Args:
            repo_id: ``user/name``.
            data, metrics: As in `save_pretrained`.
            private: Whether a new repository is private.
            token: An access token; None takes the one that the Hub's own client knows.
            commit_message: Of the commit.

        Returns:
            The commit's hash, which `from_pretrained` takes as ``revision``.

        Raises:
            StorageError: the Hub did not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            self.save_pretrained(model, data=data, metrics=metrics)
            return hub.push(model, repo_id, private=private, token=token, commit_message=commit_message)


class QuantumHeadClassifier(HubMixin, TorchHeadClassifier):
    """A quantum head on embeddings, for a pipeline, a grid search, or the head of a SetFit model.

    Args:
        head: The head's shape; None is `HeadConfig.recommended` for the data at hand.
        train: How to train; None is `TrainConfig()`.
        seed: Source of all chance: the validation share, the initial parameters, the order of the batches.
        validation_fraction: Share of what `fit` gets that is kept to choose the best epoch on.
        class_weight: Weights by label, "balanced", or None.
        device: A torch device.

    Attributes after `fit`: those of `TorchHeadClassifier`, and ``head_config_``.
    """

    module_: QuantumHead

    def __init__(
        self,
        head: HeadConfig | None = None,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(train, seed, validation_fraction, class_weight, device)
        self.head = head

    def _build(self, embedding_dim: int, n_classes: int, generator: torch.Generator, dtype: torch.dtype) -> QuantumHead:
        config = self.head or HeadConfig.recommended(embedding_dim, n_classes)
        return QuantumHead(config, embedding_dim, n_classes, generator, dtype)

    def _check_embeddings(self, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        config = self.head or HeadConfig.recommended(x.shape[1])
        ends = np.cumsum(slice_widths(config, x.shape[1])) if config.encoder_input == "slices" else [x.shape[1]]
        for number, part in enumerate(np.split(x, ends[:-1], axis=1)):
            zero = rows[~part.any(axis=1)]
            if len(zero):
                what = f"slice {number} of embedding" if len(ends) > 1 else "embedding"
                raise InputError(f"{what} {zero[0]} is all zeros, which has no direction to load into amplitudes")

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
        measured.module_.generator = torch_stream(self.seed, "shots")
        measured.head = measured.module_.config
        return measured

    def save_pretrained(
        self, folder: str | Path, *, data: str | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the model folder: ``model.safetensors``, ``config.json`` and a model card.

        Args:
            folder: Where to. A model that stands there is replaced as a whole.
            data: The name of the training data, for the card.
            metrics: Measured figures by name, for the card.

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
        return cls._from_record(*load_model(find_model(name, revision)), device=device)

    @classmethod
    def _from_record(cls, head: QuantumHead, record: ModelRecord, device: str) -> Self:
        weight = record.class_weight
        classifier = cls(
            head=record.head,
            train=record.train,
            seed=record.seed,
            validation_fraction=record.validation_fraction,
            class_weight=dict(zip(record.classes, weight, strict=True)) if isinstance(weight, list) else weight,
            device=device,
        )
        classifier.classes_ = np.array(record.classes)
        classifier.n_features_in_ = record.embedding_dim
        classifier.module_ = head.to(device)
        classifier.module_.generator = torch_stream(record.seed, "shots")
        classifier.train_config_ = record.train
        classifier.train_size_, classifier.validation_size_ = record.train_size, record.validation_size
        classifier.best_epoch_ = record.best_epoch
        return classifier

    def _facts(self, data: str | None, metrics: Mapping[str, float] | None, body: BodyRecord | None) -> dict[str, Any]:
        """The fields of a `ModelRecord` that the head itself does not know."""
        if self.classes_.dtype.kind not in "iuU" and not all(isinstance(label, str) for label in self.classes_):
            raise DataError(f"only string and integer labels can be saved; these are {self.classes_.dtype}")
        classes = self.classes_.tolist()
        weight = self.class_weight
        return {
            "ketfit_version": ketfit.__version__,
            "train": self.train_config_,
            "seed": self.seed,
            "validation_fraction": float(self.validation_fraction),
            "class_weight": [float(weight.get(label, 1)) for label in classes]
            if isinstance(weight, Mapping)
            else weight,
            "classes": classes,
            "train_size": self.train_size_,
            "validation_size": self.validation_size_,
            "best_epoch": self.best_epoch_,
            "body": body,
            "data": data,
            "metrics": {} if metrics is None else {name: float(value) for name, value in metrics.items()},
        }


class TextClassifier(HubMixin, ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A frozen sentence transformer with a quantum head, on raw sentences.

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        head, train, seed, validation_fraction, class_weight, device: As in `QuantumHeadClassifier`.
        revision: Branch, tag or commit of a body on the Hub.
        cache: Whether embeddings are kept on disk, so that no sentence is embedded twice.

    Attributes after `fit`: ``classes_``, ``body_``, ``classifier_`` (the fitted `QuantumHeadClassifier`).
    """

    def __init__(
        self,
        body: str = "all-MiniLM-L6-v2",
        head: HeadConfig | None = None,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
        revision: str | None = None,
        cache: bool = True,
    ) -> None:
        self.body = body
        self.head = head
        self.train = train
        self.seed = seed
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.device = device
        self.revision = revision
        self.cache = cache

    def fit(
        self,
        texts: Sequence[str],
        labels: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        validation: tuple[Sequence[str], ArrayLike] | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Embed the sentences and train the head on them.

        Copies of one sentence never fall on both sides of the validation split.

        Args:
            texts: Sentences, none empty.
            labels: Strings or integers, as many.
            sample_weight, checkpoint, progress: As in `QuantumHeadClassifier.fit`.
            validation: Sentences and labels to validate on, in place of a share of `texts`.

        Raises:
            InputError: a sentence is empty or not a string.
            BodyError: the body cannot be had.
            DataError, ConfigError, ValueError: as in `QuantumHeadClassifier.fit`.
        """
        body = load_body(self.body, revision=self.revision, device=self.device)
        classifier = QuantumHeadClassifier(
            self.head, self.train, self.seed, self.validation_fraction, self.class_weight, self.device
        )
        embeddings = self._embed(body, texts, progress)
        held = None if validation is None else (self._embed(body, validation[0], progress), validation[1])
        self.classifier_ = classifier.fit(
            embeddings,
            labels,
            sample_weight,
            groups=duplicate_groups(texts),
            validation=held,
            checkpoint=checkpoint,
            progress=progress,
        )
        self.body_, self.classes_ = body, classifier.classes_
        return self

    def predict(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[Any]:
        """The most probable of `classes_` for each sentence, shape (n,)."""
        best = self.predict_proba(texts, progress=progress).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float64]:
        """Probability of each of `classes_`, shape (n, n_classes), rows that sum to one."""
        check_is_fitted(self, "classifier_")
        embeddings = self._embed(self.body_, texts, progress)
        if not len(embeddings):
            return np.zeros((0, len(self.classes_)))
        return self.classifier_.predict_proba(embeddings)

    def with_measurement(self, **settings: Any) -> Self:
        """A fitted copy whose QPU circuit runs under other shots and noise; see `QuantumHead.with_measurement`.

        Raises:
            ConfigError: a setting that is not about measurement, or does not fit.
        """
        check_is_fitted(self, "classifier_")
        measured = copy.copy(self)
        measured.classifier_ = self.classifier_.with_measurement(**settings)
        measured.head = measured.classifier_.head
        return measured

    def save_pretrained(
        self, folder: str | Path, *, data: str | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the model folder; the body is not in it but named and fingerprinted.

        Args and errors as in `QuantumHeadClassifier.save_pretrained`.
        """
        check_is_fitted(self, "classifier_")
        body = BodyRecord(
            name=self.body_.name,
            source=self.body_.source,
            revision=self.body_.revision,
            fingerprint=self.body_.fingerprint,
            dimension=self.body_.dimension,
        )
        save_model(folder, self.classifier_.module_, self.classifier_._facts(data, metrics, body))

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        body: str | None = None,
        device: str = "cpu",
        cache: bool = True,
    ) -> Self:
        """Load a model folder or a repository of the Hub, with the very body it was trained on.

        Args:
            name: A folder, or ``user/name`` on the Hub.
            revision: Branch, tag or commit of the model on the Hub.
            body: Where the body is now, if not where it was; it must be the same body.
            device: A torch device.
            cache: As in the constructor.

        Raises:
            ModelFileError: there is no such model, it is not as it was saved, or it has no body.
            BodyError: the body cannot be had, or is another one.
        """
        head, record = load_model(find_model(name, revision))
        if record.body is None:
            raise ModelFileError(f"{name} takes embeddings, not sentences; load it with QuantumHeadClassifier")
        body_revision = record.body.revision if body is None else None
        loaded = load_body(body or record.body.name, revision=body_revision, device=device)
        if loaded.fingerprint != record.body.fingerprint:
            raise BodyError(
                f"{name} was trained on {record.body.name!r} ({record.body.source}) with fingerprint "
                f"{record.body.fingerprint[:16]}..., and {loaded.name!r} here ({loaded.source}) has "
                f"{loaded.fingerprint[:16]}...; give it the same body"
            )
        return cls.from_parts(loaded, QuantumHeadClassifier._from_record(head, record, device), cache=cache)

    @classmethod
    def from_parts(cls, body: Body, classifier: QuantumHeadClassifier, *, cache: bool = True) -> Self:
        """A fitted classifier of sentences from a body and a head that was fitted on its embeddings.

        Raises:
            ConfigError: the head takes embeddings of another width.
        """
        if classifier.n_features_in_ != body.dimension:
            raise ConfigError(
                f"the head takes embeddings of width {classifier.n_features_in_}; {body.name!r} makes {body.dimension}"
            )
        text = cls(body=body.name, revision=body.revision, cache=cache, **classifier.get_params(deep=False))
        text.body_, text.classifier_, text.classes_ = body, classifier, classifier.classes_
        return text

    def _embed(self, body: Body, texts: Sequence[str], progress: bool) -> NDArray[np.float32]:
        return body.encode(texts, progress=progress, cache=self.cache)
