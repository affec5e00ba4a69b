"""Callbacks of a fit: a protocol for loggers, and those for TensorBoard and MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

from ketfit.errors import ConfigError, MissingExtraError
from ketfit.training.loop import Epoch

Stage = Literal["contrastive", "head", "end-to-end"]
"""The tuning of the body alone, the training of the head alone, or of the head with its body."""

_INSTALL = "'ketfit[logging]'"
_METRICS = ("learning_rate", "train_loss", "validation_loss", "validation_accuracy", "validation_weighted_accuracy")


@runtime_checkable
class Callback(Protocol):
    """An observer of a fit. Subclass it, and define the methods that are needed.

    An exception of a callback ends the fit and leaves the estimator as it was. Callbacks do not affect the result.

    >>> class Losses(Callback):
    ...     def on_epoch_end(self, stage, epoch):
    ...         print(stage, epoch.epoch, epoch.train_loss > 0)
    >>> from ketfit import QuantumHeadClassifier, TrainConfig
    >>> classifier = QuantumHeadClassifier(train=TrainConfig(epochs=2))
    >>> _ = classifier.fit([[0.1, 0.9], [0.9, 0.1]] * 5, ["dog", "cat"] * 5, callbacks=[Losses()])
    head 0 True
    head 1 True
    """

    def on_fit_start(self, settings: Mapping[str, Any]) -> None:
        """Prepare for a fit; `settings` has the estimator's parameters by name, nested ones as ``head__n_qubits``."""
        return  # to type checkers, a method of a protocol that has only a docstring is abstract

    def on_epoch_end(self, stage: Stage, epoch: Epoch) -> None:
        """Record an epoch. Epochs that are read from a checkpoint are not reported again."""
        return

    def on_fit_end(self, error: BaseException | None) -> None:
        """Finish after a fit; `error` is the exception that ended it, or None. Called if `on_fit_start` returned."""
        return


@contextmanager
def observe_fit(callbacks: Sequence[Callback], settings: Mapping[str, Any]) -> Iterator[Callable[[Stage, Epoch], None]]:
    """Start the callbacks, yield the function that reports an epoch to all of them, and end them in reverse order.

    Raises:
        ConfigError: `callbacks` is not a sequence of callbacks.
    """
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ConfigError(f"callbacks={callbacks!r} is not a list; pass callbacks=[...]")
    for callback in callbacks:
        if not isinstance(callback, Callback) or isinstance(callback, type):
            raise ConfigError(
                f"callbacks holds {callback!r}, which is not a callback; pass objects of a subclass of "
                "ketfit.training.callbacks.Callback"
            )

    def report(stage: Stage, epoch: Epoch) -> None:
        for callback in callbacks:
            callback.on_epoch_end(stage, epoch)

    with ExitStack() as started:
        for callback in callbacks:
            callback.on_fit_start(dict(settings))
            started.push(_ending(callback))
        yield report


def _ending(
    callback: Callback,
) -> Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], bool]:
    def end(_: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        callback.on_fit_end(error)
        return False  # whatever the callback returns, the exception goes on

    return end


def _metrics(stage: Stage, epoch: Epoch) -> dict[str, float]:
    """Return the metrics of an epoch by name, such as ``head/train_loss``, without those that it does not have."""
    values = {f"{stage}/{name}": getattr(epoch, name) for name in _METRICS}
    return {name: value for name, value in values.items() if value is not None}


class TensorBoardCallback(Callback):
    """Write the metrics of every epoch, and the settings as a text, for TensorBoard.

    Args:
        folder: The folder of the event files. Use another one for each fit: TensorBoard draws one curve per folder.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("Logging to TensorBoard", _INSTALL) from error
        self.folder = os.fspath(folder)
        self._open = SummaryWriter
        self._writer: Any = None

    def on_fit_start(self, settings: Mapping[str, Any]) -> None:
        """Open the event file and write the settings."""
        self._writer = self._open(self.folder)
        rows = "".join(f"| {name} | {value} |\n" for name, value in settings.items())
        self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def on_epoch_end(self, stage: Stage, epoch: Epoch) -> None:
        """Write the metrics of an epoch, so that they can be seen at once."""
        for name, value in _metrics(stage, epoch).items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def on_fit_end(self, error: BaseException | None) -> None:
        """Close the event file."""
        self._writer.close()


class MLflowCallback(Callback):
    """Log the metrics of every epoch to MLflow, at the tracking URI and in the experiment that MLflow is set to.

    The metrics go to the active run. Without one, a run is started for the fit and ended with it (as failed if the fit
    fails), and the settings are logged as its parameters.

    Raises:
        MissingExtraError: mlflow is not installed.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError("Logging to MLflow", _INSTALL) from error
        self._mlflow = mlflow
        self._starts_run = False

    def on_fit_start(self, settings: Mapping[str, Any]) -> None:
        """Start a run if none is active."""
        self._starts_run = self._mlflow.active_run() is None
        if self._starts_run:
            self._mlflow.start_run()
            self._mlflow.log_params(dict(settings))

    def on_epoch_end(self, stage: Stage, epoch: Epoch) -> None:
        """Log the metrics of an epoch; its number is the step."""
        self._mlflow.log_metrics(_metrics(stage, epoch), step=epoch.epoch)

    def on_fit_end(self, error: BaseException | None) -> None:
        """End the run that was started."""
        if self._starts_run:
            self._mlflow.end_run("FINISHED" if error is None else "FAILED")
