"""Fuzz the readers under atheris, which looks for new branches: ``make fuzz``, or python -m tests.attacks.fuzz_readers.

Arguments are libFuzzer's, such as -max_total_time=600. A finding ends it, and is written to a file ``crash-*``.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ketfit", "tomllib", "json", "csv"]):
    from ketfit.errors import KetFitError
    from tests.attacks.readers import READERS, starts

NAMES = sorted(READERS)
STUDY = Path(__file__).parents[2] / "studies" / "results" / "paper" / "ablation" / "study.json"


def main() -> None:
    """Seed the corpus with one good file for each reader, whose number is the first byte, and never return."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, place = Path(folder, "corpus"), Path(folder, "place")
        corpus.mkdir()
        place.mkdir()
        for name, content in starts(STUDY.read_bytes()).items():
            (corpus / name).write_bytes(bytes([NAMES.index(name)]) + content)

        def one_input(data: bytes) -> None:
            if not data:
                return
            with contextlib.suppress(KetFitError):
                READERS[NAMES[data[0] % len(NAMES)]](place, data[1:])

        atheris.Setup([*sys.argv, str(corpus)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
