"""Models on the Hub: fetched at one commit from a server of ours, and pushed as one commit to a client of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.errors import ModelFileError, StorageError
from tests.learn.fake_hub import COMMIT, Hub

HEAD = HeadConfig(n_qubits=4, encoder_layers=1, main_layers=1)
TEXTS = ["good film", "fine film", "bad film", "dull film"] * 3
LABELS = ["good", "good", "bad", "bad"] * 3


@pytest.fixture(scope="module")
def classifier(tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), head=HEAD, train=TrainConfig(epochs=2)).fit(TEXTS, LABELS)


@pytest.fixture
def model_hub(classifier: TextClassifier, tmp_path: Path, online: Callable[[str], None]) -> Iterator[Hub]:
    """A Hub whose one repository is a saved model, with some files beside it that nobody asked for."""
    classifier.save_pretrained(tmp_path / "repository")
    (tmp_path / "repository" / "pytorch_model.bin").write_bytes(b"not wanted")
    hub = Hub(tmp_path / "repository")
    online(hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_a_model_is_fetched_and_predicts_as_it_did(
    model_hub: Hub, classifier: TextClassifier, revision: str | None
) -> None:
    fetched = TextClassifier.from_pretrained("someone/tiny", revision=revision)
    np.testing.assert_array_equal(fetched.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert not any(path.endswith(".bin") for path in model_hub.asked)
    head = QuantumHeadClassifier.from_pretrained("someone/tiny", revision=revision)
    assert head.head_config_ == HEAD
    model_hub.status = 503
    TextClassifier.from_pretrained("someone/tiny", revision=revision)  # what was fetched once is there offline


def test_what_the_hub_does_not_have_is_told(model_hub: Hub) -> None:
    with pytest.raises(ModelFileError, match=r"no folder 'someone/else', and the Hub does not know .*status 404"):
        TextClassifier.from_pretrained("someone/else")
    (model_hub.folder / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"someone/tiny on the Hub has no config\.json: it is not a model"):
        TextClassifier.from_pretrained("someone/tiny")


def test_a_hub_that_is_not_there_is_told(online: Callable[[str], None]) -> None:
    online("http://127.0.0.1:1")
    with pytest.raises(ModelFileError, match="does not answer .* Connect once so that it is downloaded"):
        TextClassifier.from_pretrained("someone/tiny")


class Client:
    """Stands in for the Hub's client: notes what it is asked to do."""

    done: list[tuple[str, Any]]

    def __init__(self, token: str | None = None) -> None:
        self.done.append(("token", token))

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.done.append(("create", (repo_id, options)))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> SimpleNamespace:
        content = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.done.append(("upload", (repo_id, content, commit_message)))
        return SimpleNamespace(oid=COMMIT)


def test_a_push_is_one_commit_of_the_saved_folder(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Client.done = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    options: dict[str, Any] = {"data": "four films", "metrics": {"test_accuracy": 0.5}}
    commit = classifier.push_to_hub("someone/tiny", private=True, token="t", commit_message="First", **options)
    assert commit == COMMIT
    classifier.save_pretrained(tmp_path / "saved", **options)
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert Client.done == [
        ("token", "t"),
        ("create", ("someone/tiny", {"private": True, "exist_ok": True})),
        ("upload", ("someone/tiny", saved, "First")),
    ]


def test_a_push_that_is_refused_is_told(classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Client):
        def create_repo(self, repo_id: str, **options: Any) -> None:
            raise PermissionError("403 Forbidden")

    Client.done = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing)
    with pytest.raises(StorageError, match="the Hub did not take 'someone/tiny': PermissionError: 403 Forbidden"):
        classifier.push_to_hub("someone/tiny")
