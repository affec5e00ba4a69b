"""Every exception and warning that KetFit raises on purpose.

::

    KetFitError
    ├── ConfigError          a setting that is unknown, out of range, or does not fit the others   (ValueError)
    ├── CircuitError         a gate, an angle or a circuit that cannot exist                       (ValueError)
    ├── InputError           an array of the wrong shape, type or content                          (ValueError)
    ├── DataError            a data set that cannot be read or used                                (ValueError)
    │   └── DataOptionError          an option of reading, splitting or writing it that does not fit it
    ├── BodyError            a sentence transformer that cannot be found, trusted or run           (RuntimeError)
    ├── TrainingError        training that diverged or cannot be resumed                           (RuntimeError)
    ├── StudyError           a study's folder, cluster or workers that cannot be used               (RuntimeError)
    ├── EnergyMeterError           a counter of energy that is not there or cannot be read                (RuntimeError)
    ├── ModelFileError       a saved model that is missing, damaged or of another version          (ValueError)
    ├── StorageError         a file that could not be written                                      (OSError)
    ├── HardwareError        a run on a backend that cannot go on                                  (RuntimeError)
    │   ├── BackendError             the provider, or the way to it
    │   │   ├── TransientError           what may pass: a question may be asked again, a submission never
    │   │   │   ├── RateLimitError           too many requests; this one was not accepted
    │   │   │   ├── BackendTimeoutError      no answer in time
    │   │   │   ├── ServerError              an answer of 5xx
    │   │   │   └── ConnectionLostError      the connection broke, or there was none
    │   │   ├── RequestRejectedError             the request was not accepted, and will not be as it is
    │   │   ├── UnknownStatusError       an answer that this version does not understand
    │   │   └── JobFailedError           a job that failed or was cancelled
    │   ├── ResultError              a result that cannot be trusted
    │   │   ├── PartialResultError       counts for some of the circuits only
    │   │   ├── WrongCountsError         counts that do not sum to the shots, or are none of these qubits
    │   │   └── CanaryError              a circuit with a known answer came back with another
    │   ├── LedgerError              a run's folder or ledger that is taken, damaged, or of something else
    │   ├── SubmissionStateUnknownError    a submission of which nobody knows yet whether it was accepted
    │   ├── ResultsPendingError            results that are not there yet
    │   └── CostLimitError           more than the limit on money, circuits or shots allows
    ├── InsufficientMemoryError  states that the free memory cannot hold                           (MemoryError)
    └── MissingExtraError    an optional dependency that is not installed                          (ImportError)

The built-in in brackets is a second base, so that ``except ValueError`` keeps working for callers who do not
know this library. Every message names the thing at fault and what to do about it. Warnings are of the class
`KetFitWarning`, a UserWarning: `ConfigWarning` and `DataWarning`.
"""

from __future__ import annotations


class KetFitError(Exception):
    """Base of every exception raised on purpose by KetFit."""


class ConfigError(KetFitError, ValueError):
    """A setting is unknown, out of range, or does not fit the others."""


class CircuitError(KetFitError, ValueError):
    """A gate, an angle or a circuit cannot exist as described."""


class InputError(KetFitError, ValueError):
    """An array has the wrong shape, type or content."""


class DataError(KetFitError, ValueError):
    """A data set cannot be read, or cannot be used for what was asked."""


class DataOptionError(DataError):
    """An option of reading, splitting or writing a data set is unknown or does not fit the data set."""


class BodyError(KetFitError, RuntimeError):
    """A sentence transformer cannot be found, is not what it should be, or failed to embed."""


class TrainingError(KetFitError, RuntimeError):
    """Training diverged, or a checkpoint does not belong to the run that wants to resume from it."""


class StudyError(KetFitError, RuntimeError):
    """A study cannot go on: its folder is taken or damaged, its cluster cannot be reached, or its workers died."""


class EnergyMeterError(KetFitError, RuntimeError):
    """A counter of energy is not there, or cannot be read; no constant stands in for it."""


class ModelFileError(KetFitError, ValueError):
    """A saved model is missing, damaged, or written by another version of the format."""


class StorageError(KetFitError, OSError):
    """A file could not be written; whatever stood at its place before is untouched."""


class HardwareError(KetFitError, RuntimeError):
    """A run on a backend cannot go on. Base of the errors below."""


class BackendError(HardwareError):
    """A provider, or the way to it, failed."""


class TransientError(BackendError):
    """It may pass. A question may be asked again; a submission never, since it may have been accepted."""


class RateLimitError(TransientError):
    """Too many requests. This one was not accepted, even if it was a submission.

    Args:
        message: What was asked.
        retry_after_s: Seconds that the provider wants to be left alone; None if it did not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BackendTimeoutError(TransientError):
    """No answer came in time."""


class ServerError(TransientError):
    """The provider answered that it failed (5xx)."""


class ConnectionLostError(TransientError):
    """The connection broke, or could not be made."""


class RequestRejectedError(BackendError):
    """The provider did not accept the request and will not as it is: a key, a right, a budget, a field."""


class UnknownStatusError(BackendError):
    """The provider's answer is none that this version understands."""


class JobFailedError(BackendError):
    """A job ended without a result: it failed or was cancelled."""


class ResultError(HardwareError):
    """A result that cannot be trusted. It is kept in the ledger, and used for nothing."""


class PartialResultError(ResultError):
    """There are counts for some of the circuits only."""


class WrongCountsError(ResultError):
    """Counts that do not sum to the shots, or whose outcomes are not bit strings of the measured qubits."""


class CanaryError(ResultError):
    """The circuit whose answer is known came back with another answer."""


class LedgerError(HardwareError):
    """A run's folder or ledger is in use, damaged, or belongs to something else."""


class SubmissionStateUnknownError(HardwareError):
    """Nobody knows yet whether a submission was accepted; nothing else is submitted until that is known."""


class ResultsPendingError(HardwareError):
    """Results are not there yet."""


class CostLimitError(HardwareError):
    """It would take more money, circuits or shots than the limit allows; nothing was sent."""


class InsufficientMemoryError(KetFitError, MemoryError):
    """A computation needs more memory than is free; nothing was allocated."""


class KetFitWarning(UserWarning):
    """Base of every warning that KetFit gives on purpose; the command line prints each as one line on stderr."""


class ConfigWarning(KetFitWarning):
    """Settings can hardly work for these data; the message names the one to change."""


class DataWarning(KetFitWarning):
    """Data are probably not what was meant."""


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
