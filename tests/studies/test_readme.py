"""Test that the sentences of the README are those that the committed studies used."""

from __future__ import annotations

import json
import re

from paper_claims import HERE, RESULTS_FOLDER

FILE = re.compile(r"\| `(?P<name>\w+\.tsv)`.*? \| (?P<size>[\d,]+) \|.*\| `(?P<fingerprint>[0-9a-f]{16})` \|")


def test_fingerprints_and_sizes_are_those_of_the_studies() -> None:
    found = {
        (each["name"], each["fingerprint"][:16]): each["size"]
        for each in (json.loads(path.read_text())["data"] for path in RESULTS_FOLDER.rglob("study.json"))
    }
    written = {
        (each["name"], each["fingerprint"]): int(each["size"].replace(",", ""))
        for each in FILE.finditer((HERE / "README.md").read_text(encoding="utf-8"))
    }
    bundled = {key: size for key, size in found.items() if key[0] == "rotten-tomatoes"}
    assert written | bundled == found and len(written) == 4
