"""Jobs of backends that compute at once, stored as files in a folder: one process submits, another fetches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ketfit.errors import LedgerError, RequestRejectedError, StorageError, WrongCountsError
from ketfit.hardware.backends.base import Counts, Description, JobStatus
from ketfit.integers import as_integer
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import parse_json


class LocalJobStore:
    """A base class of backends whose jobs are done as soon as they are submitted. A subclass sets `_description`.

    Args:
        folder: Folder of the job files; created if it is missing.
    """

    _description: Description

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self) -> Description:
        """Return the backend's name, options and limits."""
        return self._description

    def next_number(self) -> int:
        """Return the number of the next job, from 0."""
        return len(self._names())

    def save(self, number: int, tag: str, shots: int, counts: Sequence[Counts]) -> str:
        """Store the counts of a job and return its id.

        Raises:
            WrongCountsError: A count is no whole number.
        """
        job = f"job-{number:06d}"
        plain = [
            {bits: as_integer(count, f"the count of {bits}", error=WrongCountsError) for bits, count in row.items()}
            for row in counts
        ]
        content = {"tag": tag, "shots": as_integer(shots, "shots"), "counts": plain}
        write_file(self.folder / f"{job}.json", json.dumps(content).encode())
        return job

    def status(self, job: str) -> JobStatus:
        """Return DONE; local jobs finish on submit."""
        self._job(job)
        return JobStatus.DONE

    def result(self, job: str) -> Sequence[Counts]:
        """Return the stored counts of a job."""
        counts: Sequence[Counts] = self._job(job)["counts"]
        return counts

    def cancel(self, job: str) -> None:
        """Check that the job exists; local jobs finish on submit."""
        self._job(job)

    def jobs(self, tag: str) -> list[str]:
        """Return the ids of the jobs in the folder with this tag."""
        return [name for name in self._names() if self._job(name)["tag"] == tag]

    def _names(self) -> list[str]:
        try:
            return sorted(path.stem for path in self.folder.glob("job-*.json")) if self.folder.exists() else []
        except OSError as error:
            raise StorageError(f"cannot read {self.folder}: {error.strerror or error}") from error

    def _job(self, job: str) -> dict[str, Any]:
        path = self.folder / f"{job}.json"
        if path.name != f"{job}.json" or not path.is_file():
            raise RequestRejectedError(f"{self.folder} has no job {job!r}")
        try:
            content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LedgerError(f"{path} is damaged: {error}") from error
        return content
