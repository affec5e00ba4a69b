"""``ketfit doctor``: what there is to work with."""

from __future__ import annotations

from ketfit.cli.options import AsJson
from ketfit.console import print_report, two_columns


def doctor(as_json: AsJson = False) -> None:
    """What is installed here, which engine runs, and what the machine can hold."""
    from ketfit.doctor import examine

    report = examine()
    print_report(report, as_json, two_columns(report))
