"""Saved models: round trips, atomic replacement, and errors for damaged files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.base import clone
from torch import Tensor

from ketfit.errors import BodyError, DataError, ModelFileError, StorageError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.persistence.model_files import check_model_folder, load_model
from ketfit.persistence.schema import CARD, METADATA, WEIGHTS
from tests.persistence.saved_models import (
    SHORT,
    TEXTS,
    TINY,
    assert_rejected,
    fitted,
    metadata_of,
    same,
    sealed,
    vectors,
    write_metadata,
    write_weights,
)
from tests.storage.failing_calls import fail_at


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        "labels", [(0, 1), (-3, 2**60), ("bad", "good"), ("naïve", "電影", 'a "b"\\n'), (0, 1, 2, 3, 4)]
    )
    def test_load_model_restores_labels_and_types(self, labels: Any, dtype: str, tmp_path: Path) -> None:
        classifier = fitted(labels, dtype, head=TINY.updated(n_measured=2))
        classifier.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert same(loaded, classifier)
        assert loaded.classes_.tolist() == sorted(labels)
        assert loaded.classes_.dtype == classifier.classes_.dtype
        assert loaded.module_.weights.dtype == getattr(torch, dtype)

    @pytest.mark.parametrize(
        "settings",
        [
            {"n_encoders": 2, "encoder_input": "slices"},
            {"n_encoders": 2, "merge": "mean"},
            {"train_angle_scale": True, "angle_scale": 0.7},
            {"skip_connection": True, "n_measured": 2},
            {"n_qubits": 3, "connectivity": 2, "reference_amplitude": 0.3, "rotation_wall": False},
            {"n_reuploads": 3, "tie_reuploads": False, "reupload_layers": 2},
            {"encoder_layers": 0, "main_layers": 0},
        ],
    )
    def test_load_model_restores_any_head(self, settings: dict[str, Any], tmp_path: Path) -> None:
        classifier = fitted(head=TINY.updated(**settings))
        classifier.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert same(loaded, classifier)
        assert loaded.head_config_ == classifier.head_config_
        for (name, one), (_, other) in zip(
            loaded.module_.state_dict().items(), classifier.module_.state_dict().items(), strict=True
        ):
            assert torch.equal(one, other), name

    @pytest.mark.parametrize("weight", [None, "balanced", {"bad": 3.0}, {"bad": 0.1, "good": 2}])
    def test_load_model_restores_settings(self, weight: Any, tmp_path: Path) -> None:
        train = TrainConfig(epochs=3, batch_size=5, schedule="cosine", selection="accuracy", patience=1)
        classifier = fitted(
            ("bad", "good"), train=train, seed=np.int64(9), validation_fraction=np.float32(0.25), class_weight=weight
        )
        classifier.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.train, loaded.train_config_, loaded.seed, loaded.validation_fraction) == (train, train, 9, 0.25)
        if isinstance(weight, dict):
            assert loaded.class_weight == {"bad": weight["bad"], "good": weight.get("good", 1)}
        else:
            assert loaded.class_weight == weight
        assert loaded.best_epoch_ == classifier.best_epoch_
        assert (loaded.train_size_, loaded.validation_size_) == (classifier.train_size_, classifier.validation_size_)
        assert loaded.n_features_in_ == 4
        assert loaded.n_parameters_ == classifier.n_parameters_

    def test_recommended_head_is_saved_with_its_settings(self, tmp_path: Path) -> None:
        classifier = fitted(head=None, train=TrainConfig(epochs=1))
        classifier.save_pretrained(tmp_path / "model")
        assert QuantumHeadClassifier.from_pretrained(tmp_path / "model").head == HeadConfig.recommended(4)

    def test_loaded_model_can_be_fitted_and_saved_again(self, saved: Path, tmp_path: Path) -> None:
        loaded = QuantumHeadClassifier.from_pretrained(saved)
        loaded.save_pretrained(tmp_path / "model")
        assert (tmp_path / "model" / WEIGHTS).read_bytes() == (saved / WEIGHTS).read_bytes()
        assert (tmp_path / "model" / METADATA).read_bytes() == (saved / METADATA).read_bytes()
        assert same(clone(loaded).fit(vectors(), np.arange(12) % 2), loaded)

    def test_save_pretrained_does_not_change_the_model(self, tmp_path: Path) -> None:
        classifier, twin = fitted(), fitted()
        classifier.save_pretrained(tmp_path / "model")
        assert same(classifier, twin)

    def test_from_pretrained_accepts_a_string(self, saved: Path) -> None:
        assert same(QuantumHeadClassifier.from_pretrained(str(saved)), QuantumHeadClassifier.from_pretrained(saved))

    def test_moved_model_predicts_the_same(self, model: Path, tmp_path: Path, old: QuantumHeadClassifier) -> None:
        assert same(QuantumHeadClassifier.from_pretrained(model.rename(tmp_path / "elsewhere")), old)


class TestContents:
    def test_save_pretrained_writes_three_files(self, saved: Path) -> None:
        assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        assert not any(path.name.startswith(".") for path in saved.parent.iterdir())

    def test_saved_tensors_equal_the_state_dict(self, saved: Path, old: QuantumHeadClassifier) -> None:
        tensors = safetensors.torch.load_file(saved / WEIGHTS)
        assert tensors.keys() == old.module_.state_dict().keys()


class TestSaving:
    def test_save_pretrained_creates_missing_folders(self, old: QuantumHeadClassifier, tmp_path: Path) -> None:
        old.save_pretrained(tmp_path / "a" / "b" / "model")
        assert same(QuantumHeadClassifier.from_pretrained(tmp_path / "a" / "b" / "model"), old)

    def test_save_pretrained_into_empty_folder_succeeds(self, old: QuantumHeadClassifier, tmp_path: Path) -> None:
        old.save_pretrained(tmp_path)
        assert same(QuantumHeadClassifier.from_pretrained(tmp_path), old)

    def test_save_pretrained_into_relative_folder_succeeds(
        self, old: QuantumHeadClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        old.save_pretrained("model")
        assert same(QuantumHeadClassifier.from_pretrained("model"), old)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_save_pretrained_replaces_the_old_model(self, model: Path, new: QuantumHeadClassifier) -> None:
        new.save_pretrained(model)
        assert same(QuantumHeadClassifier.from_pretrained(model), new)
        assert [path.name for path in model.parent.iterdir()] == ["model"]
        assert len(list(model.iterdir())) == 3

    def test_save_pretrained_replaces_a_damaged_model(self, model: Path, new: QuantumHeadClassifier) -> None:
        (model / WEIGHTS).unlink()
        (model / METADATA).write_text("nonsense")
        new.save_pretrained(model)
        assert same(QuantumHeadClassifier.from_pretrained(model), new)

    def test_save_pretrained_keeps_a_link_to_the_folder(self, model: Path, new: QuantumHeadClassifier) -> None:
        link = model.parent / "link"
        link.symlink_to(model, target_is_directory=True)
        new.save_pretrained(link)
        assert link.is_symlink()
        assert same(QuantumHeadClassifier.from_pretrained(model), new)

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.safetensors.bak", "folder/", "pytorch_model.bin"])
    def test_save_pretrained_folder_with_other_files_raises(
        self, name: str, model: Path, new: QuantumHeadClassifier
    ) -> None:
        stranger = model / name.rstrip("/")
        stranger.mkdir() if name.endswith("/") else stranger.write_text("precious")
        before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
        with pytest.raises(StorageError, match=rf"holds '{name.rstrip('/')}', which is not part of a model"):
            new.save_pretrained(model)
        assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
        assert stranger.exists()
        assert [path.name for path in model.parent.iterdir()] == ["model"]

    def test_save_pretrained_folder_named_like_a_file_raises(self, model: Path, new: QuantumHeadClassifier) -> None:
        (model / CARD).unlink()
        (model / CARD).mkdir()
        (model / CARD / "precious").write_text("mine")
        with pytest.raises(StorageError, match=r"README\.md"):
            new.save_pretrained(model)
        assert (model / CARD / "precious").read_text() == "mine"

    def test_save_pretrained_current_folder_raises(
        self, new: QuantumHeadClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(StorageError, match="is the current folder"):
            new.save_pretrained(".")
        assert Path.cwd().exists()

    def test_save_pretrained_over_a_file_raises(self, new: QuantumHeadClassifier, tmp_path: Path) -> None:
        (tmp_path / "model").write_text("precious")
        with pytest.raises(StorageError, match="cannot write .*model"):
            new.save_pretrained(tmp_path / "model")
        assert (tmp_path / "model").read_text() == "precious"
        assert len(list(tmp_path.iterdir())) == 1

    def test_save_pretrained_below_a_file_raises(self, new: QuantumHeadClassifier, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("precious")
        with pytest.raises(StorageError, match="cannot write .*model"):
            new.save_pretrained(tmp_path / "file" / "model")

    @pytest.mark.parametrize("labels", [(0.0, 1.0), (False, True)])
    def test_save_pretrained_float_or_bool_labels_raise(self, labels: Any, tmp_path: Path) -> None:
        with pytest.raises(
            DataError,
            match=r"cannot be saved: classes_\[0\] has the label .* of type (float|bool); labels are str or int",
        ):
            fitted(labels).save_pretrained(tmp_path / "model")
        assert not any(tmp_path.iterdir())

    def test_save_pretrained_on_full_disk_keeps_old_model(
        self, model: Path, old: QuantumHeadClassifier, full_disk: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        with full_disk(600), pytest.raises(StorageError, match="cannot write .*model: File too large"):
            fitted(seed=2).save_pretrained(model)
        assert same(QuantumHeadClassifier.from_pretrained(model), old)
        assert [path.name for path in model.parent.iterdir()] == ["model"]


FAULTS: list[BaseException] = [
    *(OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO)),
    KeyboardInterrupt(),
]


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS, ids=["full disk", "broken disk", "interrupt"])
    @pytest.mark.parametrize("replaces", [True, False])
    def test_save_pretrained_failing_at_any_call_leaves_a_whole_model(
        self,
        replaces: bool,
        fault: BaseException,
        saved: Path,
        old: QuantumHeadClassifier,
        new: QuantumHeadClassifier,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        faults = []
        for step in range(100):
            place = tmp_path / str(step)
            place.mkdir()
            if replaces:
                shutil.copytree(saved, place / "model")
            with monkeypatch.context() as patch:
                calls = fail_at(patch, step, fault)
                try:
                    new.save_pretrained(place / "model")
                    raised = False
                except (StorageError, KeyboardInterrupt) as error:
                    raised = True
                    reason = f"cannot write {place / 'model'}: {fault.strerror}" if isinstance(fault, OSError) else ""
                    assert str(error) == reason
            if len(calls) <= step:
                assert not raised
                break
            what = f"{'raised' if raised else 'silent'} at step {step}, {calls[step]}"
            left = sorted(path.name for path in place.iterdir())
            if raised and any(name != "model" for name in left):
                faults.append(f"{what}: left {left}")
            if "model" in left:
                loaded = QuantumHeadClassifier.from_pretrained(place / "model")
                if not same(loaded, new) and not (raised and replaces and same(loaded, old)):
                    faults.append(f"{what}: neither the old model nor the new one stands there")
            elif replaces or not raised:
                faults.append(f"{what}: no model stands there")
        assert step > 8, "the save is made of more steps than that"
        assert not faults, "\n".join(faults)

    @pytest.mark.slow
    def test_save_pretrained_killed_at_any_call_leaves_a_whole_model(
        self, saved: Path, new: QuantumHeadClassifier, tmp_path: Path
    ) -> None:
        new.save_pretrained(tmp_path / "new")
        done = subprocess.run(
            [sys.executable, "-c", KILLER, str(saved), str(tmp_path / "new"), str(tmp_path / "place")],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        outcomes = json.loads(done.stdout)
        assert set(outcomes) == {"old", "new", "set aside"}, outcomes
        assert outcomes == sorted(outcomes, key=["old", "set aside", "new"].index)
        assert outcomes.count("set aside") == 1, "only between the two renames"


KILLER = """
import json, os, shutil, signal, sys
from pathlib import Path
import numpy as np
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.errors import ModelFileError

saved, newer, place = map(Path, sys.argv[1:])
x = np.random.default_rng(0).standard_normal((12, 4))
load = QuantumHeadClassifier.from_pretrained
new = load(newer)
proba = {"old": load(saved).predict_proba(x).tolist(), "new": new.predict_proba(x).tolist()}

def dying(plain, calls, step):
    def call(*args, **named):
        calls.append(None)
        if len(calls) == step + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **named)
    return call

outcomes = []
for step in range(100):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(saved, place / "model")
    pid = os.fork()
    if not pid:
        calls = []
        steps = [(os, name) for name in ("fsync", "open", "unlink", "rmdir")]
        steps += [(Path, name) for name in ("open", "rename", "replace", "mkdir")]
        for owner, name in steps:
            setattr(owner, name, dying(getattr(owner, name), calls, step))
        new.save_pretrained(place / "model")
        os._exit(0)
    if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        break
    name, folder = "", place / "model"
    if not folder.exists():
        name, (folder,) = "set aside", place.glob(".model.*.old")
    found = load(folder).predict_proba(x).tolist()
    which = [key for key, value in proba.items() if value == found]
    assert len(which) == 1, "a model that was never saved"
    assert not name or which == ["old"]
    outcomes.append(name or which[0])
    new.save_pretrained(place / "model")
    assert load(place / "model").predict_proba(x).tolist() == proba["new"]
print(json.dumps(outcomes))
"""


class TestDamage:
    def test_load_model_missing_folder_raises(self, tmp_path: Path) -> None:
        assert_rejected(tmp_path / "none", "none")

    @pytest.mark.parametrize("name", [WEIGHTS, METADATA])
    def test_load_model_missing_file_raises(self, name: str, model: Path) -> None:
        (model / name).unlink()
        caught = "is not a model: it has no config.json" if name == METADATA else f"cannot read .*{name}: No such file"
        assert_rejected(model, caught)

    @pytest.mark.parametrize("name", [WEIGHTS, METADATA])
    def test_load_model_folder_in_place_of_file_raises(self, name: str, model: Path) -> None:
        (model / name).unlink()
        (model / name).mkdir()
        assert_rejected(model, f"cannot read .*{name}")

    def test_load_model_without_card_succeeds(self, model: Path, old: QuantumHeadClassifier) -> None:
        (model / CARD).unlink()
        assert same(QuantumHeadClassifier.from_pretrained(model), old)

    @pytest.mark.parametrize("name", [WEIGHTS, METADATA])
    def test_load_model_truncated_file_raises(self, name: str, model: Path) -> None:
        content = (model / name).read_bytes()
        end = len(content.rstrip()) if name == METADATA else len(content)  # the last line break does not count
        for length in [*range(0, end, 13), end - 1]:
            (model / name).write_bytes(content[:length])
            assert_rejected(model, name)

    @pytest.mark.parametrize("extra", [b"\0", b" ", b"{}", bytes(100)])
    @pytest.mark.parametrize("name", [WEIGHTS, METADATA])
    def test_load_model_file_with_extra_bytes_raises(self, name: str, extra: bytes, model: Path) -> None:
        with (model / name).open("ab") as file:
            file.write(extra + b"x")
        assert_rejected(model, name)

    @pytest.mark.parametrize("name", [WEIGHTS, METADATA])
    def test_load_model_any_changed_byte_raises(self, name: str, model: Path) -> None:
        path = model / name
        content = bytearray(path.read_bytes())
        rng = random.Random(0)
        unseen = []
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            try:
                load_model(model)
            except ModelFileError as error:
                assert str(model) in str(error)
            else:
                unseen.append(damaged[max(0, place - 25) : place + 15].decode(errors="replace"))
        assert not unseen, f"{len(unseen)} of {len(content)} were not seen, such as {unseen[:: len(unseen) // 5 + 1]}"

    def test_load_model_weights_of_another_model_raise(
        self, model: Path, new: QuantumHeadClassifier, tmp_path: Path
    ) -> None:
        new.save_pretrained(tmp_path / "other")
        shutil.copy(tmp_path / "other" / WEIGHTS, model / WEIGHTS)
        assert_rejected(model, r"model\.safetensors is not the file that its config\.json was written with")

    def test_load_model_does_not_unpickle(self, model: Path, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "boom",)

        for content in (pickle.dumps(Bomb()), self.torch_file(tmp_path, Bomb())):
            (model / WEIGHTS).write_bytes(content)
            write_metadata(model, {**metadata_of(model), "weights_sha256": hashlib.sha256(content).hexdigest()})
            assert_rejected(model, "damaged, or not a safetensors file")
        assert not (tmp_path / "boom").exists()

    def torch_file(self, folder: Path, content: Any) -> bytes:
        torch.save(content, folder / "weights.pt")
        return (folder / "weights.pt").read_bytes()


class TestTensors:
    """Weights with a correct hash that do not fit the head."""

    def tensors(self, model: Path) -> dict[str, Tensor]:
        return safetensors.torch.load((model / WEIGHTS).read_bytes())  # load_file would map the file that is broken

    def test_load_model_rewritten_tensors_succeed(self, model: Path, old: QuantumHeadClassifier) -> None:
        write_weights(model, self.tensors(model))
        assert same(QuantumHeadClassifier.from_pretrained(model), old)

    def test_load_model_missing_tensor_raises(self, model: Path) -> None:
        whole = self.tensors(model)
        for name in whole:
            write_weights(model, {key: tensor for key, tensor in whole.items() if key != name})
            assert_rejected(model, rf"holds the tensors .*; this head needs .*{name}")

    def test_load_model_renamed_tensor_raises(self, model: Path) -> None:
        tensors = self.tensors(model)
        tensors["wait"] = tensors.pop("weights")
        write_weights(model, tensors)
        assert_rejected(model, r"holds the tensors .*'wait'.*; this head needs .*'weights'")

    def test_load_model_extra_tensor_raises(self, model: Path) -> None:
        write_weights(model, {**self.tensors(model), "more": torch.zeros(1)})
        assert_rejected(model, "holds the tensors .*'more'")

    def test_load_model_without_tensors_raises(self, model: Path) -> None:
        write_weights(model, {})
        assert_rejected(model, r"holds the tensors \[\]")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
    def test_load_model_tensor_of_other_dtype_raises(self, dtype: torch.dtype, model: Path) -> None:
        tensors = self.tensors(model)
        write_weights(model, {**tensors, "weights": tensors["weights"].to(dtype)})
        assert_rejected(model, f"weights is {dtype} of shape .*; this head needs torch.float64")

    def test_load_model_tensor_of_other_shape_raises(self, model: Path) -> None:
        tensors = self.tensors(model)
        for other in (tensors["weights"][None], tensors["weights"][:-1], torch.zeros(0).double()):
            write_weights(model, {**tensors, "weights": other.contiguous()})
            assert_rejected(
                model, r"weights is torch.float64 of shape \(.*\); this head needs torch.float64 of shape \(\d+,\)"
            )

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
    def test_load_model_non_finite_tensor_raises(self, number: float, model: Path) -> None:
        whole = self.tensors(model)
        for name in whole:
            tensors = {key: tensor.clone() for key, tensor in whole.items()}
            tensors[name].view(-1)[-1] = number
            write_weights(model, tensors)
            assert_rejected(model, rf"{name} holds a number that is not finite")


class TestText:
    """Text models with the tiny body."""

    def test_text_model_round_trip_predicts_the_same(self, classifier: TextClassifier, folder: Path) -> None:
        loaded = TextClassifier.from_pretrained(folder)
        assert (loaded.predict_proba(TEXTS) == classifier.predict_proba(TEXTS)).all()
        assert (loaded.predict(TEXTS) == classifier.predict(TEXTS)).all()
        assert loaded.get_params() == {**classifier.get_params(), "train": SHORT}
        assert loaded.body_.fingerprint == classifier.body_.fingerprint
        assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, METADATA, WEIGHTS])

    def test_text_model_names_its_body_without_copying_it(self, folder: Path, tiny_body_folder: Path) -> None:
        body = metadata_of(folder)["body"]
        assert body["name"] == str(tiny_body_folder)
        assert (body["source"], body["revision"], body["dimension"]) == ("local", None, 16)
        assert len(body["fingerprint"]) == 64
        assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000

    def test_text_model_head_loads_alone(self, classifier: TextClassifier, folder: Path) -> None:
        head = QuantumHeadClassifier.from_pretrained(folder)
        embeddings = classifier.body_.encode(TEXTS)
        assert (head.predict_proba(embeddings) == classifier.predict_proba(TEXTS)).all()

    def test_text_classifier_from_embedding_model_raises(self, model: Path) -> None:
        with pytest.raises(ModelFileError, match="takes embeddings, not sentences; load it with QuantumHeadClassifier"):
            TextClassifier.from_pretrained(model)

    def test_text_model_body_option_loads_moved_body(
        self, classifier: TextClassifier, folder: Path, own_body: Path
    ) -> None:
        loaded = TextClassifier.from_pretrained(folder, body=str(own_body))
        assert (loaded.predict_proba(TEXTS) == classifier.predict_proba(TEXTS)).all()

    def test_text_model_with_another_body_raises(self, folder: Path, own_body: Path) -> None:
        weights = own_body / "model.safetensors"
        tensors = safetensors.torch.load_file(weights)
        first = next(iter(tensors))
        tensors[first] = tensors[first] + 1
        safetensors.torch.save_file(tensors, weights, {"format": "pt"})
        with pytest.raises(BodyError, match=r"was trained on .* with fingerprint .*; give it the same body"):
            TextClassifier.from_pretrained(folder, body=str(own_body))

    def test_text_model_missing_body_raises(self, folder: Path, tmp_path: Path) -> None:
        record = metadata_of(folder)
        record["body"]["name"] = str(tmp_path / "gone")
        write_metadata(folder, sealed(record))
        with pytest.raises(
            BodyError, match=r"body in the folder .*gone, which is not there; say .* body=\.\.\. \(--body"
        ):
            TextClassifier.from_pretrained(folder)

    def test_text_model_included_body_must_be_unchanged(
        self, classifier: TextClassifier, own_body: Path, tmp_path: Path
    ) -> None:
        moved = TextClassifier(str(own_body)).set_params(**classifier.get_params(deep=False))
        moved.set_params(body=str(own_body)).fit(["good", "fine", "bad", "dull"], ["yes", "yes", "no", "no"])
        own_body.rename(tmp_path / "elsewhere")
        with pytest.raises(BodyError, match="files of the body in .* were removed or changed"):
            moved.save_pretrained(tmp_path / "carrying", with_body=True)
        assert not (tmp_path / "carrying").exists()

    @pytest.mark.parametrize("key", ["name", "source", "revision", "fingerprint", "dimension"])
    def test_text_model_incomplete_body_metadata_raises(self, key: str, folder: Path) -> None:
        record = metadata_of(folder)
        del record["body"][key]
        write_metadata(folder, record)
        assert_rejected(folder, key)

    def test_text_model_body_of_other_dimension_raises(self, folder: Path) -> None:
        record = metadata_of(folder)
        record["body"]["dimension"] = 17
        write_metadata(folder, record)
        with pytest.raises(ModelFileError, match="dimension"):
            TextClassifier.from_pretrained(folder)

    def test_text_model_folder_with_revision_raises(self, folder: Path) -> None:
        with pytest.raises(ModelFileError, match="is a local folder and has no revision 'main'"):
            TextClassifier.from_pretrained(folder, revision="main")


class TestLongNames:
    """Names that the operating system refuses."""

    @pytest.mark.parametrize(
        "load", [QuantumHeadClassifier.from_pretrained, TextClassifier.from_pretrained, load_model]
    )
    def test_load_model_with_a_long_name_raises(self, load: Callable[[str], Any]) -> None:
        with pytest.raises(ModelFileError, match="xxx"):
            load("x" * 300)

    def test_save_pretrained_with_a_long_name_raises(self, old: QuantumHeadClassifier, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot write .*xxx: File name too long"):
            check_model_folder(tmp_path / ("x" * 300))
        with pytest.raises(StorageError, match="cannot write .*xxx: File name too long"):
            old.save_pretrained(tmp_path / ("x" * 300))
        assert not any(tmp_path.iterdir())


def test_check_model_folder_unwritable_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_model_folder(tmp_path / "new" / "model")
    assert not any(tmp_path.iterdir())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StorageError, match="cannot write .*model: Read-only file system"):
        check_model_folder(tmp_path / "new" / "model")


def test_check_model_folder_that_may_not_be_entered_raises(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(StorageError, match="cannot write .*model: Permission denied"):
        check_model_folder(model)


class TestComponents:
    """A saved head with principal components."""

    HEAD = TINY.updated(components=3)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_load_model_restores_projection(self, dtype: str, tmp_path: Path) -> None:
        classifier = fitted(dtype=dtype, head=self.HEAD)
        classifier.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert same(loaded, classifier)
        assert loaded.head_config_ == self.HEAD
        assert "3 principal components of the training embeddings, 16 fitted numbers, not trained" in (
            (tmp_path / "model" / CARD).read_text()
        )

    def test_load_model_without_or_with_other_projection_raises(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        fitted(head=self.HEAD).save_pretrained(folder)
        whole = safetensors.torch.load_file(folder / WEIGHTS)
        write_weights(folder, {name: tensor for name, tensor in whole.items() if name != "projection.mean"})
        assert_rejected(folder, "this head needs .*projection.directions.*projection.mean")
        write_weights(folder, {**whole, "projection.directions": whole["projection.directions"][:2]})
        assert_rejected(folder, r"projection.directions is torch.float64 of shape \(2, 4\); .* of shape \(3, 4\)")
        write_weights(folder, {**whole, "projection.mean": torch.full((4,), torch.nan, dtype=torch.float64)})
        assert_rejected(folder, "projection.mean holds a number that is not finite")
        write_weights(folder, whole)
        metadata = metadata_of(folder)
        write_metadata(folder, sealed({**metadata, "head": {**metadata["head"], "components": None}}))
        assert_rejected(folder, r"holds the tensors .*'projection.directions', 'projection.mean'")

    def test_load_model_with_more_components_than_dimensions_raises(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        fitted(head=self.HEAD).save_pretrained(folder)
        metadata = metadata_of(folder)
        whole = safetensors.torch.load_file(folder / WEIGHTS)
        write_metadata(folder, {**metadata, "head": {**metadata["head"], "components": 9}})
        write_weights(folder, {**whole, "projection.directions": torch.ones(9, 4, dtype=torch.float64)})
        assert_rejected(folder, "describes an invalid head: components=9: an embedding of width 4")
