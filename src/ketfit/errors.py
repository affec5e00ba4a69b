"""Every exception that KetFit raises on purpose.

::

    KetFitError
    ├── ConfigError          a setting that is unknown, out of range, or does not fit the others   (ValueError)
    ├── CircuitError         a gate, an angle or a circuit that cannot exist                       (ValueError)
    ├── InputError           an array of the wrong shape, type or content                          (ValueError)
    ├── DataError            a data set that cannot be read or used                                (ValueError)
    ├── BodyError            a sentence transformer that cannot be found, trusted or run           (RuntimeError)
    ├── TrainingError        training that diverged or cannot be resumed                           (RuntimeError)
    ├── StudyError           a study's folder, cluster or workers that cannot be used               (RuntimeError)
    ├── MeterError           a counter of energy that is not there or cannot be read                (RuntimeError)
    ├── ModelFileError       a saved model that is missing, damaged or of another version          (ValueError)
    ├── StorageError         a file that could not be written                                      (OSError)
    ├── InsufficientMemoryError  states that the free memory cannot hold                           (MemoryError)
    └── MissingExtraError    an optional dependency that is not installed                          (ImportError)

The built-in in brackets is a second base, so that ``except ValueError`` keeps working for callers who do not
know this library. Every message names the thing at fault and what to do about it.
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


class BodyError(KetFitError, RuntimeError):
    """A sentence transformer cannot be found, is not what it should be, or failed to embed."""


class TrainingError(KetFitError, RuntimeError):
    """Training diverged, or a checkpoint does not belong to the run that wants to resume from it."""


class StudyError(KetFitError, RuntimeError):
    """A study cannot go on: its folder is taken or damaged, its cluster cannot be reached, or its workers died."""


class MeterError(KetFitError, RuntimeError):
    """A counter of energy is not there, or cannot be read; no constant stands in for it."""


class ModelFileError(KetFitError, ValueError):
    """A saved model is missing, damaged, or written by another version of the format."""


class StorageError(KetFitError, OSError):
    """A file could not be written; whatever stood at its place before is untouched."""


class InsufficientMemoryError(KetFitError, MemoryError):
    """A computation needs more memory than is free; nothing was allocated."""


class MissingExtraError(KetFitError, ImportError):
    """An optional dependency is not installed. The message carries the pip line that installs it.

    Args:
        purpose: What it is needed for, as the start of a sentence.
        install: The arguments of ``pip install``.
    """

    def __init__(self, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs a package that is not installed: pip install {install}")
