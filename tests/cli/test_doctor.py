"""What `ketfit doctor` says the memory can hold is what the simulator takes and refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from ketfit import Circuit, NoiseConfig, expectation
from ketfit.circuit import reuploading_circuit
from ketfit.circuit.circuit import Angle, ry
from ketfit.circuit.export import to_qasm3
from ketfit.cli import doctor
from ketfit.errors import InsufficientMemoryError
from tests.cli.running import run, run_json


def _run(width: int, gradients: bool = False, noise: NoiseConfig | None = None) -> None:
    circuit = Circuit(width, (ry(0, Angle("weight", 0)),), 1, 0)
    expectation(circuit, torch.zeros(1, requires_grad=gradients), noise=noise)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qubits", {}),
        ("qubits_with_gradients", {"gradients": True}),
        ("qubits_with_exact_noise", {"noise": NoiseConfig(bit_flip=0.1)}),
    ],
)
def test_memory_report_gives_widest_circuit_that_fits(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, object]
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200 * 2**20))
    widest = doctor.memory()[name]
    _run(widest, **options)  # type: ignore[arg-type]
    with pytest.raises(InsufficientMemoryError):
        _run(widest + 1, **options)  # type: ignore[arg-type]


def test_memory_report_is_bounded_by_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    assert doctor.memory()["qubits"] == 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**60))
    assert (doctor.memory()["qubits"], doctor.memory()["qubits_with_exact_noise"]) == (30, 15)


def test_doctor_reports_engine_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "doctor")
    assert report["engine"] in {f"native, {name}" for name in ("avx512", "avx2", "baseline")}
    assert set(report["extras"]) >= {"bundled", "bundled-mpnet", "datasets", "draw", "hardware"}
    assert report["extras"]["bundled"] == "installed"
    assert report["memory"]["qubits"] >= report["memory"]["qubits_with_gradients"] > 0
    assert report["memory"]["qubits_with_exact_noise"] > 0


def test_doctor_plan_reports_cost_of_distributed_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "circuit.qasm"
    path.write_text(to_qasm3(reuploading_circuit(12, 1, 1, 2, 2)))
    options = ["--plan", str(path), "--nodes", "4", "--memory", "16KiB", "--bandwidth", "2 GB/s"]
    report = run_json(capsys, "doctor", *options)
    assert (report["qubits"], report["local_qubits"], report["nodes"], report["bandwidth_gb_s"]) == (12, 10, 4, 2.0)
    assert (report["value"]["fits"], report["value_and_gradients"]["fits"]) == (True, True)
    assert run_json(capsys, "doctor", *options[:-3], "8KiB")["value_and_gradients"]["fits"] is False
    assert report["exchanges"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "3"], "3 ranks cannot share a state of 2 qubits; use a power of two up to 2"),
        (["--memory", "64XB"], "'64XB' is not an amount of bytes such as 64GiB or 10GB/s"),
        (["--bandwidth", "0"], "'0' is not an amount of bytes"),
    ],
)
def test_doctor_plan_wrong_options_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], message: str
) -> None:
    path = tmp_path / "circuit.qasm"
    path.write_text("OPENQASM 3.0; qubit[2] q; U(1, 2, 3) q[0];")
    code, _, err = run(capsys, "doctor", "--plan", str(path), *options)
    assert code != 0
    assert message in " ".join(err.split())


def test_doctor_plan_of_no_circuit_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "circuit.qasm"
    path.write_bytes(b"\xff\xfe")
    assert "cannot read" in run(capsys, "doctor", "--plan", str(path))[2]
    path.write_text("not a program")
    assert "line 1" in run(capsys, "doctor", "--plan", str(path))[2]
