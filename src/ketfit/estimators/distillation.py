"""Distillation: a smaller body and head that follow a trained text classifier on unlabelled sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ketfit.bodies.sources import find_files
from ketfit.data.sequences import as_texts
from ketfit.errors import ConfigError, DataError
from ketfit.estimators.heads import HeadSpec
from ketfit.estimators.text import TextClassifier, check_teacher_stage
from ketfit.model.tuning import ContrastiveConfig, TuneConfig, as_stages

MIN_SENTENCES = 2
"""Sentences of each class that pairs need."""


def distill(
    teacher: TextClassifier,
    texts: Sequence[str],
    student: str = "all-MiniLM-L6-v2",
    *,
    head: HeadSpec = None,
    tune: TuneConfig | Sequence[TuneConfig] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    **settings: Any,
) -> TextClassifier:
    """Return a classifier with another, usually smaller, body that follows a trained one on unlabelled sentences.

    The teacher labels the sentences. The cosine similarities of the student's embeddings of pairs of them are trained
    to equal those of the teacher's embeddings; pairs are drawn as in contrastive tuning, by the teacher's labels. A
    head is then fitted on the student's embeddings with the teacher's labels, which every kind of head takes;
    probabilities would need each sentence once per class, as weighted rows.

    Args:
        teacher: A fitted classifier.
        texts: Sentences without labels, none blank; two or more that the teacher puts into each of its classes.
        student: The body to start from: a bundled body, a local folder, or a name on the Hub.
        head: As in `TextClassifier`; None is the kind of the teacher's head, with its defaults.
        tune: How to tune the student: `ContrastiveConfig` with the cosine loss, alone or before an `EndToEndConfig`;
            None is ``ContrastiveConfig(loss="cosine")``.
        checkpoint: A file to resume from, as in `TextClassifier.fit`. A logistic regression and a support vector
            machine have the checkpoint of the tuning only.
        progress: Show bars on stderr.
        **settings: Other parameters of `TextClassifier`, such as ``seed``, ``train`` and ``device``.

    Raises:
        InputError: A sentence is empty or not a string.
        DataError: The teacher puts no sentence, or one only, into one of its classes.
        ConfigError: The student is the body of the teacher, or a setting does not fit.
        BodyError, InsufficientMemoryError, TrainingError, MissingExtraError: As in `TextClassifier.fit` and
            `tune_body`.
    """
    check_is_fitted(teacher, "classifier_")
    check_student(teacher, student, settings.get("revision"))
    tune = ContrastiveConfig(loss="cosine") if tune is None else tune
    check_teacher_stage(as_stages(tune))
    classifier = TextClassifier(
        body=student,
        head=teacher.classifier_.kind if head is None else head,
        tune=tune,
        **settings,
    )
    sentences = as_texts(texts)
    labels = teacher.predict(sentences, progress=progress)
    for name in teacher.classes_.tolist():
        count = int(np.count_nonzero(labels == name))
        if count < MIN_SENTENCES:
            raise DataError(
                f"the teacher puts {count} of {len(sentences)} sentences into the class {name!r}, and the student "
                f"needs {MIN_SENTENCES} or more of each class; add sentences like those of that class"
            )
    return classifier.fit(sentences, labels, checkpoint=checkpoint, progress=progress, teacher=teacher.body_)


def check_student(teacher: TextClassifier, student: str, revision: str | None = None) -> None:
    """Refuse a student that is the teacher's own body, before or after its tuning.

    Raises:
        ConfigError: The bodies have the same files.
        BodyError: The student cannot be found.
    """
    body = teacher.body_
    own = {body.fingerprint} | (set() if body.tuning is None else {body.tuning.base_fingerprint})
    if find_files(student, revision).fingerprint in own:
        raise ConfigError(
            f"the student {student!r} is the body of the teacher, and would be no faster; name a smaller body"
        )
