"""Fine-tuned bodies: trained layers, memory check, storage and isolated random generators."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ketfit.bodies import finetuned as tuned
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.finetuned import (
    available_precision,
    embed_by_length,
    finetuned_folder,
    isolated_rng,
    layer_learning_rates,
    save_files,
    save_finetuned,
    tokenize,
    trainable_copy,
)
from ketfit.errors import BodyError, InsufficientMemoryError
from tests.conftest import write_tiny_body

MIXED_LENGTHS = ["good film", "the good fine film , not dull .", "dull", "bad the bad film " * 9] * 9


def test_check_memory_need_grows_with_trained_part(tiny_body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketfit.memory.ALWAYS_AVAILABLE", 0)

    def fits(available: int, sentences: int, last_layers: int | None = None, checkpoint: bool = False) -> bool:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=available))
        try:
            tuned.check_memory(trainable_copy(tiny_body, last_layers), sentences, 20, copies=0, checkpoint=checkpoint)
        except InsufficientMemoryError:
            return False
        return True

    weights = sum(map(torch.numel, tiny_body.transformer.parameters()))
    activations = 3 * 20 * 16 * (34 + 5 * 2 * 20 / 16)  # one layer, 20 tokens, 2 heads
    assert fits(int(12 * weights + 8 * activations), 8)
    assert not fits(int(12 * weights + 8 * activations) - 1, 8)
    assert not fits(int(12 * weights + 8 * activations), 9)
    assert fits(int(12 * weights + 8 * activations) - 1, 8, last_layers=1)
    assert fits(int(36 * weights + 8 * activations), 8, checkpoint=True)
    assert not fits(int(36 * weights + 8 * activations) - 1, 8, checkpoint=True)


def test_trainable_copy_is_new_and_complete(tiny_body: Body) -> None:
    one, other = (trainable_copy(tiny_body, layers) for layers in (None, 1))
    assert all(parameter.requires_grad for parameter in one.parameters())
    trained = {name for name, parameter in other.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".layer.0." in name for name in trained)
    assert one[0] is not tiny_body.transformer[0] is not other[0]


def test_find_layers_of_unknown_architecture_raises() -> None:
    with pytest.raises(BodyError, match="the layers of 'odd' cannot be found; leave last_layers out"):
        tuned._find_layers(nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2), nn.GELU()])), "odd")


def test_save_finetuned_keeps_existing_folder(tiny_body: Body, fresh_cache: object) -> None:
    first = save_finetuned(trainable_copy(tiny_body, None), "name")
    before = (first / "model.safetensors").read_bytes()
    changed = trainable_copy(tiny_body, None)
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    assert save_finetuned(changed, "name") == first == finetuned_folder("name")
    assert (first / "model.safetensors").read_bytes() == before
    assert save_finetuned(changed, None) != first


def test_save_files_by_many_writers_gives_one_complete_folder(fresh_cache: Path) -> None:
    files = {f"part/{number}": bytes(10_000) for number in range(20)}
    with ThreadPoolExecutor(8) as pool:
        (folder,) = set(pool.map(lambda _: save_files(files, "n" * 64), range(24)))
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*/*")} == files
    assert list(folder.parent.iterdir()) == [folder], "a temporary folder was left"


def test_isolated_rng_restores_global_generators() -> None:
    random.seed(0)
    outside = (random.getstate(), torch.get_rng_state())
    drawn = []
    for _ in range(2):
        with isolated_rng(3):
            random.seed(9)
            np.random.seed(9)  # noqa: NPY002
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert random.getstate() == outside[0]
    assert torch.equal(torch.get_rng_state(), outside[1])


def test_trainable_copy_of_a_body_with_a_default_prompt_is_refused(tmp_path: Path) -> None:
    write_tiny_body(tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": "query"}))
    with pytest.raises(BodyError, match="puts the prompt 'query' before sentences, and tuning does not"):
        trainable_copy(load_body(tmp_path, device="cpu"), None)


class TestLayerLearningRates:
    def test_layer_learning_rates_fall_by_the_decay_from_layer_to_layer(self, tmp_path: Path) -> None:
        write_tiny_body(tmp_path, layers=3)
        transformer = trainable_copy(load_body(tmp_path, device="cpu"), None)
        groups = layer_learning_rates(transformer, 0.1, 0.5)
        rates = {id(tensor): rate for group, rate in groups for tensor in group}
        named = dict(transformer.named_parameters())
        assert rates.keys() == {id(tensor) for tensor in named.values()}
        expected = {"layer.2.": 0.1, "layer.1.": 0.05, "layer.0.": 0.025, "embeddings.": 0.0125, "pooler.": 0.1}
        for name, tensor in named.items():
            (rate,) = (rate for part, rate in expected.items() if part in name)
            assert rates[id(tensor)] == pytest.approx(rate), name

    def test_token_embeddings_of_any_name_have_the_lowest_rate(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_tiny_body(tmp_path, layers=1)
        transformer = trainable_copy(load_body(tmp_path, device="cpu"), None)
        linear = nn.Linear(3, 3)
        transformer[0].auto_model.shared = linear
        monkeypatch.setattr(transformer[0].auto_model, "get_input_embeddings", lambda: linear)
        rates = {id(tensor): rate for group, rate in layer_learning_rates(transformer, 0.1, 0.5) for tensor in group}
        assert [rates[id(tensor)] for tensor in linear.parameters()] == [0.05, 0.05]

    def test_layer_learning_rates_without_decay_are_one_group(self, tiny_body: Body) -> None:
        transformer = trainable_copy(tiny_body, 1)
        ((group, rate),) = layer_learning_rates(transformer, 0.1, 1.0)
        assert rate == 0.1
        assert len(group) == sum(tensor.requires_grad for tensor in transformer.parameters())


class TestAvailablePrecision:
    @pytest.mark.parametrize(("units", "expected"), [({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")])
    def test_available_precision_auto_follows_the_processor(
        self, units: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
        assert available_precision("auto", torch.device("cpu")) == expected
        assert available_precision("float32", torch.device("cpu")) == "float32"
        assert available_precision("bfloat16", torch.device("cpu")) == "bfloat16"


class TestEmbedByLength:
    def test_embed_by_length_equals_one_padded_batch(self, tiny_body: Body) -> None:
        features = tokenize(tiny_body.transformer, MIXED_LENGTHS)
        with torch.no_grad():
            whole = tiny_body.transformer(dict(features))["sentence_embedding"]
            chunks = embed_by_length(tiny_body.transformer, features)
        torch.testing.assert_close(chunks, whole, atol=1e-5, rtol=1e-5)

    def test_embed_by_length_pads_each_chunk_to_its_longest(self, tiny_body: Body) -> None:
        features = tokenize(tiny_body.transformer, MIXED_LENGTHS)
        seen: list[tuple[int, ...]] = []

        class Spy(torch.nn.Module):
            def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
                seen.append(tuple(inputs["input_ids"].shape))
                return {"sentence_embedding": inputs["attention_mask"].sum(dim=1, keepdim=True)}

        lengths = embed_by_length(Spy(), features)
        assert lengths[:, 0].tolist() == features["attention_mask"].sum(dim=1).tolist()
        assert sum(rows for rows, _ in seen) == len(MIXED_LENGTHS)
        assert sum(rows * tokens for rows, tokens in seen) < 0.7 * features["input_ids"].numel()
