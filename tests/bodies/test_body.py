"""Bodies: loading, errors for invalid folders, embedding with and without the cache."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from ketfit.bodies import cache
from ketfit.bodies.body import Body, load_body
from ketfit.errors import BodyError, ConfigError, InputError
from ketfit.storage import cache_dir

TEXTS = ["a good film", "the film is dull", "not bad!", "a good film", "and a very, very fine one"]


@pytest.fixture(scope="module")
def minilm() -> Body:
    return load_body("all-MiniLM-L6-v2", device="cpu")


@pytest.fixture
def embedded(tiny_body: Body, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The sentences passed to the tiny body's transformer, call by call."""
    calls: list[list[str]] = []
    encode = tiny_body.transformer.encode

    def recorded(texts: list[str], **options: Any) -> Any:
        calls.append(list(texts))
        return encode(texts, **options)

    monkeypatch.setattr(tiny_body.transformer, "encode", recorded)
    return calls


def cache_files(folder: Path) -> list[Path]:
    return list((folder / "embeddings").glob("*"))


# --- Loading ----------------------------------------------------------------------------------------------------


def test_load_body_of_local_folder_sets_attributes(tiny_body_folder: Path) -> None:
    body = load_body(str(tiny_body_folder), device="cpu")
    assert (body.name, body.source, body.revision) == (str(tiny_body_folder), "local", None)
    assert body.dimension == 16
    assert isinstance(body.transformer, SentenceTransformer)
    assert "transformer" not in repr(body)


def test_encode_minilm_equals_sentence_transformers(minilm: Body, fresh_cache: Path) -> None:
    assert (minilm.source, minilm.revision, minilm.dimension) == ("bundled", None, 384)
    result = minilm.encode(TEXTS)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, minilm.transformer.encode(TEXTS, show_progress_bar=False), atol=1e-5)
    np.testing.assert_array_equal(minilm.encode(TEXTS), result)
    np.testing.assert_allclose(minilm.encode(TEXTS, cache=False, batch_size=2), result, atol=2e-6)


def test_load_body_prints_nothing_and_restores_library_settings(
    tiny_body_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers", "huggingface_hub")]
        shown = [transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()]
        return [*((logger.level, logger.propagate, logger.handlers[:]) for logger in loggers), *shown]

    before = state()
    load_body(tiny_body_folder, device="cpu")
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_fingerprint_covers_only_files_that_affect_the_result(own_body: Path, tiny_body: Body) -> None:
    (own_body / "README.md").write_text("changed")
    (own_body / ".hidden.json").write_text("{}")
    (own_body / ".cache").mkdir()
    (own_body / ".cache" / "more.json").write_text("{}")
    same = load_body(own_body, device="cpu")
    assert len(same.fingerprint) == 64
    assert same.fingerprint == tiny_body.fingerprint
    (own_body / "notes.txt").write_text("one more file that a tokenizer might read")
    assert load_body(own_body, device="cpu").fingerprint != tiny_body.fingerprint


def test_fingerprint_changes_with_the_weights(own_body: Path, tiny_body: Body) -> None:
    weights = load_file(own_body / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5] += 1
    save_file(weights, own_body / "model.safetensors", metadata={"format": "pt"})
    assert load_body(own_body, device="cpu").fingerprint != tiny_body.fingerprint


def edit_modules(folder: Path, position: int, **values: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[position].update(values)
    (folder / "modules.json").write_text(json.dumps(modules))


def drop_weight(folder: Path, key: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[key]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no modules.json": (
        lambda folder: (folder / "modules.json").unlink(),
        "is not a sentence transformer: it has no modules.json",
    ),
    "modules.json is no JSON": (
        lambda folder: (folder / "modules.json").write_text("{"),
        r"modules\.json cannot be read as JSON",
    ),
    "modules.json is of another form": (
        lambda folder: (folder / "modules.json").write_text('[{"idx": 0}]'),
        "does not list modules with a type and a path",
    ),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no safetensors weights"),
    "pickled weights": (pickled_only, "has pickled weights only, which are never read"),
    "foreign code": (
        lambda folder: edit_modules(folder, 1, type="os.path.Pooling"),
        r"names the module os\.path\.Pooling from outside sentence-transformers",
    ),
    "a path outside": (lambda folder: edit_modules(folder, 1, path="../other"), "names a path outside the folder"),
    "truncated weights": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100]),
        "own-body cannot be loaded: .*",
    ),
    "a missing weight": (
        lambda folder: drop_weight(folder, "embeddings.word_embeddings.weight"),
        r"lack embeddings\.word_embeddings\.weight\. Get the body again",
    ),
}


@pytest.mark.parametrize("breakage", BROKEN)
def test_load_body_incomplete_or_foreign_folder_raises(own_body: Path, breakage: str) -> None:
    damage, match = BROKEN[breakage]
    damage(own_body)
    with pytest.raises(BodyError, match=match):
        load_body(own_body, device="cpu")


def test_load_body_untrusted_activation_raises(own_body: Path) -> None:
    modules = json.loads((own_body / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (own_body / "modules.json").write_text(json.dumps(modules))
    dense = own_body / "2_Dense"
    dense.mkdir()
    save_file({"linear.weight": torch.ones(4, 16), "linear.bias": torch.ones(4)}, dense / "model.safetensors")
    config = {"in_features": 16, "out_features": 4, "bias": True}
    (dense / "config.json").write_text(
        json.dumps({**config, "activation_function": "torch.nn.modules.linear.Identity"})
    )
    assert load_body(own_body, device="cpu").dimension == 4
    for other in ("elsewhere.Activation", "torch.hub.list", 3):
        (dense / "config.json").write_text(json.dumps({**config, "activation_function": other}))
        with pytest.raises(BodyError, match=rf"names the activation function '?{other}'?; allowed are those of torch"):
            load_body(own_body, device="cpu")


@pytest.mark.parametrize("kind", ["models.WordEmbeddings", "models.Router", "util.http_get"])
def test_load_body_module_that_imports_by_name_raises(own_body: Path, kind: str) -> None:
    modules = json.loads((own_body / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_More", "type": f"sentence_transformers.{kind}"})
    (own_body / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BodyError, match=f"names the module sentence_transformers.{kind}; allowed are Dense"):
        load_body(own_body, device="cpu")


def test_load_body_without_pooler_weights_succeeds(own_body: Path) -> None:
    drop_weight(own_body, "pooler.dense.weight")
    assert load_body(own_body, device="cpu").dimension == 16


def test_load_body_unknown_device_raises(tiny_body_folder: Path) -> None:
    with pytest.raises(BodyError, match=r"cannot be loaded: .*warpdrive"):
        load_body(tiny_body_folder, device="warpdrive")


# --- Embedding --------------------------------------------------------------------------------------------------


def test_encode_returns_rows_in_the_order_of_the_texts(tiny_body: Body, fresh_cache: Path) -> None:
    result = tiny_body.encode(TEXTS, batch_size=2)
    assert result.shape == (5, 16)
    assert result.dtype == np.float32
    for text, row in zip(TEXTS, result, strict=True):
        np.testing.assert_allclose(row, tiny_body.transformer.encode(text, show_progress_bar=False), atol=2e-6)
    np.testing.assert_array_equal(result[0], result[3])


def test_encode_embeds_each_distinct_text_once(tiny_body: Body, embedded: list[list[str]], fresh_cache: Path) -> None:
    first = tiny_body.encode(TEXTS)
    assert sorted(text for call in embedded for text in call) == sorted(set(TEXTS))
    embedded.clear()
    np.testing.assert_array_equal(tiny_body.encode(TEXTS), first)
    assert embedded == []
    more = tiny_body.encode(["a new one", *TEXTS[::-1]])
    assert embedded == [["a new one"]]
    np.testing.assert_array_equal(more[1:], first[::-1])
    assert [file.name for file in cache_files(fresh_cache)] == [f"{tiny_body.fingerprint[:32]}.sqlite"]


def test_encode_without_cache_writes_nothing(tiny_body: Body, embedded: list[list[str]], fresh_cache: Path) -> None:
    result = tiny_body.encode(TEXTS, cache=False)
    np.testing.assert_array_equal(tiny_body.encode(TEXTS, cache=False), result)
    assert len(embedded) == 2
    assert not fresh_cache.exists()


def test_encode_interrupted_keeps_finished_chunks(
    tiny_body: Body, embedded: list[list[str]], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"film {i}" for i in range(40)]
    encode = tiny_body.transformer.encode

    def breaking(some: list[str], **options: Any) -> Any:
        if len(embedded) == 3:
            raise KeyboardInterrupt
        return encode(some, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tiny_body.transformer, "encode", breaking)
        tiny_body.encode(texts, batch_size=2)  # chunks of eight
    embedded.clear()
    result = tiny_body.encode(texts, batch_size=2)
    assert sum(len(call) for call in embedded) == 40 - 24
    np.testing.assert_allclose(result, tiny_body.encode(texts, cache=False), atol=2e-6)


@pytest.mark.parametrize("empty", [[], (), np.array([], dtype=object)])
def test_encode_of_no_texts_returns_no_rows(tiny_body: Body, fresh_cache: Path, empty: Any) -> None:
    result = tiny_body.encode(empty, progress=True)
    assert result.shape == (0, 16)
    assert result.dtype == np.float32
    assert not fresh_cache.exists()


@pytest.mark.parametrize("kind", [tuple, lambda texts: np.array(texts, dtype=object), np.array])
def test_encode_accepts_any_sequence_of_strings(tiny_body: Body, kind: Callable[[list[str]], Any]) -> None:
    np.testing.assert_array_equal(tiny_body.encode(kind(TEXTS)), tiny_body.encode(TEXTS))


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ("one sentence", r"texts must be a list of sentences, not str; for one sentence: \[sentence\]"),
        (b"bytes", "not bytes"),
        (7, "not int"),
        (None, "not NoneType"),
        ({"a", "b"}, "not set"),
        ({"a": "b"}, "not dict"),
        ((text for text in TEXTS), "not generator"),
        (["fine", 3], r"texts\[1\]: the text is int, not str"),
        (["fine", None], r"texts\[1\]: the text is missing"),
        (["fine", "good", ""], r"texts\[2\]: the text is empty"),
        (["fine", " \t\n\u00a0"], r"texts\[1\]: the text is empty"),
        (["half a pair \ud83d"], r"texts\[0\]: the text has half of a surrogate pair"),
    ],
)
def test_encode_invalid_texts_raise(tiny_body: Body, texts: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        tiny_body.encode(texts)


def test_encode_batch_size_below_one_raises(tiny_body: Body) -> None:
    with pytest.raises(InputError, match="batch_size=0: it must be a whole number of at least 1"):
        tiny_body.encode(TEXTS, batch_size=0)
    with pytest.raises(InputError, match=r"batch_size=2\.5: it must be a whole number"):
        tiny_body.encode(TEXTS, batch_size=2.5)  # type: ignore[arg-type]
    assert tiny_body.encode(TEXTS, batch_size=np.int64(2)).shape == (5, 16)  # type: ignore[arg-type]


def test_encode_shows_progress_on_stderr_only_if_enabled(
    tiny_body: Body, fresh_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_body.encode(TEXTS)
    assert capfd.readouterr() == ("", "")
    tiny_body.encode([f"film {i}" for i in range(9)], progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "embedding" in shown.err
    assert "9/9" in shown.err
    assert "/s" in shown.err


def test_encode_truncated_sentences_warn(tiny_body: Body, fresh_cache: Path) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 new sentences have more than the 256 tokens that .* reads"):
        tiny_body.encode(["good " * 300, "good"])
    tiny_body.encode(["good " * 254])


def test_encode_non_finite_embedding_raises(
    tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(texts: list[str], **_: object) -> np.ndarray:
        return np.array([[np.nan if text == "not bad!" else 1.0] * 16 for text in texts])

    monkeypatch.setattr(tiny_body.transformer, "encode", broken)
    with pytest.raises(BodyError, match=r"not finite for the sentence 'not bad!'\. Remove that sentence"):
        tiny_body.encode(TEXTS)
    assert tiny_body.encode(["fine"]).sum() == 16


def test_encode_wrong_shape_from_transformer_raises(tiny_body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_body.transformer, "encode", lambda texts, **_: np.zeros((len(texts), 3)))
    with pytest.raises(BodyError, match=r"returned the shape \(4, 3\), expected \(4, 16\)"):
        tiny_body.encode(TEXTS, cache=False)


def test_encode_failure_of_transformer_raises(tiny_body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(texts: list[str], **_: object) -> np.ndarray:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tiny_body.transformer, "encode", failing)
    with pytest.raises(BodyError, match=r"failed to embed: out of memory.*smaller batch_size \(now 64\)"):
        tiny_body.encode(TEXTS, cache=False)


def test_encode_changed_weights_never_use_the_cache(tiny_body_folder: Path, fresh_cache: Path) -> None:
    body = load_body(tiny_body_folder, device="cpu")
    before = body.encode(TEXTS)
    optimizer = torch.optim.SGD(body.transformer.parameters(), lr=0.1)
    features = body.transformer.tokenizer(TEXTS, padding=True, return_tensors="pt")
    body.transformer(features)["sentence_embedding"].square().sum().backward()
    optimizer.step()
    with pytest.raises(BodyError, match=r"weights of .* were changed since it was loaded"):
        body.encode(TEXTS)
    assert np.abs(body.encode(TEXTS, cache=False) - before).max() > 0.01


def test_encode_damaged_cache_raises(tiny_body: Body, fresh_cache: Path) -> None:
    tiny_body.encode(TEXTS)
    (file,) = cache_files(fresh_cache)
    file.write_bytes(b"damaged" * 1000)
    with pytest.raises(BodyError, match=rf"{file.name} is damaged.*Delete that file"):
        tiny_body.encode(TEXTS)


def test_encode_on_full_disk_warns_once_and_continues(
    tiny_body: Body, fresh_cache: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with (
        full_disk(4096),
        pytest.warns(UserWarning, match=r"cannot be used .*; embeddings are not kept\. Make room") as w,
    ):
        result = tiny_body.encode(TEXTS)
    assert [Path(warning.filename).name for warning in w] == ["test_body.py"]
    with full_disk(4096):
        np.testing.assert_array_equal(tiny_body.encode(TEXTS), result)  # warnings are errors: it is told once
    np.testing.assert_array_equal(tiny_body.encode(TEXTS), result)
    assert len(cache_files(fresh_cache)) == 1


UNUSABLE = {
    "no such place": "/proc/x",
    "a file": "file",
    "a file above": "file/cache",
}


@pytest.mark.parametrize("place", UNUSABLE)
def test_encode_unusable_cache_warns_once_and_continues(
    place: str, tiny_body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / UNUSABLE[place]
    monkeypatch.setenv("KETFIT_CACHE", str(folder))
    monkeypatch.setattr(cache_dir, "_warned", set())
    with pytest.warns(
        UserWarning, match=rf"The cache {folder}/embeddings cannot be used .* set KETFIT_CACHE"
    ) as caught:
        result = tiny_body.encode(TEXTS)
    assert len(caught) == 1
    np.testing.assert_array_equal(result, tiny_body.encode(TEXTS, cache=False))
    np.testing.assert_array_equal(tiny_body.encode(TEXTS), result)


def test_encode_read_only_cache_is_read_and_warns_on_write(
    tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[list[str]]
) -> None:
    known = tiny_body.encode(TEXTS[:2])
    connect = sqlite3.connect
    monkeypatch.setattr(
        cache.sqlite3, "connect", lambda file, **options: connect(f"file:{file}?mode=ro", uri=True, **options)
    )
    embedded.clear()
    np.testing.assert_array_equal(tiny_body.encode(TEXTS[:2]), known)
    assert embedded == []
    with pytest.warns(UserWarning, match="cannot be used .*readonly database"):
        result = tiny_body.encode(TEXTS)
    np.testing.assert_array_equal(result[:2], known)
    assert [len(texts) for texts in embedded] == [2], "what the cache holds is not embedded again"


# --- Numbers of half the size ---------------------------------------------------------------------------------


def test_bfloat16_embeddings_are_close_and_cached_separately(
    tiny_body_folder: Path, tiny_body: Body, fresh_cache: Path
) -> None:
    half = load_body(tiny_body_folder, device="cpu", dtype="bfloat16")
    assert (half.dtype, tiny_body.dtype) == ("bfloat16", "float32")
    assert {parameter.dtype for parameter in half.transformer.parameters()} == {torch.bfloat16}
    assert half.fingerprint == tiny_body.fingerprint
    for first, second in ((half, tiny_body), (tiny_body, half)):
        first.encode(TEXTS)
        np.testing.assert_array_equal(second.encode(TEXTS), second.encode(TEXTS, cache=False))
    exact, close = tiny_body.encode(TEXTS), half.encode(TEXTS)
    assert close.dtype == np.float32
    assert 0 < abs(close - exact).max() < 0.05
    assert len(cache_files(fresh_cache)) == 2


def test_bfloat16_minilm_is_within_a_hundredth(minilm: Body, fresh_cache: Path) -> None:
    half = load_body("all-MiniLM-L6-v2", device="cpu", dtype="bfloat16")
    assert abs(half.encode(TEXTS) - minilm.encode(TEXTS)).max() <= 1e-2


def test_load_body_of_a_transformer_names_the_fix(tiny_body: Body) -> None:
    with pytest.raises(ConfigError, match="body=SentenceTransformer: pass the name of a body or its folder"):
        load_body(tiny_body.transformer)  # type: ignore[arg-type]


def test_load_body_unknown_dtype_raises(tiny_body_folder: Path) -> None:
    with pytest.raises(ConfigError, match="dtype='float16': a body computes in float32 or bfloat16"):
        load_body(tiny_body_folder, dtype="float16")  # type: ignore[arg-type]
