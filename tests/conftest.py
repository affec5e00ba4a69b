"""Fixtures of all tests: no network, a separate cache folder, and a sentence transformer of a few kilobytes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import string
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ketfit.bodies.body import Body
    from tests.fake_hub import Hub, WritableHub

# Read when huggingface_hub is imported, which the collection of the tests already does.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run in parallel, and threads that wait for a core are slower than one thread.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests marked `first` to the front."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KETFIT_CACHE", str(tmp_path_factory.mktemp("ketfit-cache")))
        yield


@pytest.fixture(scope="session")
def tiny_body_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The body of `write_tiny_body`, with one layer."""
    folder = tmp_path_factory.mktemp("tiny-body")
    write_tiny_body(folder)
    return folder


def write_tiny_body(folder: Path, layers: int = 1) -> None:
    """Write a BERT with random weights: 16-d, 256 tokens, some words and all ASCII letters and digits."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    signs = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "good", "bad", "fine", "dull", "not", "the"]
    words += [*",.!?"] + [sign for sign in signs if sign not in words] + [f"##{sign}" for sign in signs]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **names)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    parts = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(parts.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Return a context in which no file can grow beyond a size, as on a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def tiny_body(tiny_body_folder: Path) -> Body:
    from ketfit.bodies.body import load_body

    return load_body(tiny_body_folder, device="cpu")


@pytest.fixture
def own_body(tiny_body_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny body's folder that a test may break."""
    return shutil.copytree(tiny_body_folder, tmp_path / "own-body")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("KETFIT_CACHE", str(folder))
    return folder


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that directs requests for the Hub to a local server; the Hub's cache is a new folder."""
    import huggingface_hub
    from huggingface_hub import constants

    from ketfit.storage import hub_client

    def go(url: str) -> None:
        assert url.startswith("http://127.0.0.1:")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_client, "TIMEOUT_SECONDS", 0.5)
    yield go
    huggingface_hub.close_session()


@pytest.fixture
def hub(own_body: Path, online: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from ketfit.storage import hub_client
    from tests.fake_hub import Hub

    monkeypatch.setattr(hub_client, "TIMEOUT_SECONDS", 5.0)  # it answers at once, but for the load of the machine
    hub = Hub(own_body)
    online(hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def writable(online: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """An empty Hub that accepts uploads, with files by Git LFS."""
    from huggingface_hub import constants

    from ketfit.storage import hub_client
    from tests.fake_hub import WritableHub

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_client, "TIMEOUT_SECONDS", 5.0)
    hub = WritableHub()
    online(hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
