"""PennyLane's own tests of devices, run on ketfit.qubit in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

# Why PennyLane's tests skip themselves: they are for other interfaces, methods of differentiation or kinds of devices.
SKIPS = (
    "could not import 'jax'",
    "could not import 'tensorflow'",
    "Device is in analytic mode",
    "Device does not support custom measurement transforms",
    "If shots=None no warning is raised",
    "QutritBasisState template only works on qutrit devices",
    "Shots must be specified in the device",
    "device does not support diff_method",
    "operation not supported on the device",
    "shots",
    "test is old interface specific",
    "test is specific to old device interface",
    "test only works with",
    "test should only be run in analytic mode",
    "test specific for old device interface",
    "test specific to old device interface",
    "test uses backprop, must be in analytic mode",
)
# Operations on modes of light, which no device of qubits has: default.qubit refuses the same tests.
NO_QUBITS = ("Beamsplitter", "Displacement", "Squeezing")


@pytest.mark.parametrize("shots", [None, 100_000])
def test_device_passes_the_tests_of_pennylane(shots: int | None, tmp_path: Path) -> None:
    package = importlib.util.find_spec("pennylane")
    assert package is not None and package.origin is not None
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", str(Path(package.origin).parent / "devices" / "tests")]
    command += ["--device=ketfit.qubit", f"--shots={shots}", "--skip-ops", "-q", "--no-flaky-report"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-5000:] + finished.stderr[-2000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [(case.get("name"), each.get("message", "")) for case in cases for each in case.iter("skipped")]
    assert len(cases) - len(skipped) > 350
    unknown = [
        (name, message)
        for name, message in skipped
        if not any(reason in message for reason in SKIPS)
        and not ("not supported with ketfit.qubit" in message and any(each in message for each in NO_QUBITS))
    ]
    assert unknown == []
