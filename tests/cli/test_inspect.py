"""``ketfit inspect`` in process on a tiny body."""

from __future__ import annotations

from pathlib import Path

import pytest

from ketfit import HeadConfig, TextClassifier, TrainConfig
from tests.cli.running import LABELS, SENTENCES, SMALL, run, run_json


@pytest.mark.slow
def test_inspect_model_with_shots_reports_step_cost(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    settings = [*SMALL, "--set", "head.shots=20", "--set", "head.gradient=parameter_shift"]
    settings += ["--set", "head.noise.bit_flip=0.01", "--set", "train.batch_size=16"]
    report = run_json(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *settings)
    cost = report["qpu_step"]
    assert cost["shots"] == 20 * cost["circuits"]
    assert cost["circuits"] % 16 == 0
    assert run_json(capsys, "inspect", tmp_path / "m")["qpu_step"] == cost
    trained = run_json(capsys, "evaluate", tmp_path / "m", data)
    measured = {"shots": 20, "gradient": "parameter_shift", "noise": {"bit_flip": 0.01}}
    assert (trained["draws"], trained["measurement"]) == (10, measured)
    more = run_json(capsys, "evaluate", tmp_path / "m", data, "--shots", 30)
    assert more["measurement"] == {**measured, "shots": 30}
    exact = run_json(capsys, "evaluate", tmp_path / "m", data, "--exact")
    assert (exact["draws"], exact["measurement"]) == (1, {})


def test_inspect_reports_counts_of_head(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    report = run_json(capsys, "inspect", model)
    head = TextClassifier.from_pretrained(model).classifier_.module_
    assert report["parameters"] == head.parameter_counts()
    assert report["circuits"]["qpu"]["ry"] == head.circuit.gate_counts()["ry"]
    assert report["circuits"]["encoder"]["depth"] == head.encoder.circuit.depth()
    assert report["body"]["fingerprint"]
    code, out, _ = run(capsys, "inspect", model)
    assert code == 0
    assert "parameters.total" in out


def test_inspect_head_with_components_reports_projection(
    capsys: pytest.CaptureFixture[str], model: Path, tiny_body_folder: Path, tmp_path: Path
) -> None:
    assert run_json(capsys, "inspect", model)["projection"] is None
    head = HeadConfig(n_qubits=2, connectivity=1, main_layers=1, components=3)
    text = TextClassifier(str(tiny_body_folder), head, TrainConfig(epochs=1)).fit(SENTENCES, LABELS)
    text.save_pretrained(tmp_path / "projected")
    report = run_json(capsys, "inspect", tmp_path / "projected")
    assert report["projection"] == {"components": 3, "fitted_numbers": 16 + 3 * 16}
    assert report["head"]["components"] == 3
    assert report["parameters"]["total"] == text.classifier_.n_parameters_
    code, out, _ = run(capsys, "inspect", tmp_path / "projected")
    assert code == 0
    assert "projection.fitted_numbers" in out
