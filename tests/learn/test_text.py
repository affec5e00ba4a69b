"""A classifier of sentences and the tuning of its body: what tunes, what does not, and what is refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import ConfigError, InputError
from ketfit.learn.files import RECORD
from ketfit.learn.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, FullConfig, TuneConfig

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
WORDS = ["positive"] * 4 + ["negative"] * 4
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
CONTRASTIVE = ContrastiveConfig(pairs_per_sentence=1, batch_size=4)
FULL = FullConfig(epochs=1, batch_size=4)


def test_a_model_in_bfloat16_embeds_in_bfloat16(tiny_body_folder: Path, tmp_path: Path) -> None:
    text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), dtype="bfloat16").fit(TEXTS, WORDS)
    text.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    assert (loaded.dtype, loaded.body_.dtype) == ("bfloat16", "bfloat16")
    assert (loaded.predict_proba(TEXTS) == text.predict_proba(TEXTS)).all()
    assert json.loads((tmp_path / "model" / RECORD).read_text())["body"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("tune", [CONTRASTIVE, FULL])
def test_what_validates_never_tunes(tune: TuneConfig, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ketfit.learn import contrastive, text

    seen: list[list[str]] = []
    monkeypatch.setattr(contrastive, "tune_body", lambda body, texts, *_, **__: (seen.append(list(texts)), body)[1])
    monkeypatch.setattr(
        text, "tune_fully", lambda body, head, texts, *_, **__: (seen.append(list(texts)), (body, head))[1]
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
    from ketfit.learn import contrastive

    seen: list[Any] = []
    monkeypatch.setattr(contrastive, "tune_body", lambda body, *given, **_: (seen.extend(given[:2]), body)[1])
    made = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), validation_fraction=0, tune=CONTRASTIVE)
    made.fit(TEXTS, WORDS, [1, 0, 2, 1, 1, 1, 0, 1])
    assert seen[0] == [TEXTS[row] for row in (0, 2, 3, 4, 5, 7)]
    assert seen[1].tolist() == [WORDS[row] for row in (0, 2, 3, 4, 5, 7)]


def test_what_cannot_be_is_said_before_anything_is_tuned(
    tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ketfit.learn import contrastive

    monkeypatch.setattr(contrastive, "tune_body", lambda *_, **__: pytest.fail("it tuned"))
    text = TextClassifier(str(tiny_body_folder), HEAD, tune=CONTRASTIVE)
    for settings, message in (
        ({"tune": "contrastive"}, "tune='contrastive': pass a ContrastiveConfig, a FullConfig, or None"),
        ({"head": HEAD.updated(n_qubits=3)}, "an embedding of width 16 needs n_qubits=4"),
        ({"head": "deep"}, "head='deep': pass a HeadConfig"),
    ):
        with pytest.raises(ConfigError, match=message):
            TextClassifier(**{**text.get_params(deep=False), **settings}).fit(TEXTS, WORDS)
    with pytest.raises(InputError, match=r"labels have shape \(7,\); there are 8 sentences"):
        text.fit(TEXTS, WORDS[:-1])
