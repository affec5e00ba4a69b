"""The record of a saved model: both versions are read, and no key of any table may be lost, unknown or early."""

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
from tests.persistence.test_model_files import record_of, refused, sealed, write_record

OLD = Path(__file__).parent / "models" / "version-1"
TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
WORDS = ["positive"] * 4 + ["negative"] * 4
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
CONTRASTIVE = ContrastiveConfig(pairs_per_sentence=1, batch_size=4)
FULL = EndToEndConfig(epochs=1, batch_size=4)


@pytest.fixture(scope="module", params=[CONTRASTIVE, FULL], ids=["contrastive", "full"])
def tuned(request: pytest.FixtureRequest, tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=2), tune=request.param).fit(TEXTS, WORDS)


@pytest.fixture
def folder(tuned: TextClassifier, tmp_path: Path) -> Path:
    """A saved model with its tuned body, which a test may break."""
    tuned.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class TestVersion1:
    def test_a_model_that_it_wrote(self) -> None:
        # Saved by the last KetFit that wrote version 1, with the head and the numbers of this test.
        rows = np.random.default_rng(0).standard_normal((12, 4))
        loaded = QuantumHeadClassifier.from_pretrained(OLD)
        expected = [[0.26410078104482587, 0.7358992189551742], [0.16702473849778435, 0.8329752615022156]]
        np.testing.assert_allclose(loaded.predict_proba(rows)[:2], expected, rtol=1e-12)
        assert record_of(OLD)["schema_version"] == 1

    def test_a_model_for_sentences(self, tmp_path: Path, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD, TrainConfig(epochs=1)).fit(TEXTS, WORDS)
        text.save_pretrained(tmp_path / "model")
        record = record_of(tmp_path / "model")
        del record["temperature"], record["body"]["dtype"], record["body"]["tuned"]
        write_record(tmp_path / "model", sealed({**record, "schema_version": 1}))
        loaded = TextClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.predict_proba(TEXTS) == text.predict_proba(TEXTS)).all()

    @pytest.mark.parametrize("change", [{"temperature": 2.0}, {"seed": 1}, {"color": "red"}])
    def test_its_records_are_read_as_strictly(self, change: dict[str, Any], tmp_path: Path) -> None:
        model = shutil.copytree(OLD, tmp_path / "model")
        write_record(model, {**record_of(model), **change})
        refused(model, "which schema_version=1 does not have|was changed after saving|has no setting 'color'")
        write_record(model, {key: value for key, value in record_of(OLD).items() if key != "seed"})
        refused(model, "lacks seed of ModelMetadata")

    def test_saving_it_again_makes_it_version_2(self, tmp_path: Path) -> None:
        QuantumHeadClassifier.from_pretrained(OLD).save_pretrained(tmp_path / "model")
        assert record_of(tmp_path / "model")["schema_version"] == 2
        assert (tmp_path / "model" / WEIGHTS).read_bytes() == (OLD / WEIGHTS).read_bytes()


class TestTunedBody:
    """A model with its body in its folder."""

    def test_round_trip(self, tuned: TextClassifier, folder: Path, tiny_body: Body) -> None:
        loaded = TextClassifier.from_pretrained(folder)
        assert (loaded.predict_proba(TEXTS) == tuned.predict_proba(TEXTS)).all()
        assert loaded.get_params() == {**tuned.get_params(), "head": loaded.head}
        assert loaded.body_.tuning == tuned.body_.tuning
        assert loaded.body_.name == tuned.body_.name
        record = record_of(folder)["body"]
        assert record["fingerprint"] == tiny_body.fingerprint
        assert record["tuned"]["fingerprint"] == tuned.body_.fingerprint != tiny_body.fingerprint
        assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, METADATA, WEIGHTS, BODY])
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".safetensors", ".json", ".txt", ".md"}

    def test_it_needs_neither_the_cache_nor_the_body_it_was_made_from(
        self, tuned: TextClassifier, folder: Path, fresh_cache: Path
    ) -> None:
        record = record_of(folder)
        record["body"]["name"] = "gone"
        write_record(folder, sealed(record))
        moved = folder.rename(folder.with_name("moved"))
        loaded = TextClassifier.from_pretrained(moved)
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), tuned.predict_proba(TEXTS))

    def test_saving_what_was_loaded_gives_the_same_files(self, folder: Path, tmp_path: Path) -> None:
        TextClassifier.from_pretrained(folder).save_pretrained(tmp_path / "again")
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert all((folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in files)

    def test_the_card_says_so(self, folder: Path, tuned: TextClassifier) -> None:
        card = (folder / CARD).read_text()
        assert "tuned, in the folder `body`, 16 dimensions" in card
        assert tuned.body_.fingerprint in card
        assert f"{tuned.tune.method} tuning, 1 epochs, batches of 4" in card  # type: ignore[union-attr]

    def test_another_body_in_its_folder(self, folder: Path, tiny_body_folder: Path) -> None:
        shutil.rmtree(folder / BODY)
        shutil.copytree(tiny_body_folder, folder / BODY)
        with pytest.raises(BodyError, match=r"was trained on .* \(tuned\) with fingerprint .*; give it the same body"):
            TextClassifier.from_pretrained(folder)

    def test_a_changed_weight(self, folder: Path) -> None:
        weights = folder / BODY / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)
        with pytest.raises(BodyError, match="give it the same body"):
            TextClassifier.from_pretrained(folder)

    def test_another_body_is_refused_before_it_is_parsed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed = []
        monkeypatch.setattr("ketfit.bodies.body.read_transformer", lambda *_: parsed.append("read"))
        monkeypatch.setattr("ketfit.bodies.body._read_json", lambda *_: parsed.append("read"))
        (folder / BODY / "tokenizer.json").write_text("[" * 10**6)
        with pytest.raises(BodyError, match="give it the same body"):
            TextClassifier.from_pretrained(folder)
        assert not parsed

    def test_a_body_that_is_gone_and_one_that_is_elsewhere(
        self, folder: Path, tmp_path: Path, tuned: TextClassifier
    ) -> None:
        (folder / BODY).rename(tmp_path / "elsewhere")
        with pytest.raises(BodyError, match=r"lacks body, the folder of its tuned body; say where it is"):
            TextClassifier.from_pretrained(folder)
        loaded = TextClassifier.from_pretrained(folder, body=str(tmp_path / "elsewhere"))
        np.testing.assert_array_equal(loaded.predict_proba(TEXTS), tuned.predict_proba(TEXTS))

    @pytest.mark.parametrize(
        "place", [("tuned",), ("dtype",), ("tuned", "fingerprint"), ("tuned", "settings", "epochs")]
    )
    def test_a_lost_key(self, place: tuple[str, ...], folder: Path) -> None:
        record = record_of(folder)
        table = record["body"]
        for name in place[:-1]:
            table = table[name]
        del table[place[-1]]
        write_record(folder, sealed(record))
        refused(folder, f"lacks {place[-1]} of ")

    @pytest.mark.parametrize(
        ("settings", "message"), [({"method": "magic"}, "magic"), ({"epochz": 1}, "has no setting 'epochz'")]
    )
    def test_settings_that_cannot_be(self, settings: dict[str, Any], message: str, folder: Path) -> None:
        record = record_of(folder)
        record["body"]["tuned"]["settings"] |= settings
        write_record(folder, sealed(record))
        refused(folder, message)

    def test_it_is_replaced_as_a_whole(self, tuned: TextClassifier, folder: Path) -> None:
        check_model_folder(folder)
        tuned.save_pretrained(folder, data="again")
        assert record_of(folder)["data"] == "again"
        head = QuantumHeadClassifier.from_pretrained(folder)
        head.save_pretrained(folder)
        assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, METADATA, WEIGHTS])

    @pytest.mark.parametrize("stranger", ["thesis.tex", "1_Pooling/thesis.json", "model.safetensors"])
    def test_other_files_in_the_folder_of_the_body_are_never_removed(
        self, stranger: str, tuned: TextClassifier, folder: Path
    ) -> None:
        (folder / BODY / stranger).write_text("{}")
        for attempt in (lambda: check_model_folder(folder), lambda: tuned.save_pretrained(folder)):
            with pytest.raises(StorageError, match="which is not part of a model; choose another folder"):
                attempt()
        assert (folder / BODY / stranger).read_text() == "{}"

    def test_a_folder_of_that_name_in_another_model(self, tuned: TextClassifier, tmp_path: Path) -> None:
        shutil.copytree(OLD, tmp_path / "model")
        (tmp_path / "model" / BODY).mkdir()
        with pytest.raises(StorageError, match="holds 'body'"):
            tuned.save_pretrained(tmp_path / "model")
