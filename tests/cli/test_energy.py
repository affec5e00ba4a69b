"""Tests of ``ketfit energy``."""

from __future__ import annotations

import json
import sys

import pytest

from ketfit.energy.crossover import FOLLOW_UP, PAPER, CrossoverModel
from ketfit.energy.meters import Meter
from ketfit.energy.profiles import QpuProfile, StatevectorProfile, load_profile
from ketfit.model.config import HeadConfig
from tests.cli.running import run, run_json


@pytest.fixture(scope="module")
def model() -> CrossoverModel:
    qpu, program = load_profile("ionq-forte", QpuProfile), load_profile("statevector", StatevectorProfile)
    return CrossoverModel(HeadConfig.paper(), qpu, program)


def test_energy_command_reports_crossover_and_assumptions(capsys, tmp_path):
    picture = tmp_path / "energy.svg"
    report = run_json(capsys, "energy", "--against", "nvidia-a100", "--against", "laptop", "--plot", str(picture))
    assert report["range"][0] <= FOLLOW_UP < report["crossover_qubits"] < PAPER <= report["range"][1]
    assert report["circuit"] == {"main_layers": 4, "n_reuploads": 1, "connectivity": 2}
    names = {assumption["name"] for assumption in report["assumptions"]}
    assert {"shots", "QPU: power_watts", "simulating device: bandwidth_gb_s", "simulator: amplitude_bytes"} <= names
    assert all(assumption["source"] for assumption in report["assumptions"])
    assert {row["kind"] for row in report["rows"]} <= {"measured", "modelled", "assumed"}
    assert picture.read_text().count("<svg") == 1
    json.dumps(report)


def test_energy_command_without_counters_fails(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("ketfit.energy.meters.POWERCAP", tmp_path / "none")
    code, out, err = run(capsys, "energy", "--measure", "rapl", "--against", "laptop")
    assert code == 1
    assert out == ""
    assert "shows no RAPL counters" in err


@pytest.mark.slow
def test_energy_command_reads_counter(capsys, monkeypatch):
    readings = iter([(0,), (3_000_000,)])
    meter = Meter("this machine's processor (RAPL)", "cpu", lambda: next(readings), 1e-6, (10**9,))
    monkeypatch.setattr("ketfit.energy.meters.rapl_meter", lambda: meter)
    monkeypatch.setattr(sys.modules["ketfit.cli.energy"], "MEASURED_QUBITS", 4)
    report = run_json(capsys, "energy", "--measure", "rapl", "--against", "laptop")
    measured = report["measured"]
    assert (measured["kind"], measured["qubits"]) == ("measured", 4)
    runs = 3 / measured["joules"]
    assert runs == pytest.approx(round(runs))
    assert measured["seconds"] * runs >= 2


def test_energy_command_reads_head_from_config(capsys, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text("[head]\nn_qubits = 6\nmain_layers = 2\nconnectivity = 1\n")
    report = run_json(capsys, "energy", "--config", config, "--against", "nvidia-h100")
    assert report["circuit"] == {"main_layers": 2, "n_reuploads": 1, "connectivity": 1}


def test_energy_command_rejects_wrong_options(capsys, tmp_path):
    assert run(capsys, "energy", "--plot", tmp_path / "energy.gif")[0] == 2
    assert run(capsys, "energy", "--qpu", "nobodys")[0] == 2
    assert run(capsys, "energy", "model", "--config", tmp_path / "mine.toml")[0] == 2
