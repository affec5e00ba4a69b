"""``ketfit fit`` in process on a tiny body."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ketfit import TextClassifier
from ketfit.bodies.body import load_body
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from tests.cli.running import GOOD, SENTENCES, SMALL, run, run_json


def test_fit_with_few_shot_reports_and_saves_model(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    output = tmp_path / "model"
    report = run_json(capsys, "fit", data, "-o", output, "--body", tiny_body_folder, *SMALL)
    assert report["train_size"] + report["validation_size"] == len(SENTENCES)
    assert report["model"] == str(output)
    assert sorted(path.name for path in output.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    classifier = TextClassifier.from_pretrained(output)
    assert classifier.classifier_.head_config_.n_qubits == 6
    assert classifier.classifier_.n_parameters_ == report["parameters"]


def test_fit_few_shot_tests_on_other_sentences(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    report = run_json(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, "--few-shot", 10, *SMALL)
    assert (report["train_size"], report["validation_size"], report["test_size"]) == (17, 3, len(SENTENCES) - 20)
    low, high = report["interval"]
    assert low <= report["test_accuracy"] <= high


def test_fit_few_shot_auto_fits_the_chosen_head_as_if_it_was_named(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, "--few-shot", 10]
    chosen = run_json(capsys, *command, "--head", "auto", "--set", "train.epochs=3", "-o", tmp_path / "auto")
    kind = TextClassifier.from_pretrained(tmp_path / "auto").head_choice_.kind
    assert kind == "logistic-regression"
    named = run_json(capsys, *command, "--head", "logistic", "-o", tmp_path / "named")
    sizes = [(report["train_size"], report["validation_size"], report["test_size"]) for report in (chosen, named)]
    assert sizes[0] == sizes[1] and sizes[0][:2] == (20, 0)
    assert chosen["test_accuracy"] == named["test_accuracy"]


@pytest.mark.parametrize(("options", "sizes"), [([], (20, 0)), (["--tune", "end-to-end"], (17, 3))])
def test_fit_few_shot_of_logistic_regression_holds_out_only_what_the_tuning_needs(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    options: list[str],
    sizes: tuple[int, int],
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, "--head", "logistic", "--few-shot", 10, *options]
    report = run_json(capsys, *command, "-o", tmp_path / "m")
    assert (report["train_size"], report["validation_size"], report["test_size"]) == (*sizes, len(SENTENCES) - 20)


def test_fit_with_checkpoint_resumes(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL]
    checkpoint = tmp_path / "run.checkpoint"
    run_json(capsys, *command, "-o", tmp_path / "whole")
    run_json(capsys, *command, "-o", tmp_path / "first", "--checkpoint", checkpoint)
    assert checkpoint.exists()
    run_json(capsys, *command, "-o", tmp_path / "again", "--checkpoint", checkpoint)
    weights = {(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "first", "again")}
    assert len(weights) == 1


def test_fit_with_checkpoint_and_empty_cache_resumes(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--checkpoint", tmp_path / "run", "-o", tmp_path / "m"]
    weights = []
    for name in ("one", "other"):
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / name))
        if name == "one":  # sentences in batches of one, whose embeddings differ from those of a batch in the last bits
            body = load_body(tiny_body_folder, device="cpu")
            for text in SENTENCES[:9]:
                body.encode([text])
        run_json(capsys, *command)
        weights.append((tmp_path / "m" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_fit_few_shot_two_contrastive_names_validation_share(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--few-shot", 2, "--tune", "contrastive"]
    code, _, err = run(capsys, *command, "-o", tmp_path / "m")
    assert code == 1
    assert "validation took 1 of the 2 sentences" in " ".join(err.split())
    run_json(capsys, *command, "--set", "validation_fraction=0.0", "-o", tmp_path / "m")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["contrastive", "full", "end-to-end"])
def test_fit_tune_tunes_body(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path, method: str
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--few-shot", 10, "--tune", method]
    command += ["--set", "tune.epochs=1", "--set", "tune.batch_size=4", "--checkpoint", tmp_path / "run"]
    report = run_json(capsys, *command, "-o", tmp_path / "m")
    name = "end-to-end" if method == "full" else method
    assert (report["tuned"], report["test_size"]) == (name, len(SENTENCES) - 20)
    inspected = run_json(capsys, "inspect", tmp_path / "m")["body"]
    assert inspected["tuned"]["stages"][0]["method"] == ("contrastive" if method == "contrastive" else "full")
    assert inspected["tuned"]["fingerprint"] != inspected["fingerprint"]
    predicted = run_json(capsys, "predict", tmp_path / "m", *GOOD)
    assert len(predicted["predictions"]) == len(GOOD)


@pytest.mark.slow
def test_fit_tune_option_overrides_settings(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('[tune]\nmethod = "contrastive"\nwarmup = 0.2\n')
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--config", config, "-o", tmp_path / "m"]
    assert run_json(capsys, *command)["tuned"] == "contrastive"
    assert run_json(capsys, *command, "--tune", "frozen")["tuned"] is None
    code, _, err = run(capsys, *command, "--tune", "full")
    assert code == 2
    assert "--tune full: the settings of tune are those of method 'contrastive'; leave out one" in " ".join(err.split())


@pytest.mark.slow
def test_fit_tune_stages_take_their_settings_from_the_file(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuned: list[Any] = []
    monkeypatch.setattr(TextClassifier, "save_pretrained", lambda text, *_, **__: tuned.append(text.body_.tuning))
    config = tmp_path / "fit.toml"
    config.write_text(
        '[[tune]]\nmethod = "contrastive"\nepochs = 1\nlearning_rate = 1e-4\nprecision = "float32"\n'
        '[[tune]]\nmethod = "full"\nepochs = 2\nlearning_rate = 1e-4\nprecision = "float32"\n'
    )
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--config", config, "-o", tmp_path / "m"]
    shared = {"learning_rate": 1e-4, "precision": "float32"}
    # 16 is the default batch for so few sentences.
    stages = (ContrastiveConfig(epochs=1, batch_size=16, **shared), EndToEndConfig(epochs=2, **shared))
    for options, name, expected in (
        ([], "contrastive, then end-to-end", stages),
        (["--tune", "contrastive,end-to-end"], "contrastive, then end-to-end", stages),
        (["--tune", "contrastive", "--tune", "end-to-end"], "contrastive, then end-to-end", stages),
        (["--tune", "end-to-end"], "end-to-end", stages[1:]),
    ):
        assert run_json(capsys, *command, *options)["tuned"] == name
        assert tuned.pop().stages == expected


def test_fit_validation_cross_trains_on_all_sentences(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--validation", "cross", "--set", "n_folds=2"]
    report = run_json(capsys, *command, "-o", tmp_path / "m")
    assert (report["train_size"], report["validation_size"], report["folds"]) == (len(SENTENCES),) * 2 + (2,)
    assert report["validation_accuracy"] is not None
    report = run_json(capsys, *command, "--few-shot", 4, "-o", tmp_path / "m")
    assert (report["train_size"], report["validation_size"]) == (8, 8)
    assert report["test_size"] == len(SENTENCES) - 8
    assert len(run_json(capsys, "predict", tmp_path / "m", *GOOD)["predictions"]) == len(GOOD)


def test_fit_validation_cross_with_too_few_sentences_names_the_label(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--validation", "cross", "--few-shot", 4]
    code, _, err = run(capsys, *command, "-o", tmp_path / "m")
    assert code == 1
    assert "has 4 different sentences or groups, and n_folds=5 needs one for each fold" in " ".join(err.split())


def test_fit_set_option_overrides_config_file(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text(
        f'body = "{tiny_body_folder}"\nseed = 3\n[head]\nn_qubits = 7\nmain_layers = 1\n[train]\nepochs = 2\n'
    )
    run_json(capsys, "fit", data, "-o", tmp_path / "m", "--config", config, "--set", "head.n_qubits=6")
    inspected = run_json(capsys, "inspect", tmp_path / "m")
    assert (inspected["seed"], inspected["train"]["epochs"], inspected["head"]["n_qubits"]) == (3, 2, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "head.n_qbits=3"], "did you mean 'n_qubits'"),
        (["--set", "head.n_qubits"], "write it as name=value"),
        (["--set", "seed=1", "--set", "seed.x=1"], "seed is a setting, not a table"),
        (["--set", "head.shots=0"], "shots=0"),
        (["--tune", "full", "--set", "tune.warmup=0.1"], "EndToEndConfig has no setting 'warmup'"),
        (["--tune", "magic"], "'magic' is not one of frozen, contrastive, end-to-end"),
        (["--tune", "end-to-end,contrastive"], "contrastive tuning after end-to-end training"),
        (["--tune", "contrastive", "--tune", "contrastive"], "two contrastive stages in a row; leave one out"),
        (["--tune", "contrastive,frozen"], "--tune contrastive,frozen: a frozen body has no stages"),
        (["--tune", "contrastive,end-to-end", "--set", "tune.epochs=1"], "tune.epochs is a setting of one stage"),
        (["--set", "tune=[]"], "table tune: tune is an empty list"),
        (["--set", "n_folds=1"], "n_folds=1"),
        (["--set", "n_folds=3"], "n_folds=3 is for validation='cross'; set that too"),
        (["--validation", "cross", "--set", "validation_fraction=0.2"], "with 'cross' each fold validates in its turn"),
        (["--set", "validation=loo"], "validation='loo'"),
        (["--set", "tune.epochs=1"], "method=None; it is contrastive or end-to-end"),
        (["--set", "head.n_qubits=2"], "connectivity=2 needs more than 2 qubits"),
        (["--set", "head.n_qubits=3"], "needs n_qubits="),
    ],
)
def test_fit_wrong_settings_exit_with_code_2(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = run(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert out == ""
    assert not (tmp_path / "m").exists()


def test_fit_missing_input_exits_with_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "fit", tmp_path / "missing.csv", "-o", tmp_path / "m", "--json")
    assert code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert "missing.csv" in "".join(err.split())


def test_fit_unusable_output_fails_before_training(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    for command in (["fit", data, "--body", "no/such"], ["demo", "--data", data, "--body", "no/such"]):
        code, _, err = run(capsys, *command, "-o", tmp_path / "full")
        assert code == 1
        assert "holds 'thesis.tex', which is not part of a model" in err


def test_fit_checkpoint_in_the_model_folder_fails_before_training(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    command = ["fit", data, "--body", "no/such", "-o", tmp_path / "m", "--checkpoint", tmp_path / "m" / "run"]
    code, _, err = run(capsys, *command)
    assert code == 2
    assert "is in the folder of the model, m; name another place" in " ".join(err.split())


@pytest.mark.slow
def test_fit_interrupted_resumes_from_checkpoint(data: Path, tmp_path: Path, tiny_body_folder: Path) -> None:
    program = Path(sys.executable).parent / "ketfit"
    checkpoint = tmp_path / "run.checkpoint"
    settings = [*SMALL[:-2], "--set", "train.epochs=200", "--set", "train.patience=200"]
    command = [str(part) for part in (program, "fit", data, "--body", tiny_body_folder, *settings, "--json")]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "cut"), "--checkpoint", str(checkpoint)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell that runs the tests in its background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not (tmp_path / "cut").exists()
    for name, extra in (("resumed", ["--checkpoint", str(checkpoint)]), ("whole", [])):
        subprocess.run([*command, "-o", str(tmp_path / name), *extra], check=True, capture_output=True, timeout=120)
    resumed, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("resumed", "whole"))
    assert resumed == whole
