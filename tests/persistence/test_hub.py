"""Models on the Hub: uploaded as one commit and fetched at one commit, from a fake server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.errors import ModelFileError, StorageError
from ketfit.storage import hub_client as hub_seam
from tests.fake_hub import COMMIT, Hub, WritableHub

# The Hub's client itself calls its HTTP library in a way of earlier versions when it uploads by Git LFS.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

HEAD = HeadConfig(n_qubits=4, encoder_layers=1, main_layers=1)
TEXTS = ["good film", "fine film", "bad film", "dull film"] * 3
LABELS = ["good", "good", "bad", "bad"] * 3


@pytest.fixture(scope="module")
def classifier(tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), head=HEAD, train=TrainConfig(epochs=2)).fit(TEXTS, LABELS)


@pytest.fixture
def model_hub(
    classifier: TextClassifier, tmp_path: Path, online: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """A Hub with one saved model and some unrelated files in its repository."""
    monkeypatch.setattr(hub_seam, "TIMEOUT_SECONDS", 5.0)  # it answers at once, but for the load of the machine
    classifier.save_pretrained(tmp_path / "repository")
    (tmp_path / "repository" / "pytorch_model.bin").write_bytes(b"not wanted")
    hub = Hub(tmp_path / "repository")
    online(hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_from_pretrained_hub_model_predicts_the_same(
    model_hub: Hub, classifier: TextClassifier, revision: str | None
) -> None:
    fetched = TextClassifier.from_pretrained("someone/tiny", revision=revision)
    np.testing.assert_array_equal(fetched.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert not any(path.endswith(".bin") for path in model_hub.asked)
    head = QuantumHeadClassifier.from_pretrained("someone/tiny", revision=revision)
    assert head.head_config_ == HEAD
    model_hub.status = 503
    TextClassifier.from_pretrained("someone/tiny", revision=revision)  # what was fetched once is there offline


def test_from_pretrained_unknown_name_raises(model_hub: Hub) -> None:
    with pytest.raises(ModelFileError, match=r"no folder 'someone/else', and the Hub does not know .*status 404"):
        TextClassifier.from_pretrained("someone/else")
    (model_hub.folder / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"someone/tiny on the Hub has no config\.json: it is not a model"):
        TextClassifier.from_pretrained("someone/tiny")


def test_from_pretrained_unreachable_hub_raises(online: Callable[[str], None]) -> None:
    online("http://127.0.0.1:1")
    with pytest.raises(ModelFileError, match="does not answer .* Connect once so that it is downloaded"):
        TextClassifier.from_pretrained("someone/tiny")


def test_push_to_hub_makes_one_commit_and_loads_back(
    classifier: TextClassifier, writable: WritableHub, tiny_body_folder: Path
) -> None:
    facts: dict[str, Any] = {"data": "four films", "metrics": {"test_accuracy": 0.5}}
    commit = classifier.push_to_hub("someone/model", token="t", **facts)
    first, second = writable.commits["someone/model"]
    assert second[0] == commit != first[0]
    body = {f"body/{path.relative_to(tiny_body_folder).as_posix()}" for path in tiny_body_folder.rglob("*.json")}
    expected = {".gitattributes", "README.md", "config.json", "model.safetensors", "body/model.safetensors", *body}
    assert second[1].keys() == expected
    assert str(tiny_body_folder.parent).encode() not in second[1]["config.json"], "a place on this machine"
    fetched = TextClassifier.from_pretrained("someone/model", revision=commit)
    np.testing.assert_array_equal(fetched.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert fetched.commit_ == fetched.classifier_.commit_ == commit
    assert fetched.body_.folder.parent.name == commit, "head and body are of one commit"


def test_from_pretrained_commit_fixes_head_and_body(
    classifier: TextClassifier, writable: WritableHub, own_body: Path, tmp_path: Path
) -> None:
    """The metadata names a frozen body by its commit, which later commits do not change."""
    writable.add("someone/body", files_of(own_body))
    pinned = writable.commits["someone/body"][0][0]
    trained = TextClassifier("someone/body", head=HEAD, train=TrainConfig(epochs=2)).fit(TEXTS, LABELS)
    commit = trained.push_to_hub("someone/model")
    writable.add("someone/body", {**files_of(own_body), "modules.json": b"[]"})
    later = TextClassifier("all-MiniLM-L6-v2", train=TrainConfig(epochs=1)).fit(TEXTS, LABELS)
    assert later.push_to_hub("someone/model") == writable.commits["someone/model"][-1][0] != commit
    loaded = TextClassifier.from_pretrained("someone/model", revision=commit)
    assert (loaded.commit_, loaded.body_.revision) == (commit, pinned)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), trained.predict_proba(TEXTS))
    assert TextClassifier.from_pretrained("someone/model").body_.name == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("kind", ["logistic-regression", "svc", "mlp"])
def test_push_to_hub_classical_head_is_fetched(kind: Any, writable: WritableHub, tiny_body_folder: Path) -> None:
    texts, labels = [f"{text} {number}" for number, text in enumerate(TEXTS * 2)], LABELS * 2
    classifier = TextClassifier(str(tiny_body_folder), kind, validation_fraction=0.3).fit(texts, labels)
    commit = classifier.push_to_hub("someone/model", metrics={"test_accuracy": 0.5})
    fetched = TextClassifier.from_pretrained("someone/model", revision=commit)
    np.testing.assert_array_equal(fetched.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    head = type(classifier.classifier_).from_pretrained("someone/model")
    assert head.commit_ == fetched.commit_ == commit
    head.push_to_hub("someone/head")
    assert type(head).from_pretrained("someone/head").n_parameters_ == head.n_parameters_


def test_push_to_hub_removes_files_of_old_body_only(
    classifier: TextClassifier, writable: WritableHub, tmp_path: Path
) -> None:
    kept = {"LICENSE": b"mine", "notes/body.txt": b"mine"}
    writable.add("someone/model", {**kept, "body/old.json": b"{}", "model.safetensors": b"old"})
    head = classifier.classifier_
    head.push_to_hub("someone/model")
    files = writable.commits["someone/model"][-1][1]
    head.save_pretrained(tmp_path / "saved")
    assert files == {**kept, **files_of(tmp_path / "saved")}


def test_push_to_hub_concurrent_commit_raises(classifier: TextClassifier, writable: WritableHub) -> None:
    writable.add("someone/model", {"README.md": b"a"})
    writable.before_commit = [("someone/model", {"README.md": b"somebody else's"})]
    with pytest.raises(StorageError, match=r"the Hub rejected the upload to 'someone/model': .*412"):
        classifier.classifier_.push_to_hub("someone/model")
    assert writable.commits["someone/model"][-1][1] == {"README.md": b"somebody else's"}


def test_from_pretrained_branch_changed_during_download_raises(
    classifier: TextClassifier, writable: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = classifier.classifier_.push_to_hub("someone/model")
    plain = huggingface_hub.hf_hub_download

    def download(repository: str, path: str, **options: Any) -> str:
        if options["revision"] is None:
            writable.add("someone/model", {"config.json": b"{}"})
        return plain(repository, path, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelFileError, match=f"someone/model changed from commit {commit} to another"):
        QuantumHeadClassifier.from_pretrained("someone/model")
    assert QuantumHeadClassifier.from_pretrained("someone/model", revision=commit).commit_ == commit


def test_from_pretrained_folder_has_no_commit_and_may_include_body(classifier: TextClassifier, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path / "model", with_body=True)
    classifier.save_pretrained(tmp_path / "model", with_body=True)  # it is known for a model, and replaced
    loaded = TextClassifier.from_pretrained((tmp_path / "model").rename(tmp_path / "moved"))
    assert loaded.commit_ is None
    assert loaded.body_.folder == tmp_path / "moved" / "body"
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), classifier.predict_proba(TEXTS))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_push_to_hub_refused_raises(classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: huggingface_hub.HfApi, repo_id: str, **options: Any) -> None:
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(StorageError, match="rejected the upload to 'someone/tiny': PermissionError: 403 Forbidden"):
        classifier.push_to_hub("someone/tiny")
