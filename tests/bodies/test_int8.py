"""Bodies in int8: conversion, embeddings, cache, saved models and errors."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ketfit.bodies import int8
from ketfit.bodies.body import Body, load_body
from ketfit.errors import BodyError, ConfigError, MissingExtraError
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import FitConfig, HeadConfig, TrainConfig
from ketfit.model.tuning import EndToEndConfig
from ketfit.persistence.schema import METADATA

TEXTS = ["a good film", "the dull film, not good at all", "fine", "bad. bad! bad?", "good, fine"]
LABELS = ["yes", "no", "yes", "no", "yes"]
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)


class TestWithoutPackages:
    def test_missing_packages_name_the_extra(self, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(int8, "find_spec", lambda package: None)
        with pytest.raises(MissingExtraError, match=r"int8 needs .* pip install 'ketfit\[int8\]'"):
            load_body(tiny_body_folder, dtype="int8")

    @pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "gpu"])
    def test_int8_device_refuses_other_devices(self, device: str) -> None:
        with pytest.raises(ConfigError, match=f"dtype='int8' runs on the CPU, not on {device!r}; use dtype='bfloat16'"):
            int8.int8_device(device)

    def test_int8_device_without_a_choice_is_the_cpu(self) -> None:
        assert int8.int8_device(None) == int8.int8_device("cpu") == "cpu"

    def test_int8_is_for_embedding_and_not_for_tuning(self) -> None:
        assert FitConfig(dtype="int8").dtype == "int8"
        with pytest.raises(ConfigError, match="precision"):
            EndToEndConfig(precision="int8")


@pytest.fixture(scope="module")
def body(tiny_body_folder: Path) -> Body:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return load_body(tiny_body_folder, dtype="int8")


@pytest.mark.slow
class TestEmbeddings:
    def test_embeddings_are_close_to_float32(self, body: Body, tiny_body: Body) -> None:
        exact, close = tiny_body.encode(TEXTS), body.encode(TEXTS)
        assert (close.dtype, close.shape) == (np.dtype(np.float32), exact.shape)
        similarity = (exact * close).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(close, axis=1)
        assert similarity.min() > 0.95
        assert abs(exact - close).max() > 1e-5

    def test_embedding_does_not_depend_on_the_batch(self, body: Body) -> None:
        together = body.encode(TEXTS, cache=False)
        alone = np.concatenate([body.encode([text], cache=False, batch_size=1) for text in TEXTS])
        np.testing.assert_array_equal(together, alone)

    def test_threads_do_not_change_the_embeddings(self, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = body.encode(TEXTS, cache=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
        np.testing.assert_array_equal(body.encode(TEXTS, cache=False), expected)

    def test_pickle_and_copy_embed_equally(self, body: Body) -> None:
        expected = body.encode(TEXTS, cache=False)
        for other in (pickle.loads(pickle.dumps(body)), copy.copy(body), copy.deepcopy(body)):
            assert other.dtype == "int8"
            np.testing.assert_array_equal(other.encode(TEXTS, cache=False), expected)

    def test_other_distribution_of_onnx_runtime_is_used(
        self, body: Body, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = int8.version

        def installed(package: str) -> str:
            if package == "onnxruntime":
                raise PackageNotFoundError(package)
            return plain(package)

        monkeypatch.setattr(int8, "version", installed)
        again = load_body(tiny_body_folder, dtype="int8")
        assert again._int8 is not None and body._int8 is not None
        assert again._int8.key == body._int8.key

    def test_changed_weights_are_refused(self, tiny_body_folder: Path, body: Body) -> None:
        changed = load_body(tiny_body_folder, dtype="int8")
        with torch.no_grad():
            next(changed.transformer.parameters()).add_(1)
        with pytest.raises(BodyError, match="changed since it was loaded, and its int8 form was not"):
            changed.encode(TEXTS, cache=False)


@pytest.mark.slow
class TestFiles:
    def test_conversion_is_kept_and_embeddings_are_cached_separately(
        self, body: Body, tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = load_body(tiny_body_folder, dtype="int8")
        expected = first.encode(TEXTS)
        load_body(tiny_body_folder, device="cpu").encode(TEXTS)
        assert len(list((fresh_cache / "embeddings").glob("*.sqlite"))) == 2
        (folder,) = (fresh_cache / "int8").iterdir()
        assert [path.name for path in folder.iterdir()] == ["model.onnx"]
        monkeypatch.setattr(int8, "_convert", None)
        np.testing.assert_array_equal(load_body(tiny_body_folder, dtype="int8").encode(TEXTS), expected)

    def test_other_versions_convert_again(
        self, body: Body, tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load_body(tiny_body_folder, dtype="int8")
        monkeypatch.setattr(int8, "version", lambda package: "0.0")
        load_body(tiny_body_folder, dtype="int8")
        assert len(list((fresh_cache / "int8").iterdir())) == 2

    def test_damaged_file_is_named(self, body: Body, tiny_body_folder: Path, fresh_cache: Path) -> None:
        load_body(tiny_body_folder, dtype="int8")
        (file,) = (fresh_cache / "int8").glob("*/model.onnx")
        file.write_bytes(b"damaged")
        with pytest.raises(BodyError, match=r"model\.onnx is damaged: .* Delete .*; it is created again"):
            load_body(tiny_body_folder, dtype="int8")

    def test_failed_conversion_leaves_nothing(
        self, body: Body, tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("no such operator")

        monkeypatch.setattr(int8, "_quantize", fail)
        with pytest.raises(BodyError, match="cannot be converted to int8: no such operator. Use dtype='float32'"):
            load_body(tiny_body_folder, dtype="int8")
        assert list((fresh_cache / "int8").iterdir()) == []

    def test_too_different_embeddings_are_refused(
        self, body: Body, tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(int8, "_MIN_SIMILARITY", 1.1)
        with pytest.raises(BodyError, match="loses too much in int8: .* at least 1.1 is needed"):
            load_body(tiny_body_folder, dtype="int8")

    def test_body_with_a_default_prompt_is_refused(self, body: Body, own_body: Path, fresh_cache: Path) -> None:
        settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
        (own_body / "config_sentence_transformers.json").write_text(json.dumps(settings))
        with pytest.raises(BodyError, match="puts the prompt 'query' before sentences"):
            load_body(own_body, dtype="int8")

    def test_layers_with_outliers_stay_exact(
        self, body: Body, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(int8, "_MAX_OUTLIER", 0.0)
        load_body(tiny_body.folder, dtype="int8")
        (file,) = (fresh_cache / "int8").glob("*/model.onnx")
        assert b"MatMulInteger" not in file.read_bytes()


@pytest.mark.slow
class TestModels:
    def test_saved_model_loads_in_int8(self, body: Body, tiny_body_folder: Path, tmp_path: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), dtype="int8").fit(TEXTS, LABELS)
        text.save_pretrained(tmp_path / "model")
        loaded = TextClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.dtype, loaded.body_.dtype) == ("int8", "int8")
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), text.predict_proba(TEXTS))
        assert json.loads((tmp_path / "model" / METADATA).read_text())["body"]["dtype"] == "int8"

    def test_tuned_body_embeds_in_int8(self, body: Body, tiny_body_folder: Path, tmp_path: Path) -> None:
        tune = EndToEndConfig(epochs=1, batch_size=4)
        text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1), tune=tune, dtype="int8")
        text.fit(TEXTS * 4, LABELS * 4).save_pretrained(tmp_path / "model")
        assert text.body_.dtype == "int8"
        assert text.body_.tuning is not None
        loaded = TextClassifier.from_pretrained(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), text.predict_proba(TEXTS))


@pytest.mark.slow
def test_bundled_body_keeps_its_similarities() -> None:
    pytest.importorskip("onnxruntime")
    converted = load_body("all-MiniLM-L6-v2", dtype="int8").encode(TEXTS, cache=False)
    exact = load_body("all-MiniLM-L6-v2", device="cpu").encode(TEXTS, cache=False)
    assert (converted * exact).sum(axis=1).min() > 0.97


def test_int8_needs_no_package_to_import() -> None:
    assert "onnxruntime" not in vars(sys.modules["ketfit.bodies.int8"])
