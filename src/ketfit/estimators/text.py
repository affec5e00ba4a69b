"""A sentence transformer with a head as a scikit-learn estimator on sentences."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from ketfit.bodies.body import Body, Tuning, load_body, load_files
from ketfit.bodies.finetuned import check_body_files, layers_to_tune
from ketfit.bodies.sources import find_files
from ketfit.data.dataset import Dataset
from ketfit.data.labelled import LabelledTexts, SentenceValidation
from ketfit.data.sequences import check_saveable_labels
from ketfit.errors import BodyError, ConfigError, ConfigWarning, DataError, ModelFileError
from ketfit.estimators.base import (
    HOLDOUT_BESIDE_CROSS,
    NO_CALIBRATION_SAMPLES,
    UNKNOWN_VALIDATION_LABEL,
    FitSettings,
    RandomState,
    TorchHeadClassifier,
    ValidationMethod,
    class_indices,
    encode_labels,
    warn_similar_labels,
)
from ketfit.estimators.choice import choose_head, simplest_kinds
from ketfit.estimators.class_weights import ClassWeight
from ketfit.estimators.classical import LogisticRegressionHead, SVCHead
from ketfit.estimators.configured import ConfiguredEstimator
from ketfit.estimators.end_to_end import check_embedding_width
from ketfit.estimators.heads import AUTO, HEADS, HeadEstimator, HeadSpec, NewHead, is_head, new_head, settings_for
from ketfit.estimators.quantum import QuantumHeadClassifier, readout_warning, require_quantum_head
from ketfit.estimators.staged_fit import StagedFit
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head_choice import HeadChoice
from ketfit.model.tuning import ContrastiveConfig, EmbeddingPrecision, EndToEndConfig, TuneConfig, as_stages
from ketfit.persistence.hub import HubMixin
from ketfit.persistence.model_files import fetch_model, load_head, save_model
from ketfit.persistence.schema import BODY, ESTIMATORS, BodyMetadata, TunedBodyMetadata
from ketfit.rng import chosen_seed
from ketfit.storage.cache_dir import is_folder
from ketfit.training.callbacks import Callback, observe_fit

_BODY_HINT = "say where it is with body=... (--body for ketfit predict, evaluate, app and hardware plan)"


class TextClassifier(HubMixin, ClassifierMixin, ConfiguredEstimator):  # type: ignore[misc]
    """A sentence transformer with a quantum or classical head, on raw sentences.

    The heads, from simple to complex: "logistic-regression", "svc", "mlp" and "quantum". ``head="auto"`` compares them
    by their validation losses over repeated stratified splits of the training sentences (groups and copies stay on one
    side), on the embeddings of the body before any tuning. It takes the simplest one, in this order, whose mean loss
    is within one standard error of the lowest (Breiman's rule), and fits it as if it had been named.

    Logistic regression takes all sentences, and nothing is held out for it. A support vector machine is calibrated on
    the validation sentences, two or more of each label. End-to-end tuning starts from the fitted head: a logistic
    regression goes on as an `MLPHead` without hidden units, and a support vector machine has no gradients.

    Args:
        body: A bundled body, a local folder, or a name on the Hub; see `load_body`.
        head: Settings of a quantum head; a kind of head as above, with its defaults; "auto"; a head estimator, which is
            cloned, such as ``LogisticRegressionHead(C=10)``; or None for the recommended quantum head.
        train, seed, validation_fraction, class_weight, calibrate, random_state, validation, n_folds: As in
            `QuantumHeadClassifier`, as far as the head has them. A head estimator may have them instead.
            Cross-validation also tunes a body for each fold.
        device: Torch device of the body and the head, such as ``"cuda"``.
        revision: Branch, tag or commit of a body on the Hub.
        cache: Cache embeddings on disk, so that no sentence is embedded twice.
        tune: `ContrastiveConfig` or `EndToEndConfig` to tune the body, a list of the two for two stages in that order,
            or None to leave the body frozen.
        dtype: Precision of the body's arithmetic, see `load_body`.

    Attributes after `fit`: ``classes_``, ``body_`` (after tuning), ``classifier_`` (the fitted head on embeddings),
    ``head_choice_`` (the `HeadChoice` of ``head="auto"``, else None). After `from_pretrained` also ``commit_``, the
    commit of the Hub that the model was loaded from, or None for a folder.

    It can be copied, pickled and dumped with joblib: a pickle names a frozen body and holds the files of a tuned one,
    see `Body`.
    """

    body_: Body
    classifier_: HeadEstimator
    classes_: NDArray[Any]
    head_choice_: HeadChoice | None
    fit_settings_: FitSettings | None
    commit_: str | None

    def __init__(
        self,
        body: str = "all-MiniLM-L6-v2",
        head: HeadSpec = None,
        train: TrainConfig | None = None,
        seed: int = 0,
        validation_fraction: float = 0.15,
        class_weight: ClassWeight = None,
        device: str = "cpu",
        revision: str | None = None,
        cache: bool = True,
        tune: TuneConfig | Sequence[TuneConfig] | None = None,
        dtype: EmbeddingPrecision = "float32",
        calibrate: bool = False,
        random_state: RandomState = None,
        validation: ValidationMethod = "holdout",
        n_folds: int = 5,
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
        self.validation = validation
        self.n_folds = n_folds

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
        pairs: Sequence[tuple[str, str, float]] | None = None,
        teacher: Body | None = None,
    ) -> Self:
        """Tune the body if `tune` is set, embed the sentences, and train the head on the embeddings.

        Each stage of `tune` starts from the body of the one before. The head is fitted before the end-to-end stage, on
        the embeddings of the body so far.

        Copies of one sentence stay on one side of the validation split, and only the training side tunes the body.
        With ``validation="cross"``, all of this is done on each fold to choose the epochs of the head, and of the
        end-to-end stage, and then on all sentences. The contrastive stage runs all its epochs.

        Rows of weight zero are removed first. All columns are sequences of any kind (lists, arrays, pandas, Arrow,
        `datasets`), and are taken by position.

        Args:
            texts: Sentences, none empty.
            labels: Strings or integers, one per sentence.
            sample_weight: As in `QuantumHeadClassifier.fit`; contrastive tuning only uses whether a weight is zero.
            groups: Rows of one group stay on one side of the split, and so do groups that share a sentence.
            validation: Sentences, labels and, optionally, weights to validate on, in place of a share of `texts`. A
                logistic regression uses them in end-to-end tuning only, and ``head="auto"`` does not choose by them.
            checkpoint: A file written after every epoch, by contrastive tuning every five minutes; the same call
                resumes from it, also with an emptied cache. A checkpoint of other sentences, labels, weights, settings
                or of another body is refused. Each stage of `tune` writes a checkpoint of its own beside it: the first
                one with ``.tuning`` appended to the name, the second one with ``.tuning-2``. Cross-validation writes
                more files, with ``.fold-1`` and so on appended to these names.
            progress: Show bars on stderr.
            callbacks: Observers of every epoch of each stage and of the head, such as a `TensorBoardCallback`; see
                `Callback`.
            pairs: Two sentences and their similarity, -1 to 1, each, for contrastive tuning with the cosine loss; see
                `tune_body`. Pairs with a copy of a sentence that is held out for validation are left out.
            teacher: A body whose cosine similarities contrastive tuning learns, in place of 1 for two sentences of one
                label and 0 for two of different labels; see `distill`.

        Warns:
            ConfigWarning, DataWarning: As in `QuantumHeadClassifier.fit`.

        Raises:
            InputError: A sentence is empty or not a string, or a label, weight or group is missing.
            BodyError: The body cannot be loaded.
            InsufficientMemoryError: There is too little memory to tune the body.
            DataError, ConfigError, ValueError: As in `QuantumHeadClassifier.fit`; DataError also if validation leaves
                contrastive tuning one sentence of a label.
        """
        stages, settings = as_stages(self.tune), self._head_settings()
        if pairs is not None and not any(isinstance(stage, ContrastiveConfig) for stage in stages):
            raise ConfigError("pairs are for contrastive tuning; pass tune=ContrastiveConfig(loss='cosine') too")
        if teacher is not None:
            check_teacher_stage(stages)
            if pairs is not None:
                raise ConfigError("pairs and teacher both say what contrastive tuning learns; pass one of them")
        automatic = isinstance(self.head, str) and self.head == AUTO
        head = None if automatic else self._new_head(self.head, settings, checkpoint)
        if validation is not None and self.validation == "cross":
            raise ConfigError(HOLDOUT_BESIDE_CROSS)
        data = LabelledTexts.from_columns(texts, labels, sample_weight, groups)
        held_out = None if validation is None else LabelledTexts.from_validation(validation)
        class_weight = settings["class_weight"] if head is None else head.class_weight
        class_weights = self._check_labels(data, held_out, class_weight)
        body = self._load_body(head, len(class_weights))
        choice = None
        if head is None:
            kinds = simplest_kinds(end_to_end=self._tunes_end_to_end)
            embedded = StagedFit(stages, self.cache, checkpoint, progress).embed_labels(body, data)
            choice = choose_head(embedded, settings, kinds)
            head = self._new_head(choice.kind, settings_for(choice.kind, settings), None)
        in_folds = bool(stages) and head.validation == "cross"
        if not in_folds:
            data, held_out = self._sides(head, data, held_out, drawn=pairs is None)
        with observe_fit(callbacks, self._plain_settings()) as report:
            fit = StagedFit(stages, self.cache, checkpoint, progress, report, pairs, teacher)
            if in_folds:
                body, classifier = fit.run_folds(body, head, data)
            else:
                body, classifier = fit.run(body, head, data, held_out, class_weights)
        # After the block, because a callback that fails at its end leaves the estimator as it was.
        self.body_, self.classifier_, self.classes_ = body, classifier, classifier.classes_
        self.head_choice_, self.fit_settings_ = choice, head.fit_settings()
        return self

    def _sides(
        self, head: NewHead, data: LabelledTexts, held_out: LabelledTexts | None, *, drawn: bool
    ) -> tuple[LabelledTexts, LabelledTexts | None]:
        """Hold out sentences if the head or the tuning needs them, and check both sides before a long tuning.

        `drawn` says that contrastive tuning draws pairs by the labels.
        """
        if held_out is None and self._needs_held_out(head):
            data, held_out = self._hold_out(data, head, drawn)
        if isinstance(head.estimator, SVCHead):
            _check_calibration(data, held_out)
        if self.tune and isinstance(head.estimator, QuantumHeadClassifier) and head.estimator.head is not None:
            head.estimator.head.check_training_size(len(data.texts))
        return data, held_out

    @property
    def _tunes_end_to_end(self) -> bool:
        return any(isinstance(stage, EndToEndConfig) for stage in as_stages(self.tune))

    def _head_settings(self) -> dict[str, Any]:
        """Return the parameters that heads share, with the seed of this fit."""
        settings = {name: getattr(self, name) for name in TorchHeadClassifier._get_param_names()}
        seed = chosen_seed(self.random_state, self.seed)
        return {**settings, "seed": seed, "random_state": None}

    def _new_head(self, spec: HeadSpec, settings: dict[str, Any], checkpoint: str | Path | None) -> NewHead:
        """Return the head to fit, after a check of its settings."""
        head = new_head(spec, settings)
        if isinstance(head.estimator, TorchHeadClassifier):
            return head
        kind = head.estimator.kind
        if self._tunes_end_to_end and isinstance(head.estimator, SVCHead):
            raise ConfigError(
                f"end-to-end tuning takes gradients through the head, and a head of kind {kind!r} has none; choose "
                "another head, or contrastive tuning"
            )
        if checkpoint is not None and self.tune is None:
            raise ConfigError(
                f"checkpoint={str(checkpoint)!r} is for training in epochs, and a head of kind {kind!r} is fitted in "
                "one step; leave it out"
            )
        return head

    def _check_labels(
        self, data: LabelledTexts, held_out: LabelledTexts | None, class_weight: ClassWeight
    ) -> NDArray[Any]:
        """Check the labels before the body is loaded, and return one weight per class."""
        check_saveable_labels(data.labels, rows=data.rows)
        classes, _, class_weights = encode_labels(data.labels, class_weight)
        if held_out is not None:
            class_indices(held_out.labels, classes, UNKNOWN_VALIDATION_LABEL)
        warn_similar_labels(classes)
        return class_weights

    def _load_body(self, head: NewHead | None, n_classes: int) -> Body:
        """Load the body, and check that it fits the head before a long tuning."""
        body = load_body(self.body, revision=self.revision, device=self.device, dtype=self.dtype)
        for stage in as_stages(self.tune):
            layers_to_tune(body.transformer, stage.last_layers, body.name)
        if head is not None and isinstance(head.estimator, QuantumHeadClassifier):
            config = head.estimator.head or HeadConfig.recommended(body.dimension, n_classes)
            config.slice_widths(body.dimension)
            if message := readout_warning(config, body.dimension, n_classes):
                warnings.warn(message, ConfigWarning, stacklevel=3)
        return body

    @property
    def uses_validation(self) -> bool:
        """True if `fit` with these parameters uses validation sentences, its own share of them or those passed to it.

        It does not for logistic regression on a body that needs none either, and for cross-validation. ``head="auto"``
        may choose a head that does.

        Raises:
            ConfigError: As in `fit`, about the head and its settings.
        """
        if isinstance(self.head, str) and self.head == AUTO:
            return self.validation != "cross"
        head = new_head(self.head, self._head_settings())
        trained_in_epochs = isinstance(head.estimator, TorchHeadClassifier)
        return head.validation != "cross" and (trained_in_epochs or self._needs_held_out(head))

    def _needs_held_out(self, head: NewHead) -> bool:
        """Return whether sentences are held out before the tuning, or to calibrate a head."""
        if isinstance(head.estimator, LogisticRegressionHead):
            stops_early = any(isinstance(stage, ContrastiveConfig) and stage.patience for stage in as_stages(self.tune))
            return self._tunes_end_to_end or stops_early
        return self.tune is not None or isinstance(head.estimator, SVCHead)

    def _hold_out(self, data: LabelledTexts, head: NewHead, drawn: bool) -> tuple[LabelledTexts, LabelledTexts | None]:
        """Return the training side and the validation side of a split before the tuning."""
        train, held_out = data.hold_out(head.validation_fraction, head.seed)
        if head.calibrate and held_out is None:
            raise ConfigError(NO_CALIBRATION_SAMPLES)
        if drawn and any(isinstance(stage, ContrastiveConfig) for stage in as_stages(self.tune)):
            check_pairs(data.labels, train.labels)
        return train, held_out

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
        """Return a fitted copy with other shots and noise; see `QuantumHeadClassifier.with_measurement`.

        Raises:
            ConfigError: The head is classical, or a setting does not fit.
        """
        check_is_fitted(self, "classifier_")
        head = require_quantum_head(self.classifier_, "run with shots or noise")
        measured = copy.copy(self)
        measured.classifier_ = head.with_measurement(**settings)
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
            StorageError, DataError, ConfigError: As in `PretrainedHead.save_pretrained`.
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
            else TunedBodyMetadata(fingerprint=body.fingerprint, stages=list(tuning.stages), seed=tuning.seed),
        )
        body_folder = body.folder if with_body or tuning is not None else None
        if body_folder is not None:
            check_body_files(body)
        fields = self.classifier_.metadata_fields(data, metrics, metadata)
        if fields["seed"] is None and self.fit_settings_ is not None:
            fields["seed"] = self.fit_settings_.seed
            fields["validation_fraction"] = self.fit_settings_.validation_fraction
        save_model(folder, self.classifier_.to_saved(), {**fields, "head_choice": self.head_choice_}, body_folder)

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
        saved, metadata = load_head(snapshot.folder)
        if metadata.body is None:
            estimator = ESTIMATORS[metadata.head_kind]
            raise ModelFileError(f"{name} takes embeddings, not sentences; load it with {estimator}")
        loaded = _load_saved_body(metadata.body, snapshot.folder, body, device)
        head = HEADS[metadata.head_kind].from_saved(saved, metadata, device)
        classifier = cls.from_parts(loaded, head, cache=cache)
        if classifier.fit_settings_ is None and metadata.seed is not None:
            fraction = metadata.validation_fraction or 0.0
            classifier.fit_settings_ = FitSettings(metadata.seed, fraction, head.class_weight, False)
            classifier.seed, classifier.validation_fraction = metadata.seed, fraction
        classifier.device, classifier.head_choice_ = device, metadata.head_choice
        classifier.commit_ = head.commit_ = snapshot.commit
        return classifier

    @classmethod
    def from_parts(cls, body: Body, classifier: HeadEstimator, *, cache: bool = True) -> Self:
        """Return a fitted classifier of sentences from a body and a head that was fitted on its embeddings.

        Args:
            body: The body.
            classifier: The head: one that a model file can hold.
            cache: As in the constructor.

        Raises:
            ConfigError: The head takes embeddings of another width, or is of another kind.
        """
        if not is_head(classifier):
            heads = ", ".join(ESTIMATORS.values())
            raise ConfigError(f"classifier={classifier!r} is not the head of a text classifier; pass one of {heads}")
        check_embedding_width(classifier, body)
        stages = [] if body.tuning is None else list(body.tuning.stages)
        tune = stages if len(stages) > 1 else next(iter(stages), None)
        if isinstance(classifier, QuantumHeadClassifier):
            parameters = classifier.get_params(deep=False)
        else:
            parameters = {"head": clone(classifier)}
            if isinstance(classifier, TorchHeadClassifier):
                parameters["device"] = classifier.device
        text = cls(
            body=body.name,
            revision=body.revision,
            cache=cache,
            tune=tune,
            dtype=body.dtype,
            **parameters,
        )
        text.body_, text.classifier_, text.classes_ = body, classifier, classifier.classes_
        text.head_choice_ = None
        text.fit_settings_ = classifier.fit_settings_ if isinstance(classifier, TorchHeadClassifier) else None
        return text

    def _embed(self, body: Body, texts: Sequence[str], progress: bool) -> NDArray[np.float32]:
        return body.encode(texts, progress=progress, cache=self.cache)


def check_teacher_stage(stages: Sequence[TuneConfig]) -> None:
    """Refuse a tuning that cannot learn the similarities of a teacher.

    Raises:
        ConfigError: The first stage is not contrastive with the cosine loss on all pairs of labels.
    """
    stage = stages[0] if stages else None
    if not isinstance(stage, ContrastiveConfig) or stage.loss != "cosine" or stage.unlike_labels is not None:
        raise ConfigError(
            "the similarities of a teacher are for contrastive tuning with loss='cosine' without unlike_labels; use "
            "tune=ContrastiveConfig(loss='cosine')"
        )


def _check_calibration(data: LabelledTexts, held_out: LabelledTexts | None) -> None:
    """Refuse validation sentences that cannot calibrate a support vector machine."""
    for label in np.unique(data.labels).tolist():
        count = 0 if held_out is None else int((held_out.labels == label).sum())
        if count < 2:
            raise ConfigError(
                f"head='svc' is calibrated on two or more validation sentences of each label, and {label!r} has "
                f"{count}; raise validation_fraction, add sentences, or choose another head"
            )


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
    tuning = None if tuned is None else Tuning(tuple(tuned.stages), tuned.seed, metadata.fingerprint)
    return replace(body, name=metadata.name, revision=metadata.revision, source=metadata.source, tuning=tuning)
