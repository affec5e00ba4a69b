"""Cases run in child processes with a limit on their memory and their time; a child that dies is a finding."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMORY = 512 * 2**20
"""Bytes that a child may take beyond what it starts with."""

CPU_SECONDS = 5.0
"""For one case; a child that works longer is interrupted."""

SILENT_SECONDS = 300.0
"""After so long without a word from a child, on however busy a machine, it hangs."""


@dataclass
class Report:
    """The results of all cases: counts of outcomes, findings, and the largest time and memory of a case."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: int = 0

    def add(self, done: dict[str, Any]) -> None:
        self.outcomes[f"{done['kind']}: {done['outcome']}"] += 1
        self.slowest = max(self.slowest, (done["seconds"], f"case {done['case']}, {done['kind']}"))
        self.largest = max(self.largest, done["growth"])
        if done["outcome"] == "finding":
            self.findings.append(f"case {done['case']}, {done['kind']}: {done['detail']}")


class TooSlow(BaseException):
    """The time of a case is over. Not an Exception, so that no handler of the library catches it."""


def run_cases(cases: range, run: Callable[[int], tuple[str, str, str]]) -> Report:
    """Run every case in a child of this process; after a case that kills its child a new child continues.

    Args:
        cases: Numbers.
        run: From a number to the kind of the case, its outcome, and what to tell if that is ``"finding"``.
    """
    report, rest = Report(), cases
    while rest:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _work(rest, run, writer)
        os.close(writer)
        begun, kind = _listen(reader, report, rest)
        os.close(reader)
        if begun is not None and kind == "silent":
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if begun is None and status == 0:
            break
        case = rest[0] if begun is None else begun
        report.findings.append(f"case {case}: the child {'hung' if kind == 'silent' else f'died (status {status})'}")
        rest = range(case + 1, cases.stop)
    return report


def _listen(reader: int, report: Report, cases: range) -> tuple[int | None, str]:
    """Read the messages of a child until it ends; return the unfinished case, if any, and the cause."""
    begun, text = None, b""
    while True:
        if not select.select([reader], [], [], SILENT_SECONDS)[0]:
            return cases[0] if begun is None else begun, "silent"
        block = os.read(reader, 2**16)
        if not block:
            return begun, "ended"
        *lines, text = (text + block).split(b"\n")
        for line in lines:
            done = json.loads(line)
            begun = done["case"] if "kind" not in done else None
            if "kind" in done:
                report.add(done)


def _work(cases: range, run: Callable[[int], tuple[str, str, str]], writer: int) -> None:
    """Run the cases in the child and report the start and end of each; never return."""
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, _interrupt)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in cases:
            _tell(writer, {"case": case})
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            try:
                kind, outcome, detail = run(case)
            except TooSlow:
                kind, outcome, detail = "?", "finding", f"took more than {CPU_SECONDS:g} s"
            signal.setitimer(signal.ITIMER_PROF, 0)
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            seconds = time.process_time() - start
            facts = {"kind": kind, "outcome": outcome, "detail": detail[:2000], "seconds": seconds, "growth": growth}
            _tell(writer, {"case": case, **facts})
    except BaseException as error:
        os.write(2, f"the child failed: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def _tell(writer: int, facts: dict[str, Any]) -> None:
    os.write(writer, json.dumps(facts).encode() + b"\n")


def _interrupt(*_: object) -> None:
    raise TooSlow
