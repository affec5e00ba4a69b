"""Progress bars: on stderr, with count and note, or silent."""

from __future__ import annotations

import pytest

from ketfit.progress import ProgressBar


def test_progress_bar_shows_count_and_note_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("training", 4, shown=True, done=1) as bar:
        bar.advance(2, "loss 0.5")
        bar.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(part in captured.err for part in ("training", "4/4", "loss 0.5"))


def test_progress_bar_set_replaces_count_and_total(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("checking", None, shown=True) as bar:
        bar.set(3, 3)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(("total", "shown"), [(4, False), (0, True)])
def test_progress_bar_hidden_or_empty_prints_nothing(
    total: int, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar("training", total, shown=shown) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")
