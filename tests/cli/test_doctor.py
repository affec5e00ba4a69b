"""What `ketfit doctor` says the memory can hold is what the simulator takes and refuses."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from ketfit import Circuit, NoiseConfig, expectation
from ketfit.circuit.circuit import Angle, ry
from ketfit.cli import doctor
from ketfit.errors import InsufficientMemoryError
from tests.cli.running import run_json


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
