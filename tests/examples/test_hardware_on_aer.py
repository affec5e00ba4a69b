"""The example runs as it is."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "hardware_on_aer.py"


def test_example_prints_cost_and_both_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))["main"](tmp_path / "run")
    said = capsys.readouterr().out
    here, there = map(float, re.findall(r"0\.\d{3}", said))
    assert here > 0.85 and abs(here - there) < 0.1
    assert "USD on Forte" in said and (tmp_path / "run" / "predictions.json").exists()
