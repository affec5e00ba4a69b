"""A classifier of sentences and the tuning of its body: what tunes, what does not, and what is refused before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from ketfit.bodies.body import load_body
from ketfit.errors import ConfigError, DataError, InputError, TrainingError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, TuneConfig
from ketfit.persistence.schema import METADATA
from ketfit.storage.tensors import read_tensors, write_tensors

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
WORDS = ["positive"] * 4 + ["negative"] * 4
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
CONTRASTIVE = ContrastiveConfig(pairs_per_sentence=1, batch_size=4)
FULL = EndToEndConfig(epochs=1, batch_size=4)


def test_a_model_in_bfloat16_embeds_in_bfloat16(tiny_body_folder: Path, tmp_path: Path) -> None:
    text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), dtype="bfloat16").fit(TEXTS, WORDS)
    text.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    assert (loaded.dtype, loaded.body_.dtype) == ("bfloat16", "bfloat16")
    assert (loaded.predict_proba(TEXTS) == text.predict_proba(TEXTS)).all()
    assert json.loads((tmp_path / "model" / METADATA).read_text())["body"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("tune", [CONTRASTIVE, FULL])
def test_what_validates_never_tunes(tune: TuneConfig, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ketfit.bodies import contrastive
    from ketfit.estimators import text

    seen: list[list[str]] = []
    monkeypatch.setattr(contrastive, "tune_body", lambda body, texts, *_, **__: (seen.append(list(texts)), body)[1])
    monkeypatch.setattr(
        text, "tune_end_to_end", lambda body, head, texts, *_, **__: (seen.append(list(texts)), (body, head))[1]
    )
    made = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), validation_fraction=0.25, tune=tune)
    made.fit([*TEXTS, *(f" {text.upper()} " for text in TEXTS)], WORDS * 2)
    kept = {text.strip().lower() for text in seen[0]}
    assert len(seen[0]) == made.classifier_.train_size_ == 12
    assert made.classifier_.validation_size_ == 4
    assert len(kept) == 6, "copies of a sentence stay on one side"
    made.fit(TEXTS, WORDS, validation=(["fine", "dull dull"], ["positive", "negative"]))
    assert seen[1] == TEXTS


def test_sentences_without_weight_do_not_tune(tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ketfit.bodies import contrastive

    seen: list[Any] = []
    monkeypatch.setattr(contrastive, "tune_body", lambda body, *given, **_: (seen.extend(given[:2]), body)[1])
    made = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), validation_fraction=0, tune=CONTRASTIVE)
    made.fit(TEXTS, WORDS, [1, 0, 2, 1, 1, 1, 0, 1])
    assert seen[0] == [TEXTS[row] for row in (0, 2, 3, 4, 5, 7)]
    assert seen[1].tolist() == [WORDS[row] for row in (0, 2, 3, 4, 5, 7)]


def test_what_cannot_be_is_said_before_anything_is_tuned(
    tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ketfit.bodies import contrastive

    monkeypatch.setattr(contrastive, "tune_body", lambda *_, **__: pytest.fail("it tuned"))
    text = TextClassifier(str(tiny_body_folder), HEAD, tune=CONTRASTIVE)
    for settings, message in (
        (
            {"tune": "contrastive"},
            "tune='contrastive' is of the wrong type; pass a ContrastiveConfig, an EndToEndConfig, or",
        ),
        ({"head": HEAD.updated(n_qubits=3)}, "an embedding of width 16 needs n_qubits=4"),
        ({"head": "deep"}, "head='deep' is of the wrong type; pass a HeadConfig"),
    ):
        with pytest.raises(ConfigError, match=message):
            TextClassifier(**{**text.get_params(deep=False), **settings}).fit(TEXTS, WORDS)
    with pytest.raises(InputError, match=r"labels have shape \(7,\); there are 8 sentences"):
        text.fit(TEXTS, WORDS[:-1])


class TestCheckpoint:
    @pytest.fixture
    def text(self, tiny_body_folder: Path) -> TextClassifier:
        return TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=2), validation_fraction=0.25)

    @pytest.fixture
    def checkpoint(self, text: TextClassifier, tmp_path: Path) -> Path:
        text.fit(TEXTS, WORDS, [1, 1, 1, 1, 1, 1, 1, 2], checkpoint=tmp_path / "run")
        return tmp_path / "run"

    @pytest.mark.parametrize("validation", [None, (["fine", "dull dull"], ["positive", "negative"])])
    def test_embeddings_that_differ_by_rounding_resume(
        self, validation: Any, text: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text.fit(TEXTS, WORDS, validation=validation, checkpoint=tmp_path / "run")
        embed = TextClassifier._embed
        monkeypatch.setattr(TextClassifier, "_embed", lambda *given: embed(*given) * np.float32(1 + 3e-7))
        again = clone(text).fit(TEXTS, WORDS, validation=validation, checkpoint=tmp_path / "run")
        assert again.classifier_.history_ == text.classifier_.history_
        one, other = (fitted.classifier_.module_.state_dict() for fitted in (text, again))
        assert all((one[name] == other[name]).all() for name in one)

    @pytest.mark.parametrize(
        ("change", "settings", "named"),
        [
            ({"texts": [*TEXTS[:-1], "another"]}, {}, "data"),
            ({"texts": TEXTS[::-1]}, {}, "data"),
            ({"labels": WORDS[::-1]}, {}, "data"),
            ({"sample_weight": [2, 1, 1, 1, 1, 1, 1, 1]}, {}, "data"),
            ({"sample_weight": None}, {}, "data"),
            ({"validation": (["fine", "dull"], ["positive", "negative"])}, {}, "data"),
            ({}, {"validation_fraction": 0.0}, "data"),
            ({}, {"class_weight": {"positive": 2.0}}, "data"),
            ({}, {"train__epochs": 3}, "training settings"),
            ({}, {"head__main_layers": 2}, "head"),
            ({}, {"dtype": "bfloat16"}, "body"),
        ],
    )
    def test_checkpoint_of_another_fit_is_refused(
        self, change: dict[str, Any], settings: dict[str, Any], named: str, text: TextClassifier, checkpoint: Path
    ) -> None:
        given = {"texts": TEXTS, "labels": WORDS, "sample_weight": [1, 1, 1, 1, 1, 1, 1, 2], **change}
        with pytest.raises(TrainingError, match=rf"belongs to another run \(its {named} differ\)"):
            text.set_params(**settings).fit(**given, checkpoint=checkpoint)

    def test_checkpoint_of_another_body_is_refused(
        self, text: TextClassifier, checkpoint: Path, own_body: Path
    ) -> None:
        (own_body / "notes.txt").write_text("one more file that a tokenizer might read")
        with pytest.raises(TrainingError, match=r"belongs to another run \(its body differ\)"):
            text.set_params(body=str(own_body)).fit(TEXTS, WORDS, [1, 1, 1, 1, 1, 1, 1, 2], checkpoint=checkpoint)

    def test_other_validation_sentences_are_refused(self, text: TextClassifier, tmp_path: Path) -> None:
        text.fit(TEXTS, WORDS, validation=(["fine", "dull"], ["positive", "negative"]), checkpoint=tmp_path / "run")
        for held in ((["fine", "bad"], ["positive", "negative"]), (["fine", "dull"], ["negative", "positive"])):
            with pytest.raises(TrainingError, match="its data differ"):
                text.fit(TEXTS, WORDS, validation=held, checkpoint=tmp_path / "run")

    def test_checkpoint_of_an_earlier_version_or_of_embeddings_is_named(
        self, text: TextClassifier, checkpoint: Path, tiny_body_folder: Path
    ) -> None:
        tensors, metadata = read_tensors(checkpoint)
        facts = json.loads(metadata["checkpoint"])
        del facts["run"]["body"]
        write_tensors(checkpoint, tensors, {"checkpoint": json.dumps(facts)})
        with pytest.raises(
            TrainingError, match="does not hold the body of its run: an earlier version of KetFit wrote"
        ):
            text.fit(TEXTS, WORDS, checkpoint=checkpoint)
        embeddings = load_body(tiny_body_folder, device="cpu").encode(TEXTS)
        head = QuantumHeadClassifier(HEAD, TrainConfig(epochs=2), validation_fraction=0.25)
        with pytest.raises(TrainingError, match="its data differ"):
            head.fit(embeddings, WORDS, checkpoint=checkpoint)

    @pytest.mark.slow
    def test_tuned_fits_resume_with_an_emptied_cache(
        self, text: TextClassifier, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embed = TextClassifier._embed
        for tune in (CONTRASTIVE, FULL):
            text.set_params(tune=tune)
            with monkeypatch.context() as patch:
                first = clone(text).fit(TEXTS, WORDS, checkpoint=tmp_path / tune.method)
                shutil.rmtree(fresh_cache)
                patch.setattr(TextClassifier, "_embed", lambda *given: embed(*given) * np.float32(1 + 3e-7))
                again = clone(text).fit(TEXTS, WORDS, checkpoint=tmp_path / tune.method)
            assert again.body_.fingerprint == first.body_.fingerprint
            np.testing.assert_array_equal(again.predict_proba(TEXTS), first.predict_proba(TEXTS))


class TestPairs:
    @pytest.mark.slow
    def test_label_that_validation_leaves_one_sentence_of_is_named(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), tune=CONTRASTIVE)
        texts, labels = ["good", "fine", "bad", "dull"], ["positive"] * 2 + ["negative"] * 2
        message = (
            r"validation took 1 of the 2 sentences of label '\w+', .* use validation_fraction=0, or more sentences"
        )
        with pytest.raises(DataError, match=message):
            text.fit(texts, labels)
        assert text.set_params(validation_fraction=0).fit(texts, labels).body_.tuning is not None

    def test_label_with_one_sentence_is_not_blamed_on_validation(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), tune=CONTRASTIVE)
        with pytest.raises(DataError, match="pairs sentences of one label, and 'negative' has one sentence only"):
            text.fit(["good", "fine", "the good", "bad"], ["positive"] * 3 + ["negative"])


def test_random_state_takes_the_place_of_the_seed(tiny_body_folder: Path) -> None:
    text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), seed=3)
    by_seed = text.fit(TEXTS, WORDS).predict_proba(TEXTS)
    by_state = clone(text).set_params(seed=0, random_state=3).fit(TEXTS, WORDS)
    np.testing.assert_array_equal(by_state.predict_proba(TEXTS), by_seed)
    assert by_state.classifier_.seed_ == text.classifier_.seed_ == 3
    text.set_params(random_state=np.random.RandomState(0))
    one, other = (clone(text).fit(TEXTS, WORDS).classifier_.seed_ for _ in range(2))
    assert one == other, "a clone has a copy of the RandomState"
    assert text.fit(TEXTS, WORDS).classifier_.seed_ != text.fit(TEXTS, WORDS).classifier_.seed_
    with pytest.raises(
        ConfigError, match=r"random_state='x': it must be a whole number .*; a numpy.*RandomState is accepted"
    ):
        text.set_params(random_state="x").fit(TEXTS, WORDS)


@pytest.mark.slow
@pytest.mark.parametrize("tune", [CONTRASTIVE, FULL])
def test_seed_of_a_random_state_tunes_and_is_saved(tune: TuneConfig, tiny_body_folder: Path, tmp_path: Path) -> None:
    text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), random_state=np.random.RandomState(1))
    text.set_params(tune=tune).fit(TEXTS, WORDS)
    seed = text.classifier_.seed_
    assert text.body_.tuning is not None
    assert text.body_.tuning.seed == seed
    text.save_pretrained(tmp_path / "model")
    record = json.loads((tmp_path / "model" / METADATA).read_text())
    assert (record["seed"], record["body"]["tuned"]["seed"]) == (seed, seed)
    assert TextClassifier.from_pretrained(tmp_path / "model").classifier_.seed_ == seed
    same = clone(text).set_params(seed=seed, random_state=None).fit(TEXTS, WORDS)
    np.testing.assert_array_equal(same.predict_proba(TEXTS), text.predict_proba(TEXTS))
