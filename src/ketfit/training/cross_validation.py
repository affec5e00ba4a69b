"""Cross-validation: train on every fold but one, validate on that one after each epoch, and choose a common epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ketfit.errors import TrainingError
from ketfit.model.config import TrainConfig
from ketfit.storage.tensors import read_tensors, write_tensors
from ketfit.training.calibration import effective_counts, fit_temperature
from ketfit.training.loop import Epoch, Samples, is_better, predict_logits, run_fingerprint, train


@dataclass(frozen=True, eq=False)
class FoldResult:
    """The validation of every epoch on the samples of one fold, which were not trained on.

    Attributes:
        history: All epochs.
        validation: The samples of the fold.
        logits: Logits of these samples after each epoch, shape (epochs, n, n_classes); None if they were not kept.
    """

    history: tuple[Epoch, ...]
    validation: Samples
    logits: Tensor | None


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The results of all folds, and the epoch that they choose.

    Attributes:
        folds: The results, one per fold.
        selection: What the epoch is chosen by, see `TrainConfig`.
    """

    folds: tuple[FoldResult, ...]
    selection: str

    @property
    def means(self) -> tuple[Epoch, ...]:
        """Each epoch with the unweighted means of its metrics over the folds."""
        return tuple(map(_mean_epoch, zip(*(fold.history for fold in self.folds), strict=True)))

    @property
    def best_epoch(self) -> int:
        """The epoch with the best mean over the folds, the first among equals, counted from 0."""
        means = self.means
        best = means[0]
        for epoch in means[1:]:
            if is_better(epoch, best, self.selection):
                best = epoch
        return best.epoch

    @property
    def size(self) -> int:
        """The number of samples, each of them in one fold."""
        return sum(len(fold.validation) for fold in self.folds)

    def temperature(self) -> float:
        """Return the temperature that calibrates the logits that each fold had after the best epoch."""
        epoch = self.best_epoch
        logits = torch.cat([fold.logits[epoch] for fold in self.folds if fold.logits is not None])
        y, weight = (torch.cat([getattr(fold.validation, name) for fold in self.folds]) for name in ("y", "weight"))
        return fit_temperature(logits, y, effective_counts(weight))

    def describe(self, history: Sequence[Epoch]) -> tuple[Epoch, ...]:
        """Return the epochs of a training on all samples with the mean validation metrics of the folds."""
        return tuple(
            replace(mean, train_loss=epoch.train_loss) for epoch, mean in zip(history, self.means, strict=False)
        )


def train_fold(
    module: nn.Module,
    samples: Samples,
    validation: Samples,
    config: TrainConfig,
    *,
    seed: int,
    keep_logits: bool,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> FoldResult:
    """Train `module` in place for all epochs, and validate it on one fold after each.

    `config.patience` is not used: the mean over the folds needs every epoch of each.

    Args:
        module: See `train`.
        samples: The samples of the other folds.
        validation: The samples of this fold.
        config: Training settings.
        seed: Source of the order of the batches.
        keep_logits: Keep the logits of every epoch, for `CrossValidation.temperature`.
        checkpoint: A file written at the end; a later call reads the result from it.
        progress: Show a bar on stderr.

    Raises:
        TrainingError, ModelFileError, StorageError: As in `train`.
    """
    config = config.updated(patience=None)
    run = run_fingerprint(module, samples, validation, config, seed) | {"calibration": str(keep_logits)}
    if checkpoint is not None and os.path.exists(checkpoint):  # noqa: PTH110 - Path.exists may raise
        return _read_fold(checkpoint, run, validation)
    logits: list[Tensor] = []

    def keep(_: Epoch) -> None:
        if keep_logits:
            logits.append(predict_logits(module, validation.x, config.batch_size))

    history = train(module, samples, validation, config, seed=seed, progress=progress, on_epoch_end=keep).history
    result = FoldResult(history, validation, torch.stack(logits) if keep_logits else None)
    if checkpoint is not None:
        content = {} if result.logits is None else {"logits": result.logits}
        write_tensors(checkpoint, content, {"fold": _FOLD.dump_json(_FoldMetadata(run, history)).decode()})
    return result


@dataclass(frozen=True)
class _FoldMetadata:
    run: dict[str, str]
    history: tuple[Epoch, ...]


_FOLD = TypeAdapter(_FoldMetadata)


def _read_fold(path: Path, run: dict[str, str], validation: Samples) -> FoldResult:
    tensors, header = read_tensors(path)
    try:
        metadata = _FOLD.validate_json(header.get("fold", ""))
    except ValidationError as error:
        raise TrainingError(f"{path} is not a result of a fold; name another file or remove it") from error
    changed = [name for name, value in run.items() if metadata.run.get(name) != value]
    if changed:
        raise TrainingError(
            f"{path} belongs to a fold of another run (its {' and '.join(changed)} differ); "
            "use the same arguments, or remove it to start again"
        )
    logits = tensors["logits"].to(validation.y.device) if "logits" in tensors else None
    return FoldResult(metadata.history, validation, logits)


def _mean_epoch(epochs: Sequence[Epoch]) -> Epoch:
    def mean(name: str) -> float:
        return float(np.mean([getattr(epoch, name) for epoch in epochs]))

    return replace(
        epochs[0],
        train_loss=mean("train_loss"),
        validation_loss=mean("validation_loss"),
        validation_accuracy=mean("validation_accuracy"),
        validation_weighted_accuracy=mean("validation_weighted_accuracy"),
    )
