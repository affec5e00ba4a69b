"""The commands on models with classical heads, in process on a tiny body."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit import TextClassifier
from ketfit.estimators.classical import LogisticRegressionHead
from tests.cli.running import GOOD, LABELS, SENTENCES, run, run_json

KINDS = {"logistic": "logistic-regression", "svc": "svc", "mlp": "mlp"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_body_folder: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("heads")
    for name, kind in KINDS.items():
        classifier = TextClassifier(str(tiny_body_folder), kind, validation_fraction=0.25)  # type: ignore[arg-type]
        classifier.fit(SENTENCES, LABELS).save_pretrained(root / name)
    return {name: root / name for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_fit_head_trains_and_saves_that_kind(
    name: str, capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    report = run_json(
        capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, "--head", name, "--few-shot", 16
    )
    assert report["head"] == KINDS[name]
    assert 0 <= report["test_accuracy"] <= 1
    assert ("best_epoch" in report) == (name == "mlp")
    classifier = TextClassifier.from_pretrained(tmp_path / "m")
    assert classifier.classifier_.kind == KINDS[name]
    assert classifier.classifier_.n_parameters_ == report["parameters"]


@pytest.mark.slow
def test_fit_head_auto_reports_the_choice(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    settings = ["--set", "train.epochs=3", "--set", "validation_fraction=0.25"]
    report = run_json(
        capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, "--head", "auto", *settings
    )
    choice = TextClassifier.from_pretrained(tmp_path / "m").head_choice_
    assert choice is not None
    assert report["head"] == choice.kind
    assert report["head_choice"] == choice.model_dump()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--head", "quantum", "--set", "head.n_qubits=6", "--set", "train.epochs=2"], "quantum"),
        (["--head", "quantum", "--set", "head=svc", "--set", "train.epochs=2"], "quantum"),
        (["--set", "head=logistic-regression"], "logistic-regression"),
        (["--head", "logistic", "--set", "head.C=3"], "logistic-regression"),
        (["--set", "head.kind=svc", "--set", "head.kernel=linear"], "svc"),
        (["--head", "mlp", "--set", "head.hidden=5", "--set", "train.epochs=2"], "mlp"),
    ],
)
def test_fit_head_and_settings_are_combined(
    options: list[str],
    kind: str,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
) -> None:
    report = run_json(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *options)
    assert report["head"] == kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--head", "svc", "--set", "head.n_qubits=6"], "SVCSettings has no setting 'n_qubits'"),
        (["--head", "svc", "--set", "head.C=0"], "C=0"),
        (["--head", "mlp", "--set", "head.kind=svc"], "--head mlp: the table head has kind='svc'"),
        (["--head", "auto", "--set", "head.C=3"], "--head auto chooses among heads with their defaults"),
        (["--head", "svc", "--set", "train.epochs=6"], "is about epochs, and a head of kind 'svc' has none"),
        (["--head", "svc", "--tune", "full"], "end-to-end tuning takes gradients through the head"),
        (["--set", "head=forest"], "head='forest': it is a table of settings, or one of quantum, logistic-regression"),
        (["--head", "forest"], "'forest' is not one of"),
    ],
)
def test_fit_invalid_head_exits_with_error(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
) -> None:
    code, _, err = run(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *options)
    assert code != 0
    assert message in " ".join(err.split())
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", KINDS)
def test_inspect_predict_and_evaluate_any_head(
    name: str, models: dict[str, Path], capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    model = models[name]
    classifier = TextClassifier.from_pretrained(model)
    report = run_json(capsys, "inspect", model)
    assert report["head_kind"] == KINDS[name]
    assert report["parameters"]["total"] == classifier.classifier_.n_parameters_
    assert "circuits" not in report
    predictions = run_json(capsys, "predict", model, *GOOD)["predictions"]
    expected = classifier.predict_proba(GOOD)
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in predictions], expected, rtol=1e-12)
    evaluated = run_json(capsys, "evaluate", model, data)
    assert evaluated["accuracy"] == (classifier.predict(SENTENCES) == np.array(LABELS)).mean()
    assert (evaluated["draws"], evaluated["measurement"]) == (1, {})
    code, _, _ = run(capsys, "predict", model, "--input", data, "-o", tmp_path / "out.csv", "--text-column", "text")
    assert code == 0
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted_label"] for row in rows] == classifier.predict(SENTENCES).tolist()


@pytest.mark.parametrize(
    ("command", "purpose"),
    [
        (["hardware", "plan", "MODEL", "no such data", "-o", "RUN"], "run on hardware"),
        (["evaluate", "MODEL", "no such data", "--shots", "10"], "run with shots or noise"),
        (["evaluate", "MODEL", "no such data", "--noise", "ionq-forte"], "run with shots or noise"),
    ],
)
def test_classical_head_on_hardware_or_with_noise_fails_before_data_is_read(
    command: list[str], purpose: str, models: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    places: dict[str, Any] = {"MODEL": models["svc"], "RUN": tmp_path / "run"}
    code, _, err = run(capsys, *(places.get(word, word) for word in command))
    assert code == 2
    assert f"has a head of kind 'svc' and no circuit to {purpose}; use a quantum head" in " ".join(err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["draw", "energy"])
def test_circuit_commands_refuse_a_classical_head(
    command: str, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, command, models["mlp"])
    assert code == 1
    assert "has a head of kind 'mlp', which has no circuit; this needs a quantum head" in " ".join(err.split())


@pytest.mark.parametrize("command", ["draw", "energy"])
def test_circuit_commands_refuse_settings_of_a_classical_head(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "fit.toml").write_text('head = "svc"\n')
    code, _, err = run(capsys, command, "--config", tmp_path / "fit.toml")
    assert code == 2
    assert "has head='svc' and no circuit; give it a table [head] of a quantum head" in " ".join(err.split())


def test_model_of_a_head_on_embeddings_can_be_inspected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((20, 3))
    LogisticRegressionHead().fit(x, np.arange(20) % 2).save_pretrained(tmp_path / "m")
    assert run_json(capsys, "inspect", tmp_path / "m")["parameters"]["total"] == 4
