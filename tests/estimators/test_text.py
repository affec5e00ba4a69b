"""TextClassifier: fit, predict, tune, resume, cache and refuse, on a tiny body and on the bundled one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from ketfit.bodies.body import Body, load_body
from ketfit.errors import BodyError, ConfigError, DataError, DataWarning, InputError, TrainingError
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, TuneConfig
from ketfit.persistence import hub
from ketfit.persistence.schema import METADATA
from ketfit.storage.tensors import read_tensors, write_tensors

HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)


SHORT = TrainConfig(epochs=3, learning_rate=0.1)


TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]


LABELS = [1, 1, 1, 1, 0, 0, 0, 0]


POSITIVE = """
A warm and funny film that I would gladly see again.
The acting is superb from the first scene to the last.
I loved every minute of this charming story.
A moving tale, beautifully shot and perfectly paced.
The best comedy I have seen in years.
Brilliant writing and a wonderful cast.
It left me smiling all the way home.
A clever thriller that keeps you on the edge of your seat.
The music is gorgeous and the ending is deeply touching.
An inspired and joyful piece of cinema.
She gives a magnificent performance in the leading role.
What a delightful surprise this little movie is.
A triumph for the director and a treat for the audience.
Fresh, witty and full of heart.
I was captivated by its tender honesty.
One of the most beautiful films of the decade.
The dialogue sparkles and the jokes all land.
An excellent drama with unforgettable characters.
This is storytelling at its very finest.
A gentle, uplifting picture for the whole family.
The effects are stunning and the plot is gripping.
A smart and satisfying adventure.
I laughed, I cried, and I recommend it to everyone.
Superbly directed, with great attention to detail.
A rich and rewarding experience.
The chemistry between the two leads is fantastic.
It is a pleasure to watch such talented people at work.
A masterpiece that deserves every award it won.
Exciting, original and enormously entertaining.
The film is a real gem, full of grace and humour.
""".strip().splitlines()


NEGATIVE = """
A dull and lifeless film that wastes two hours of your time.
The acting is wooden and the script is terrible.
I hated every minute of this tedious mess.
A clumsy story, badly shot and painfully slow.
The worst comedy I have seen in years.
Lazy writing and a bored cast.
It left me angry that I had paid for a ticket.
A predictable thriller without a single surprise.
The music is grating and the ending makes no sense.
A joyless and cynical piece of junk.
She gives an embarrassing performance in the leading role.
What a crushing disappointment this movie is.
A failure for the director and an ordeal for the audience.
Stale, humourless and empty.
I was annoyed by its cheap sentiment.
One of the ugliest films of the decade.
The dialogue is awful and none of the jokes land.
A miserable drama with characters nobody could care about.
This is storytelling at its very laziest.
A loud, stupid picture that insults the whole family.
The effects look cheap and the plot is full of holes.
A pointless and boring adventure.
I yawned, I groaned, and I warn everyone to stay away.
Badly directed, with no attention to detail.
A hollow and depressing experience.
There is no chemistry at all between the two leads.
It is painful to watch such talented people wasted.
A disaster that deserves to be forgotten.
Tiresome, derivative and utterly forgettable.
The film is a total bore, without wit or charm.
""".strip().splitlines()


@pytest.fixture
def text(tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), HEAD, SHORT)


@pytest.fixture(scope="module")
def fitted(tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), HEAD, SHORT).fit(TEXTS, LABELS)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the sentences that a body embeds, one list per call, without those from the cache."""
    seen: list[list[str]] = []
    plain = Body._embed

    def spy(body: Body, texts: list[str], batch_size: int) -> np.ndarray:
        seen.append(list(texts))
        return plain(body, texts, batch_size)

    monkeypatch.setattr(Body, "_embed", spy)
    return seen


class TestTextClassifier:
    def test_fit_learns_the_training_sentences(self, tiny_body_folder: Path) -> None:
        head, long = HEAD.updated(encoder_layers=3, connectivity=4), TrainConfig(epochs=60, learning_rate=0.1)
        text = TextClassifier(str(tiny_body_folder), head, long, validation_fraction=0)
        assert text.fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.8

    @pytest.mark.parametrize("labels", [LABELS, ["good"] * 4 + ["bad"] * 4, [3, 1, 7, 3, 1, 7, 3, 1], list("abcabcab")])
    @pytest.mark.parametrize("kind", [list, np.array, tuple])
    def test_labels_of_every_type_are_predicted(self, labels: Any, kind: Any, text: TextClassifier) -> None:
        text.set_params(head__n_measured=len(set(labels)))
        assert text.fit(kind(TEXTS), kind(labels)) is text
        proba, predicted = text.predict_proba(TEXTS), text.predict(TEXTS)
        assert text.classes_.tolist() == sorted(set(labels))
        assert proba.shape == (8, len(set(labels)))
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert predicted.tolist() == [text.classes_[row.argmax()] for row in proba]
        assert text.score(TEXTS, labels) == np.mean(
            [one == other for one, other in zip(predicted, labels, strict=True)]
        )

    def test_fit_equals_a_head_on_the_embeddings(self, fitted: TextClassifier) -> None:
        embeddings = fitted.body_.encode(TEXTS)
        head = QuantumHeadClassifier(HEAD, SHORT).fit(embeddings, LABELS)
        np.testing.assert_array_equal(head.predict_proba(embeddings), fitted.predict_proba(TEXTS))
        assert fitted.classifier_.module_.weights.dtype.itemsize == 4, "a body computes in float32"

    def test_default_head_is_recommended_for_the_body(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), train=TrainConfig(epochs=1)).fit(TEXTS, LABELS)
        assert text.classifier_.head_config_ == HeadConfig.recommended(16)

    def test_fit_passes_all_settings_to_the_head(self, tiny_body_folder: Path) -> None:
        settings: dict[str, Any] = {"seed": 5, "validation_fraction": 0.5, "class_weight": {0: 2.0}}
        text = TextClassifier(str(tiny_body_folder), HEAD, SHORT, **settings).fit(TEXTS, LABELS)
        params = text.classifier_.get_params(deep=False)
        others = {"head": HEAD, "train": SHORT, "device": "cpu", "calibrate": False, "random_state": None}
        others |= {"validation": "holdout", "n_folds": 5}
        assert params == {**settings, **others}
        assert (text.classifier_.train_size_, text.classifier_.validation_size_) == (4, 4)

    def test_sample_of_weight_zero_is_left_out(self, text: TextClassifier) -> None:
        text.set_params(validation_fraction=0)
        weighted = text.fit(TEXTS, LABELS, [1, 1, 1, 0, 1, 1, 1, 0]).predict_proba(TEXTS)
        kept = [0, 1, 2, 4, 5, 6]
        fewer = text.fit([TEXTS[i] for i in kept], [LABELS[i] for i in kept]).predict_proba(TEXTS)
        np.testing.assert_array_equal(weighted, fewer)

    def test_predict_of_no_sentence_is_empty(self, fitted: TextClassifier) -> None:
        assert fitted.predict_proba([]).shape == (0, 2)
        assert fitted.predict([]).shape == (0,)
        assert fitted.predict([]).dtype == fitted.classes_.dtype

    def test_predict_of_copies_is_equal(self, fitted: TextClassifier) -> None:
        one = fitted.predict_proba(["good film"])
        np.testing.assert_allclose(fitted.predict_proba(["good film"] * 3), np.repeat(one, 3, axis=0), atol=1e-6)

    def test_validation_replaces_the_share(self, text: TextClassifier) -> None:
        text.fit(TEXTS, LABELS, validation=(["the good film", "dull film"], [1, 0]))
        assert (text.classifier_.train_size_, text.classifier_.validation_size_) == (8, 2)
        best = text.classifier_.history_[text.classifier_.best_epoch_]
        proba = text.predict_proba(["the good film", "dull film"])
        assert best.validation_loss == pytest.approx(-(np.log(proba[0, 1]) + np.log(proba[1, 0])) / 2, rel=1e-5)

    @pytest.mark.parametrize("seed", range(4))
    def test_split_keeps_copies_on_one_side(
        self, seed: int, text: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ketfit.estimators import base as estimator

        parts: list[Any] = []
        plain = estimator.train
        monkeypatch.setattr(
            estimator, "train", lambda *args, **named: (parts.extend(args[1:3]), plain(*args, **named))[1]
        )
        # Copies but for white space and letter case, which the body does not see: their embeddings are equal.
        texts = [copy for sentence in TEXTS for copy in (sentence, f"  {sentence.upper()} ", sentence.title())]
        labels = [label for label in LABELS for _ in range(3)]
        text.set_params(seed=seed, validation_fraction=0.4).fit(texts, labels)
        kept, held = ({tuple(row.round(decimals=3).tolist()) for row in part.x} for part in parts)
        assert len(parts[1]) >= 3
        assert len(kept) + len(held) == 8
        assert not kept & held

    def test_equal_seeds_predict_equally(self, text: TextClassifier) -> None:
        probas = [text.set_params(seed=seed).fit(TEXTS, LABELS).predict_proba(TEXTS) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(probas[0], probas[1])
        assert not np.array_equal(probas[0], probas[2])

    def test_fit_resumes_from_a_checkpoint(self, text: TextClassifier, tmp_path: Path) -> None:
        file = tmp_path / "run.safetensors"
        first = text.fit(TEXTS, LABELS, checkpoint=file).predict_proba(TEXTS)
        assert file.exists()
        np.testing.assert_array_equal(clone(text).fit(TEXTS, LABELS, checkpoint=file).predict_proba(TEXTS), first)
        with pytest.raises(TrainingError, match="its data differ"):
            clone(text).fit(TEXTS[::-1], LABELS, checkpoint=file)

    def test_progress_prints_to_stderr(self, text: TextClassifier, capsys: pytest.CaptureFixture[str]) -> None:
        text.fit(TEXTS, LABELS).predict(TEXTS)
        assert capsys.readouterr() == ("", "")
        text.set_params(cache=False).fit(TEXTS, LABELS, progress=True).predict(TEXTS, progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("8/8") >= 2
        assert "3/3" in shown.err


class TestCache:
    def test_second_fit_embeds_nothing(
        self, text: TextClassifier, fresh_cache: Path, embedded: list[list[str]]
    ) -> None:
        text.fit(TEXTS, LABELS)
        assert sorted(sentence for call in embedded for sentence in call) == sorted(TEXTS)
        embedded.clear()
        text.set_params(seed=3).fit(TEXTS, LABELS).predict(TEXTS)
        assert embedded == []
        text.predict(["good film", "a new one"])
        assert embedded == [["a new one"]]
        assert list(fresh_cache.rglob("*.sqlite"))

    def test_cache_off_writes_nothing(self, text: TextClassifier, fresh_cache: Path, embedded: list[list[str]]) -> None:
        text.set_params(cache=False)
        first = text.fit(TEXTS, LABELS).predict_proba(TEXTS)
        assert len([sentence for call in embedded for sentence in call]) == 16
        assert not fresh_cache.exists()
        np.testing.assert_allclose(
            text.set_params(cache=True).fit(TEXTS, LABELS).predict_proba(TEXTS), first, atol=1e-4
        )


class TestParams:
    def test_nested_parameters_can_be_set(self, text: TextClassifier, tiny_body_folder: Path) -> None:
        params = text.get_params()
        assert params["body"] == str(tiny_body_folder)
        assert (params["head__n_qubits"], params["train__epochs"], params["cache"]) == (5, 3, True)
        text.set_params(head__n_qubits=6, train__epochs=4, seed=2, cache=False)
        assert (text.head, text.train) == (HEAD.updated(n_qubits=6), SHORT.updated(epochs=4))

    def test_clone_is_unfitted_with_equal_parameters(self, fitted: TextClassifier) -> None:
        copy = clone(fitted)
        assert copy.get_params() == fitted.get_params()
        assert not hasattr(copy, "classifier_")

    def test_unknown_parameter_is_refused(self, text: TextClassifier) -> None:
        with pytest.raises(ConfigError, match="HeadConfig has no setting 'qubits'"):
            text.set_params(head__qubits=3)
        with pytest.raises(ValueError, match="Invalid parameter 'bodies'"):
            text.set_params(bodies="x")
        with pytest.raises(ConfigError, match="head__n_qubits has no configuration to change; pass head="):
            TextClassifier().set_params(head__n_qubits=3)

    def test_default_body_is_bundled(self) -> None:
        assert TextClassifier().body == "all-MiniLM-L6-v2"


class TestRefused:
    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ([*TEXTS[:7], ""], r"texts\[7\]: the text is empty"),
            ([*TEXTS[:3], " \n\t", *TEXTS[4:]], r"texts\[3\]: the text is empty"),
            ([*TEXTS[:7], None], r"texts\[7\]: the text is missing"),
            ([*TEXTS[:7], 3], r"texts\[7\]: the text is int, not str"),
            ("good film", r"texts must be a list of sentences, not str; for one sentence: \[sentence\]"),
            (b"good film", "texts must be a list of sentences, not bytes"),
            ([*TEXTS[:7], "\ud800"], r"texts\[7\]: the text has half of a surrogate pair"),
        ],
    )
    def test_unusable_sentences_are_refused(
        self, texts: Any, message: str, text: TextClassifier, fitted: TextClassifier
    ) -> None:
        with pytest.raises(InputError, match=message):
            text.fit(texts, LABELS)
        with pytest.raises(InputError, match=message):
            text.fit(TEXTS, LABELS, validation=(texts, LABELS))
        with pytest.raises(InputError, match=message):
            fitted.predict(texts)
        assert not hasattr(text, "classifier_")

    @pytest.mark.parametrize("texts", ["", b""])
    def test_predict_of_an_empty_string_is_refused(self, texts: Any, fitted: TextClassifier) -> None:
        with pytest.raises(InputError, match="texts must be a list of sentences"):
            fitted.predict_proba(texts)

    @pytest.mark.parametrize("sentences", [None, 3, (sentence for sentence in TEXTS)])
    def test_predict_of_a_value_without_length_is_refused(self, sentences: Any, fitted: TextClassifier) -> None:
        with pytest.raises(InputError, match="texts must be a list of sentences"):
            fitted.predict_proba(sentences)

    @pytest.mark.parametrize(
        ("texts", "labels", "error", "message"),
        [
            ([], [], ValueError, r"0 sample\(s\)"),
            (TEXTS, [1] * 8, DataError, "these labels hold 1 class: "),
            (TEXTS, LABELS[:7], ValueError, "inconsistent numbers of samples"),
            (TEXTS, np.linspace(0, 1, 8), DataError, r"labels\[0\] has the label 0.0 of type float"),
        ],
    )
    def test_unusable_labels_are_refused(
        self, texts: Sequence[str], labels: Any, error: type[Exception], message: str, text: TextClassifier
    ) -> None:
        with pytest.raises(error, match=message):
            text.fit(texts, labels)

    def test_unknown_validation_label_is_refused(self, text: TextClassifier) -> None:
        with pytest.raises(DataError, match="the validation labels hold 2, which the training labels do not"):
            text.fit(TEXTS, LABELS, validation=(["dull"], [2]))

    def test_head_too_small_for_the_body_is_refused(self, text: TextClassifier) -> None:
        with pytest.raises(ConfigError, match="width 16 and its reference amplitude needs n_qubits=5; n_qubits=4"):
            text.set_params(head__n_qubits=4).fit(TEXTS, LABELS)

    @pytest.mark.parametrize("body", ["no-such-body", "nobody/no-such-body", "/no/such/folder"])
    def test_unknown_body_is_refused(self, body: str) -> None:
        with pytest.raises(BodyError, match=body):
            TextClassifier(body, HEAD, SHORT).fit(TEXTS, LABELS)

    @pytest.mark.parametrize("method", ["predict", "predict_proba"])
    @pytest.mark.parametrize("texts", [TEXTS, []])
    def test_predict_before_fit_is_refused(self, method: str, texts: list[str], text: TextClassifier) -> None:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            getattr(text, method)(texts)

    def test_save_before_fit_is_refused(self, text: TextClassifier, tmp_path: Path) -> None:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            text.save_pretrained(tmp_path / "model")

    def test_failed_fit_leaves_the_classifier_unchanged(self, text: TextClassifier) -> None:
        before = text.fit(TEXTS, LABELS).predict_proba(TEXTS)
        with pytest.raises(DataError, match="1 class"):
            text.fit(TEXTS, ["one"] * 8)
        np.testing.assert_array_equal(text.predict_proba(TEXTS), before)
        assert text.classes_.tolist() == [0, 1]
        assert set(text.predict(TEXTS)) <= {0, 1}


class TestParts:
    def test_from_parts_predicts_equally(self, fitted: TextClassifier) -> None:
        again = TextClassifier.from_parts(fitted.body_, fitted.classifier_)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
        assert again.get_params() == fitted.get_params()

    def test_from_parts_of_different_widths_is_refused(self, fitted: TextClassifier) -> None:
        head = QuantumHeadClassifier(HEAD, SHORT).fit(np.eye(8), LABELS)
        with pytest.raises(ConfigError, match="the head takes embeddings of width 8; .* makes 16"):
            TextClassifier.from_parts(fitted.body_, head)


@pytest.mark.parametrize("kind", ["text", "head"])
def test_push_to_hub_uploads_a_loadable_model(
    kind: str, fitted: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The seam to the Hub is tested elsewhere: here, that what reaches it is a model, and that what it says comes back.
    pushed: dict[str, Any] = {}

    def take(folder: Path, repo_id: str, **settings: Any) -> str:
        pushed.update(settings, repo_id=repo_id)
        folder.rename(tmp_path / "pushed")
        return "0123abcd"

    monkeypatch.setattr(hub, "push", take)
    model = fitted if kind == "text" else fitted.classifier_
    assert model.push_to_hub("user/name", data="eight sentences", metrics={"accuracy": 0.5}, private=True) == "0123abcd"
    assert callable(pushed.pop("is_owned"))
    assert pushed == {"repo_id": "user/name", "private": True, "token": None, "commit_message": "Upload a KetFit model"}
    loaded: Any = type(model).from_pretrained(tmp_path / "pushed")
    given: Any = TEXTS if kind == "text" else fitted.body_.encode(TEXTS)
    np.testing.assert_array_equal(loaded.predict_proba(given), model.predict_proba(given))
    assert "eight sentences" in (tmp_path / "pushed" / "README.md").read_text()


def test_bundled_body_learns_sentiment() -> None:
    texts, labels = [*POSITIVE, *NEGATIVE], np.array(["good"] * 30 + ["bad"] * 30)
    assert len(texts) == len(set(texts)) == 60
    head = HeadConfig(
        n_qubits=9, encoder_layers=3, connectivity=4, main_layers=1, reference_amplitude=1, angle_scale=1.5
    )
    text = TextClassifier("all-MiniLM-L6-v2", head, TrainConfig(epochs=40, learning_rate=0.05))
    train, test = np.arange(60) % 3 > 0, np.arange(60) % 3 == 0
    text.fit([texts[i] for i in np.flatnonzero(train)], labels[train])
    assert text.score([texts[i] for i in np.flatnonzero(test)], labels[test]) > 0.7
    assert text.body_.source == "bundled"


WORDS = ["positive"] * 4 + ["negative"] * 4


PLAIN_HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)


CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=4, precision="float32")


END_TO_END = EndToEndConfig(epochs=1, batch_size=4, learning_rate=2e-5, precision="float32")


def test_bfloat16_model_loads_in_bfloat16(tiny_body_folder: Path, tmp_path: Path) -> None:
    text = TextClassifier(str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), dtype="bfloat16").fit(TEXTS, WORDS)
    text.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    assert (loaded.dtype, loaded.body_.dtype) == ("bfloat16", "bfloat16")
    assert (loaded.predict_proba(TEXTS) == text.predict_proba(TEXTS)).all()
    assert json.loads((tmp_path / "model" / METADATA).read_text())["body"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("tune", [CONTRASTIVE, END_TO_END])
def test_validation_sentences_never_tune(
    tune: TuneConfig, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ketfit.bodies import contrastive
    from ketfit.estimators import staged_fit

    seen: list[list[str]] = []
    monkeypatch.setattr(contrastive, "tune_body", lambda body, texts, *_, **__: (seen.append(list(texts)), body)[1])
    monkeypatch.setattr(
        staged_fit, "tune_end_to_end", lambda body, head, texts, *_, **__: (seen.append(list(texts)), (body, head))[1]
    )
    made = TextClassifier(str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), validation_fraction=0.25, tune=tune)
    made.fit([*TEXTS, *(f" {text.upper()} " for text in TEXTS)], WORDS * 2)
    kept = {text.strip().lower() for text in seen[0]}
    assert len(seen[0]) == made.classifier_.train_size_ == 12
    assert made.classifier_.validation_size_ == 4
    assert len(kept) == 6, "copies of a sentence stay on one side"
    made.fit(TEXTS, WORDS, validation=(["fine", "dull dull"], ["positive", "negative"]))
    assert seen[1] == TEXTS


class TestStages:
    STAGES = (CONTRASTIVE, END_TO_END)

    @pytest.fixture
    def text(self, tiny_body_folder: Path) -> TextClassifier:
        return TextClassifier(
            str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=2), validation_fraction=0.25, tune=list(self.STAGES)
        )

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, dict[str, Any]]]:
        """The stages that run: the name, the body it starts from, and the settings of the call."""
        from ketfit.bodies import contrastive
        from ketfit.estimators import staged_fit

        calls: list[tuple[str, Any, dict[str, Any]]] = []

        def tune_body(body: Body, texts: Sequence[str], *_: Any, **settings: Any) -> Body:
            calls.append(("contrastive", body, {"texts": texts, **settings}))
            return replace(body, name="tuned")

        def tune_end_to_end(body: Body, head: Any, texts: Sequence[str], *_: Any, **settings: Any) -> tuple[Body, Any]:
            calls.append(("end-to-end", body, {"texts": texts, "head": head, **settings}))
            return body, head

        monkeypatch.setattr(contrastive, "tune_body", tune_body)
        monkeypatch.setattr(staged_fit, "tune_end_to_end", tune_end_to_end)
        return calls

    def test_each_stage_starts_from_the_body_before(
        self, text: TextClassifier, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedded: list[str] = []
        encode = Body.encode
        monkeypatch.setattr(
            Body, "encode", lambda body, *given, **more: (embedded.append(body.name), encode(body, *given, **more))[1]
        )
        text.set_params(calibrate=True).fit(TEXTS, WORDS, checkpoint=tmp_path / "run")
        (first, start, one), (second, tuned, other) = calls
        assert (first, second) == ("contrastive", "end-to-end")
        assert (start.name, tuned.name) == (text.body, "tuned")
        assert set(embedded) == {"tuned"}, "the head is fitted on the contrastive body"
        assert one["texts"] == other["texts"]
        assert len(one["texts"]) == 6
        assert one["validation"][0] == other["validation"][0]
        assert not set(one["validation"][0]) & set(one["texts"])
        assert (one["checkpoint"], other["checkpoint"]) == (tmp_path / "run.tuning", tmp_path / "run.tuning-2")
        assert other["head"].calibrate
        assert other["head"].temperature_ == 1, "the end-to-end stage calibrates at its end"

    @pytest.mark.slow
    def test_stages_differ_from_each_stage_alone(self, text: TextClassifier, tiny_body: Body) -> None:
        both = clone(text).fit(TEXTS, WORDS)
        tuning = both.body_.tuning
        assert tuning is not None
        assert (tuning.stages, tuning.base_fingerprint) == (self.STAGES, tiny_body.fingerprint)
        alone = [clone(text).set_params(tune=stage).fit(TEXTS, WORDS).body_.fingerprint for stage in self.STAGES]
        assert len({both.body_.fingerprint, tiny_body.fingerprint, *alone}) == 4
        again = clone(text).fit(TEXTS, WORDS)
        assert again.body_.fingerprint == both.body_.fingerprint
        np.testing.assert_array_equal(again.predict_proba(TEXTS), both.predict_proba(TEXTS))
        assert TextClassifier.from_parts(both.body_, both.classifier_).tune == list(self.STAGES)

    def test_split_that_leaves_one_sentence_of_a_label_is_refused(self, text: TextClassifier, calls: list[Any]) -> None:
        with pytest.raises(DataError, match=r"validation took 1 of the 2 sentences of label"):
            text.fit(["good", "fine", "bad", "dull"], ["positive"] * 2 + ["negative"] * 2)
        assert not calls

    def test_more_last_layers_than_the_body_has_are_refused_in_every_stage(
        self, text: TextClassifier, calls: list[Any]
    ) -> None:
        text.set_params(tune=[CONTRASTIVE, END_TO_END.updated(last_layers=2)])
        with pytest.raises(ConfigError, match="last_layers=2: .* has 1 layers"):
            text.fit(TEXTS, WORDS)
        assert not calls


def test_sentences_of_weight_zero_do_not_tune(tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ketfit.bodies import contrastive

    seen: list[Any] = []
    monkeypatch.setattr(contrastive, "tune_body", lambda body, *given, **_: (seen.extend(given[:2]), body)[1])
    made = TextClassifier(
        str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), validation_fraction=0, tune=CONTRASTIVE
    )
    made.fit(TEXTS, WORDS, [1, 0, 2, 1, 1, 1, 0, 1])
    assert seen[0] == [TEXTS[row] for row in (0, 2, 3, 4, 5, 7)]
    assert seen[1].tolist() == [WORDS[row] for row in (0, 2, 3, 4, 5, 7)]


def test_invalid_settings_fail_before_tuning(tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ketfit.bodies import contrastive

    monkeypatch.setattr(contrastive, "tune_body", lambda *_, **__: pytest.fail("it tuned"))
    text = TextClassifier(str(tiny_body_folder), PLAIN_HEAD, tune=CONTRASTIVE)
    for settings, message in (
        (
            {"tune": "contrastive"},
            "tune='contrastive' is of the wrong type; pass a ContrastiveConfig, an EndToEndConfig, or",
        ),
        ({"tune": [END_TO_END, CONTRASTIVE]}, "tune has contrastive tuning after end-to-end training"),
        ({"tune": []}, "tune is an empty list"),
        ({"head": PLAIN_HEAD.updated(n_qubits=3)}, "an embedding of width 16 needs n_qubits=4"),
        ({"head": "deep"}, "head='deep' is unknown; pass a HeadConfig"),
    ):
        with pytest.raises(ConfigError, match=message):
            TextClassifier(**{**text.get_params(deep=False), **settings}).fit(TEXTS, WORDS)
    with pytest.raises(InputError, match=r"labels have shape \(7,\); there are 8 sentences"):
        text.fit(TEXTS, WORDS[:-1])


class TestCheckpoint:
    @pytest.fixture
    def text(self, tiny_body_folder: Path) -> TextClassifier:
        return TextClassifier(str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=2), validation_fraction=0.25)

    @pytest.fixture
    def checkpoint(self, text: TextClassifier, tmp_path: Path) -> Path:
        text.fit(TEXTS, WORDS, [1, 1, 1, 1, 1, 1, 1, 2], checkpoint=tmp_path / "run")
        return tmp_path / "run"

    @pytest.mark.parametrize("validation", [None, (["fine", "dull dull"], ["positive", "negative"])])
    def test_checkpoint_resumes_with_embeddings_that_differ_by_rounding(
        self, validation: Any, text: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text.fit(TEXTS, WORDS, validation=validation, checkpoint=tmp_path / "run")
        embed = Body.encode
        monkeypatch.setattr(Body, "encode", lambda *given, **more: embed(*given, **more) * np.float32(1 + 3e-7))
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

    def test_checkpoint_of_other_validation_sentences_is_refused(self, text: TextClassifier, tmp_path: Path) -> None:
        text.fit(TEXTS, WORDS, validation=(["fine", "dull"], ["positive", "negative"]), checkpoint=tmp_path / "run")
        for held in ((["fine", "bad"], ["positive", "negative"]), (["fine", "dull"], ["negative", "positive"])):
            with pytest.raises(TrainingError, match="its data differ"):
                text.fit(TEXTS, WORDS, validation=held, checkpoint=tmp_path / "run")

    def test_checkpoint_of_an_earlier_version_or_of_embeddings_is_refused(
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
        head = QuantumHeadClassifier(PLAIN_HEAD, TrainConfig(epochs=2), validation_fraction=0.25)
        with pytest.raises(TrainingError, match="its data differ"):
            head.fit(embeddings, WORDS, checkpoint=checkpoint)

    @pytest.mark.slow
    def test_tuned_fit_resumes_with_an_emptied_cache(
        self, text: TextClassifier, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embed = Body.encode
        for number, tune in enumerate((CONTRASTIVE, END_TO_END, [CONTRASTIVE, END_TO_END])):
            text.set_params(tune=tune)
            with monkeypatch.context() as patch:
                first = clone(text).fit(TEXTS, WORDS, checkpoint=tmp_path / str(number))
                shutil.rmtree(fresh_cache)
                patch.setattr(Body, "encode", lambda *given, **more: embed(*given, **more) * np.float32(1 + 3e-7))
                again = clone(text).fit(TEXTS, WORDS, checkpoint=tmp_path / str(number))
            assert again.body_.fingerprint == first.body_.fingerprint
            np.testing.assert_array_equal(again.predict_proba(TEXTS), first.predict_proba(TEXTS))


class TestPairs:
    @pytest.mark.slow
    def test_split_that_leaves_one_sentence_of_a_label_is_refused(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), tune=CONTRASTIVE)
        texts, labels = ["good", "fine", "bad", "dull"], ["positive"] * 2 + ["negative"] * 2
        message = (
            r"validation took 1 of the 2 sentences of label '\w+', .* use validation_fraction=0, or more sentences"
        )
        with pytest.raises(DataError, match=message):
            text.fit(texts, labels)
        assert text.set_params(validation_fraction=0).fit(texts, labels).body_.tuning is not None

    def test_label_of_one_sentence_is_not_blamed_on_validation(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), tune=CONTRASTIVE)
        with pytest.raises(DataError, match="pairs sentences of one label, and 'negative' has only one sentence"):
            text.fit(["good", "fine", "the good", "bad"], ["positive"] * 3 + ["negative"])


def test_random_state_replaces_the_seed(tiny_body_folder: Path) -> None:
    text = TextClassifier(str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), seed=3)
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
@pytest.mark.parametrize("tune", [CONTRASTIVE, END_TO_END])
def test_random_state_seed_tunes_and_is_saved(tune: TuneConfig, tiny_body_folder: Path, tmp_path: Path) -> None:
    text = TextClassifier(
        str(tiny_body_folder), PLAIN_HEAD, TrainConfig(epochs=1), random_state=np.random.RandomState(1)
    )
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


class TestComponents:
    """A head on principal components."""

    HEAD = HeadConfig(n_qubits=3, encoder_layers=1, main_layers=1, components=3, reference_amplitude=1)

    def test_saved_model_predicts_as_before(self, tiny_body_folder: Path, tmp_path: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), self.HEAD, SHORT).fit(TEXTS, LABELS)
        text.save_pretrained(tmp_path / "model")
        loaded = TextClassifier.from_pretrained(tmp_path / "model")
        assert loaded.classifier_.head_config_ == self.HEAD
        assert np.array_equal(loaded.predict_proba(TEXTS), text.predict_proba(TEXTS))

    @pytest.mark.parametrize("tune", [ContrastiveConfig(epochs=1), EndToEndConfig(epochs=1)])
    def test_too_many_components_fail_before_tuning(self, tiny_body_folder: Path, tune: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(Body, "encode", lambda *_, **__: pytest.fail("the body was used"))
        text = TextClassifier(str(tiny_body_folder), self.HEAD.updated(components=7), SHORT, tune=tune)
        with pytest.raises(ConfigError, match="components=7: [1-7] training sentences"):
            text.fit(TEXTS, LABELS)
        with pytest.raises(ConfigError, match="components=17: an embedding of width 16"):
            text.set_params(head__components=17, head__n_qubits=5).fit(TEXTS, LABELS)


def test_fit_own_pairs_without_contrastive_tuning_raise(tiny_body_folder: Path) -> None:
    classifier = TextClassifier(str(tiny_body_folder), tune=EndToEndConfig())
    with pytest.raises(ConfigError, match="pairs are for contrastive tuning; pass tune=ContrastiveConfig"):
        classifier.fit(["good", "bad"], ["yes", "no"], pairs=[("good", "bad", 0.0)])


def test_fit_pairs_beside_a_teacher_raise(tiny_body: Body) -> None:
    classifier = TextClassifier(tiny_body.name, tune=ContrastiveConfig(loss="cosine"))
    with pytest.raises(ConfigError, match="pairs and teacher both say what contrastive tuning learns"):
        classifier.fit(["good", "bad"], ["yes", "no"], pairs=[("good", "bad", 0.0)], teacher=tiny_body)


def test_fit_own_pairs_reach_the_contrastive_stage(
    tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(*_: Any, pairs: Any, **__: Any) -> Any:
        raise InterruptedError(pairs)

    monkeypatch.setattr("ketfit.bodies.contrastive.tune_body", tune)
    classifier = TextClassifier(str(tiny_body_folder), tune=ContrastiveConfig(loss="cosine"), validation_fraction=0.0)
    with pytest.raises(InterruptedError, match="0.25"):
        classifier.fit(["good", "bad"] * 4, ["yes", "no"] * 4, pairs=[("good", "bad", 0.25)])


def test_fit_own_pairs_with_held_out_sentences_do_not_tune_the_body(
    tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(*_: Any, pairs: Any, **__: Any) -> Any:
        raise InterruptedError(pairs)

    monkeypatch.setattr("ketfit.bodies.contrastive.tune_body", tune)
    classifier = TextClassifier(str(tiny_body_folder), tune=ContrastiveConfig(loss="cosine"))
    texts, labels, validation = ["good", "bad"], ["yes", "no"], (["Fine  film", "dull"], ["yes", "no"])
    pairs = [("good", "fine film", 1.0), ("good", "bad", 0.0), ("dull", "bad", 1.0)]
    with (
        pytest.warns(DataWarning, match="2 of 3 pairs have a sentence that is held out for validation"),
        pytest.raises(InterruptedError, match=r"^\[\('good', 'bad', 0\.0\)\]$"),
    ):
        classifier.fit(texts, labels, validation=validation, pairs=pairs)
    with pytest.raises(ConfigError, match="every one of the pairs has a sentence that is held out"):
        classifier.fit(texts, labels, validation=validation, pairs=pairs[:1])


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({}, True),
        ({"head": "svc"}, True),
        ({"head": "auto"}, True),
        ({"head": "auto", "validation": "cross"}, False),
        ({"head": "mlp", "validation": "cross"}, False),
        ({"head": MLPHead(validation="cross")}, False),
        ({"head": "logistic-regression"}, False),
        ({"head": "logistic-regression", "tune": ContrastiveConfig()}, False),
        ({"head": "logistic-regression", "tune": ContrastiveConfig(patience=2)}, True),
        ({"head": "logistic-regression", "tune": EndToEndConfig()}, True),
    ],
)
def test_uses_validation_depends_on_head_and_tuning(settings: dict[str, Any], used: bool) -> None:
    assert TextClassifier(**settings).uses_validation == used
