"""``ketfit hardware``, run in process on a tiny body."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import LABELS, SENTENCES, run, run_json


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_body_folder: Path) -> Path:
    from ketfit import HeadConfig, TextClassifier, TrainConfig

    folder = tmp_path_factory.mktemp("hardware") / "model"
    head = HeadConfig(n_qubits=4, main_layers=1, encoder_layers=1)
    clf = TextClassifier(str(tiny_body_folder), head, TrainConfig(epochs=2)).fit(SENTENCES, LABELS)
    clf.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.tsv"
    rows = [f"{text}\t{label}" for text, label in zip(SENTENCES, LABELS, strict=True)]
    path.write_text("\n".join(["text\tlabel", *rows, ""]), encoding="utf-8")
    return path


def test_hardware_run_goes_from_plan_to_fetch(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    plan = run_json(
        capsys, "hardware", "plan", model, data, "-o", folder, "--backend", "simulator:ionq-forte", "--max-cost", 10000,
        "--mitigate", "readout", "--shots", 100,
    )  # fmt: skip
    assert plan["cost"]["circuits"] == plan["distinct_circuits"] + plan["jobs"]
    assert plan["cost"]["price"] == pytest.approx(plan["cost"]["circuits"] * (0.3 + 100 * 0.08))
    before = run_json(capsys, "hardware", "status", folder)
    assert (before["circuits"], before["jobs"]) == (0, {})
    code, _, err = run(capsys, "hardware", "fetch", folder)
    assert code == 1
    assert "circuits have results" in err
    code, out, err = run(capsys, "hardware", "submit", folder, "--json")
    assert (code, err) == (0, f"submitting the missing jobs of {folder}; a simulator computes them now\n")
    assert json.loads(out)["price"] == pytest.approx(plan["cost"]["price"])
    report = run_json(capsys, "hardware", "fetch", folder)
    assert len(report["predictions"]) == len(SENTENCES)
    assert 0 <= report["accuracy"] <= 1
    assert run_json(capsys, "hardware", "status", folder)["jobs"] == {"done": 1}
    assert run_json(capsys, "hardware", "cancel", folder)["jobs"] == {}


def test_hardware_plan_above_max_cost_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    options = ("--backend", "simulator:ionq-forte", "--max-cost", 1)
    code, _, err = run(capsys, "hardware", "plan", model, data, "-o", tmp_path / "run", *options)
    assert code == 1
    assert "the limit is 1.00: nothing was sent" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", ["simulator", "simulator:ionq-aria", "ketfit.hardware.backends.local:Simulator"])
def test_hardware_check_of_simulator_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path, backend: str) -> None:
    report = run_json(capsys, "hardware", "check", backend, "-o", tmp_path)
    assert report["passed"]
    assert all(finding["passed"] for finding in report["findings"])


def test_hardware_check_of_faulty_backend_fails(tmp_path: Path) -> None:
    from ketfit.hardware.testing.conformance import check_backend
    from ketfit.hardware.testing.faulty_backend import Fault, FaultInjectingBackend
    from tests.hardware.example_runs import simulator

    faults = {"reversed": "bits come reversed", "wrong_shots": "were requested", "missing": "results for 5"}
    for kind, told in faults.items():
        backend = FaultInjectingBackend(simulator(tmp_path / kind, 10), [Fault("result", kind, times=9)])
        failed = [finding.message for finding in check_backend(backend) if not finding.passed]
        assert any(told in message for message in failed), (kind, failed)


def test_hardware_check_fails_if_a_provider_does_not_answer_about_an_unknown_job(tmp_path: Path) -> None:
    from ketfit.hardware.testing.conformance import check_backend
    from ketfit.hardware.testing.faulty_backend import Fault, FaultInjectingBackend
    from tests.hardware.example_runs import FAST_RETRY, simulator

    backend = FaultInjectingBackend(simulator(tmp_path, 10), [Fault("status", "server_error", times=10**6, skip=2)])
    *others, unknown = check_backend(backend, retry=FAST_RETRY)
    assert all(finding.passed for finding in others)
    assert not unknown.passed and "the status of an unknown job: no answer" in unknown.message


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ([], 2, "5 circuits with 1,000 shots each, which costs 401.50 USD at the bundled prices; set --max-cost"),
        (["--shots", 100], 2, "5 circuits with 100 shots each, which costs 41.50 USD"),
        (
            ["--shots", 100, "--max-cost", 41],
            1,
            "it would cost 41.50 USD in all, of which 41.50 new; the limit is 41.00",
        ),
        (["--shots", 100, "--max-cost", 41.5], 0, ""),
    ],
)
def test_hardware_check_with_a_price_needs_a_limit(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[Any],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "priced_lab.py").write_text(
        "from dataclasses import replace\n"
        "from ketfit.hardware.backends.local import Simulator\n"
        "class PricedLab(Simulator):\n"
        "    def describe(self):\n        return replace(super().describe(), is_local=False)\n"
        "def make(folder, seed=0):\n    return PricedLab(folder, seed=seed, device='ionq-forte')\n"
    )
    returned, _, err = run(capsys, "hardware", "check", "priced_lab:make", "-o", tmp_path / "jobs", *options)
    assert returned == code, err
    assert told in " ".join(err.split())
    assert (tmp_path / "jobs").exists() == (code == 0)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "unknown backend"),
        ("simulator:nowhere", "unknown device"),
        ("ketfit.nothing:here", "cannot be made"),
    ],
)
def test_hardware_unknown_backend_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, told: str
) -> None:
    code, _, err = run(capsys, "hardware", "check", name, "-o", tmp_path)
    assert code == 2
    assert told in err


def test_hardware_unknown_backend_fails_before_model_is_loaded(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    code, _, err = run(capsys, "hardware", "plan", "no-model", data, "-o", tmp_path / "run", "--backend", "abacus")
    assert code == 2
    assert "abacus" in err
    assert "loading" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", ["simulator", "simulator:ionq-forte"])
def test_hardware_plan_on_simulator_states_no_cost(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path, backend: str
) -> None:
    code, _, err = run(
        capsys, "hardware", "plan", model, data, "-o", tmp_path / "run", "--backend", backend, "--first", 2
    )
    assert code == 0
    assert ("is free" in err) == (backend == "simulator:ionq-forte")  # the other has no price at all


def test_hardware_check_leaves_current_folder_unchanged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_json(capsys, "hardware", "check", "simulator")["passed"]
    assert list(tmp_path.iterdir()) == []


def test_hardware_custom_backend_runs_from_plan_to_fetch(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_of_the_command.py").write_text(
        "from ketfit.hardware.backends.local import Simulator\n\n\n"
        "def make(folder, seed, **options):\n"
        '    return Simulator(folder / "jobs", seed=seed, name="mine", **options)\n'
    )
    own = ("--backend", "mine_of_the_command:make")
    run_json(capsys, "hardware", "plan", model, data, "-o", "run", *own, "--option", "max_circuits=5", "--first", 6)
    code, _, err = run(capsys, "hardware", "submit", "run")
    assert code == 2
    assert "name it again with --backend" in err
    run_json(capsys, "hardware", "submit", "run", *own)
    assert len(run_json(capsys, "hardware", "fetch", "run", *own)["predictions"]) == 6
    sys.modules.pop("mine_of_the_command")


@pytest.mark.parametrize("command", ["submit", "fetch"])
def test_interrupted_hardware_command_names_the_ledger(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"ketfit.hardware.runs.run.{command}_run", interrupted)
    code, _, err = run(capsys, "hardware", command, tmp_path)
    assert code == 130
    assert "interrupted; every step is in the ledger; run the same command to continue" in err
    assert "discarded" not in err
