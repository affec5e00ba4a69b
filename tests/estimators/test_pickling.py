"""Copies and pickles of bodies and classifiers, also in other processes."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ketfit.bodies.body import Body, load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.bodies.reference import BodyReference, load_reference
from ketfit.bodies.transformer import BodyTransformer
from ketfit.errors import BodyError
from ketfit.estimators import base as estimator_module
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig
from tests.fake_hub import Hub

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["positive"] * 4 + ["negative"] * 4
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
SHORT = TrainConfig(epochs=2)
CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=4)
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)

# Loads two bodies and two classifiers from a pickle, and saves what each makes of the sentences.
LOAD = f"""
import pickle, sys
import numpy as np
with open("pickled", "rb") as file:
    bodies, texts = pickle.load(file)
made = [body.encode({TEXTS}, cache=False) for body in bodies] + [text.predict_proba({TEXTS}) for text in texts]
np.savez("made.npz", *made)
"""


@pytest.fixture
def text(tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), HEAD, SHORT)


@pytest.fixture
def tuned(tiny_body: Body, fresh_cache: Path) -> Body:
    return tune_body(tiny_body, TEXTS, LABELS, CONTRASTIVE)


def bits(body: Body) -> np.ndarray:
    return body.encode(TEXTS, cache=False)


class TestBody:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_pickle_of_a_frozen_body_holds_its_name(self, protocol: int, tiny_body: Body) -> None:
        content = pickle.dumps(tiny_body, protocol)
        assert len(content) < 2000
        loaded = pickle.loads(content)
        facts = ("name", "revision", "fingerprint", "dimension", "source", "folder", "dtype", "tuning")
        assert all(getattr(loaded, fact) == getattr(tiny_body, fact) for fact in facts)
        assert loaded._lock is not tiny_body._lock
        np.testing.assert_array_equal(bits(loaded), bits(tiny_body))
        np.testing.assert_array_equal(loaded.encode(TEXTS), tiny_body.encode(TEXTS))

    def test_pickle_of_a_bfloat16_body_keeps_the_dtype(self, tiny_body_folder: Path) -> None:
        body = load_body(tiny_body_folder, device="cpu", dtype="bfloat16")
        loaded = pickle.loads(pickle.dumps(body))
        assert loaded.dtype == "bfloat16"
        np.testing.assert_array_equal(bits(loaded), bits(body))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_pickle_of_a_tuned_body_survives_its_cache(self, protocol: int, tuned: Body, fresh_cache: Path) -> None:
        content, before = pickle.dumps(tuned, protocol), bits(tuned)
        shutil.rmtree(fresh_cache)
        loaded = pickle.loads(content)
        assert (loaded.name, loaded.source, loaded.tuning) == (tuned.name, tuned.source, tuned.tuning)
        assert loaded.fingerprint == tuned.fingerprint
        assert loaded.folder == fresh_cache / "tuned" / tuned.fingerprint[:32]
        np.testing.assert_array_equal(bits(loaded), before)

    def test_pickle_of_a_moved_body_names_its_folder(self, own_body: Path) -> None:
        content = pickle.dumps(load_body(own_body, device="cpu"))
        own_body.rename(own_body.with_name("elsewhere"))
        with pytest.raises(BodyError, match=rf"in the folder {own_body}, which is missing; put it there, or load a"):
            pickle.loads(content)

    def test_pickle_with_another_body_in_the_folder_is_refused(self, own_body: Path) -> None:
        content = pickle.dumps(load_body(own_body, device="cpu"))
        (own_body / "notes.txt").write_text("one more file that a tokenizer might read")
        with pytest.raises(BodyError, match=r"has fingerprint .*\.\.\., and what is in .*own-body has"):
            pickle.loads(content)

    def test_hub_body_is_found_in_its_folder_or_by_its_commit(self, hub: Hub, tiny_body: Body, tmp_path: Path) -> None:
        body = load_body("someone/tiny", device="cpu")
        content = pickle.dumps(body)
        loaded = pickle.loads(content)
        assert (loaded.name, loaded.source, loaded.revision) == ("someone/tiny", "hub", body.revision)
        shutil.rmtree(tmp_path / "hub")
        again = pickle.loads(content)
        assert (again.fingerprint, again.revision) == (tiny_body.fingerprint, body.revision)

    def test_body_with_changed_weights_is_refused(self, tiny_body_folder: Path) -> None:
        body = load_body(tiny_body_folder, device="cpu")
        with torch.no_grad():
            next(body.transformer.parameters()).zero_()
        with pytest.raises(BodyError, match=r"weights of .* were changed since it was loaded, and a pickle would not"):
            pickle.dumps(body)
        with pytest.raises(BodyError, match="embedding cache does not apply"):
            copy.deepcopy(body).encode(TEXTS)
        np.testing.assert_array_equal(bits(copy.deepcopy(body)), bits(body))

    @pytest.mark.parametrize("kind", ["removed", "changed"])
    def test_tuned_body_without_its_files_is_refused(
        self, kind: str, tuned: Body, fresh_cache: Path, tmp_path: Path
    ) -> None:
        head = QuantumHeadClassifier(HEAD, SHORT).fit(tuned.encode(TEXTS), LABELS)
        if kind == "removed":
            shutil.rmtree(fresh_cache)
        else:
            (tuned.folder / "notes.txt").write_text("more")
        with pytest.raises(BodyError, match=r"files of the body in .* were removed or changed since it was loaded"):
            pickle.dumps(tuned)
        with pytest.raises(BodyError, match=r"files of the body in .* were removed or changed since it was loaded"):
            TextClassifier.from_parts(tuned, head).save_pretrained(tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_body_of_an_absent_device_loads_on_the_cpu_with_a_warning(self, tiny_body: Body) -> None:
        reference = replace(BodyReference.from_body(tiny_body), device="cuda:7")
        with pytest.warns(
            UserWarning, match=r"pickled on the device 'cuda:7', which cannot be used here .* on the CPU"
        ):
            loaded = load_reference(reference)
        np.testing.assert_array_equal(bits(loaded), bits(tiny_body))

    def test_deep_copy_is_independent_and_shallow_copy_is_not(self, tiny_body_folder: Path) -> None:
        body = load_body(tiny_body_folder, device="cpu")
        before = bits(body)
        deep, shallow = copy.deepcopy(body), copy.copy(body)
        assert shallow.transformer is body.transformer
        assert shallow._lock is body._lock
        assert deep._lock is not body._lock
        with torch.no_grad():
            next(deep.transformer.parameters()).zero_()
        np.testing.assert_array_equal(bits(body), before)
        np.testing.assert_array_equal(body.encode(TEXTS), before)
        assert abs(bits(deep) - before).max() > 0.01


class TestText:
    @pytest.mark.parametrize(
        "copied",
        [
            *(lambda thing, p=protocol: pickle.loads(pickle.dumps(thing, p)) for protocol in PROTOCOLS),
            copy.copy,
            copy.deepcopy,
        ],
        ids=[*(f"protocol {protocol}" for protocol in PROTOCOLS), "copy", "deepcopy"],
    )
    def test_copy_predicts_equally(self, copied: Callable[[Any], Any], text: TextClassifier) -> None:
        text.fit(TEXTS, LABELS)
        other = copied(text)
        np.testing.assert_array_equal(other.predict_proba(TEXTS), text.predict_proba(TEXTS))
        assert other.get_params() == text.get_params()
        assert other.classifier_.history_ == text.classifier_.history_
        assert pickle.loads(pickle.dumps(clone(text))).get_params() == text.get_params()

    def test_joblib_dump_predicts_equally(self, text: TextClassifier) -> None:
        file = io.BytesIO()
        joblib.dump(text.fit(TEXTS, LABELS), file)
        file.seek(0)
        np.testing.assert_array_equal(joblib.load(file).predict_proba(TEXTS), text.predict_proba(TEXTS))

    @pytest.mark.slow
    def test_pickle_loads_in_another_process_with_an_empty_cache(
        self, text: TextClassifier, tiny_body: Body, tuned: Body, fresh_cache: Path, tmp_path: Path
    ) -> None:
        texts = text.fit(TEXTS, LABELS), clone(text).set_params(tune=CONTRASTIVE).fit(TEXTS, LABELS)
        expected = [bits(tiny_body), bits(tuned), *(text.predict_proba(TEXTS) for text in texts)]
        (tmp_path / "pickled").write_bytes(pickle.dumps(((tiny_body, tuned), texts)))
        shutil.rmtree(fresh_cache)
        command = [sys.executable, "-W", "error", "-c", LOAD]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "made.npz") as made:
            for name, array in zip(made.files, expected, strict=True):
                np.testing.assert_allclose(made[name], array, rtol=0, atol=2e-6)

    def test_pickle_has_no_compiled_plans(self, text: TextClassifier) -> None:
        text.fit(TEXTS, LABELS)
        assert text.classifier_.module_.circuit.cache
        assert pickle.loads(pickle.dumps(text)).classifier_.module_.circuit.cache == {}

    @pytest.mark.slow
    def test_scikit_learn_tools_in_two_processes_predict_equally(self, text: TextClassifier, tiny_body: Body) -> None:
        labels = np.array(LABELS)
        other = clone(text).set_params(seed=1)
        tools = [
            CalibratedClassifierCV(text, cv=2, n_jobs=2),
            StackingClassifier([("one", text), ("other", other)], cv=2, n_jobs=2),
            VotingClassifier([("one", text), ("other", other)], voting="soft", n_jobs=2),
            OneVsRestClassifier(text, n_jobs=2),
            GridSearchCV(text, {"head__main_layers": [1, 2]}, cv=2, n_jobs=2),
        ]
        for tool in tools:
            proba = tool.fit(TEXTS, labels).predict_proba(TEXTS)
            assert proba.shape == (8, 2), tool
            assert np.isfinite(proba).all(), tool
            again = pickle.loads(pickle.dumps(tool)).predict_proba(TEXTS)
            np.testing.assert_array_equal(again, proba, err_msg=str(tool))
        one = cross_val_predict(text, TEXTS, labels, cv=2, method="predict_proba")
        two = cross_val_predict(text, TEXTS, labels, cv=2, method="predict_proba", n_jobs=2)
        np.testing.assert_array_equal(one, two)
        head = QuantumHeadClassifier(HEAD, SHORT)
        for embed in (FunctionTransformer(tiny_body.encode), BodyTransformer(str(tiny_body.folder))):
            pipeline = make_pipeline(embed, head)
            scores = [cross_val_score(pipeline, TEXTS, labels, cv=2, n_jobs=jobs) for jobs in (1, 2)]
            np.testing.assert_array_equal(*scores)

    @pytest.mark.slow
    def test_grid_search_over_tuning_settings_finds_the_best(self, text: TextClassifier, fresh_cache: Path) -> None:
        text.set_params(tune=CONTRASTIVE, validation_fraction=0)
        grid = {"tune__learning_rate": [1e-5, 1e-3], "head__main_layers": [1]}
        search = GridSearchCV(text, grid, cv=2).fit(TEXTS, LABELS)
        best = search.best_estimator_
        assert best.body_.tuning.stages[0].learning_rate == search.best_params_["tune__learning_rate"]
        copied = pickle.loads(pickle.dumps(search))
        np.testing.assert_array_equal(copied.predict_proba(TEXTS), search.predict_proba(TEXTS))


class TestHead:
    @pytest.fixture
    def head(self, tiny_body: Body) -> QuantumHeadClassifier:
        return QuantumHeadClassifier(HEAD.updated(shots=50), SHORT).fit(tiny_body.encode(TEXTS), LABELS)

    @pytest.mark.parametrize("copied", [lambda thing: pickle.loads(pickle.dumps(thing)), copy.deepcopy])
    def test_copy_samples_the_same_shots_from_its_own_stream(
        self, copied: Callable[[Any], Any], head: QuantumHeadClassifier, tiny_body: Body
    ) -> None:
        x = tiny_body.encode(TEXTS)
        head.predict_proba(x)  # the stream goes on from where it is
        other = copied(head)
        drawn = [head.predict_proba(x) for _ in range(3)]
        assert (drawn[0] != drawn[1]).any()
        for expected in drawn:
            np.testing.assert_array_equal(other.predict_proba(x), expected)

    def test_head_of_an_absent_device_loads_on_the_cpu_with_a_warning(
        self, tiny_body: Body, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = tiny_body.encode(TEXTS)
        head = QuantumHeadClassifier(HEAD, SHORT).fit(x, LABELS)
        with monkeypatch.context() as patch:
            patch.setattr(estimator_module, "_device_of", lambda _: "cuda:7")
            content = pickle.dumps(head)
        with pytest.warns(UserWarning, match="pickled on the device 'cuda:7'"):
            loaded = pickle.loads(content)
        np.testing.assert_array_equal(loaded.predict_proba(x), head.predict_proba(x))
        assert loaded.__dict__.keys() == head.__dict__.keys()
