"""``ketfit draw`` in process on a tiny body."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import run, run_json


@pytest.mark.slow
def test_draw_writes_text_and_pictures(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    trained = run_json(capsys, "draw", model)["drawing"]
    untrained = run_json(capsys, "draw")["drawing"]
    assert "RY(w" in untrained
    assert "RY(w" not in trained  # its angles are numbers
    assert "RY(x0)" in trained
    encoder = run_json(capsys, "draw", model, "--module", "encoder")["drawing"]
    assert "q5:" in encoder
    assert "RY(x0)" not in encoder
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        picture = tmp_path / f"circuit{suffix}"
        assert run_json(capsys, "draw", "-o", picture)["drawing"] == str(picture)
        assert picture.read_bytes().startswith(start)
    code, _, err = run(capsys, "draw", "-o", tmp_path / "circuit.bmp")
    assert code == 2
    assert ".svg, .png or .pdf" in " ".join(err.split())


def test_draw_model_and_config_are_refused(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    config = tmp_path / "head.toml"
    config.write_text("[head]\nn_qubits = 3\nmain_layers = 1\n")
    drawing = run_json(capsys, "draw", "--config", config)["drawing"]
    assert "q2:" in drawing
    assert "q3:" not in drawing
    assert run(capsys, "draw", model, "--config", config)[0] == 2


def test_draw_missing_head_or_encoder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "fit.toml"
    config.write_text("seed = 1\n")
    code, _, err = run(capsys, "draw", "--config", config)
    assert code == 2
    assert "has no table [head]" in err
    code, _, err = run(capsys, "draw", "--module", "encoder", "--encoder", 1)
    assert code == 2
    assert "this head has encoders 0 to 0" in err


def test_draw_marks_z_only_for_a_head_that_reads_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "head.toml"
    for readout, is_marked in (("", True), ('readout = ["X0 Z1"]\n', False)):
        config.write_text("[head]\nn_qubits = 3\nmain_layers = 1\n" + readout)
        assert ("<Z>" in run_json(capsys, "draw", "--config", config)["drawing"]) is is_marked
