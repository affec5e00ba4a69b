"""The exceptions and warnings of KetFit.

::

    KetFitError
    ├── ConfigError          a setting that is unknown, out of range, or does not fit the others  (ValueError)
    ├── CircuitError         a gate, an angle or a circuit that cannot exist                      (ValueError)
    ├── InputError           an array of the wrong shape, type or content                         (ValueError)
    ├── DataError            a data set that cannot be read or used                               (ValueError)
    │   └── DataOptionError          an option of reading, splitting or writing it that does not fit it
    ├── BodyError            a sentence transformer that cannot be found, trusted or run          (RuntimeError)
    ├── TrainingError        training that diverged or cannot be resumed                          (RuntimeError)
    ├── StudyError           a study's folder, cluster or workers that cannot be used             (RuntimeError)
    ├── ClusterError         a Ray cluster that cannot be reached, or whose workers were lost     (RuntimeError)
    ├── EnergyMeterError     an energy counter that is missing or cannot be read                  (RuntimeError)
    ├── ModelFileError       a saved model that is missing, damaged or of another version         (ValueError)
    ├── StorageError         a file that could not be written                                     (OSError)
    ├── HardwareError        a run on a backend that cannot continue                              (RuntimeError)
    │   ├── BackendError             the provider, or the connection to it
    │   │   ├── TransientError           a temporary error: queries may be repeated, submissions never
    │   │   │   ├── RateLimitError           too many requests; this one was not accepted
    │   │   │   ├── BackendTimeoutError      no response in time
    │   │   │   ├── ServerError              a response of status 5xx
    │   │   │   └── ConnectionLostError      the connection broke or could not be opened
    │   │   ├── RequestRejectedError     the provider rejected the request
    │   │   ├── UnknownStatusError       a response that this version does not know
    │   │   └── JobFailedError           a job that failed or was cancelled
    │   ├── ResultError              a result that is not trustworthy
    │   │   ├── PartialResultError       counts for some of the circuits only
    │   │   ├── WrongCountsError         counts that do not sum to the shots or do not fit the qubits
    │   │   └── CanaryError              the canary circuit gave another outcome than the known one
    │   ├── LedgerError              a run's folder or ledger that is in use, damaged, or of another run
    │   ├── SubmissionStateUnknownError  it is unknown whether a submission was accepted
    │   │   └── OpenDuplicatesError      several jobs for one submission, of which some have not ended
    │   ├── ResultsPendingError      results that are not available yet
    │   └── CostLimitError           more than the limit on money, circuits or shots allows
    ├── DistributedError     a process of a distributed state that was lost                       (RuntimeError)
    ├── InsufficientMemoryError  states that the free memory cannot hold                          (MemoryError)
    └── MissingExtraError    an optional dependency that is not installed                         (ImportError)

The built-in in brackets is a second base, so that ``except ValueError`` keeps working for callers who do not
know this library. Every message names the cause and what to do about it. Warnings are of the class
`KetFitWarning`, a UserWarning: `ConfigWarning` and `DataWarning`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class KetFitError(Exception):
    """Base class of the exceptions of KetFit."""


class ConfigError(KetFitError, ValueError):
    """A setting is unknown, out of range, or does not fit the others."""


class CircuitError(KetFitError, ValueError):
    """A gate, an angle or a circuit cannot exist as described."""


class InputError(KetFitError, ValueError):
    """An array has the wrong shape, type or content."""


class DataError(KetFitError, ValueError):
    """A data set cannot be read or used."""


class DataOptionError(DataError):
    """An option of reading, splitting or writing a data set is unknown or does not fit the data set."""


class BodyError(KetFitError, RuntimeError):
    """A sentence transformer cannot be found, is invalid, or failed to embed."""


class TrainingError(KetFitError, RuntimeError):
    """Training diverged, or a checkpoint belongs to another run."""


class StudyError(KetFitError, RuntimeError):
    """A study cannot continue: its folder is in use or damaged, its cluster is unreachable, or its workers died."""


class ClusterError(KetFitError, RuntimeError):
    """A Ray cluster cannot be reached, has no free worker, or lost work too often."""


class EnergyMeterError(KetFitError, RuntimeError):
    """An energy counter is missing or cannot be read."""


class ModelFileError(KetFitError, ValueError):
    """A saved model is missing, damaged, or written by another version of the format."""


class StorageError(KetFitError, OSError):
    """A file could not be written; an earlier file at its path is unchanged."""


class HardwareError(KetFitError, RuntimeError):
    """Base class of the errors of runs on a backend."""


class BackendError(HardwareError):
    """A provider, or the connection to it, failed."""


class TransientError(BackendError):
    """A temporary error. Queries may be repeated; submissions never, because they may have been accepted.

    Args:
        message: The failed request.
        retry_after_s: Seconds to wait before the next request; None if the provider named none.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitError(TransientError):
    """Too many requests; the request was not accepted."""


class BackendTimeoutError(TransientError):
    """The provider did not respond in time."""


class ServerError(TransientError):
    """The provider reported a failure (5xx)."""


class ConnectionLostError(TransientError):
    """The connection broke or could not be opened."""


class RequestRejectedError(BackendError):
    """The provider rejected the request: for its key, permission, budget or a field."""


class UnknownStatusError(BackendError):
    """The provider sent a response that this version does not know."""


class JobFailedError(BackendError):
    """A job ended without a result: it failed or was cancelled."""


class ResultError(HardwareError):
    """A result is not trustworthy; it stays in the ledger and is not used."""


class PartialResultError(ResultError):
    """Only some of the circuits have counts."""


class WrongCountsError(ResultError):
    """Counts do not sum to the shots, or outcomes are not bit strings of the measured qubits."""


class CanaryError(ResultError):
    """The canary circuit, whose outcome is known, gave another outcome."""


class LedgerError(HardwareError):
    """A run's folder or ledger is in use, damaged, or belongs to something else."""


class SubmissionStateUnknownError(HardwareError):
    """It is unknown whether a submission was accepted; nothing else is submitted until it is known."""


class OpenDuplicatesError(SubmissionStateUnknownError):
    """The provider has several jobs for one submission, of which some have not ended and can still be cancelled."""


class ResultsPendingError(HardwareError):
    """Results are not available yet."""


class CostLimitError(HardwareError):
    """A run exceeds the limit of cost, circuits or shots; nothing was sent."""


class DistributedError(KetFitError, RuntimeError):
    """A rank of a distributed run was lost."""


class InsufficientMemoryError(KetFitError, MemoryError):
    """A computation needs more memory than is free; nothing was allocated."""


class KetFitWarning(UserWarning):
    """Base class of the warnings of KetFit; the command line prints each as one line on stderr."""


class ConfigWarning(KetFitWarning):
    """A setting is unsuitable for the data; the message names it."""


class DataWarning(KetFitWarning):
    """Data are probably not as intended."""


class MissingExtraError(KetFitError, ImportError):
    """An optional dependency is not installed. The message carries the pip line that installs it.

    Args:
        purpose: What it is needed for, as the start of a sentence.
        install: The arguments of ``pip install``.
    """

    def __init__(self, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs a package that is not installed: pip install {install}")
        self._given = purpose, install

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), self._given  # an exception is pickled as its message otherwise, which is one argument


@contextmanager
def optional_imports(purpose: str, extra: str) -> Iterator[None]:
    """Raise `MissingExtraError` if an import in the block fails.

    Args:
        purpose: What the packages are needed for, as the start of a sentence.
        extra: The extra of KetFit that installs them.

    >>> with optional_imports("A plot", "draw"):
    ...     import no_such_package
    Traceback (most recent call last):
    ketfit.errors.MissingExtraError: A plot needs a package that is not installed: pip install 'ketfit[draw]'
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(purpose, f"'ketfit[{extra}]'") from error
