"""A sentence transformer with a quantum head as a scikit-learn estimator on sentences."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from ketfit.bodies.body import Body, Tuning, load_body, load_files
from ketfit.bodies.finetuned import check_body_files, layers_to_tune
from ketfit.bodies.sources import find_files
from ketfit.data.dataset import Dataset
from ketfit.data.labelled import LabelledTexts
from ketfit.data.sequences import check_saveable_labels
from ketfit.data.splits import split_groups
from ketfit.errors import BodyError, ConfigError, ConfigWarning, DataError, ModelFileError
from ketfit.estimators.base import (
    NO_CALIBRATION_SAMPLES,
    UNKNOWN_VALIDATION_LABEL,
    ClassWeight,
    ConfiguredEstimator,
    EmbeddingSource,
    FitData,
    RandomState,
    class_indices,
    warn_similar_labels,
)
from ketfit.estimators.end_to_end import SentenceValidation, check_embedding_width, tune_end_to_end
from ketfit.estimators.quantum import QuantumHeadClassifier, readout_warning
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EmbeddingPrecision, EndToEndConfig, TuneConfig
from ketfit.persistence.hub import HubMixin
from ketfit.persistence.model_files import fetch_model, load_model, save_model
from ketfit.persistence.schema import BODY, BodyMetadata, TunedBodyMetadata
from ketfit.rng import chosen_seed
from ketfit.storage.cache_dir import is_folder
from ketfit.training.callbacks import Callback, observe_fit

_BODY_HINT = "say where it is with body=... (--body for ketfit predict, evaluate, app and hardware plan)"


class TextClassifier(HubMixin, ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A sentence transformer with a quantum head, on raw sentences.

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        head, train, seed, validation_fraction, class_weight, device, calibrate, random_state: As in
            `QuantumHeadClassifier`.
        revision: Branch, tag or commit of a body on the Hub.
        cache: Cache embeddings on disk, so that no sentence is embedded twice.
        tune: `ContrastiveConfig` or `EndToEndConfig` to tune the body, or None to leave it frozen.
        dtype: Precision of the body's arithmetic, see `load_body`.

    Attributes after `fit`: ``classes_``, ``body_`` (after tuning), ``classifier_`` (the fitted
    `QuantumHeadClassifier`). After `from_pretrained` also ``commit_``, the commit of the Hub that the model was loaded
    from, or None for a folder.

    It can be copied, pickled and dumped with joblib: a pickle names a frozen body and holds the files of a tuned one,
    see `Body`.
    """

    commit_: str | None

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
        tune: TuneConfig | None = None,
        dtype: EmbeddingPrecision = "float32",
        calibrate: bool = False,
        random_state: RandomState = None,
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
        self.tune = tune
        self.dtype = dtype
        self.calibrate = calibrate
        self.random_state = random_state

    def fit(
        self,
        texts: Sequence[str],
        labels: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        validation: SentenceValidation | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> Self:
        """Tune the body if `tune` is set, embed the sentences, and train the head on the embeddings.

        Copies of one sentence stay on one side of the validation split, and only the training side tunes the body.
        Rows of weight zero are removed first. All columns are sequences of any kind (lists, arrays, pandas, Arrow,
        `datasets`), and are taken by position.

        Args:
            texts: Sentences, none empty.
            labels: Strings or integers, one per sentence.
            sample_weight: As in `QuantumHeadClassifier.fit`; contrastive tuning only uses whether a weight is zero.
            groups: Rows of one group stay on one side of the split, and so do groups that share a sentence.
            validation: Sentences, labels and, optionally, weights to validate on, in place of a share of `texts`.
            checkpoint: A file written after every epoch; the same call resumes from it, also with an emptied cache. A
                checkpoint of other sentences, labels, weights, settings or of another body is refused. The tuning of
                the body writes a second checkpoint beside it, with ``.tuning`` appended to the name.
            progress: Show bars on stderr.
            callbacks: Observers of every epoch of the head and of end-to-end training, such as a
                `TensorBoardCallback`; see `Callback`.

        Warns:
            ConfigWarning, DataWarning: As in `QuantumHeadClassifier.fit`.

        Raises:
            InputError: A sentence is empty or not a string, or a label, weight or group is missing.
            BodyError: The body cannot be loaded.
            InsufficientMemoryError: There is too little memory to tune the body.
            DataError, ConfigError, ValueError: As in `QuantumHeadClassifier.fit`; DataError also if validation leaves
                contrastive tuning one sentence of a label.
        """
        classifier = self._new_classifier()
        data = LabelledTexts.from_columns(texts, labels, sample_weight, groups)
        held_out = None if validation is None else LabelledTexts.from_validation(validation)
        body = self._load_body(self._check_labels(classifier, data, held_out))
        if self.tune is not None and held_out is None:
            data, held_out = self._hold_out(data, classifier.seed)
        file = None if checkpoint is None else Path(f"{checkpoint}.tuning")
        tuning: dict[str, Any] = {"checkpoint": file, "progress": progress}
        with observe_fit(callbacks, self._plain_settings()) as report:
            if isinstance(self.tune, ContrastiveConfig):
                from ketfit.bodies.contrastive import tune_body  # the trainer takes seconds to import

                body = tune_body(body, data.texts, data.labels, self.tune, seed=classifier.seed, **tuning)
            # End-to-end training calibrates at its end.
            classifier.calibrate = self.calibrate and not isinstance(self.tune, EndToEndConfig)
            fit_data = self._fit_data(body, data, held_out, progress)
            classifier._fit(fit_data, checkpoint, progress, warn=False, on_epoch_end=partial(report, "head"))
            if isinstance(self.tune, EndToEndConfig):
                classifier.calibrate = self.calibrate
                tuning["validation"] = None if held_out is None else held_out.as_validation()
                tuning["sample_weight"] = data.weight
                tuning["on_epoch_end"] = partial(report, "end-to-end")
                body, classifier = tune_end_to_end(body, classifier, data.texts, data.labels, self.tune, **tuning)
        self.body_, self.classifier_, self.classes_ = body, classifier, classifier.classes_
        return self

    def _new_classifier(self) -> QuantumHeadClassifier:
        """Return the head to fit, after a check of its settings."""
        if not (self.tune is None or isinstance(self.tune, ContrastiveConfig | EndToEndConfig)):
            raise ConfigError(
                f"tune={self.tune!r} is of the wrong type; pass a ContrastiveConfig, an EndToEndConfig, or None"
            )
        settings = {name: getattr(self, name) for name in QuantumHeadClassifier._get_param_names()}
        classifier = QuantumHeadClassifier(**settings)
        classifier._check_settings()
        # Evaluated once: a RandomState gives another seed each time.
        return classifier.set_params(seed=chosen_seed(self.random_state, self.seed), random_state=None)

    def _check_labels(
        self, classifier: QuantumHeadClassifier, data: LabelledTexts, held_out: LabelledTexts | None
    ) -> int:
        """Check the labels before the body is loaded, and return the number of classes."""
        check_saveable_labels(data.labels, rows=data.rows)
        classes, *_ = classifier._encode_labels(data.labels)
        if held_out is not None:
            class_indices(held_out.labels, classes, UNKNOWN_VALIDATION_LABEL)
        warn_similar_labels(classes)
        return len(classes)

    def _load_body(self, n_classes: int) -> Body:
        """Load the body, and check that it fits the head before a long tuning."""
        body = load_body(self.body, revision=self.revision, device=self.device, dtype=self.dtype)
        if self.tune is not None:
            layers_to_tune(body.transformer, self.tune.last_layers, body.name)
        head = self.head or HeadConfig.recommended(body.dimension, n_classes)
        head.slice_widths(body.dimension)
        if message := readout_warning(head, body.dimension, n_classes):
            warnings.warn(message, ConfigWarning, stacklevel=3)
        return body

    def _hold_out(self, data: LabelledTexts, seed: int) -> tuple[LabelledTexts, LabelledTexts | None]:
        """Return the training side and the validation side of a split before the tuning."""
        train, held_out = data.hold_out(self.validation_fraction, seed)
        if self.calibrate and held_out is None:
            raise ConfigError(NO_CALIBRATION_SAMPLES)
        if isinstance(self.tune, ContrastiveConfig):
            check_pairs(data.labels, train.labels)
        return train, held_out

    def _fit_data(self, body: Body, data: LabelledTexts, held_out: LabelledTexts | None, progress: bool) -> FitData:
        """Return the embeddings to fit the head on, with the identity of the body and of each sentence."""
        embeddings = self._embed(body, data.texts, progress)
        identity = f"{body.fingerprint} {body.dtype}"
        if held_out is None:
            groups = split_groups(data.texts, data.groups)
            source = EmbeddingSource(identity, _hash_sentences(data.texts), None)
            return FitData(embeddings, data.labels, data.weight, groups, source=source)
        validation = self._embed(body, held_out.texts, progress), held_out.labels, held_out.weight
        source = EmbeddingSource(identity, _hash_sentences(data.texts), _hash_sentences(held_out.texts))
        return FitData(embeddings, data.labels, data.weight, validation=validation, source=source)

    def predict(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[Any]:
        """Return the most probable of `classes_` for each sentence, shape (n,)."""
        best = self.predict_proba(texts, progress=progress).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float64]:
        """Return the probability of each of `classes_`, shape (n, n_classes); each row sums to one.

        Args:
            texts: Sentences, none empty.
            progress: Show a bar on stderr.

        Raises:
            InputError: A sentence is empty or not a string.
        """
        check_is_fitted(self, "classifier_")
        embeddings = self._embed(self.body_, texts, progress)
        if not len(embeddings):
            return np.zeros((0, len(self.classes_)))
        return self.classifier_.predict_proba(embeddings)

    def match_labels(self, data: Dataset) -> Dataset:
        """Return a data set with its labels in the type of ``classes_``; see `Dataset.with_labels_of`.

        Raises:
            DataError: A label is not among ``classes_``; the message names the first such row.
        """
        check_is_fitted(self, "classifier_")
        return data.with_labels_of(self.classes_.tolist())

    def with_measurement(self, **settings: Any) -> Self:
        """Return a fitted copy with other shots and noise; see `QuantumHeadClassifier.with_measurement`."""
        check_is_fitted(self, "classifier_")
        measured = copy.copy(self)
        measured.classifier_ = self.classifier_.with_measurement(**settings)
        measured.head = measured.classifier_.head
        return measured

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        data: str | None = None,
        metrics: Mapping[str, float] | None = None,
        with_body: bool = False,
    ) -> None:
        """Write the model folder. It contains the files of a tuned body, and the name and fingerprint of a frozen one.

        Args:
            folder: The folder to write. A model in it is replaced as a whole.
            data: The name of the training data, for the card.
            metrics: Measured values by name, for the card; see `QuantumHeadClassifier.save_pretrained`.
            with_body: Copy a frozen body into the folder too, for a machine that does not have it.

        Raises:
            StorageError, DataError: As in `QuantumHeadClassifier.save_pretrained`.
            BodyError: Files of the body to copy were removed or changed since it was loaded.
        """
        check_is_fitted(self, "classifier_")
        body, tuning = self.body_, self.body_.tuning
        metadata = BodyMetadata(
            # A model that is moved with its body needs no path of this machine.
            name=Path(body.name).name if with_body and body.source == "local" else body.name,
            source=body.source,
            revision=body.revision,
            fingerprint=body.fingerprint if tuning is None else tuning.base_fingerprint,
            dimension=body.dimension,
            dtype=body.dtype,
            tuned=None
            if tuning is None
            else TunedBodyMetadata(fingerprint=body.fingerprint, settings=tuning.settings, seed=tuning.seed),
        )
        body_folder = body.folder if with_body or tuning is not None else None
        if body_folder is not None:
            check_body_files(body)
        save_model(folder, self.classifier_.module_, self.classifier_._metadata(data, metrics, metadata), body_folder)

    def _save_for_hub(self, folder: Path, data: str | None, metrics: Mapping[str, float] | None) -> None:
        self.save_pretrained(folder, data=data, metrics=metrics, with_body=self.body_.source == "local")

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
        """Load a model folder or a repository of the Hub, with the body it was trained on.

        Args:
            name: A folder, or ``user/name`` on the Hub.
            revision: Branch, tag or commit of the model on the Hub.
            body: Folder or name of the same body, if it has moved since the training.
            device: A torch device.
            cache: As in the constructor.

        Raises:
            ModelFileError: There is no such model, it was changed since it was saved, or it has no body.
            BodyError: The body cannot be loaded, or has another fingerprint.
        """
        snapshot = fetch_model(name, revision)
        head, metadata = load_model(snapshot.folder)
        if metadata.body is None:
            raise ModelFileError(f"{name} takes embeddings, not sentences; load it with QuantumHeadClassifier")
        loaded = _load_saved_body(metadata.body, snapshot.folder, body, device)
        classifier = cls.from_parts(loaded, QuantumHeadClassifier._from_metadata(head, metadata, device), cache=cache)
        classifier.commit_ = classifier.classifier_.commit_ = snapshot.commit
        return classifier

    @classmethod
    def from_parts(cls, body: Body, classifier: QuantumHeadClassifier, *, cache: bool = True) -> Self:
        """Return a fitted classifier of sentences from a body and a head that was fitted on its embeddings.

        Args:
            body: The body.
            classifier: The head.
            cache: As in the constructor.

        Raises:
            ConfigError: The head takes embeddings of another width.
        """
        check_embedding_width(classifier, body)
        text = cls(
            body=body.name,
            revision=body.revision,
            cache=cache,
            tune=None if body.tuning is None else body.tuning.settings,
            dtype=body.dtype,
            **classifier.get_params(deep=False),
        )
        text.body_, text.classifier_, text.classes_ = body, classifier, classifier.classes_
        return text

    def _embed(self, body: Body, texts: Sequence[str], progress: bool) -> NDArray[np.float32]:
        return body.encode(texts, progress=progress, cache=self.cache)


def check_pairs(labels: NDArray[Any], training: NDArray[Any]) -> None:
    """Refuse a split that leaves contrastive tuning one sentence of a label, which makes no pair.

    Args:
        labels: The labels of all sentences of positive weight, before the split.
        training: The labels of the training side.

    Raises:
        DataError: The message names the first such label.
    """
    names, counts = np.unique(training, return_counts=True)
    for name in names[counts == 1].tolist():
        size = int((labels == name).sum())
        if size > 1:
            raise DataError(
                f"validation took {size - 1} of the {size} sentences of label {name!r}, and contrastive tuning "
                "pairs two of one label; use validation_fraction=0, or more sentences of that label"
            )


def _hash_sentences(texts: Sequence[str]) -> NDArray[np.str_]:
    return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=np.str_)


def _load_saved_body(metadata: BodyMetadata, model: Path, moved: str | None, device: str) -> Body:
    """Load the body of a saved model, from the model's own folder if it is there, after a check of its fingerprint."""
    tuned, in_folder = metadata.tuned, moved is None and (model / BODY).is_dir()
    expected = metadata.fingerprint if tuned is None else tuned.fingerprint
    if tuned is not None and moved is None and not in_folder:
        raise BodyError(f"{model} lacks {BODY}, the folder of its tuned body; {_BODY_HINT}")
    path = moved or (str(model / BODY) if in_folder else metadata.name)
    if metadata.source == "local" and moved is None and not is_folder(path):
        raise BodyError(f"{model} was trained on the body in the folder {path}, which is not there; {_BODY_HINT}")
    files = find_files(path, metadata.revision if moved is None and not in_folder else None)
    if files.fingerprint != expected:  # checked before any of the files is parsed
        raise BodyError(
            f"{model} was trained on {metadata.name!r} ({'tuned' if tuned else metadata.source}) with fingerprint "
            f"{expected[:16]}..., and {path!r} here ({files.location.source}) has {files.fingerprint[:16]}...; "
            f"give it the same body: {_BODY_HINT}"
        )
    body = load_files(files, device=device, dtype=metadata.dtype)
    if tuned is None and (metadata.source == "local" or not in_folder):
        return body
    tuning = None if tuned is None else Tuning(tuned.settings, tuned.seed, metadata.fingerprint)
    return replace(body, name=metadata.name, revision=metadata.revision, source=metadata.source, tuning=tuning)
