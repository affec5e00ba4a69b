"""Saved models with a fine-tuned body."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.bodies.body import Body
from ketfit.errors import BodyError, StorageError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from ketfit.persistence.model_files import check_model_folder
from ketfit.persistence.schema import BODY, CARD, METADATA, WEIGHTS
from tests.persistence.saved_models import assert_rejected, metadata_of, sealed, write_metadata

OLD = Path(__file__).parent / "models" / "version-1"
TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
WORDS = ["positive"] * 4 + ["negative"] * 4
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=4, precision="float32")
FULL = EndToEndConfig(epochs=1, batch_size=4, learning_rate=2e-5, precision="float32")


@pytest.fixture(scope="module", params=[CONTRASTIVE, FULL], ids=["contrastive", "full"])
def tuned(request: pytest.FixtureRequest, tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=2), tune=request.param).fit(TEXTS, WORDS)


@pytest.fixture
def folder(tuned: TextClassifier, tmp_path: Path) -> Path:
    """A saved model with its tuned body that a test may break."""
    tuned.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class TestTunedBody:
    """A model with its tuned body in its folder."""

    def test_tuned_model_round_trip_predicts_the_same(
        self, tuned: TextClassifier, folder: Path, tiny_body: Body
    ) -> None:
        loaded = TextClassifier.from_pretrained(folder)
        assert (loaded.predict_proba(TEXTS) == tuned.predict_proba(TEXTS)).all()
        assert loaded.get_params() == {**tuned.get_params(), "head": loaded.head}
        assert loaded.body_.tuning == tuned.body_.tuning
        assert loaded.body_.name == tuned.body_.name
        record = metadata_of(folder)["body"]
        assert record["fingerprint"] == tiny_body.fingerprint
        assert record["tuned"]["fingerprint"] == tuned.body_.fingerprint != tiny_body.fingerprint
        assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, METADATA, WEIGHTS, BODY])
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".safetensors", ".json", ".txt", ".md"}

    def test_tuned_model_loads_without_cache_and_base_body(
        self, tuned: TextClassifier, folder: Path, fresh_cache: Path
    ) -> None:
        record = metadata_of(folder)
        record["body"]["name"] = "gone"
        write_metadata(folder, sealed(record))
        moved = folder.rename(folder.with_name("moved"))
        loaded = TextClassifier.from_pretrained(moved)
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), tuned.predict_proba(TEXTS))

    def test_tuned_model_saved_again_has_the_same_files(self, folder: Path, tmp_path: Path) -> None:
        TextClassifier.from_pretrained(folder).save_pretrained(tmp_path / "again")
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert all((folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in files)

    def test_tuned_model_card_names_the_tuning(self, folder: Path, tuned: TextClassifier) -> None:
        card = (folder / CARD).read_text()
        assert "tuned, in the folder `body`, 16 dimensions" in card
        assert tuned.body_.fingerprint in card
        assert f"{tuned.tune.method} tuning, 1 epochs, batches of 4" in card  # type: ignore[union-attr]

    def test_tuned_model_with_another_body_raises(self, folder: Path, tiny_body_folder: Path) -> None:
        shutil.rmtree(folder / BODY)
        shutil.copytree(tiny_body_folder, folder / BODY)
        with pytest.raises(BodyError, match=r"was trained on .* \(tuned\) with fingerprint .*; give it the same body"):
            TextClassifier.from_pretrained(folder)

    def test_tuned_model_with_changed_weight_raises(self, folder: Path) -> None:
        weights = folder / BODY / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)
        with pytest.raises(BodyError, match="give it the same body"):
            TextClassifier.from_pretrained(folder)

    def test_tuned_model_checks_fingerprint_before_parsing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed = []
        monkeypatch.setattr("ketfit.bodies.body.read_transformer", lambda *_: parsed.append("read"))
        monkeypatch.setattr("ketfit.bodies.body._read_json", lambda *_: parsed.append("read"))
        (folder / BODY / "tokenizer.json").write_text("[" * 10**6)
        with pytest.raises(BodyError, match="give it the same body"):
            TextClassifier.from_pretrained(folder)
        assert not parsed

    def test_tuned_model_missing_body_raises_and_moved_body_loads(
        self, folder: Path, tmp_path: Path, tuned: TextClassifier
    ) -> None:
        (folder / BODY).rename(tmp_path / "elsewhere")
        with pytest.raises(BodyError, match=r"lacks body, the folder of its tuned body; say where it is"):
            TextClassifier.from_pretrained(folder)
        loaded = TextClassifier.from_pretrained(folder, body=str(tmp_path / "elsewhere"))
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), tuned.predict_proba(TEXTS))

    @pytest.mark.parametrize(
        "place", [("tuned",), ("dtype",), ("tuned", "fingerprint"), ("tuned", "stages", 0, "epochs")]
    )
    def test_tuned_model_missing_key_raises(self, place: tuple[Any, ...], folder: Path) -> None:
        record = metadata_of(folder)
        table = record["body"]
        for name in place[:-1]:
            table = table[name]
        del table[place[-1]]
        write_metadata(folder, sealed(record))
        assert_rejected(folder, f"lacks {place[-1]} of ")

    @pytest.mark.parametrize(
        ("settings", "message"), [({"method": "magic"}, "magic"), ({"epochz": 1}, "has no setting 'epochz'")]
    )
    def test_tuned_model_invalid_settings_raise(self, settings: dict[str, Any], message: str, folder: Path) -> None:
        record = metadata_of(folder)
        record["body"]["tuned"]["stages"][0] |= settings
        write_metadata(folder, sealed(record))
        assert_rejected(folder, message)

    def test_tuned_model_is_replaced_as_a_whole(self, tuned: TextClassifier, folder: Path) -> None:
        check_model_folder(folder)
        tuned.save_pretrained(folder, data="again")
        assert metadata_of(folder)["data"] == "again"
        head = QuantumHeadClassifier.from_pretrained(folder)
        head.save_pretrained(folder)
        assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, METADATA, WEIGHTS])

    @pytest.mark.parametrize("stranger", ["thesis.tex", "1_Pooling/thesis.json", "model.safetensors"])
    def test_other_files_in_body_folder_are_never_removed(
        self, stranger: str, tuned: TextClassifier, folder: Path
    ) -> None:
        (folder / BODY / stranger).write_text("{}")
        for attempt in (lambda: check_model_folder(folder), lambda: tuned.save_pretrained(folder)):
            with pytest.raises(StorageError, match="which is not part of a model; choose another folder"):
                attempt()
        assert (folder / BODY / stranger).read_text() == "{}"

    def test_other_folder_named_body_is_never_removed(self, tuned: TextClassifier, tmp_path: Path) -> None:
        shutil.copytree(OLD, tmp_path / "model")
        (tmp_path / "model" / BODY).mkdir()
        with pytest.raises(StorageError, match="holds 'body'"):
            tuned.save_pretrained(tmp_path / "model")
