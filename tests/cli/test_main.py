"""``ketfit main`` in process on a tiny body."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import SMALL, run


def test_main_wrong_usage_exits_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "fit")[0] == 2
    assert run(capsys, "nonsense")[0] == 2


@pytest.mark.slow
def test_main_json_is_the_only_output_on_stdout(data: Path, tmp_path: Path, tiny_body_folder: Path) -> None:
    program = Path(sys.executable).parent / "ketfit"
    command = [program, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *SMALL, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == str(tmp_path / "m")
    assert "training" in done.stderr
