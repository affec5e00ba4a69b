"""A run of a trained head on a backend: submit, status, fetch, cancel. Each step may be another process, days later.

The folder of a run holds all that these steps need: ``plan.json``, ``inputs.safetensors`` (the encoders' output for
every sentence and the trained parameters), the ledger and at the end ``predictions.json``. The model, the body and the
sentences are not needed after the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ketfit.errors import LedgerError, ResultsPendingError
from ketfit.evaluation.compare import accuracy_interval
from ketfit.hardware.backends.base import Backend, JobStatus, backend_identity
from ketfit.hardware.backends.registry import load_backend
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.runs.jobs import Budget, result_key
from ketfit.hardware.runs.ledger import LedgerState, describe_duplicates, read_ledger_state
from ketfit.hardware.runs.plan import PreparedRun, RunPlan, read_plan
from ketfit.hardware.runs.postprocessing import ShotPredictions, postprocess
from ketfit.hardware.runs.session import Session
from ketfit.rng import torch_stream
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import dump_json

PREDICTIONS = "predictions.json"


def open_session(
    folder: Path, plan: RunPlan, backend: Backend | None = None, retry: RetryPolicy | None = None
) -> Session:
    """Open the session of a run.

    Args:
        folder: Folder of the run.
        plan: Plan of the run.
        backend: Replaces the backend that the plan names; it must be the same machine with the same options.
        retry: Retry policy for calls that buy nothing.

    Raises:
        LedgerError: Another process has the run open, or the backend is another one.
    """
    if backend is None:
        backend = load_backend(plan.backend, folder, plan.options, seed=plan.seed)
    identity = backend_identity(backend.describe())
    if identity != plan.described:
        raise LedgerError(
            f"{folder} was planned for {plan.described}, and the backend is {identity}; results do not mix"
        )
    return Session(
        folder,
        backend,
        plan.run_id,
        retry or RetryPolicy(),
        device=plan.device,
        budget=Budget(money=plan.max_cost),
    )


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        circuits: Number of circuits with results.
        planned: Number of circuits.
        jobs: Number of submissions in each state.
        unresolved: Number of submissions of which it is unknown whether they were accepted.
        price: Price of all jobs, those of `duplicates` included; None if it is unknown.
        currency: Currency of the price.
        failures: Submissions without a usable result, each with the reason.
        duplicates: Submissions for which the provider has more than one job, each with what the others cost.
    """

    circuits: int
    planned: int
    jobs: dict[str, int]
    unresolved: int
    price: float | None
    currency: str | None
    failures: tuple[str, ...]
    duplicates: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """True if every circuit has its result."""
        return self.circuits == self.planned


def submit_run(
    folder: Path, backend: Backend | None = None, *, again: bool = False, retry: RetryPolicy | None = None
) -> RunProgress:
    """Submit the circuits of a run that are missing. Open jobs and circuits with results are never sent again.

    Args:
        folder: Folder of the run.
        backend: As in `open_session`.
        again: Buy again what failed, was cancelled or was rejected.
        retry: As in `open_session`.

    Raises:
        LedgerError, CostLimitError, SubmissionStateUnknownError, BackendError: As in `Session.submit`.
    """
    with open_session(folder, read_plan(folder).plan, backend, retry) as session:
        prepared = read_plan(folder)  # under the lock of the session, no other process can replace it
        if prepared.plan.run_id != session.run_id:
            raise LedgerError(f"{folder} was planned anew by another process; check the new plan and submit again")
        session.submit(prepared.circuits, prepared.plan.shots, again=again, planned=prepared.plan.cost)
        return _progress(prepared, session.ledger.state)


def run_status(folder: Path) -> RunProgress:
    """Return the progress of a run from its folder; it can be called at any time and contacts nobody."""
    return _progress(read_plan(folder), read_ledger_state(folder))


def _progress(prepared: PreparedRun, state: LedgerState) -> RunProgress:
    plan = prepared.plan
    keys = {result_key(circuit, plan.shots, plan.described) for circuit in prepared.circuits}
    return RunProgress(
        circuits=len(keys & state.results.keys()),
        planned=len(keys),
        jobs=dict(
            Counter(each.ended or ("unresolved" if each.is_unresolved else "under way") for each in state.submissions)
        ),
        unresolved=len(state.unresolved),
        price=state.price,
        currency=plan.cost.currency,
        failures=tuple(
            f"submission {each.number}: {each.reason}" for each in state.submissions if each.reason is not None
        ),
        duplicates=tuple(
            describe_duplicates(each, plan.cost.currency) for each in state.submissions if each.duplicates
        ),
    )


def cancel_run(folder: Path, backend: Backend | None = None, retry: RetryPolicy | None = None) -> dict[str, JobStatus]:
    """Cancel all open jobs of a run, and return the status of each.

    Args:
        folder: Folder of the run.
        backend: As in `open_session`.
        retry: As in `open_session`.
    """
    prepared = read_plan(folder)
    with open_session(folder, prepared.plan, backend, retry) as session:
        return session.cancel()


def fetch_run(
    folder: Path, backend: Backend | None = None, *, wait_s: float = 0.0, retry: RetryPolicy | None = None
) -> dict[str, Any]:
    """Fetch the available results. Once all are there, write ``predictions.json`` and return its content.

    Args:
        folder: Folder of the run.
        backend: As in `open_session`.
        wait_s: Seconds to wait for open jobs.
        retry: As in `open_session`.

    Raises:
        ResultsPendingError: Some circuits have no result yet; the results that came are in the ledger.
        ResultError, JobFailedError, SubmissionStateUnknownError, BackendError: As in `Session.fetch`.
    """
    prepared = read_plan(folder)
    plan = prepared.plan
    with open_session(folder, plan, backend, retry) as session:
        session.fetch_until(wait_s)
        progress = _progress(prepared, session.ledger.state)
        if not progress.is_complete:
            raise ResultsPendingError(
                f"{progress.circuits} of {progress.planned} circuits have results; jobs: {progress.jobs or 'none'}. "
                f"Fetch again later; what was never accepted is sent with ketfit hardware submit {folder}, and what "
                "failed, was cancelled or was rejected is bought again if --again is added"
            )
        counts = session.counts(prepared.circuits, plan.shots)
    generator = torch_stream(plan.seed, "shots")
    report = _report(
        plan,
        postprocess(
            prepared.measurement, prepared.output_layer, prepared.encoder_expectations, counts, plan.shots, generator
        ),
        progress.duplicates,
    )
    write_file(folder / PREDICTIONS, (dump_json(report, "the predictions") + "\n").encode())
    return report


def _report(plan: RunPlan, predicted: ShotPredictions, duplicates: Sequence[str]) -> dict[str, Any]:
    best = predicted.probabilities.argmax(dim=1).tolist()
    readout = plan.head.readout
    values = "z" if readout is None else "expectations"
    predictions = [
        {
            "label": plan.classes[index],
            "probabilities": predicted.probabilities[row].tolist(),
            "low": predicted.interval[0, row].tolist(),
            "high": predicted.interval[1, row].tolist(),
            "stability": float(predicted.stability[row]),
            values: predicted.expectations[row].tolist(),
        }
        for row, index in enumerate(best)
    ]
    report: dict[str, Any] = {
        "backend": plan.described["backend"],
        "shots": plan.shots,
        "sentences": plan.sentences,
        "classes": plan.classes,
        "mean_stability": float(predicted.stability.mean()),
    }
    if readout is not None:
        report["readout"] = list(readout)
    if plan.labels is not None:
        correct = sum(plan.classes[index] == label for index, label in zip(best, plan.labels, strict=True))
        accuracy, interval = accuracy_interval(correct, plan.sentences)
        report |= {"accuracy": accuracy, "interval": list(interval)}
    if duplicates:
        report["duplicates"] = list(duplicates)
    return {**report, "predictions": predictions}
