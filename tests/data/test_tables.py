"""Tables are written unchanged with added columns, or rejected before anything is written."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import os
import pickle
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ketfit.data.tables import TableWriter, TextTable, output_format
from ketfit.errors import DataError, DataOptionError

NASTY = "\0\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xa0\u2028\u2029\ufeff\ufffe\"',;|\\ a\U0001f600"
ADDED = {"predicted_label": "good", "probability_good": 0.25}


def through(table: TextTable, output: Path, size: int = 2) -> list[str]:
    """Write a table with the columns `ADDED`, as `predict_file` does, and return its sentences."""
    writer = TableWriter(output_format(table, output), table.name, table.delimiter)
    parts, texts, header = [], [], []
    for number, block in enumerate(table.blocks(size)):
        added = {name: [value] * len(block) for name, value in ADDED.items()}
        parts.append(output.with_name(f"{number}.part"))
        parts[-1].write_bytes(writer.encode_block(block, added))
        header = [*(block.rows[0] if isinstance(block.rows, list) else block.rows.column_names), *ADDED]
        texts += block.texts
    writer.encode_header(header)
    writer.join(parts, header, output)
    return texts


def written(folder: Path, rows: list[dict[str, Any]], format: str) -> TextTable:
    """Write a table without code of KetFit."""
    path = folder / f"in.{format}"
    if format == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    elif format == "tsv":
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_bytes("".join("\t".join(cells) + "\n" for cells in lines).encode())
    elif format == "jsonl":
        path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    elif format == "txt":
        path.write_bytes("".join(f"{row['text']}\n" for row in rows).encode())
    else:
        parquet.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    return TextTable.find(path)


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file without code of KetFit."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().decode().removesuffix("\n").split("\n")]
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    header, *lines = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    return [dict(zip(header, line, strict=True)) for line in lines]


TEXT = st.text(st.sampled_from(NASTY) | st.characters(codec="utf-8"), min_size=1, max_size=8)
SENTENCE = TEXT.filter(str.strip)
ROWS = st.lists(st.tuples(SENTENCE, TEXT), min_size=1, max_size=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((source, target) for source in ("csv", "tsv", "txt") for target in ("csv", "tsv", "jsonl", "parquet")),
        ("jsonl", "jsonl"),
        ("parquet", "parquet"),
    ],
)
@settings(deadline=None, max_examples=40)
@given(rows=ROWS, name=TEXT.filter(lambda name: name != "text"))
@example(rows=[("a\rb", "c")], name="n\rm")
@example(rows=[("a\r", "\r\n"), ("\ufeffb", "\ufeff")], name="\ufeffid")
@example(rows=[('"', '"'), ("'", ',";')], name='"')
def test_encode_block_any_rows_round_trip_or_raise(
    tmp_path_factory: pytest.TempPathFactory, source: str, target: str, rows: list[tuple[str, str]], name: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    content = [{name: other, "text": text} for text, other in rows]
    if source == "txt":
        content = [{"text": text} for text, _ in rows]
    output = folder / f"out.{target}"
    try:
        table = written(folder, content, source)
        texts = through(table, output)
    except DataError:
        assert not output.exists()
        nul = sys.version_info < (3, 11)  # whose csv module refuses it
        assert source in ("tsv", "txt") or target == "tsv" or nul, "this format can hold every text"
        return
    if source in ("csv", "jsonl", "parquet"):
        assert texts == [text for text, _ in rows]
        found = read(output)
        expected = [{**row, **ADDED} for row in content]
        assert [{**row, "probability_good": float(row["probability_good"])} for row in found] == expected
    assert [text for block in TextTable.find(output).blocks(3) for text in block.texts] == texts
    assert len(read(output)) == len(texts)


WHITE_SPACE = [character for character in map(chr, range(sys.maxunicode + 1)) if character.isspace()]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize(
    ("text", "fault"),
    [*((character, "empty") for character in WHITE_SPACE), ("", "empty"), (" \t\u3000", "empty"), (None, "missing")],
)
def test_blocks_parquet_text_that_is_blank_or_missing_raises_with_its_row(
    tmp_path: Path, kind: pa.DataType, text: str | None, fault: str
) -> None:
    column = pa.array(["fine", "\u4e2d\u6587", f" {text}.", text, ""]).cast(kind)
    parquet.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    blocks = TextTable.find(tmp_path / "in.parquet").blocks(2)
    assert next(blocks).texts == ["fine", "\u4e2d\u6587"]
    with pytest.raises(DataError, match=rf"in\.parquet, row 4: the text is {fault}"):
        next(blocks)


def test_blocks_parquet_accepts_every_character_that_is_not_white_space(tmp_path: Path) -> None:
    visible = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000 and not chr(code).isspace()]
    parquet.write_table(pa.table({"text": visible}), tmp_path / "in.parquet")
    assert [text for block in TextTable.find(tmp_path / "in.parquet").blocks(5000) for text in block.texts] == visible


def test_blocks_parquet_text_that_is_not_utf_8_raises(tmp_path: Path) -> None:
    surrogate = pa.array([b"fine", b"\xed\xa0\x80"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": surrogate}), tmp_path / "in.parquet")
    with pytest.raises(
        DataError, match=r"in\.parquet: not a readable Parquet file: 'utf-8' codec can't decode byte 0xed"
    ):
        list(TextTable.find(tmp_path / "in.parquet").blocks(5))


def test_blocks_parquet_texts_of_another_type_raise(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"in\.parquet, row 1: the text is int, not str"):
        list(TextTable.find(tmp_path / "in.parquet").blocks(5))


def test_encode_block_quotes_carriage_return_in_csv(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'id,text\n1,"one\rtwo"\n2,plain\n')
    assert through(TextTable.find(tmp_path / "in.csv"), tmp_path / "out.csv") == ["one\rtwo", "plain"]
    assert (tmp_path / "out.csv").read_bytes() == (
        b'id,text,predicted_label,probability_good\n"1","one\rtwo","good","0.25"\n2,plain,good,0.25\n'
    )
    assert pd.read_csv(tmp_path / "out.csv")["text"].tolist() == ["one\rtwo", "plain"]


def test_encode_block_field_over_csv_limit_raises(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a" * (csv.field_size_limit() + 1) + "\n")
    with pytest.raises(DataError, match=r"a sentence has 131073 characters, .* name a \.jsonl or \.parquet"):
        through(TextTable.find(tmp_path / "in.txt"), tmp_path / "out.csv")
    through(TextTable.find(tmp_path / "in.txt"), tmp_path / "out.jsonl")


def test_encode_block_keeps_numbers_and_escapes_of_jsonl(tmp_path: Path) -> None:
    line = r'{"text":"a","x":12345678901234567890.125,"y":1e2 ,"z":"\u0041\ud83d", "half\udc00":null  }'
    (tmp_path / "in.jsonl").write_text(line + " \r\n")
    through(TextTable.find(tmp_path / "in.jsonl"), tmp_path / "out.jsonl")
    out = (tmp_path / "out.jsonl").read_text()
    assert out == line[:-1] + ', "predicted_label": "good", "probability_good": 0.25}\n'
    assert json.loads(out) == {**json.loads(line), **ADDED}


@pytest.mark.parametrize("field", [r'"text": "a \ud83d"', r'"text": "\udc00a"'])
def test_blocks_surrogate_in_sentence_raises_with_its_line(tmp_path: Path, field: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n{' + field + "}\n")
    with pytest.raises(DataError, match=r"in\.jsonl, line 2: the text has half of a surrogate pair at character"):
        list(TextTable.find(tmp_path / "in.jsonl").blocks(5))


def test_encode_block_surrogate_in_column_raises(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(rb"text,other" + b"\n" + rb"a,\ud83d" + b"\n")
    table = TextTable.find(tmp_path / "in.csv", encoding="unicode_escape")
    for suffix in ("csv", "jsonl", "parquet"):
        with pytest.raises(DataError, match="half of a surrogate pair in a column"):
            through(table, tmp_path / f"out.{suffix}")


# --- Parquet ----------------------------------------------------------------------------------------------------------

MOMENT = datetime.datetime(2020, 2, 29, 12)
STRUCT = pa.struct([("a", pa.dictionary(pa.int32(), pa.string())), ("b", pa.list_(pa.field("c", pa.int8(), False)))])
COLUMNS: dict[str, Callable[[], pa.Array]] = {
    "int8": lambda: pa.array([1, None, 3], pa.int8()),
    "uint64": lambda: pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float16": lambda: pa.array(np.array([1, 2, 3], np.float16)),
    "bool": lambda: pa.array([True, None, False]),
    "null": lambda: pa.nulls(3),
    "decimal128": lambda: pa.array([decimal.Decimal("1.20"), None, decimal.Decimal("0.01")], pa.decimal128(20, 2)),
    "decimal256": lambda: pa.array([decimal.Decimal("1.20"), None, None], pa.decimal256(50, 2)),
    "zoned": lambda: pa.array([MOMENT, None, MOMENT], pa.timestamp("ns", "Europe/Berlin")),
    "timestamp": lambda: pa.array([MOMENT, None, MOMENT], pa.timestamp("ms")),
    "date": lambda: pa.array([MOMENT.date(), None, None]),
    "time": lambda: pa.array([1, None, 2], pa.time32("ms")),
    "duration": lambda: pa.array([1, None, 2], pa.duration("us")),
    "large_string": lambda: pa.array(["a", None, ""], pa.large_string()),
    "string_view": lambda: pa.array(["a", None, ""], pa.string_view()),
    "large_binary": lambda: pa.array([b"a", None, b"\0"], pa.large_binary()),
    "fixed_binary": lambda: pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "dictionary": lambda: pa.array(["x", None, "y"]).dictionary_encode(),
    "ordered": lambda: pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.int8()), ["lo", "hi"], ordered=True),
    "list": lambda: pa.array([[1], None, [2, None]]),
    "large_list": lambda: pa.array([[1], None, []], pa.large_list(pa.int16())),
    "fixed_list": lambda: pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
    "map": lambda: pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
    "struct": lambda: pa.array([{"a": "x", "b": [1]}, None, {"a": None, "b": []}], STRUCT),
}


@pytest.mark.parametrize(
    ("column", "nullable"),
    [*((name, True) for name in COLUMNS), *((name, False) for name in COLUMNS if name != "null")],
)
def test_parquet_columns_keep_type_nullability_and_metadata(tmp_path: Path, column: str, nullable: bool) -> None:
    values = COLUMNS[column]()
    if not nullable:
        values = pa.concat_arrays([values[:1]] * 3)
    schema = pa.schema(
        [
            pa.field("text", pa.large_string(), nullable=False),
            pa.field("column", values.type, nullable=nullable, metadata={"unit": "m"}),
        ],
        metadata={"origin": "a survey"},
    )
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(pa.table([pa.array(["a", "b", "c"]), values], schema=schema), source, row_group_size=2)
    assert through(TextTable.find(source), output) == ["a", "b", "c"]
    before, after = parquet.read_table(source), parquet.read_table(output)
    assert after.select(["text", "column"]).equals(before, check_metadata=True)
    assert after.column_names == ["text", "column", *ADDED]
    assert after.schema.metadata == before.schema.metadata


def test_parquet_row_groups_with_other_dictionaries_are_written_unchanged(tmp_path: Path) -> None:
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    groups = [
        pa.table({"text": ["a", "b"], "kind": pa.array(kinds).dictionary_encode()})
        for kinds in (["u", "v"], ["w", "x"])
    ]
    with parquet.ParquetWriter(source, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)
    assert through(TextTable.find(source), output, size=3) == ["a", "b", "a", "b"]
    assert parquet.read_table(output)["kind"].to_pylist() == ["u", "v", "w", "x"]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_block_sent_to_another_process_is_unchanged(tmp_path: Path, format: str) -> None:
    table = written(tmp_path, [{"text": "a", "id": "1"}, {"text": "b", "id": "2"}, {"text": "c", "id": "3"}], format)
    for block in table.blocks(2):
        arrived = pickle.loads(pickle.dumps(block))
        assert (arrived.texts, arrived.lines, len(arrived)) == (block.texts, block.lines, len(block))
        assert arrived.rows == block.rows


FRAME = pd.DataFrame(
    {
        "text": ["a", "b", "c"],
        "count": pd.array([1, None, 2], "Int64"),
        "flag": pd.array([True, None, False], "boolean"),
        "kind": pd.Categorical(["u", "v", "u"], categories=["v", "u"], ordered=True),
        "day": pd.period_range("2020", periods=3, freq="D"),
        "band": pd.interval_range(0, 3),
        "took": pd.to_timedelta([1, 2, 3], unit="s"),
    }
)


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.set_index(["count", "flag"]),
        FRAME.set_index(pd.RangeIndex(5, 11, 2, name="number")),
        FRAME.set_index(pd.DatetimeIndex(["2020", "2021", "2022"], tz="Europe/Berlin", name="when")),
        FRAME.iloc[[2, 0, 1]],
        FRAME.rename_axis(columns="columns"),
    ],
    ids=["plain", "levels", "range", "zoned", "shuffled", "named"],
)
def test_pandas_frame_keeps_types_and_index(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_parquet(tmp_path / "in.parquet")
    through(TextTable.find(tmp_path / "in.parquet"), tmp_path / "out.parquet")
    before, after = pd.read_parquet(tmp_path / "in.parquet"), pd.read_parquet(tmp_path / "out.parquet")
    assert after.columns.tolist() == [*before.columns, *ADDED]
    pd.testing.assert_frame_equal(after[before.columns.tolist()].rename_axis(columns=before.columns.name), before)


@pytest.mark.parametrize(
    ("columns", "column"),
    [(pd.Index([0, 1]), "0"), (pd.MultiIndex.from_tuples([("a", "b"), ("c", "d")]), "('a', 'b')")],
)
def test_pandas_frame_with_non_string_columns_raises(tmp_path: Path, columns: pd.Index, column: str) -> None:
    pd.DataFrame([["a", 1], ["b", 2]], columns=columns).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"rename them, for example with df\.columns = df\.columns\.map\(str\)"):
        through(TextTable.find(tmp_path / "in.parquet", text_column=column), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_hub_data_set_keeps_its_features(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "tokens": datasets.Sequence(datasets.Value("int32")),
            "pair": datasets.Translation(["en", "de"]),
        }
    )
    rows = {"text": ["a", "b"], "label": [1, 0], "tokens": [[1, 2], []], "pair": [{"en": "x", "de": "y"}] * 2}
    before = datasets.Dataset.from_dict(rows, features=features)
    before.to_parquet(tmp_path / "in.parquet")
    through(TextTable.find(tmp_path / "in.parquet"), tmp_path / "out.parquet")
    after = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    added = {"predicted_label": datasets.Value("string"), "probability_good": datasets.Value("float64")}
    assert after.features == datasets.Features({**features, **added})
    assert after.remove_columns(list(ADDED)).to_dict() == before.to_dict()


# --- Which format a file has ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "tsv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.parquet", "parquet"),
        ("a.txt", "lines"),
        ("reviews", "lines"),
    ],
)
def test_text_table_takes_the_format_from_the_suffix(tmp_path: Path, name: str, format: str) -> None:
    (tmp_path / name).touch()
    assert TextTable.find(tmp_path / name).format == format


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.json", r"unknown format 'json'; .*one object on each line.*\(--format\)"),
        ("a.xml", "unknown format 'xml'; known are csv, tsv, jsonl, parquet, lines; .*--format"),
        ("a.xlsx", "unknown format 'xlsx'"),
        ("reviews.2024", "unknown format '2024'"),
        ("a.csv.gz", r"a\.csv\.gz is compressed \(gzip\); decompress it first"),
        ("a.zst", r"compressed \(Zstandard\)"),
    ],
)
def test_text_table_unknown_suffix_raises(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text('{"text": "a"}\n')
    with pytest.raises(DataOptionError, match=message):
        TextTable.find(tmp_path / name)
    assert TextTable.find(tmp_path / name, format="lines").format == "lines"


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "lines"])
@pytest.mark.parametrize(
    ("pack", "kind"),
    [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz"), (lambda _: _zip(), "zip archive")],
)
def test_compressed_file_of_any_suffix_raises(
    tmp_path: Path, format: Any, pack: Callable[[bytes], bytes], kind: str
) -> None:
    (tmp_path / "a.csv").write_bytes(pack(b"text\nfine\n"))
    with pytest.raises(DataError, match=rf"a\.csv is .*{kind}"):
        list(TextTable.find(tmp_path / "a.csv", format=format).blocks(2))


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.csv", "text\nfine\n")
    return sink.getvalue()


def test_parquet_read_as_text_raises(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv is a Parquet file; name that with format="):
        list(TextTable.find(tmp_path / "a.csv").blocks(2))


def test_json_array_raises_with_the_fix(tmp_path: Path) -> None:
    for content in ('[{"text": "a"}]', '[\n {"text": "a"}\n]\n'):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=r"line 1: .*write each object of the array on its own line"):
            list(TextTable.find(tmp_path / "a.json", format="jsonl").blocks(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "csv", "delimiter": ";;"}, "delimiter=';;': use one character"),
        ({"format": "csv", "delimiter": '"'}, "delimiter='\"'"),
        ({"format": "csv", "delimiter": ""}, "delimiter=''"),
        ({"format": "tsv", "delimiter": ";"}, "delimiter=';' has no meaning for the format tsv"),
        ({"format": "lines", "delimiter": ";"}, "no meaning for the format lines"),
        ({"format": "parquet", "encoding": "cp1252"}, "encoding='cp1252' has no meaning for a Parquet file"),
        ({"format": "csv", "encoding": "klingon"}, "unknown encoding 'klingon'"),
        ({"format": "lines", "encoding": "rot13"}, "unknown encoding 'rot13'"),
        ({"format": "csv", "encoding": "a\0b"}, "unknown encoding"),
        ({"format": "xml"}, "unknown format 'xml'"),
    ],
)
def test_option_that_does_not_fit_raises(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "a").write_text("text\nfine\n")
    with pytest.raises(DataOptionError, match=message):
        TextTable.find(tmp_path / "a", **options)


# --- Where a file starts and ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize(("suffix", "content"), [("csv", "text,b\nfine,1\n"), ("jsonl", '{"text": "fine"}\n')])
def test_byte_order_mark_is_not_part_of_a_column_name(tmp_path: Path, encoding: str, suffix: str, content: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-8-sig") else "\ufeff"
    (tmp_path / f"a.{suffix}").write_bytes((mark + content).encode(encoding))
    table = TextTable.find(tmp_path / f"a.{suffix}", encoding=encoding)
    assert [text for block in table.blocks(2) for text in block.texts] == ["fine"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_file_of_byte_order_mark_only_is_empty(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeff".encode(encoding))
    with pytest.raises(DataError, match=r"a\.csv: the file is empty"):
        list(TextTable.find(tmp_path / "a.csv", encoding=encoding).blocks(2))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "utf-16-le"])
@pytest.mark.parametrize("rows", [1, 20_000])
def test_undecodable_byte_raises_with_its_position(tmp_path: Path, encoding: str, rows: int) -> None:
    before = ("text\n" + "fine\n" * rows).encode(encoding)
    bad = b"\x00\xdc" if encoding == "utf-16-le" else b"\xff"
    (tmp_path / "a.csv").write_bytes(before + bad + "\n".encode(encoding))
    with pytest.raises(DataError, match=rf"a\.csv: byte {len(before)} \(0x{bad[0]:02x}\) is not valid {encoding}"):
        list(TextTable.find(tmp_path / "a.csv", encoding=encoding).blocks(100))


def test_utf_16_without_byte_order_mark_raises(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text\nfine\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="does not start with BOM; name the right encoding"):
        list(TextTable.find(tmp_path / "a.csv", encoding="utf-16").blocks(2))


def test_delimiter_is_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id;text\n1;"a; b"\n2;c, d\n')
    with pytest.raises(DataOptionError, match=r"has no column 'text'.*if ';' separates the fields.* \(--delimiter\)"):
        list(TextTable.find(tmp_path / "in.csv").blocks(2))
    assert through(TextTable.find(tmp_path / "in.csv", delimiter=";"), tmp_path / "out.csv") == ["a; b", "c, d"]
    assert (tmp_path / "out.csv").read_text() == (
        'id;text;predicted_label;probability_good\n1;"a; b";good;0.25\n2;c, d;good;0.25\n'
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "lines"])
def test_pipe_is_read_once(tmp_path: Path, format: Any) -> None:
    sink = io.BytesIO()
    parquet.write_table(pa.table({"text": ["fine"]}), sink)
    contents = {"csv": b"text\nfine\n", "jsonl": b'{"text": "fine"}\n', "lines": b"fine\n", "parquet": sink.getvalue()}
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(contents[format],))
    writer.start()
    found = [text for block in TextTable.find(tmp_path / "pipe", format=format).blocks(2) for text in block.texts]
    writer.join()
    assert found == ["fine"]


def test_standard_input_is_read_in_the_given_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    given(b"one\ntwo\n")
    assert [block.texts for block in TextTable.find(Path("-")).blocks(5)] == [["one", "two"]]
    given(b'id;review\n1;"a; b"\n')
    table = TextTable.find(Path("-"), "csv", delimiter=";", text_column="review")
    assert [block.texts for block in table.blocks(5)] == [["a; b"]]
    given(b"id\n")
    with pytest.raises(DataOptionError, match="standard input has no column 'text'"):
        list(TextTable.find(Path("-"), "csv").blocks(5))
