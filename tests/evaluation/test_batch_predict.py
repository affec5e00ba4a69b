"""Predictions of whole files: equal to `predict_proba`, equal after a kill, and refused for another job."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.bodies.body import Body
from ketfit.data.tables import TextTable, output_format
from ketfit.errors import DataError, KetFitError, StorageError
from ketfit.evaluation.batch_predict import JOB, parts_folder, predict_file, predict_folder

WORDS = ("film", "good", "bad", "fine", "dull", "not", "the")
TEXTS = [f"{WORDS[i % 7]} {WORDS[i % 5]} film {i}" for i in range(53)]


def fitted(body: Body, **head: Any) -> TextClassifier:
    texts = TEXTS[:20]
    labels = np.array(["good" if "good" in text else "bad" for text in texts])
    classifier = QuantumHeadClassifier(HeadConfig(n_qubits=5, main_layers=1, **head), TrainConfig(epochs=2))
    return TextClassifier.from_parts(body, classifier.fit(body.encode(texts), labels))


@pytest.fixture(scope="module")
def classifier(tiny_body: Body) -> TextClassifier:
    return fitted(tiny_body)


def write(path: Path, texts: list[str] = TEXTS) -> TextTable:
    """Write a table of sentences and another column in the format of the suffix."""
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    if path.suffix == ".parquet":
        ids = pa.array([row["id"] for row in rows], pa.int16())
        parquet.write_table(pa.table({"id": ids, "text": texts}), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({**row, "tags": [row["id"], None]}) + "\n" for row in rows))
    elif path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([["id", "text"], *([row["id"], row["text"]] for row in rows)])
    return TextTable.find(path)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (".parquet", ".parquet"),
        (".csv", ".csv"),
        (".csv", ".parquet"),
        (".tsv", ".tsv"),
        (".tsv", ".jsonl"),
        (".jsonl", ".jsonl"),
        (".txt", ".csv"),
    ],
)
def test_predict_file_adds_the_predictions_to_every_row(
    classifier: TextClassifier, tmp_path: Path, source: str, target: str
) -> None:
    output = tmp_path / f"out{target}"
    scored = predict_file(classifier, write(tmp_path / f"in{source}"), output, block_rows=8)
    assert (scored.rows, scored.resumed) == (53, 0)
    rows = read(output)
    assert [row["text"] for row in rows] == TEXTS
    probabilities = classifier.predict_proba(TEXTS)
    found = np.array([[float(row["probability_bad"]), float(row["probability_good"])] for row in rows])
    assert found == pytest.approx(probabilities, abs=1e-5)
    assert [row["predicted_label"] for row in rows] == classifier.classes_[found.argmax(axis=1)].tolist()
    if source != ".txt":
        assert [int(row["id"]) for row in rows] == list(range(53))
    if source == ".jsonl":
        assert rows[3]["tags"] == [3, None]
    if (source, target) == (".parquet", ".parquet"):
        assert parquet.read_schema(output).field("id").type == pa.int16()
    assert not parts_folder(output).exists()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("stop_at", [0, 1, 4, 7])
def test_resumed_predict_file_writes_the_same_bytes(
    tiny_body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, stop_at: int
) -> None:
    random = fitted(tiny_body, shots=5)  # whose draws must not depend on where a run began
    table = write(tmp_path / f"in{suffix}")
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    predict_file(random, table, whole, block_rows=8)
    calls = 0
    encode = Body.encode

    def failing(self: Body, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        if calls == stop_at:
            raise Stopped
        calls += 1
        return encode(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Body, "encode", failing)
        if stop_at < 7:
            with pytest.raises(Stopped):
                predict_file(random, table, cut, block_rows=8)
        else:  # all parts are there, and what fails is the joining
            patch.setattr("ketfit.data.tables.TableWriter.join", lambda *_: failing(random.body_))
            with pytest.raises(Stopped):
                predict_file(random, table, cut, block_rows=8)
        assert not cut.exists()
    assert predict_file(random, table, cut, block_rows=8).resumed == min(8 * stop_at, 53)
    assert cut.read_bytes() == whole.read_bytes()


def interrupted(classifier: TextClassifier, table: TextTable, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stopped):

        def stop(*_: Any) -> None:
            raise Stopped

        patch.setattr("ketfit.data.tables.TableWriter.join", stop)
        predict_file(classifier, table, output, block_rows=8)


def test_parts_of_another_model_or_input_are_refused(
    classifier: TextClassifier, tiny_body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.csv"
    table = write(tmp_path / "in.csv")
    interrupted(classifier, table, output, monkeypatch)
    with pytest.raises(DataError, match=r"another job: its model differ"):
        predict_file(fitted(tiny_body, shots=5), table, output, block_rows=8)
    with pytest.raises(DataError, match=r"its block_rows differ"):
        predict_file(classifier, table, output, block_rows=9)
    other = write(tmp_path / "in.csv", [*TEXTS[:-1], "the bad film"])
    with pytest.raises(DataError, match=r"its input differ"):
        predict_file(classifier, other, output, block_rows=8)
    (parts_folder(output) / JOB).write_text("{")
    with pytest.raises(DataError, match="remove .* to start again"):
        predict_file(classifier, table, output, block_rows=8)


def test_existing_output_is_refused(classifier: TextClassifier, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("mine")
    with pytest.raises(StorageError, match="is there already"):
        predict_file(classifier, write(tmp_path / "in.csv"), output)
    assert output.read_text() == "mine"
    other = tmp_path / "other.csv"
    parts_folder(other).mkdir()
    (parts_folder(other) / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError, match=r"holds 'thesis\.tex'"):
        predict_file(classifier, TextTable.find(tmp_path / "in.csv"), other)


def test_locked_parts_folder_is_refused(classifier: TextClassifier, tmp_path: Path) -> None:
    from filelock import FileLock

    output = tmp_path / "out.csv"
    parts_folder(output).mkdir()
    with FileLock(parts_folder(output) / ".lock"), pytest.raises(StorageError, match="another process"):
        predict_file(classifier, write(tmp_path / "in.csv"), output)


def test_input_changed_while_read_is_refused(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, output = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    encode = Body.encode

    def changing(self: Body, *arguments: Any, **named: Any) -> Any:
        with table.path.open("a") as file:
            file.write("99,the good film\n")
        return encode(self, *arguments, **named)

    monkeypatch.setattr(Body, "encode", changing)
    with pytest.raises(KetFitError, match="changed while it was read"):
        predict_file(classifier, table, output)
    assert not output.exists()


def test_unusable_row_fails_before_prediction(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Body, "encode", lambda *_, **__: pytest.fail("a body was asked"))
    faults = {
        "a.csv": ("id,text\n1,good\n2, \n", "line 3: the text is empty"),
        "b.csv": ("id,text\n1,good\n2\n", "line 3: 1 fields where the header has 2"),
        "c.csv": ("id,review\n1,good\n", "no column 'text'"),
        "d.csv": ("text,predicted_label\ngood,1\n", "has a column 'predicted_label' already"),
        "e.csv": ("", "empty"),
        "f.csv": ("id,text\n", "holds no sentence"),
        "g.jsonl": ('{"text": "good"}\n{"text": 3}\n', "line 2: the text is int"),
        "h.jsonl": ('{"text": "good"}\n{"text": \n', "line 2: malformed JSON"),
        "i.tsv": ("text\tprobability_bad\ngood\t1\n", "has a column 'probability_bad' already"),
        "j.parquet": ("no parquet", "not a readable Parquet file"),
    }
    for name, (content, message) in faults.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=message):
            predict_file(classifier, TextTable.find(tmp_path / name), tmp_path / f"out{Path(name).suffix}")
        assert not (tmp_path / f"out{Path(name).suffix}").exists()
    with pytest.raises(DataError, match="there is no file"):
        TextTable.find(tmp_path / "missing.csv")


def test_line_break_in_tsv_output_is_refused(classifier: TextClassifier, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('text\n"two\nlines"\n')
    with pytest.raises(DataError, match="TSV cannot hold"):
        predict_file(classifier, TextTable.find(tmp_path / "in.csv"), tmp_path / "out.tsv")
    predict_file(classifier, TextTable.find(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[0]["text"] == "two\nlines"


def test_typed_columns_keep_their_types(tmp_path: Path) -> None:
    for source, target in ((".parquet", ".csv"), (".jsonl", ".parquet"), (".csv", ".xlsx")):
        with pytest.raises(DataError, match="are written as"):
            output_format(write(tmp_path / f"in{source}"), tmp_path / f"out{target}")


def test_truncated_sentences_warn_once(classifier: TextClassifier, tmp_path: Path) -> None:
    table = write(tmp_path / "in.csv", ["good " * 400 + str(number) for number in range(20)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict_file(classifier, table, tmp_path / "out.csv", block_rows=4)
    messages = [str(warning.message) for warning in caught if "are truncated" in str(warning.message)]
    assert len(messages) == 1
    assert "further on" in messages[0]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "b.parquet")
    write(folder / "a.parquet", TEXTS[:10])
    (folder / "_SUCCESS").touch()
    return folder


def test_predict_folder_writes_each_shard(tiny_body: Body, shards: Path, tmp_path: Path) -> None:
    random = fitted(tiny_body, shots=5)
    output = tmp_path / "out"
    summary = predict_folder(random, shards, output, block_rows=8)
    assert (summary.rows, summary.resumed) == (63, 0)
    assert sorted(path.name for path in output.iterdir()) == ["a.parquet", "b.parquet"]
    first, second = read(output / "a.parquet"), read(output / "b.parquet")
    assert ([row["text"] for row in first], [row["text"] for row in second]) == (TEXTS[:10], TEXTS)
    assert [row["probability_good"] for row in first] != [row["probability_good"] for row in second[:10]], "same shots"
    assert not parts_folder(output).exists()
    with pytest.raises(StorageError, match="is there already"):
        predict_folder(random, shards, output)


@pytest.mark.parametrize("stop_at", [0, 1, 2, 5, 8])
def test_resumed_predict_folder_writes_the_same_bytes(
    classifier: TextClassifier, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    predict_folder(classifier, shards, whole, block_rows=8)
    encode, calls = Body.encode, 0

    def failing(self: Body, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        if calls == stop_at:
            raise Stopped
        calls += 1
        return encode(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Body, "encode", failing)
        predict_folder(classifier, shards, cut, block_rows=8)
    assert (cut / "a.parquet").exists() == (stop_at >= 2)
    made = (cut / "a.parquet").stat().st_ino if stop_at >= 2 else None
    done = [0, 8, 10, 10 + 8 * 3, 10 + 8 * 6][[0, 1, 2, 5, 8].index(stop_at)]
    assert predict_folder(classifier, shards, cut, block_rows=8).resumed == done
    assert made in (None, (cut / "a.parquet").stat().st_ino), "a complete shard was written again"
    for name in ("a.parquet", "b.parquet"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not parts_folder(cut).exists()


def test_predict_folder_of_another_job_is_refused(
    classifier: TextClassifier, tiny_body: Body, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Stopped):

        def stop(*_: Any) -> None:
            raise Stopped

        patch.setattr("ketfit.data.tables.TableWriter.join", stop)
        predict_folder(classifier, shards, output, block_rows=8)
    with pytest.raises(DataError, match=r"another job: its model of a\.parquet differ"):
        predict_folder(fitted(tiny_body, shots=5), shards, output, block_rows=8)
    write(shards / "b.parquet", TEXTS[::-1])
    with pytest.raises(DataError, match=r"its input of b\.parquet differ"):
        predict_folder(classifier, shards, output, block_rows=8)
    (shards / "b.parquet").rename(shards / "c.parquet")
    with pytest.raises(DataError, match=r"its c\.parquet, b\.parquet differ"):
        predict_folder(classifier, shards, output, block_rows=8)


def test_predict_folder_unusable_input_or_output_is_refused(
    classifier: TextClassifier, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="is in the input folder"):
        predict_folder(classifier, shards, shards / "out")
    with pytest.raises(DataError, match="is in the input folder"):
        predict_folder(classifier, shards, shards)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is there already"):
        predict_folder(classifier, shards, tmp_path / "file")
    write(shards / "more.csv")
    with pytest.raises(DataError, match=r"more\.csv is not a Parquet file"):
        predict_folder(classifier, shards, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no Parquet file"):
        predict_folder(classifier, tmp_path / "empty", tmp_path / "out")
