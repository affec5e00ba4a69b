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

# What ketfit.qubit refuses, as default.qubit does: mixed states, modes of light, and measurements that transform tapes.
REFUSED = ("QubitDensityMatrix", "Beamsplitter", "Displacement", "Squeezing", "custom measurement transforms")


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
    found = [(case.get("name"), each) for case in cases for each in case.iter("skipped")]
    assert len(cases) - len(found) > 350
    # The tests skip themselves where they are for other interfaces, shots or kinds of devices. The others would have
    # failed: they are skipped because the device refused something.
    texts = [(f"{name} {each.get('message')}", each.get("type")) for name, each in found]
    refused = [text for text, kind in texts if kind == "pytest.xfail" or "not support" in text]
    assert [text for text in refused if not any(each in text for each in REFUSED)] == []
