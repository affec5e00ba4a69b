"""A run of a trained head on a backend: submit, look, fetch, cancel. Each may be another process, on another day.

A run's folder has all that it takes: ``plan.json`` and ``inputs.safetensors`` (the encoders' output for every sentence
and the trained numbers), the ledger, and at the end ``predictions.json``. Neither model, body nor sentences are asked
again after the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ketfit.errors import LedgerError, ResultsPendingError
from ketfit.evaluation.compare import accuracy_interval
from ketfit.hardware.backends.base import Backend, JobStatus, backend_identity
from ketfit.hardware.backends.registry import load_backend
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import estimate
from ketfit.hardware.runs.ledger import LedgerState, read_ledger_state
from ketfit.hardware.runs.plan import PreparedRun, RunPlan, read_plan
from ketfit.hardware.runs.postprocessing import ShotPredictions, postprocess
from ketfit.hardware.runs.session import Budget, Session, plan_submissions, result_key
from ketfit.rng import torch_stream
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import dump_json

PREDICTIONS = "predictions.json"


def open_session(
    folder: Path, plan: RunPlan, backend: Backend | None = None, patience: RetryPolicy | None = None
) -> Session:
    """The session of a run.

    Args:
        folder: The run's folder.
        plan: Its plan.
        backend: In the place of the one that the plan names; it has to be the same machine with the same options.
        patience: How questions are asked again.

    Raises:
        LedgerError: another process has the run, or the backend is another one.
    """
    if backend is None:
        backend = load_backend(plan.backend, folder, plan.options, seed=plan.seed)
    found = backend_identity(backend.describe())
    if found != plan.described:
        raise LedgerError(f"{folder} was planned for {plan.described}, and the backend is {found}; results do not mix")
    return Session(
        folder,
        backend,
        plan.run_id,
        patience or RetryPolicy(),
        device=plan.device,
        budget=Budget(money=plan.max_cost),
        mitigated=plan.is_mitigated_by_provider,
    )


@dataclass(frozen=True)
class RunProgress:
    """How far a run is: circuits with results, and jobs by where they are."""

    circuits: int
    planned: int
    jobs: dict[str, int]
    unresolved: int
    price: float | None
    currency: str | None
    failures: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every circuit has its result."""
        return self.circuits == self.planned


def submit_run(
    folder: Path, backend: Backend | None = None, *, again: bool = False, patience: RetryPolicy | None = None
) -> RunProgress:
    """Submit what is missing of a run. Nothing that is under way or has a result is sent again.

    Raises:
        LedgerError: the plan's price or gates are no longer what this backend's compiler makes of it.
        CostLimitError, SubmissionStateUnknownError, BackendError: as in `Session.submit`.
    """
    planned = read_plan(folder)
    with open_session(folder, planned.plan, backend, patience) as session:
        if not session.ledger.account.batches:
            _check_gates(planned, session)
        session.submit(planned.circuits, planned.plan.shots, again=again)
    return run_status(folder)


def _check_gates(planned: PreparedRun, session: Session) -> None:
    """Refuse to send what is not what was planned, which another version of a compiler could make of it."""
    plan = planned.plan
    keys = [session.key(circuit, plan.shots) for circuit in planned.circuits]
    batches = plan_submissions(
        list(dict(zip(keys, planned.circuits, strict=True)).values()), session.description.limits.circuits
    )
    gates = [each for batch in batches for each in session.backend.count_gates(batch)]
    now = estimate(gates, plan.shots, plan.device, mitigated=plan.is_mitigated_by_provider)
    if now != plan.cost:
        raise LedgerError(
            f"{session.folder} was planned as {plan.cost}, and would now be {now}: the compiler has changed; plan anew"
        )


def run_status(folder: Path) -> RunProgress:
    """How far a run is, from its folder alone; it may be asked at any time."""
    planned = read_plan(folder)
    return _progress(planned, read_ledger_state(folder))


def _progress(planned: PreparedRun, account: LedgerState) -> RunProgress:
    plan = planned.plan
    keys = {result_key(circuit, plan.shots, plan.described) for circuit in planned.circuits}
    jobs: dict[str, int] = {}
    for batch in account.batches:
        where = batch.ended or ("unresolved" if batch.is_unresolved else "under way")
        jobs[where] = jobs.get(where, 0) + 1
    prices = [batch.price for batch in account.batches if batch.is_paid]
    return RunProgress(
        circuits=len(keys & account.results.keys()),
        planned=len(keys),
        jobs=jobs,
        unresolved=len(account.unresolved),
        price=None if any(price is None for price in prices) else sum(price or 0.0 for price in prices),
        currency=plan.cost.currency,
        failures=tuple(f"batch {b.number}: {b.reason}" for b in account.batches if b.reason is not None),
    )


def cancel_run(
    folder: Path, backend: Backend | None = None, patience: RetryPolicy | None = None
) -> dict[str, JobStatus]:
    """Ask for the end of all that is under way; where each job is then."""
    planned = read_plan(folder)
    with open_session(folder, planned.plan, backend, patience) as session:
        return session.cancel()


def fetch_run(
    folder: Path, backend: Backend | None = None, *, wait_s: float = 0.0, patience: RetryPolicy | None = None
) -> dict[str, Any]:
    """Fetch what is there; when all is, write ``predictions.json`` and give its content.

    Args:
        folder: The run's folder.
        backend: As in `open_session`.
        wait_s: Seconds to wait for what is still under way.
        patience: As in `open_session`.

    Raises:
        ResultsPendingError: something has no result yet; what came is in the ledger.
        ResultError, JobFailedError, SubmissionStateUnknownError, BackendError: as in `Session.fetch`.
    """
    planned = read_plan(folder)
    plan = planned.plan
    with open_session(folder, plan, backend, patience) as session:

        def done() -> bool:
            session.fetch()
            return not session.ledger.account.waiting

        session.patience.wait_until(done, wait_s)
        progress = _progress(planned, session.ledger.account)
        if not progress.is_complete:
            raise ResultsPendingError(
                f"{progress.circuits} of {progress.planned} circuits have results; jobs: {progress.jobs or 'none'}. "
                f"Fetch again later; what was never accepted or failed is sent with ketfit hardware submit {folder}"
            )
        counts = session.counts(planned.circuits, plan.shots)
    chance = torch_stream(plan.seed, "shots")
    reading = postprocess(planned.measurement, planned.linear, planned.z, counts, plan.shots, chance)
    report = _report(plan, reading)
    write_file(folder / PREDICTIONS, (dump_json(report, "the predictions") + "\n").encode())
    return report


def _report(plan: RunPlan, reading: ShotPredictions) -> dict[str, Any]:
    best = reading.probabilities.argmax(dim=1).tolist()
    predictions = [
        {
            "label": plan.classes[index],
            "probabilities": reading.probabilities[row].tolist(),
            "low": reading.interval[0, row].tolist(),
            "high": reading.interval[1, row].tolist(),
            "stability": float(reading.stability[row]),
            "z": reading.values[row].tolist(),
        }
        for row, index in enumerate(best)
    ]
    report: dict[str, Any] = {
        "backend": plan.described["backend"],
        "shots": plan.shots,
        "sentences": plan.sentences,
        "classes": plan.classes,
        "mean_stability": float(reading.stability.mean()),
    }
    if plan.labels is not None:
        correct = sum(plan.classes[index] == label for index, label in zip(best, plan.labels, strict=True))
        accuracy, interval = accuracy_interval(correct, plan.sentences)
        report |= {"accuracy": accuracy, "interval": list(interval)}
    return {**report, "predictions": predictions}
