"""A body with a quantum head on raw sentences, as an estimator."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from ketfit.errors import BodyError, ConfigError, DataError, InputError, ModelFileError
from ketfit.learn.body import Body, Tuning, checked_texts, load_body, load_files
from ketfit.learn.body_sources import find_files
from ketfit.learn.cache import is_folder
from ketfit.learn.classifier import QuantumHeadClassifier
from ketfit.learn.data import duplicate_groups, holdout_split
from ketfit.learn.end_to_end import tune_fully
from ketfit.learn.estimator import ClassWeight, ConfiguredEstimator, Origin, RandomState
from ketfit.learn.files import fetch_model, load_model, save_model
from ketfit.learn.hub import HubMixin
from ketfit.learn.record import BODY, BodyRecord, TunedRecord
from ketfit.learn.tuned import check_files
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.encoder import slice_widths
from ketfit.model.tuning import ContrastiveConfig, FullConfig, Precision, TuneConfig
from ketfit.seeds import chosen_seed

_ASK = "say where it is with body=... (--body for ketfit predict, evaluate, app and hardware plan)"


class TextClassifier(HubMixin, ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A sentence transformer with a quantum head, on raw sentences.

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        head, train, seed, validation_fraction, class_weight, device, calibrate, random_state: As in
            `QuantumHeadClassifier`.
        revision: Branch, tag or commit of a body on the Hub.
        cache: Whether embeddings are kept on disk, so that no sentence is embedded twice.
        tune: How the body is tuned: `ContrastiveConfig`, `FullConfig`, or None to leave it frozen.
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
        validation: tuple[Sequence[str], ArrayLike] | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Tune the body if it is to be tuned, embed the sentences, and train the head on them.

        Copies of one sentence never fall on both sides of the validation split, and the body is tuned on the training
        side alone.

        Args:
            texts: Sentences, none empty.
            labels: Strings or integers, as many.
            sample_weight: As in `QuantumHeadClassifier.fit`; contrastive tuning only knows whether it is zero.
            validation: Sentences and labels to validate on, in place of a share of `texts`.
            checkpoint: A file written after every epoch; the same call resumes from it, also with an emptied cache. One
                of other sentences, labels, weights, settings or of another body is refused. The tuning of the body has
                one of its own beside it, with ``.tuning`` behind its name.
            progress: Show bars on stderr.

        Raises:
            InputError: a sentence is empty or not a string.
            BodyError: the body cannot be had.
            InsufficientMemoryError: there is too little memory to tune the body.
            DataError, ConfigError, ValueError: as in `QuantumHeadClassifier.fit`; DataError also if validation leaves
                contrastive tuning one sentence of a label.
        """
        classifier = self._head()
        body = load_body(self.body, revision=self.revision, device=self.device, dtype=self.dtype)
        slice_widths(self.head or HeadConfig.recommended(body.dimension), body.dimension)  # before a long tuning
        shown: dict[str, Any] = {"progress": progress}
        tuning = {**shown, "checkpoint": None if checkpoint is None else Path(f"{checkpoint}.tuning")}
        if self.tune is not None and validation is None:
            given = texts, labels, sample_weight
            texts, labels, sample_weight, validation = self._hold_out(*given, classifier.seed)
            if isinstance(self.tune, ContrastiveConfig):
                check_pairs(_counting(*given)[1], _counting(texts, labels, sample_weight)[1])
        if isinstance(self.tune, ContrastiveConfig):
            from ketfit.learn.contrastive import tune_body  # the trainer takes seconds to import

            body = tune_body(body, *_counting(texts, labels, sample_weight), self.tune, seed=classifier.seed, **tuning)
        embeddings = self._embed(body, texts, progress)
        held = None if validation is None else (self._embed(body, validation[0], progress), validation[1])
        origin = _origin(body, texts, None if validation is None else validation[0])
        groups = duplicate_groups(texts)
        classifier._fit(embeddings, labels, sample_weight, groups, held, checkpoint, progress, origin)
        if isinstance(self.tune, FullConfig):
            body, classifier = tune_fully(
                body, classifier, texts, labels, self.tune, validation=validation, sample_weight=sample_weight, **tuning
            )
        self.body_, self.classifier_, self.classes_ = body, classifier, classifier.classes_
        return self

    def _head(self) -> QuantumHeadClassifier:
        """The head that is to be fitted, its settings checked."""
        if not (self.tune is None or isinstance(self.tune, ContrastiveConfig | FullConfig)):
            raise ConfigError(f"tune={self.tune!r}: pass a ContrastiveConfig, a FullConfig, or None")
        settings = {name: getattr(self, name) for name in QuantumHeadClassifier._get_param_names()}
        classifier = QuantumHeadClassifier(**settings)
        classifier._check_settings()
        # Asked once: a RandomState gives another seed each time.
        return classifier.set_params(seed=chosen_seed(self.random_state, self.seed), random_state=None)

    def _hold_out(
        self, texts: Sequence[str], labels: ArrayLike, sample_weight: ArrayLike | None, seed: int
    ) -> tuple[list[str], NDArray[Any], NDArray[Any] | None, tuple[list[str], NDArray[Any]] | None]:
        """The training side with its weights, and the validation side if there is one, as the head's own split."""
        sentences, column = checked_texts(texts), np.asarray(labels)
        if column.shape != (len(sentences),):
            raise InputError(f"labels have shape {column.shape}; there are {len(sentences)} sentences")
        weight = None if sample_weight is None else np.asarray(sample_weight)
        codes = np.unique(column, return_inverse=True)[1]
        kept, held = holdout_split(codes, self.validation_fraction, seed, duplicate_groups(sentences))
        parts = [([sentences[row] for row in rows], column[rows]) for rows in (kept, held)]
        return *parts[0], None if weight is None else weight[kept], parts[1] if len(held) else None

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

    def check_labels(self, labels: Sequence[Any], where: str) -> None:
        """Refuse labels that training did not see.

        Raises:
            DataError: with the first of them; `where` says what holds it.
        """
        check_is_fitted(self, "classifier_")
        known = self.classes_.tolist()
        strange = [label for label in labels if label not in known]
        if strange:
            raise DataError(f"{where} holds the label {strange[0]!r}; the model knows {', '.join(map(repr, known))}")

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
        record = BodyRecord(
            # What goes elsewhere with its body has no use for a path of this machine.
            name=Path(body.name).name if with_body and body.source == "local" else body.name,
            source=body.source,
            revision=body.revision,
            fingerprint=body.fingerprint if tuning is None else tuning.base_fingerprint,
            dimension=body.dimension,
            dtype=body.dtype,
            tuned=None
            if tuning is None
            else TunedRecord(fingerprint=body.fingerprint, settings=tuning.settings, seed=tuning.seed),
        )
        carried = body.folder if with_body or tuning is not None else None
        if carried is not None:
            check_files(body)
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


def _counting(
    texts: Sequence[str], labels: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[Sequence[str], ArrayLike]:
    """The sentences and labels whose weight is not zero."""
    if sample_weight is None:
        return texts, labels
    counts = np.flatnonzero(np.asarray(sample_weight) > 0)
    return [texts[int(row)] for row in counts], np.asarray(labels)[counts]


def check_pairs(given: ArrayLike, training: ArrayLike) -> None:
    """Refuse labels of which validation has left contrastive tuning one sentence, and so no pair.

    Args:
        given: The labels of all sentences that count.
        training: Those of the ones that tune.

    Raises:
        DataError: with the first such label.
    """
    names, counts = np.unique(np.asarray(training), return_counts=True)
    for name in names[counts == 1]:
        size = int((np.asarray(given) == name).sum())
        if size > 1:
            raise DataError(
                f"validation took {size - 1} of the {size} sentences of label {name.item()!r}, and contrastive tuning "
                "pairs two of one label; use validation_fraction=0, or more sentences of that label"
            )


def _origin(body: Body, texts: Sequence[str], validation: Sequence[str] | None) -> Origin:
    """Return the identity of the body and of each sentence, for the checkpoint."""

    def hashes(sentences: Sequence[str]) -> NDArray[np.str_]:
        return np.array([hashlib.sha256(text.encode()).hexdigest() for text in checked_texts(sentences)], dtype=np.str_)

    held = None if validation is None else hashes(validation)
    return Origin(f"{body.fingerprint} {body.dtype}", hashes(texts), held)


def _recorded_body(record: BodyRecord, model: Path, moved: str | None, device: str) -> Body:
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
            f"{wanted[:16]}..., and {place!r} here ({files.found.source}) has {files.fingerprint[:16]}...; "
            f"give it the same body: {_ASK}"
        )
    body = load_files(files, device=device, dtype=record.dtype)
    if tuned is None and (record.source == "local" or not carried):
        return body
    tuning = None if tuned is None else Tuning(tuned.settings, tuned.seed, record.fingerprint)
    return replace(body, name=record.name, revision=record.revision, source=record.source, tuning=tuning)
