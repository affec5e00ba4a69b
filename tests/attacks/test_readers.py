"""Readers of mutated external files return a value or raise an error of KetFit. ``make fuzz`` runs longer."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketfit.base_config import parse_toml_value
from ketfit.errors import KetFitError
from ketfit.model.config import FitConfig
from ketfit.study.spec import StudyPlan
from tests.attacks.children import run_cases
from tests.attacks.mutations import VALUES
from tests.attacks.readers import READERS, starts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES = int(os.environ.get("KETFIT_FUZZ_EXAMPLES", "60"))
STUDY = Path(__file__).parents[2] / "studies" / "results" / "paper" / "ablation" / "study.json"
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
    """Return the start with some pieces inserted, removed or overwritten."""
    content = start
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        taken = draw(st.sampled_from([0, 0, 1, 2, 10, 100]))
        piece = draw(st.one_of(st.just(b""), st.sampled_from(PIECES), st.binary(max_size=4)))
        content = content[:place] + piece + content[place + taken :]
    return content


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"parquet"}))
def test_reader_of_mutated_input_returns_or_raises_ketfit_error(name: str) -> None:
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
def test_reader_of_unmutated_input_returns(name: str, tmp_path: Path) -> None:
    assert READERS[name](tmp_path, STARTS[name])


def places(table: Any) -> list[tuple[Any, Any]]:
    """Yield every table and list of a parsed file, at any level, with each of its keys or indices."""
    keys = list(table) if isinstance(table, dict) else range(len(table)) if isinstance(table, list) else []
    return [(table, key) for key in keys] + [place for key in keys for place in places(table[key])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parse"),
    [("settings", tomllib.loads), ("plan", tomllib.loads), ("study", json.loads), ("rows", json.loads)],
)
def test_reader_of_any_json_value_returns_or_raises_ketfit_error(
    name: str, parse: Callable[[str], Any], tmp_path: Path
) -> None:
    """Valid syntax with wrong types, huge numbers, lists in place of tables, and missing keys."""
    takes = {"settings": FitConfig.from_mapping, "plan": StudyPlan.from_mapping}
    line = STARTS[name].decode().splitlines()[0] if name == "rows" else STARTS[name].decode()
    refused = 0
    for case in range(5 * EXAMPLES):
        rng, tables = random.Random(case), parse(line)
        for _ in range(rng.choice([1, 1, 2])):
            table, key = rng.choice(places(tables))
            if rng.random() < 0.2:
                del table[key]
            else:
                table[key] = copy.deepcopy(rng.choice(VALUES))
        try:
            if name in takes:
                takes[name](tables)
            else:
                READERS[name](tmp_path, json.dumps(tables).encode() + b"\n")
        except KetFitError as error:
            refused += bool(str(error))
        except Exception as error:
            raise AssertionError(f"case {case}: {tables}") from error
    assert refused > EXAMPLES


def test_parquet_reader_of_mutated_file_is_contained_in_child(tmp_path: Path) -> None:
    """The reader is C++ and may crash or take all memory, so that it runs in a child."""

    def read(case: int) -> tuple[str, str, str]:
        rng = random.Random(case)
        content = bytearray(STARTS["parquet"])
        for _ in range(rng.choice([1, 1, 3, 10])):
            content[rng.randrange(len(content))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
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


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.one_of(st.text(max_size=50), st.sampled_from(["[" * 5000, "9" * 5000, "1 # x", '"a\nb = 1', "inf"])))
def test_parse_toml_value_returns_value_or_text(text: str) -> None:
    parse_toml_value(text)
