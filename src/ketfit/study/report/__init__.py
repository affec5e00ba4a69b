"""The report of a study: ``report.html`` for readers and ``summary.json`` with the same numbers for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ketfit.errors import MissingExtraError

REPORT, SUMMARY = "report.html", "summary.json"


def write_report(folder: Path) -> dict[str, Any]:
    """Analyse the results in a study's folder and write ``report.html`` and ``summary.json`` into it.

    The files depend on the folder only. An unfinished study is reported with the results it has.

    Returns:
        The content of ``summary.json``.

    Raises:
        StudyError: The folder contains no study, or a damaged one.
        StorageError: The files cannot be written; older files are unchanged.
        MissingExtraError: Matplotlib is not installed, or statsmodels, which estimates the effects of a design.
    """
    try:
        from ketfit.study.report.render import make_page
    except ImportError as error:
        raise MissingExtraError("Writing a report", "'ketfit[study]'") from error
    from ketfit.storage.atomic import check_writable_file, write_file
    from ketfit.study.analysis.analysis import analyse
    from ketfit.study.report.summary import summary_sentences
    from ketfit.study.store import StudyRecord, read_results

    record, results = StudyRecord.read(folder), read_results(folder)
    check_writable_file(folder / SUMMARY)
    check_writable_file(folder / REPORT)
    analysis = analyse(record, results)
    answer = summary_sentences(analysis)
    summary = {**analysis.to_json(), "answer": answer}
    write_file(folder / SUMMARY, (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
    write_file(folder / REPORT, make_page(record, analysis, answer).encode())
    return summary
