"""A body with a quantum head on raw sentences, as an estimator."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    NOTHING_TO_CALIBRATE_ON,
    UNKNOWN_TO_TRAINING,
    ClassWeight,
    ConfiguredEstimator,
    Origin,
    RandomState,
    class_numbers,
    warn_of_lookalikes,
)
from ketfit.estimators.end_to_end import tune_end_to_end
from ketfit.estimators.quantum import QuantumHeadClassifier, readout_advice
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.encoder import slice_widths
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, Precision, TuneConfig
from ketfit.persistence.hub import HubMixin
from ketfit.persistence.model_files import fetch_model, load_model, save_model
from ketfit.persistence.schema import BODY, BodyMetadata, TunedBodyMetadata
from ketfit.rng import chosen_seed
from ketfit.storage.cache_dir import is_folder

_ASK = "say where it is with body=... (--body for ketfit predict, evaluate, app and hardware plan)"


class TextClassifier(HubMixin, ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A sentence transformer with a quantum head, on raw sentences.

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        head, train, seed, validation_fraction, class_weight, device, calibrate, random_state: As in
            `QuantumHeadClassifier`.
        revision: Branch, tag or commit of a body on the Hub.
        cache: Whether embeddings are kept on disk, so that no sentence is embedded twice.
        tune: How the body is tuned: `ContrastiveConfig`, `EndToEndConfig`, or None to leave it frozen.
        dtype: What the body embeds with, see `load_body`.

    Attributes after `fit`: ``classes_``, ``body_`` (the tuned one), ``classifier_`` (the fitted
    `QuantumHeadClassifier`). After `from_pretrained` also ``commit_``, the commit of the Hub that model and record, and
    with them the body, were loaded from, or None for a folder.

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
        dtype: Precision = "float32",
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
        validation: tuple[Sequence[str], ArrayLike] | tuple[Sequence[str], ArrayLike, ArrayLike | None] | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Tune the body if it is to be tuned, embed the sentences, and train the head on them.

        Copies of one sentence never fall on both sides of the validation split, and the body is tuned on the training
        side alone. Rows of weight zero are left out first, as if they had not been given. All columns are sequences of
        any kind (lists, arrays, pandas, Arrow, `datasets`), and are taken by position.

        Args:
            texts: Sentences, none empty.
            labels: Strings or integers, as many.
            sample_weight: As in `QuantumHeadClassifier.fit`; contrastive tuning only knows whether it is zero.
            groups: Rows of one group stay on one side of the split, and so do groups that share a sentence.
            validation: Sentences, labels and, if there are any, weights to validate on, in place of a share of `texts`.
            checkpoint: A file written after every epoch; the same call resumes from it, also with an emptied cache. One
                of other sentences, labels, weights, settings or of another body is refused. The tuning of the body has
                one of its own beside it, with ``.tuning`` behind its name.
            progress: Show bars on stderr.

        Warns:
            ConfigWarning, DataWarning: as in `QuantumHeadClassifier.fit`.

        Raises:
            InputError: a sentence is empty or not a string, or a label, weight or group is missing.
            BodyError: the body cannot be had.
            InsufficientMemoryError: there is too little memory to tune the body.
            DataError, ConfigError, ValueError: as in `QuantumHeadClassifier.fit`; DataError also if validation leaves
                contrastive tuning one sentence of a label.
        """
        classifier = self._head()
        given = LabelledTexts.from_columns(texts, labels, sample_weight, groups)
        held = None if validation is None else LabelledTexts.from_validation(validation)
        check_saveable_labels(given.labels, rows=given.rows)
        classes, *_ = classifier._classes(given.labels)
        if held is not None:
            class_numbers(held.labels, classes, UNKNOWN_TO_TRAINING)
        warn_of_lookalikes(classes)
        body = load_body(self.body, revision=self.revision, device=self.device, dtype=self.dtype)
        if self.tune is not None:
            layers_to_tune(body.transformer, self.tune.last_layers, body.name)
        shape = self.head or HeadConfig.recommended(body.dimension, len(classes))
        slice_widths(shape, body.dimension)  # before a long tuning
        if advice := readout_advice(shape, body.dimension, len(classes)):
            warnings.warn(advice, ConfigWarning, stacklevel=2)
        shown: dict[str, Any] = {"progress": progress}
        tuning = {**shown, "checkpoint": None if checkpoint is None else Path(f"{checkpoint}.tuning")}
        if self.tune is not None and held is None:
            everything = given
            given, held = given.hold_out(self.validation_fraction, classifier.seed)
            if self.calibrate and held is None:
                raise ConfigError(NOTHING_TO_CALIBRATE_ON)
            if isinstance(self.tune, ContrastiveConfig):
                check_pairs(everything.labels, given.labels)
        if isinstance(self.tune, ContrastiveConfig):
            from ketfit.bodies.contrastive import tune_body  # the trainer takes seconds to import

            body = tune_body(body, given.texts, given.labels, self.tune, seed=classifier.seed, **tuning)
        embeddings = self._embed(body, given.texts, progress)
        validating = None if held is None else (self._embed(body, held.texts, progress), held.labels, held.weight)
        split = split_groups(given.texts, given.groups) if held is None else None
        origin = _origin(body, given.texts, None if held is None else held.texts)
        classifier.calibrate = self.calibrate and not isinstance(
            self.tune, EndToEndConfig
        )  # which calibrates afterwards
        data = (embeddings, given.labels, given.weight, split, validating)
        classifier._fit(*data, checkpoint, progress, origin, advise=False)
        if isinstance(self.tune, EndToEndConfig):
            classifier.calibrate = self.calibrate
            validation = None if held is None else held.as_validation()
            body, classifier = tune_end_to_end(
                body,
                classifier,
                given.texts,
                given.labels,
                self.tune,
                validation=validation,
                sample_weight=given.weight,
                **tuning,
            )
        self.body_, self.classifier_, self.classes_ = body, classifier, classifier.classes_
        return self

    def _head(self) -> QuantumHeadClassifier:
        """The head that is to be fitted, its settings checked."""
        if not (self.tune is None or isinstance(self.tune, ContrastiveConfig | EndToEndConfig)):
            raise ConfigError(f"tune={self.tune!r}: pass a ContrastiveConfig, a EndToEndConfig, or None")
        settings = {name: getattr(self, name) for name in QuantumHeadClassifier._get_param_names()}
        classifier = QuantumHeadClassifier(**settings)
        classifier._check_settings()
        # Asked once: a RandomState gives another seed each time.
        return classifier.set_params(seed=chosen_seed(self.random_state, self.seed), random_state=None)

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

    def match_labels(self, data: Dataset) -> Dataset:
        """Return a data set with its labels in the type of ``classes_``; see `Dataset.with_labels_of`.

        Raises:
            DataError: training did not see one of the labels; the message names the first such row.
        """
        check_is_fitted(self, "classifier_")
        return data.with_labels_of(self.classes_.tolist())

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
        self,
        folder: str | Path,
        *,
        data: str | None = None,
        metrics: Mapping[str, float] | None = None,
        with_body: bool = False,
    ) -> None:
        """Write the model folder. A frozen body is named and fingerprinted in it; a tuned one stands in it whole.

        Args:
            folder, data, metrics: As in `QuantumHeadClassifier.save_pretrained`, and so are the errors.
            with_body: Put a frozen body into the folder too, which can then move to a machine that lacks it.

        Raises:
            BodyError: the files of a body that goes into the folder were removed or changed since it was loaded.
        """
        check_is_fitted(self, "classifier_")
        body, tuning = self.body_, self.body_.tuning
        record = BodyMetadata(
            # What goes elsewhere with its body has no use for a path of this machine.
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
        carried = body.folder if with_body or tuning is not None else None
        if carried is not None:
            check_body_files(body)
        facts = self.classifier_._facts(data, metrics, record)
        save_model(folder, self.classifier_.module_, facts, carried)

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
        found = fetch_model(name, revision)
        head, record = load_model(found.folder)
        if record.body is None:
            raise ModelFileError(f"{name} takes embeddings, not sentences; load it with QuantumHeadClassifier")
        loaded = _recorded_body(record.body, found.folder, body, device)
        text = cls.from_parts(loaded, QuantumHeadClassifier._from_record(head, record, device), cache=cache)
        text.commit_ = text.classifier_.commit_ = found.commit
        return text

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


def check_pairs(given: NDArray[Any], training: NDArray[Any]) -> None:
    """Refuse labels of which validation has left contrastive tuning one sentence, and so no pair.

    Args:
        given: The labels of all sentences that count.
        training: Those of the ones that tune.

    Raises:
        DataError: with the first such label.
    """
    names, counts = np.unique(training, return_counts=True)
    for name in names[counts == 1].tolist():
        size = int((given == name).sum())
        if size > 1:
            raise DataError(
                f"validation took {size - 1} of the {size} sentences of label {name!r}, and contrastive tuning "
                "pairs two of one label; use validation_fraction=0, or more sentences of that label"
            )


def _origin(body: Body, texts: Sequence[str], validation: Sequence[str] | None) -> Origin:
    """Return the identity of the body and of each sentence, for the checkpoint."""

    def hashes(sentences: Sequence[str]) -> NDArray[np.str_]:
        return np.array([hashlib.sha256(text.encode()).hexdigest() for text in sentences], dtype=np.str_)

    held = None if validation is None else hashes(validation)
    return Origin(f"{body.fingerprint} {body.dtype}", hashes(texts), held)


def _recorded_body(record: BodyMetadata, model: Path, moved: str | None, device: str) -> Body:
    """The body that a record names, from the model's own folder if it stands there, if it is that very one."""
    tuned, carried = record.tuned, moved is None and (model / BODY).is_dir()
    wanted = record.fingerprint if tuned is None else tuned.fingerprint
    if tuned is not None and moved is None and not carried:
        raise BodyError(f"{model} lacks {BODY}, the folder of its tuned body; {_ASK}")
    place = moved or (str(model / BODY) if carried else record.name)
    if record.source == "local" and moved is None and not is_folder(place):
        raise BodyError(f"{model} was trained on the body in the folder {place}, which is not there; {_ASK}")
    files = find_files(place, record.revision if moved is None and not carried else None)
    if files.fingerprint != wanted:  # asked before any of the files is parsed
        raise BodyError(
            f"{model} was trained on {record.name!r} ({'tuned' if tuned else record.source}) with fingerprint "
            f"{wanted[:16]}..., and {place!r} here ({files.location.source}) has {files.fingerprint[:16]}...; "
            f"give it the same body: {_ASK}"
        )
    body = load_files(files, device=device, dtype=record.dtype)
    if tuned is None and (record.source == "local" or not carried):
        return body
    tuning = None if tuned is None else Tuning(tuned.settings, tuned.seed, record.fingerprint)
    return replace(body, name=record.name, revision=record.revision, source=record.source, tuning=tuning)
