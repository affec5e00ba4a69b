"""The report of a study: ``report.html``, to be read, and ``summary.json``, the same numbers for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ketfit.errors import MissingExtraError

REPORT, SUMMARY = "report.html", "summary.json"


def write_report(folder: Path) -> dict[str, Any]:
    """Analyse the rows that a study's folder has, and write ``report.html`` and ``summary.json`` into it.

    The folder is all it takes, and the same folder makes the same files. A study that is not finished is reported as
    far as it is.

    Returns:
        The content of ``summary.json``.

    Raises:
        StudyError: the folder holds no study, or a damaged one.
        StorageError: the files cannot be written; older ones are untouched.
        MissingExtraError: Matplotlib or statsmodels is not installed.
    """
    try:
        from ketfit.study.report.render import make_page
    except ImportError as error:
        raise MissingExtraError("Writing a report", "'ketfit[study]'") from error
    from ketfit.storage.atomic import check_writable_file, write_file
    from ketfit.study.analysis.analysis import analyse
    from ketfit.study.report.summary import summary_sentences
    from ketfit.study.store import StudyRecord, read_results

    record, rows = StudyRecord.read(folder), read_results(folder)
    check_writable_file(folder / SUMMARY)
    check_writable_file(folder / REPORT)
    analysis = analyse(record, rows)
    answer = summary_sentences(analysis)
    summary = {**analysis.to_json(), "answer": answer}
    write_file(folder / SUMMARY, (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
    write_file(folder / REPORT, make_page(record, analysis, answer).encode())
    return summary
