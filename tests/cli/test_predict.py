"""``ketfit predict`` in process on a tiny body."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.cli.running import BAD, GOOD, run, run_json


def test_predict_file_and_arguments_give_equal_predictions(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(GOOD) + "\n", encoding="utf-8")
    one = run_json(capsys, "predict", model, *GOOD)["predictions"]
    other = run_json(capsys, "predict", model, "--input", lines)["predictions"]
    assert one == other
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-9 for row in one)


def test_predict_square_brackets_are_printed_literally(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    code, out, _ = run(capsys, "predict", model, "[bold]loud[/bold] :smile:")
    assert code == 0
    assert "[bold]loud[/bold] :smile:" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sentence"),
        (b"caf\xe9\n", "byte 3 (0xe9) is not valid utf-8"),
        (b"one\n\nthree\n", "line 2: the text is empty"),
    ],
)
def test_predict_bad_file_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(content)
    code, _, err = run(capsys, "predict", model, "--input", lines)
    assert code == 1
    assert message in " ".join(err.split())


def test_predict_without_input_is_refused(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    assert run(capsys, "predict", model)[0] == 2
    assert run(capsys, "predict", model, "one", "--input", tmp_path / "x")[0] == 2
    code, _, err = run(capsys, "predict", model, "--input", tmp_path / "x")
    assert code == 1
    assert "there is no file" in err


def test_predict_error_names_line_of_file(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes("one\u2028still one\r\ntwo\x85\n".encode())
    predictions = run_json(capsys, "predict", model, "--input", lines)["predictions"]
    assert [row["text"] for row in predictions] == ["one\u2028still one", "two\x85"]


def test_predict_folder_writes_each_file(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, texts in (("a", GOOD), ("b", BAD)):
        parquet.write_table(pa.table({"review": texts}), source / f"{name}.parquet")
    report = run_json(capsys, "predict", model, "--input", source, "-o", output, "--text-column", "review")
    assert report["rows"] == 10
    labels = run_json(capsys, "predict", model, *BAD)["predictions"]
    table = parquet.read_table(output / "b.parquet")
    assert table["predicted_label"].to_pylist() == [row["label"] for row in labels]
    code, _, err = run(capsys, "predict", model, "--input", source, "-o", output)
    assert (code, "is there already" in err) == (1, True)
    code, _, err = run(capsys, "predict", model, "--input", source)
    assert (code, "is a folder" in err) == (2, True)
    code, _, err = run(capsys, "predict", model, "--input", source, "-o", source / "out")
    assert (code, "is in the input folder" in err) == (2, True)
