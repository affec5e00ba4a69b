"""The metadata of a saved model: strict parsing of config.json."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ketfit
from ketfit.errors import ModelFileError, StorageError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.persistence.model_files import load_metadata, load_model
from ketfit.persistence.schema import METADATA, OPTIONAL_KEYS, WEIGHTS
from ketfit.storage.strict_json import parse_json
from tests.persistence.saved_models import (
    SHORT,
    TINY,
    assert_rejected,
    fitted,
    metadata_of,
    sealed,
    write_metadata,
)

OLD = Path(__file__).parent / "models" / "version-1"
VERSION_2 = Path(__file__).parent / "models" / "version-2"
VERSION_3 = Path(__file__).parent / "models" / "version-3"

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]

WORDS = ["positive"] * 4 + ["negative"] * 4

HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)


LIMITED = """
import resource, sys
from ketfit.persistence.model_files import load_metadata, load_model
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
resource.setrlimit(resource.RLIMIT_CPU, (25, 25))
for folder in sys.argv[1:]:
    try:
        load_model(folder)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}"[:200].replace(chr(10), " "), flush=True)
"""


class TestMetadata:
    """A ``config.json`` that is not the metadata of a model."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "damaged, or not JSON"),
            ("nonsense", "damaged, or not JSON"),
            ("[]", "is not a JSON object"),
            ("null", "is not a JSON object"),
            ("3", "is not a JSON object"),
            ('"text"', "is not a JSON object"),
            ("{}", "schema_version=None"),
            ("[" * 100_000, "damaged, or not JSON"),
            ('{"a":' * 100_000 + "1" + "}" * 100_000, "damaged, or not JSON"),
            ('{"seed": ' + "9" * 10_000 + "}", "damaged, or not JSON|schema_version=None"),
            ("{'schema_version': 1}", "damaged, or not JSON"),
            ('{"schema_version": 1} {}', "damaged, or not JSON"),
        ],
    )
    def test_read_metadata_other_json_raises(self, text: str, message: str, model: Path) -> None:
        (model / METADATA).write_text(text)
        assert_rejected(model, rf"config\.json.* ?({message})")

    @pytest.mark.parametrize("content", [b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{\x00}", bytes(10)])
    def test_read_metadata_invalid_bytes_raise(self, content: bytes, model: Path) -> None:
        (model / METADATA).write_bytes(content)
        assert_rejected(model, r"config\.json is damaged, or not JSON")

    def test_read_metadata_too_large_raises(self, model: Path) -> None:
        with (model / METADATA).open("ab") as file:
            file.write(b" " * 2**20)
        assert_rejected(model, r"config\.json has \d+ bytes; a file written by KetFit has at most 1048576")

    @pytest.mark.parametrize(
        ("once", "twice"),
        [
            ('"seed": 0', '"seed": 0, "seed": 0'),
            ('"seed": 0', '"seed": 0, "\\u0073eed": 0'),
            ('"n_qubits": 2', '"n_qubits": 2, "n_qubits": 3'),
        ],
    )
    def test_read_metadata_repeated_key_raises(self, once: str, twice: str, model: Path) -> None:
        text = (model / METADATA).read_text()
        assert once in text
        (model / METADATA).write_text(text.replace(once, twice))
        assert_rejected(model, r"the key '(seed|n_qubits)' appears 2 times")

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
    @pytest.mark.parametrize("place", ['"validation_fraction": 0.15', '"metrics": {}'])
    def test_read_metadata_non_finite_number_raises(self, number: str, place: str, model: Path) -> None:
        text = (model / METADATA).read_text()
        assert place in text
        wrong = f'"metrics": {{"loss": {number}}}' if "metrics" in place else f'"validation_fraction": {number}'
        (model / METADATA).write_text(text.replace(place, wrong))
        assert_rejected(model, r"config\.json")

    @pytest.mark.parametrize("version", [0, 5, 99, "1", "2", None, True, [1], 1.0, 1.5])
    def test_read_metadata_unknown_version_raises(self, version: Any, model: Path) -> None:
        write_metadata(model, {**metadata_of(model), "schema_version": version})
        assert_rejected(
            model,
            r"schema_version=.* and this KetFit reads 1, 2, 3, 4; read it with the KetFit that wrote it, or upgrade",
        )

    @pytest.mark.parametrize("table", ["", "head", "train"])
    def test_read_metadata_unknown_key_raises(self, table: str, model: Path) -> None:
        record = metadata_of(model)
        (record[table] if table else record)["n_qubitz"] = 1
        write_metadata(model, record)
        assert_rejected(model, "has no setting 'n_qubitz'")

    @pytest.mark.parametrize("table", ["", "head", "train"])
    def test_read_metadata_missing_key_raises(self, table: str, model: Path) -> None:
        # A default in its place could be another model: without reference_amplitude, say.
        whole = metadata_of(model)
        unseen = []
        for key in (whole[table] if table else whole).keys() - OPTIONAL_KEYS:
            record = json.loads(json.dumps(whole))
            del (record[table] if table else record)[key]
            write_metadata(model, record)
            try:
                load_model(model)
            except ModelFileError as error:
                assert key in str(error)
            else:
                unseen.append(key)
        assert not unseen

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": "0"}, "seed='0'"),
            ({"seed": 0.5}, "seed=0.5"),
            ({"seed": -1}, "seed=-1"),
            ({"classes": ["a", 1]}, "classes"),
            ({"classes": [0.0, 1.0]}, "classes"),
            ({"classes": [True, False]}, "classes"),
            ({"classes": "ab"}, "classes"),
            ({"classes": [0, 0]}, r"at least two different labels, got \[0, 0\]"),
            ({"classes": ["a", "a"]}, "at least two different labels"),
            ({"classes": ["a"]}, r"at least two different labels, got \['a'\]"),
            ({"classes": []}, "at least two different labels"),
            ({"classes": [0, 1, 2]}, r"linear\.\w+ is torch.float64 of shape"),
            ({"class_weight": "equal"}, "class_weight"),
            ({"class_weight": [1.0]}, "class_weight"),
            ({"class_weight": [1.0, 1.0, 1.0]}, "class_weight"),
            ({"class_weight": [1.0, "1"]}, "class_weight"),
            ({"embedding_dim": 0}, "embedding_dim=0"),
            ({"embedding_dim": 5}, "width 5 needs n_qubits=3"),
            ({"embedding_dim": True}, "embedding_dim=True"),
            ({"dtype": "float16"}, "dtype='float16'"),
            ({"dtype": "float32"}, "is torch.float64 of shape"),
            ({"dtype": "__class__"}, "dtype='__class__'"),
            ({"validation_fraction": 1.5}, "validation_fraction"),
            ({"validation_fraction": "0.15"}, "validation_fraction='0.15'"),
            ({"train_size": -3}, "train_size"),
            ({"best_epoch": -3}, "best_epoch"),
            ({"body": {}}, "body"),
            ({"body": 3}, "body=3"),
            ({"metrics": {"a": "b"}}, "metrics"),
            ({"metrics": []}, "metrics"),
            ({"head": 3}, "head=3"),
            ({"head": None}, "head=None"),
            ({"train": []}, "train="),
            ({"weights_sha256": "0" * 64}, r"is not the file that its config\.json was written with"),
            ({"weights_sha256": ""}, r"is not the file that its config\.json was written with"),
            ({"weights_sha256": None}, "weights_sha256=None"),
        ],
    )
    def test_read_metadata_invalid_value_raises(self, change: dict[str, Any], message: str, model: Path) -> None:
        write_metadata(model, {**metadata_of(model), **change})
        assert_rejected(model, message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n_qubits": 1}, "n_qubits=1"),
            ({"n_qubits": "2"}, "n_qubits='2'"),
            ({"n_qubits": 3}, "of shape"),
            ({"connectivity": 2}, "connectivity=2 needs more than 2 qubits"),
            ({"encoder_layers": 2}, r"encoder\.weights is torch.float64 of shape \(1, 4\)"),
            ({"main_layers": 2}, "weights is torch.float64 of shape"),
            ({"merge": "sum"}, "merge='sum'"),
            ({"shots": 0}, "shots=0"),
            ({"reference_amplitude": 1}, "width 4 and its reference amplitude needs n_qubits=3"),
        ],
    )
    def test_read_metadata_invalid_head_raises(self, change: dict[str, Any], message: str, model: Path) -> None:
        record = metadata_of(model)
        write_metadata(model, {**record, "head": {**record["head"], **change}})
        assert_rejected(model, message)

    @pytest.mark.slow
    def test_load_model_huge_head_raises_without_allocating(self, model: Path, tmp_path: Path) -> None:
        changes = [{"encoder_layers": 10**9}, {"n_reuploads": 10**9}, {"n_encoders": 10**9}, {"n_qubits": 10**5}]
        folders = [shutil.copytree(model, tmp_path / str(number)) for number in range(5)]
        os.truncate(folders[0] / WEIGHTS, 2**40)  # a hole, which takes no room on the disk
        for folder, change in zip(folders[1:], changes, strict=True):
            record = metadata_of(folder)
            write_metadata(folder, {**record, "head": {**record["head"], **change}})
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, *map(str, folders)], capture_output=True, text=True, timeout=120
        )
        assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["ModelFileError"] * 5, done

    def test_save_pretrained_writes_all_metadata(self, saved: Path, old: QuantumHeadClassifier) -> None:
        record = parse_json((saved / METADATA).read_text(encoding="utf-8"))
        assert record == sealed(record)
        del record["record_sha256"]
        assert record == {
            "schema_version": 4,
            "ketfit_version": ketfit.__version__,
            "head_kind": "quantum",
            "head": TINY.model_dump(mode="json"),
            "train": SHORT.model_dump(),
            "seed": 0,
            "validation_fraction": 0.15,
            "class_weight": None,
            "classes": [0, 1],
            "embedding_dim": 4,
            "dtype": "float64",
            "train_size": 10,
            "validation_size": 2,
            "best_epoch": old.best_epoch_,
            "temperature": None,
            "body": None,
            "data": None,
            "metrics": {},
            "weights_sha256": hashlib.sha256((saved / WEIGHTS).read_bytes()).hexdigest(),
        }

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_save_pretrained_non_finite_metric_raises_or_loads(self, number: float, tmp_path: Path) -> None:
        # Not allowed: a folder that cannot be loaded.
        try:
            fitted().save_pretrained(tmp_path / "model", metrics={"loss": number})
        except ValueError as error:
            assert "loss" in str(error)
            assert not any(tmp_path.iterdir())
        else:
            QuantumHeadClassifier.from_pretrained(tmp_path / "model")


def test_save_pretrained_too_large_metadata_raises(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"config\.json would have .* bytes"):
        fitted(("a" * 600_000, "b" * 600_000)).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


class TestVersion1:
    def test_version_1_model_loads_and_predicts(self) -> None:
        # Saved by the last KetFit that wrote version 1, with the head and the numbers of this test.
        rows = np.random.default_rng(0).standard_normal((12, 4))
        loaded = QuantumHeadClassifier.from_pretrained(OLD)
        expected = [[0.26410078104482587, 0.7358992189551742], [0.16702473849778435, 0.8329752615022156]]
        np.testing.assert_allclose(loaded.predict_proba(rows)[:2], expected, rtol=1e-12)
        assert metadata_of(OLD)["schema_version"] == 1

    def test_version_1_text_model_loads(self, tmp_path: Path, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1)).fit(TEXTS, WORDS)
        text.save_pretrained(tmp_path / "model")
        record = metadata_of(tmp_path / "model")
        del record["temperature"], record["body"]["dtype"], record["body"]["tuned"], record["head_kind"]
        for name in HeadConfig.ADDED_SETTINGS:
            record["head"].pop(name, None)
        write_metadata(tmp_path / "model", sealed({**record, "schema_version": 1}))
        loaded = TextClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.predict_proba(TEXTS) == text.predict_proba(TEXTS)).all()

    @pytest.mark.parametrize("change", [{"temperature": 2.0}, {"seed": 1}, {"color": "red"}])
    def test_version_1_metadata_is_read_strictly(self, change: dict[str, Any], tmp_path: Path) -> None:
        model = shutil.copytree(OLD, tmp_path / "model")
        write_metadata(model, {**metadata_of(model), **change})
        assert_rejected(model, "which schema_version=1 does not have|was changed after saving|has no setting 'color'")
        write_metadata(model, {key: value for key, value in metadata_of(OLD).items() if key != "seed"})
        assert_rejected(model, "lacks seed of ModelMetadata")

    def test_version_1_model_is_saved_as_version_4(self, tmp_path: Path) -> None:
        QuantumHeadClassifier.from_pretrained(OLD).save_pretrained(tmp_path / "model")
        assert metadata_of(tmp_path / "model")["schema_version"] == 4
        assert (tmp_path / "model" / WEIGHTS).read_bytes() == (OLD / WEIGHTS).read_bytes()


class TestVersion2:
    """A model with a tuned body, saved by the last KetFit that wrote version 2, without its body's files."""

    def test_version_2_model_loads_and_predicts(self) -> None:
        rows = np.random.default_rng(0).standard_normal((12, 16))
        loaded = QuantumHeadClassifier.from_pretrained(VERSION_2)
        expected = [[0.38225751137777947, 0.6177424886222206], [0.31783487406859573, 0.6821651259314042]]
        np.testing.assert_allclose(loaded.predict_proba(rows)[:2], expected, rtol=1e-5)
        assert metadata_of(VERSION_2)["schema_version"] == 2

    def test_version_2_tuning_is_read_as_one_stage(self) -> None:
        metadata = load_metadata(VERSION_2)
        assert metadata.head_kind == "quantum"
        assert metadata.body is not None
        assert metadata.body.tuned is not None
        settings = metadata_of(VERSION_2)["body"]["tuned"]["settings"]
        (stage,) = metadata.body.tuned.stages
        assert settings.items() <= stage.model_dump().items()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"head_kind": "quantum"}, "'head_kind', which schema_version=2 does not have"),
            ({"head_choice": None}, "'head_choice', which schema_version=2 does not have"),
            ({"seed": 1}, "was changed after saving"),
        ],
    )
    def test_version_2_metadata_is_read_strictly(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        model = shutil.copytree(VERSION_2, tmp_path / "model")
        write_metadata(model, {**metadata_of(model), **change})
        assert_rejected(model, message)

    @pytest.mark.parametrize("change", [{"stages": []}, {"settings": 3}, {"settings": None}])
    def test_version_2_tuning_is_read_strictly(self, change: dict[str, Any], tmp_path: Path) -> None:
        model = shutil.copytree(VERSION_2, tmp_path / "model")
        metadata = metadata_of(model)
        metadata["body"]["tuned"] |= change
        write_metadata(model, sealed(metadata))
        assert_rejected(model, "which schema_version=2 does not have|stages")
        del metadata["body"]["tuned"]["settings"]
        write_metadata(model, sealed(metadata))
        assert_rejected(model, "lacks settings")


class TestVersion3:
    """A model with a projection, saved by the last KetFit that wrote version 3."""

    def test_version_3_model_loads_and_predicts(self) -> None:
        rows = np.random.default_rng(0).standard_normal((12, 4))
        loaded = QuantumHeadClassifier.from_pretrained(VERSION_3)
        expected = [[0.19224126188748417, 0.8077587381125159], [0.2331975697438721, 0.7668024302561278]]
        np.testing.assert_allclose(loaded.predict_proba(rows)[:2], expected, rtol=1e-12)
        assert metadata_of(VERSION_3)["schema_version"] == 3
        assert load_metadata(VERSION_3).head == TINY.updated(components=3)

    @pytest.mark.parametrize("name", ["ansatz", "readout"])
    def test_version_3_head_is_read_strictly(self, name: str, tmp_path: Path) -> None:
        model = shutil.copytree(VERSION_3, tmp_path / "model")
        metadata = metadata_of(model)
        metadata["head"][name] = HeadConfig.ADDED_SETTINGS[name]
        write_metadata(model, sealed(metadata))
        assert_rejected(model, f"'{name}', which schema_version=3 does not have")
