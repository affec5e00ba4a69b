"""Distillation of a text classifier into another body, on tiny bodies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from ketfit import ContrastiveConfig, TextClassifier, TrainConfig, distill
from ketfit.bodies import contrastive
from ketfit.bodies.body import load_body
from ketfit.data.labelled import LabelledTexts
from ketfit.errors import BodyError, ConfigError, DataError, InputError
from ketfit.estimators.staged_fit import StagedFit
from ketfit.model.tuning import EndToEndConfig
from tests.cli.running import LABELS, SENTENCES
from tests.conftest import write_tiny_body

QUICK = ContrastiveConfig(loss="cosine", learning_rate=1e-3, pairs_per_sentence=2, epochs=2)
SHORT = TrainConfig(epochs=2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    folder = tmp_path_factory.mktemp("teacher-body")
    write_tiny_body(folder, layers=2)
    return TextClassifier(str(folder), head="logistic-regression").fit(SENTENCES, LABELS)


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def test_distill_brings_cosines_and_labels_to_the_teachers(teacher: TextClassifier, tiny_body_folder: Path) -> None:
    student = distill(teacher, SENTENCES, str(tiny_body_folder), tune=QUICK)
    target = cosines(teacher.body_.encode(SENTENCES))
    before, after = (
        np.abs(cosines(body.encode(SENTENCES)) - target).mean()
        for body in (load_body(tiny_body_folder, device="cpu"), student.body_)
    )
    assert after < 0.7 * before
    assert (student.predict(SENTENCES) == teacher.predict(SENTENCES)).mean() > 0.9
    assert student.classifier_.kind == "logistic-regression"


@pytest.mark.parametrize("head", ["logistic-regression", "svc", "mlp", "quantum"])
def test_distill_any_head_saves_and_loads(
    teacher: TextClassifier, tiny_body_folder: Path, tmp_path: Path, head: Any
) -> None:
    train = SHORT if head in ("mlp", "quantum") else None
    student = distill(teacher, SENTENCES, str(tiny_body_folder), head=head, tune=QUICK, seed=3, train=train)
    student.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    assert loaded.classifier_.kind == head
    assert loaded.body_.tuning == student.body_.tuning
    assert loaded.body_.tuning is not None and loaded.body_.tuning.seed == 3
    assert loaded.body_.tuning.base_fingerprint == load_body(tiny_body_folder, device="cpu").fingerprint
    assert np.array_equal(loaded.predict_proba(SENTENCES[:9]), student.predict_proba(SENTENCES[:9]))


@pytest.mark.slow
def test_distill_same_seed_gives_same_student(teacher: TextClassifier, tiny_body_folder: Path) -> None:
    one, same, other = (
        distill(teacher, SENTENCES, str(tiny_body_folder), tune=QUICK, seed=seed).body_.fingerprint
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_teacher_pairs_have_the_cosines_of_its_embeddings(teacher: TextClassifier) -> None:
    data = LabelledTexts.from_columns(SENTENCES, LABELS)
    fit = StagedFit((QUICK,), cache=True, checkpoint=None, progress=False, teacher=teacher.body_)
    pairs = fit._teacher_pairs(teacher.body_, data, QUICK, 0)
    assert len(pairs) == 4 * len(SENTENCES)
    expected, row = cosines(teacher.body_.encode(SENTENCES)), SENTENCES.index
    assert all(abs(cosine - expected[row(one), row(other)]) < 1e-5 for one, other, cosine in pairs)


def test_distill_sentences_without_a_class_names_it(teacher: TextClassifier, tiny_body_folder: Path) -> None:
    good = [text for text, label in zip(SENTENCES, teacher.predict(SENTENCES), strict=True) if label == "good"]
    with pytest.raises(DataError, match="puts 0 of 4 sentences into the class 'bad', and the student needs 2 or more"):
        distill(teacher, good[:4], str(tiny_body_folder))
    with pytest.raises(DataError, match="puts 0 of 0 sentences into the class 'bad'"):
        distill(teacher, [], str(tiny_body_folder))


def test_distill_blank_sentence_raises(teacher: TextClassifier, tiny_body_folder: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        distill(teacher, [*SENTENCES, " "], str(tiny_body_folder))


def test_distill_into_the_teachers_body_raises(teacher: TextClassifier, tiny_body_folder: Path) -> None:
    with pytest.raises(ConfigError, match="is the body of the teacher, and would be no faster; name a smaller body"):
        distill(teacher, SENTENCES, teacher.body)
    student = distill(teacher, SENTENCES, str(tiny_body_folder), tune=QUICK)
    with pytest.raises(ConfigError, match="is the body of the teacher"):
        distill(student, SENTENCES, str(tiny_body_folder))


def test_distill_unknown_student_raises(teacher: TextClassifier, tmp_path: Path) -> None:
    with pytest.raises(BodyError):
        distill(teacher, SENTENCES, str(tmp_path / "none"))


@pytest.mark.parametrize("tune", [ContrastiveConfig(loss="supervised"), EndToEndConfig()])
def test_distill_other_tuning_raises(teacher: TextClassifier, tiny_body_folder: Path, tune: Any) -> None:
    with pytest.raises(ConfigError, match="teacher are for contrastive tuning with loss='cosine'"):
        distill(teacher, SENTENCES, str(tiny_body_folder), tune=tune)


def test_distill_unfitted_teacher_raises(tiny_body_folder: Path) -> None:
    with pytest.raises(NotFittedError):
        distill(TextClassifier(), SENTENCES, str(tiny_body_folder))


@pytest.mark.slow
def test_distill_with_checkpoint_resumes_to_the_same_student(
    teacher: TextClassifier, tiny_body_folder: Path, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = tmp_path / "run"
    first = distill(teacher, SENTENCES, str(tiny_body_folder), tune=QUICK, checkpoint=checkpoint)
    assert (tmp_path / "run.tuning").exists()
    shutil.rmtree(fresh_cache / "tuned")
    again = distill(teacher, SENTENCES, str(tiny_body_folder), tune=QUICK, checkpoint=checkpoint)
    assert again.body_.fingerprint == first.body_.fingerprint
