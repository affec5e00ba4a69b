"""Readers of files from outside, given anything: a value, or an error of ours. ``make fuzz`` looks for longer."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketfit.errors import KetFitError
from ketfit.settings import parse_toml_value
from tests.attacks.children import run_cases
from tests.attacks.readers import READERS, starts

EXAMPLES = int(os.environ.get("KETFIT_FUZZ_EXAMPLES", "60"))
STUDY = Path(__file__).parents[2] / "studies" / "results" / "ablation" / "study.json"
STARTS = starts(STUDY.read_bytes())
PIECES = [
    b"{",
    b"}",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b"\t",
    b"\0",
    b"=",
    b"#",
    b"\xff",
    b"\xef\xbb\xbf",
]
PIECES += [
    b"1e999",
    b"NaN",
    b"-1",
    b"9" * 5000,
    b"null",
    b"true",
    b"inf",
    b"\\ud800",
    b'"text"',
    b"\xe2\x80\xa8",
    b"1979-05-27",
]


@st.composite
def mutated(draw: st.DrawFn, start: bytes) -> bytes:
    """The start with some pieces put in, taken out, or written over."""
    content = start
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        taken = draw(st.sampled_from([0, 0, 1, 2, 10, 100]))
        piece = draw(st.one_of(st.just(b""), st.sampled_from(PIECES), st.binary(max_size=4)))
        content = content[:place] + piece + content[place + taken :]
    return content


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"parquet"}))
def test_a_reader_gives_a_value_or_an_error_of_ours(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of(st.binary(max_size=300), mutated(STARTS[name])))
    def read(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                READERS[name](Path(folder), content)
            except KetFitError as error:
                assert str(error)

    read()


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"parquet"}))
def test_the_starts_are_good(name: str, tmp_path: Path) -> None:
    assert READERS[name](tmp_path, STARTS[name])


def test_parquet_in_children(tmp_path: Path) -> None:
    """Its reader is C++ and may die or take all memory, which a child survives for us."""

    def read(case: int) -> tuple[str, str, str]:
        chance = random.Random(case)
        content = bytearray(STARTS["parquet"])
        for _ in range(chance.choice([1, 1, 3, 10])):
            content[chance.randrange(len(content))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        folder = tmp_path / str(case)
        folder.mkdir()
        try:
            READERS["parquet"](folder, bytes(content))
        except KetFitError:
            return "parquet", "refused", ""
        except Exception as error:
            return "parquet", "finding", f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(folder)
        return "parquet", "read", ""

    report = run_cases(range(5 * EXAMPLES), read)
    assert not report.findings, "\n".join(report.findings[:20])
    assert report.outcomes["parquet: refused"]


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.one_of(st.text(max_size=50), st.sampled_from(["[" * 5000, "9" * 5000, "1 # x", '"a\nb = 1', "inf"])))
def test_a_value_on_the_command_line_is_a_value_or_a_word(text: str) -> None:
    parse_toml_value(text)
