"""The command line and its data: read as asked, checked before any work, and printed on any terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit import TextClassifier
from ketfit.bodies.body import Body
from tests.cli.running import GOOD, LABELS, SENTENCES, SMALL, run, run_json

NUMBERS = ["1" if label == "good" else "0" for label in LABELS]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_body_folder: Path) -> Path:
    """A folder with models whose labels are words, integers, and strings of digits."""
    from ketfit.cli.main import main

    folder = tmp_path_factory.mktemp("models")
    for name, suffix, labels in (("words", "csv", LABELS), ("integers", "csv", NUMBERS), ("digits", "jsonl", NUMBERS)):
        path = folder / f"{name}.{suffix}"
        path.write_text(table(labels) if suffix == "csv" else objects(labels))
        with pytest.raises(SystemExit) as ended:
            main(["fit", str(path), "-o", str(folder / name), "--body", str(tiny_body_folder), *SMALL])
        assert not ended.value.code
    return folder


def table(labels: list[str], delimiter: str = ",", **columns: list[Any]) -> str:
    rows = [("text", "label", *columns), *zip(SENTENCES, labels, *columns.values(), strict=True)]
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows)


def objects(labels: list[str]) -> str:
    return "".join(json.dumps({"text": text, "label": y}) + "\n" for text, y in zip(SENTENCES, labels, strict=True))


@pytest.fixture
def no_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketfit.bodies.body.load_files", lambda *_, **__: pytest.fail("a body was loaded"))


def stdin(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def test_predict_stdin_is_read_in_given_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, places: Path
) -> None:
    stdin(monkeypatch, 'id;review\n1;"a fine; warm film"\n')
    options = ["--input", "-", "--format", "csv", "--text-column", "review", "--delimiter", ";"]
    report = run_json(capsys, "predict", places / "words", *options)
    assert [row["text"] for row in report["predictions"]] == ["a fine; warm film"]
    stdin(monkeypatch, "a fine, warm film\n")
    report = run_json(capsys, "predict", places / "words", "--input", "-")
    assert [row["text"] for row in report["predictions"]] == ["a fine, warm film"]


def test_predict_ndjson_is_read_and_json_refused(
    capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path
) -> None:
    (tmp_path / "lines.ndjson").write_text('{"text": "a fine film"}\n')
    report = run_json(capsys, "predict", places / "words", "--input", tmp_path / "lines.ndjson")
    assert [row["text"] for row in report["predictions"]] == ["a fine film"]
    (tmp_path / "array.json").write_text('[{"text": "a fine film"}]')
    code, out, err = run(capsys, "predict", places / "words", "--input", tmp_path / "array.json")
    assert (code, out) == (2, "")
    assert "one object on each line" in err


@pytest.mark.parametrize("content", ["text,label\n", "\ufeff", ""])
def test_data_file_without_rows_is_refused(
    capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content.encode())
    here = run(capsys, "predict", places / "words", "--input", tmp_path / "in.csv")
    filed = run(capsys, "predict", places / "words", "--input", tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    assert here[:2] == filed[:2] == (1, "")
    assert here[2].splitlines()[-1] == filed[2].splitlines()[-1]
    assert ("holds no sentence" if "text" in content else "the file is empty") in here[2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_predict_pipe_with_output_is_refused(capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, _, err = run(capsys, "predict", places / "words", "--input", tmp_path / "pipe", "-o", tmp_path / "out.csv")
    assert code == 2
    assert "--output reads its input twice; save it in a file first" in err
    for command, options, content in (
        ("predict", ["--input", tmp_path / "pipe"], "a fine film\n"),
        ("evaluate", [tmp_path / "pipe", "--format", "csv"], table(LABELS)),
    ):
        writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(content,))
        writer.start()
        run_json(capsys, command, places / "words", *options)
        writer.join()


@pytest.mark.parametrize("model", ["integers", "digits"])
@pytest.mark.parametrize("data", ["integers.csv", "digits.jsonl"])
def test_evaluate_labels_are_compared_in_type_of_model(
    capsys: pytest.CaptureFixture[str], places: Path, model: str, data: str
) -> None:
    report = run_json(capsys, "evaluate", places / model, places / data)
    known = [0, 1] if model == "integers" else ["0", "1"]
    assert [row["label"] for row in report["classes"]] == known
    predicted = run_json(capsys, "predict", places / model, *SENTENCES)["predictions"]
    right = sum(str(row["label"]) == label for row, label in zip(predicted, NUMBERS, strict=True))
    assert report["accuracy"] == right / len(SENTENCES)


def test_evaluate_unknown_label_is_named_with_line(
    capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path
) -> None:
    (tmp_path / "extra.csv").write_text(table(NUMBERS) + "one more,unknown\n")
    code, _, err = run(capsys, "evaluate", places / "integers", tmp_path / "extra.csv")
    assert code == 1
    rows = len(SENTENCES) + 1
    assert f"row {rows} (line {rows + 1}) has the label 'unknown'; the model knows 0, 1" in err


def test_fit_text_label_among_integers_warns(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_body_folder: Path
) -> None:
    (tmp_path / "extra.csv").write_text(table(NUMBERS) + "one more,unknown\n")
    command = ["fit", tmp_path / "extra.csv", "--body", tiny_body_folder, *SMALL, "-o", tmp_path / "m"]
    code, _, err = run(capsys, *command)
    assert code == 0
    rows = len(SENTENCES) + 1
    assert f"row {rows} (line {rows + 1}) has the label 'unknown'; all but 1 of {rows} labels are integers" in err


@pytest.mark.parametrize("arguments", [["so good \U0001f600"], ["so good \U0001f600", "--json"]])
def test_predict_unprintable_characters_are_escaped(
    monkeypatch: pytest.MonkeyPatch, places: Path, arguments: list[str]
) -> None:
    from ketfit.cli.main import main

    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding="cp1252"))
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(places / "words"), *arguments])
    sys.stdout.flush()
    assert not ended.value.code
    assert ("\\ud83d\\ude00" if "--json" in arguments else "\\U0001f600") in sink.getvalue().decode("cp1252")


def test_draw_unprintable_characters_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    from ketfit.cli.main import main

    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main(["draw"])
    sys.stdout.flush()
    assert not ended.value.code
    assert b"\\u2500" in sink.getvalue()


# --- Before any work --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_body")
@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        (table(LABELS), ["--few-shot", 40], 2, "--few-shot 40: no sentence of in.csv would be left to test on; 39 is"),
        (table(LABELS), ["--few-shot", 50], 2, "--few-shot 50: in.csv: the label 'bad' has only 40 different"),
        (table(["good"] * len(LABELS)), [], 1, "in.csv: every label is 'good'"),
        (table(LABELS), ["--set", "class_weight.fair=2"], 2, "class_weight.fair: in.csv has no such label; it has"),
        (table(LABELS), ["--set", "class_weight.bad=0"], 2, "class_weight={'bad': 0}: input should be 'balanced'"),
        (table(LABELS), ["--set", "class_weight.bad=inf"], 2, "a table of positive numbers by label"),
        (table(LABELS), ["--set", "class_weight=even"], 2, "class_weight='even': input should be 'balanced'"),
        (table(LABELS, w=[0] * len(LABELS)), ["--weight-column", "w"], 1, "every weight in 'w' is zero"),
        (table(LABELS, w=["x"] * len(LABELS)), ["--weight-column", "w"], 1, "row 1 (line 2) has the weight 'x'"),
        (table(LABELS, w=[int(y == "bad") for y in LABELS]), ["--weight-column", "w"], 1, "every label is 'bad'"),
        (table(LABELS, g=[1] * len(LABELS)), ["--group-column", "g", "--few-shot", 4], 2, "no sentence of in.csv"),
        (table(LABELS), ["--checkpoint", "in.csv/run"], 1, "cannot write"),
        (table([f"{label} {'x' * 30_000}{n}" for n, label in enumerate(LABELS)]), [], 1, "shorten them, or name"),
    ],
)  # fmt: skip
def test_fit_unusable_data_fails_before_body_is_loaded(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_body_folder: Path,
    content: str,
    options: list[Any],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text(content)
    found, out, err = run(capsys, "fit", "in.csv", "-o", "m", "--body", tiny_body_folder, *options)
    assert (found, out) == (code, ""), err
    assert message in " ".join(err.split())
    assert not (tmp_path / "m").exists()


@pytest.mark.usefixtures("no_body")
def test_fit_few_shot_without_test_sentences_names_largest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_body_folder: Path
) -> None:
    (tmp_path / "in.csv").write_text("text,label\na,x\nb,x\nc,y\nd,y\n")
    command = ["fit", tmp_path / "in.csv", "-o", tmp_path / "m", "--body", tiny_body_folder]
    code, _, err = run(capsys, *command, "--few-shot", 2)
    assert code == 2
    assert "would be left to test on; add sentences" in err
    code, _, err = run(capsys, "demo", "--data", tmp_path / "in.csv", "--per-label", 2, "-o", tmp_path / "m")
    assert code == 2
    assert "--per-label 2: no sentence of in.csv would be left to test on" in err


@pytest.mark.usefixtures("no_body")
def test_predict_unusable_output_fails_before_model_is_loaded(
    capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("mine")
    command = ["predict", places / "words", "--input", places / "words.csv", "--output"]
    assert run(capsys, *command, tmp_path / "out.csv")[0] == 1
    assert run(capsys, *command, tmp_path / "out.xlsx")[0] == 2


# --- Weights, groups, delimiters --------------------------------------------------------------------------------------


class Fitted:
    """What `TextClassifier.fit` was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fit = TextClassifier.fit

        def recorded(classifier: TextClassifier, texts: Any, labels: Any, weight: Any = None, **named: Any) -> Any:
            self.texts, self.labels, self.weight, self.named = list(texts), list(labels), weight, named
            return fit(classifier, texts, labels, weight, **named)

        monkeypatch.setattr(TextClassifier, "fit", recorded)


def test_fit_weight_column_leaves_out_zero_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_body_folder: Path
) -> None:
    weights = [0 if n < 10 else n / 8 for n in range(len(SENTENCES))]
    (tmp_path / "in.csv").write_text(table(LABELS, weight=weights))
    fitted = Fitted(monkeypatch)
    command = ["fit", tmp_path / "in.csv", "--body", tiny_body_folder, *SMALL, "--weight-column", "weight"]
    report = run_json(capsys, *command, "-o", tmp_path / "m")
    assert (fitted.texts, fitted.weight) == (SENTENCES[10:], tuple(weights[10:]))
    assert report["train_size"] + report["validation_size"] == len(SENTENCES) - 10
    report = run_json(capsys, *command, "-o", tmp_path / "few", "--few-shot", 10)
    assert report["test_size"] == len(SENTENCES) - 10 - 20
    assert fitted.weight == tuple(weights[SENTENCES.index(text)] for text in fitted.texts)


def test_fit_weights_of_one_change_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, places: Path, tiny_body_folder: Path
) -> None:
    (tmp_path / "in.csv").write_text(table(LABELS, weight=[1] * len(LABELS)))
    command = ["fit", tmp_path / "in.csv", "--body", tiny_body_folder, *SMALL, "--weight-column", "weight"]
    run_json(capsys, *command, "-o", tmp_path / "m")
    files = [folder / "model.safetensors" for folder in (tmp_path / "m", places / "words")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("few_shot", [[], ["--few-shot", 10, "--set", "validation_fraction=0.4"]])
def test_fit_group_column_keeps_groups_together(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_body_folder: Path,
    few_shot: list[Any],
) -> None:
    from ketfit.estimators import base as estimator

    groups = [f"author {n // 4}" for n in range(len(SENTENCES))]
    (tmp_path / "in.csv").write_text(table(LABELS, group=groups))
    fitted, splits = Fitted(monkeypatch), []
    split = estimator.holdout_split

    def recorded(*arguments: Any) -> Any:
        splits.append((arguments[-1], *split(*arguments)))
        return splits[-1][1:]

    monkeypatch.setattr(estimator, "holdout_split", recorded)
    command = ["fit", tmp_path / "in.csv", "--body", tiny_body_folder, *SMALL, "--group-column", "group", *few_shot]
    report = run_json(capsys, *command, "-o", tmp_path / "m")
    of = dict(zip(SENTENCES, groups, strict=True))
    if few_shot:
        tested = report["test_size"]
        drawn = [*fitted.texts, *fitted.named["validation"][0]]
        touched = {of[text] for text in drawn}
        assert tested == sum(group not in touched for group in groups)
        assert not {of[text] for text in fitted.texts} & {of[text] for text in fitted.named["validation"][0]}
        return
    assert fitted.named["groups"] == tuple(groups)
    ((numbers, train, validation),) = splits
    assert len(validation) > 0
    assert not {groups[i] for i in train} & {groups[i] for i in validation}
    assert len(set(np.asarray(numbers).tolist())) == len(set(groups))


def test_fit_class_weights_match_type_of_labels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, places: Path, tiny_body_folder: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text("[class_weight]\n1 = 2\n0 = 0.5\n")
    command = ["fit", places / "integers.csv", "--body", tiny_body_folder, *SMALL]
    run_json(capsys, *command, "--config", config, "-o", tmp_path / "file")
    run_json(capsys, *command, "--set", "class_weight.1=2.0", "--set", 'class_weight."0"=0.5', "-o", tmp_path / "set")
    for name in ("file", "set"):
        assert run_json(capsys, "inspect", tmp_path / name)["class_weight"] == [0.5, 2.0]
    loaded = TextClassifier.from_pretrained(tmp_path / "file")
    expected = TextClassifier(
        **{**loaded.get_params(deep=False), "class_weight": {0: 0.5, 1: 2.0}, "body": str(tiny_body_folder)}
    ).fit(SENTENCES, [int(label) for label in NUMBERS])
    assert np.allclose(expected.predict_proba(GOOD), loaded.predict_proba(GOOD))


@pytest.mark.parametrize("head", ["logistic", "svc", "mlp", "quantum"])
def test_fit_class_weights_of_strings_that_are_digits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_body_folder: Path, head: str
) -> None:
    path = tmp_path / "digits.jsonl"
    rows = [{"text": text, "label": number} for text, number in zip(SENTENCES, NUMBERS, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    small = SMALL if head == "quantum" else []
    command = ["fit", path, "--body", tiny_body_folder, "--head", head, *small, "--set", "class_weight.1=2"]
    run_json(capsys, *command, "-o", tmp_path / "m")
    assert run_json(capsys, "inspect", tmp_path / "m")["class_weight"] == [1.0, 2.0]


def test_delimiter_option_is_used_by_all_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, places: Path, tiny_body_folder: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text(table(LABELS, ";"))
    code, _, err = run(capsys, "evaluate", places / "words", source)
    assert code == 2
    assert "--delimiter" in err
    options = ["--delimiter", ";"]
    run_json(capsys, "fit", source, "--body", tiny_body_folder, *SMALL, *options, "-o", tmp_path / "m")
    assert run_json(capsys, "evaluate", tmp_path / "m", source, *options)["size"] == len(SENTENCES)
    run_json(capsys, "predict", tmp_path / "m", "--input", source, *options, "--output", tmp_path / "out.csv")
    first, second = (tmp_path / "out.csv").read_text().splitlines()[:2]
    assert first == "text;label;predicted_label;probability_bad;probability_good"
    assert second.startswith(f"{SENTENCES[0]};{LABELS[0]};")


def test_fit_config_with_byte_order_mark_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "head.toml").write_bytes(b"\xef\xbb\xbf[head]\nn_qubits = 3\nmain_layers = 1\n")
    assert "q2:" in run_json(capsys, "draw", "--config", tmp_path / "head.toml")["drawing"]


def test_evaluate_repeats_without_randomness_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, places: Path
) -> None:
    monkeypatch.setattr(Body, "encode", lambda *_, **__: pytest.fail("sentences were embedded"))
    code, _, err = run(capsys, "evaluate", places / "words", places / "words.csv", "--repeats", 3)
    assert code == 2
    assert "--repeats" in err
