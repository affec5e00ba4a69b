"""Model folders of classical heads: read as strictly as those of quantum heads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from ketfit.errors import ModelFileError, StorageError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead
from ketfit.estimators.heads import HEADS
from ketfit.model.config import TrainConfig
from ketfit.persistence import model_files
from ketfit.persistence.model_files import load_head, load_metadata, load_model
from ketfit.persistence.schema import CARD, METADATA, WEIGHTS
from tests.persistence.saved_models import metadata_of, sealed, write_metadata, write_weights

CLASSICAL = ("logistic-regression", "svc", "mlp")


def fitted(kind: str) -> Any:
    y = np.arange(60) % 3
    x = np.random.default_rng(0).standard_normal((60, 4))
    x[np.arange(60), y] += 1
    heads = {
        "logistic-regression": LogisticRegressionHead(),
        "svc": SVCHead(),
        "mlp": MLPHead(hidden=2, train=TrainConfig(epochs=2)),
    }
    return heads[kind].fit(x[:40], y[:40], validation=(x[40:], y[40:]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    for kind in CLASSICAL:
        fitted(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in CLASSICAL}


@pytest.fixture(params=CLASSICAL)
def model(request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a saved model that a test may break."""
    return shutil.copytree(folders[request.param], tmp_path / "model")


@pytest.fixture
def svc(folders: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(folders["svc"], tmp_path / "model")


def assert_rejected(folder: Path, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        load_head(folder)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    return tensors


def reseal(folder: Path, metadata: dict[str, Any]) -> None:
    write_metadata(folder, sealed(metadata))


def test_saved_metadata_names_the_kind(model: Path) -> None:
    metadata = metadata_of(model)
    assert metadata["schema_version"] == 4
    assert metadata["head_kind"] in CLASSICAL
    assert (metadata["train"] is None) == (metadata["head_kind"] != "mlp")
    assert load_metadata(model).head_kind == metadata["head_kind"]
    assert sorted(path.name for path in model.iterdir()) == [CARD, METADATA, WEIGHTS]


def test_load_head_missing_tensor_raises(model: Path) -> None:
    for name in tensors_of(model):
        rest = {other: tensor for other, tensor in tensors_of(model).items() if other != name}
        content = (model / WEIGHTS).read_bytes(), (model / METADATA).read_bytes()
        write_weights(model, rest)
        assert_rejected(model, "holds the tensors .*; this head needs ")
        (model / WEIGHTS).write_bytes(content[0])
        (model / METADATA).write_bytes(content[1])


def test_load_head_unknown_tensor_raises(model: Path) -> None:
    write_weights(model, {**tensors_of(model), "more": torch.zeros(1, dtype=torch.float64)})
    assert_rejected(model, "holds the tensors .*'more'.*; this head needs ")


def test_load_head_wrong_shape_dtype_or_number_raises(model: Path) -> None:
    whole = tensors_of(model)
    for name, tensor in whole.items():
        wider = torch.cat([tensor.flatten(), torch.ones(1, dtype=tensor.dtype)])
        write_weights(model, {**whole, name: wider})
        assert_rejected(model, f"{name} is .* of shape")
        write_weights(model, {**whole, name: tensor.to(torch.float16)})
        assert_rejected(model, f"{name} is torch.float16")
        if tensor.dtype.is_floating_point:
            write_weights(model, {**whole, name: torch.full_like(tensor, float("nan"))})
            assert_rejected(model, f"{name} holds a number that is not finite")


def test_load_head_negative_support_index_raises(svc: Path) -> None:
    whole = tensors_of(svc)
    write_weights(svc, {**whole, "support": whole["support"] - 1000})
    assert_rejected(svc, "support holds a negative index")


@pytest.mark.parametrize("name", [WEIGHTS, METADATA])
def test_load_head_changed_byte_raises(name: str, model: Path) -> None:
    content = (model / name).read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        changed = bytearray(content)
        changed[place] ^= 1
        (model / name).write_bytes(changed)
        assert_rejected(model, r"model\.safetensors|config\.json")
    (model / name).write_bytes(content)
    load_head(model)


@pytest.mark.parametrize("name", [WEIGHTS, METADATA])
def test_load_head_missing_file_raises(name: str, model: Path) -> None:
    (model / name).unlink()
    assert_rejected(model, f"{name}")


def test_load_head_missing_key_raises(model: Path) -> None:
    whole = metadata_of(model)
    for table in (None, "head"):
        for key in whole if table is None else whole[table]:
            metadata = metadata_of(model)
            del (metadata if table is None else metadata[table])[key]
            write_metadata(model, metadata)
            assert_rejected(model, key)
            write_metadata(model, whole)


@pytest.mark.parametrize("kind", ["forest", None, 3, ["svc"], "quantum"])
def test_load_head_unknown_or_other_kind_raises(kind: Any, model: Path) -> None:
    reseal(model, {**metadata_of(model), "head_kind": kind})
    assert_rejected(model, "head_kind|HeadConfig")


def test_load_head_another_classical_kind_raises(folders: dict[str, Path], model: Path) -> None:
    for other in CLASSICAL:
        if other != metadata_of(model)["head_kind"]:
            reseal(model, {**metadata_of(folders[metadata_of(model)["head_kind"]]), "head_kind": other})
            assert_rejected(model, "config.json")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("svc", {"train": TrainConfig().model_dump()}, "a head of kind svc has none"),
        ("svc", {"best_epoch": 3}, "best_epoch=3: a head of kind svc has none"),
        ("logistic-regression", {"temperature": 2.0}, "temperature=2.0: a head of kind logistic-regression has none"),
        ("mlp", {"train": None}, "train=None: a head of kind mlp has it"),
        ("mlp", {"seed": None}, "seed=None: a head of kind mlp has it"),
        ("svc", {"classes": [0, 1]}, "n_support has 3 numbers for 2 classes"),
        ("logistic-regression", {"classes": [0, 1]}, "of shape"),
        ("mlp", {"embedding_dim": 5}, "of shape"),
        ("svc", {"embedding_dim": 2**40}, "describes a head of [0-9,]+ bytes; a model file allows 1,073,741,824"),
        ("mlp", {"head_choice": {"n_splits": 5}}, "lacks losses"),
        ("mlp", {"head_choice": {"n_splits": 5, "losses": []}}, "losses"),
        ("mlp", {"head_choice": {"n_splits": 5, "losses": [{"kind": "svc", "mean": 1.0}]}}, "lacks standard_error"),
        ("mlp", {"head_choice": {"n_splits": 5, "losses": [3]}}, "losses"),
    ],
)
def test_load_head_inconsistent_metadata_raises(
    kind: str, change: dict[str, Any], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(folders[kind], tmp_path / "model")
    reseal(model, {**metadata_of(model), **change})
    assert_rejected(model, message)


@pytest.mark.parametrize("n_support", [[10**6] * 3, [2**31] * 3, [0, 0, 0], [-1, 2, 3], [1.0, 2.0, 3.0], "abc", None])
def test_load_head_wrong_number_of_support_vectors_raises(n_support: Any, svc: Path) -> None:
    metadata = metadata_of(svc)
    metadata["head"]["n_support"] = n_support
    reseal(svc, metadata)
    assert_rejected(svc, r"n_support|of shape|has \d+ bytes")


def test_load_head_metadata_changed_after_saving_raises(model: Path) -> None:
    write_metadata(model, {**metadata_of(model), "train_size": 3})
    assert_rejected(model, "was changed after saving")
    with pytest.raises(ModelFileError, match="was changed after saving"):
        load_metadata(model)


def test_load_model_classical_head_raises(model: Path) -> None:
    with pytest.raises(
        ModelFileError, match="has a head of kind '.*', which has no circuit; this needs a quantum head"
    ):
        load_model(model)


def test_load_head_does_not_unpickle(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n(S'touch boom'\ntR.")
    assert_rejected(model, r"model\.safetensors|config\.json")


def test_save_pretrained_too_large_head_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "MAX_HEAD_BYTES", 100)
    with pytest.raises(StorageError, match="the head takes [0-9,]+ bytes; a model file allows 100"):
        fitted("svc").save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_every_kind_of_head_is_loaded_by_its_estimator(model: Path) -> None:
    saved, metadata = load_head(model)
    head = HEADS[metadata.head_kind].from_saved(saved, metadata)
    assert head.n_parameters_ == saved.config.count_parameters(4, 3)["total"]


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("logistic-regression", ["| head | logistic regression: `C 1.0, ", "| seed | none |", "of the head itself"]),
        ("svc", ["| head | support vector classifier: `C 1.0, kernel rbf", "Platt scaling on the validation samples"]),
        ("mlp", ["| head | multilayer perceptron: `hidden 2", "| optimiser | AdamW", "were not calibrated"]),
    ],
)
def test_model_card_describes_a_classical_head(kind: str, lines: list[str], folders: dict[str, Path]) -> None:
    card = (folders[kind] / CARD).read_text()
    for line in (*lines, "# A classifier of embeddings", "No quantum circuit and no QPU is part of this model."):
        assert line in card
    for sign in ("None", "undefined", "{{", "{%", "nan", "qubit", "quantum-machine-learning"):
        assert sign not in card
    assert ("not calibrated" in card) == (kind != "svc")
