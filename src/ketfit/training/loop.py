"""The training loop of every torch head, quantum or classical."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ketfit.base_config import Config
from ketfit.errors import InputError, TrainingError
from ketfit.model.config import TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.progress import ProgressBar
from ketfit.rng import torch_stream
from ketfit.simulate.native import limit_torch_threads
from ketfit.storage.hashing import hash_tensors, tensor_bytes
from ketfit.storage.tensors import read_tensors, write_tensors

_MAX_PRELOAD_BYTES = 2**28  # larger amplitudes are prepared batch by batch instead of once


@dataclass(frozen=True)
class Samples:
    """Training or validation samples of a head.

    Attributes:
        x: Embeddings, shape (n, embedding_dim).
        y: Class indices, shape (n,).
        weight: Positive weights, shape (n,).
        body: Identity of the body that computed `x`, or None. With it, a checkpoint compares `body` and `sentences` in
            place of `x`, because embeddings of a sentence differ in their last bits between batches.
        sentences: Identity of the sentence of each row.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    body: str | None = None
    sentences: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Epoch:
    """The metrics of one epoch; those of the validation are None without validation samples.

    Attributes:
        epoch: Counted from 0.
        learning_rate: AdamW's learning rate.
        train_loss: Mean cross-entropy of the training samples, weighted by samples and classes.
        validation_loss: Mean cross-entropy of the validation samples, weighted likewise.
        validation_accuracy: Unweighted accuracy on the validation samples.
        validation_weighted_accuracy: Accuracy weighted by sample weights times class weights. Without weights it equals
            `validation_accuracy`. Also None in the checkpoints of earlier versions.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_weighted_accuracy: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """The history of a training, and the epoch whose weights the head has."""

    history: tuple[Epoch, ...]
    best_epoch: int


def train(
    module: nn.Module,
    samples: Samples,
    validation: Samples | None,
    config: TrainConfig,
    *,
    seed: int,
    checkpoint: Path | None = None,
    progress: bool = False,
    epochs: int | None = None,
    on_epoch_end: Callable[[Epoch], None] | None = None,
) -> TrainResult:
    """Train `module` in place by AdamW on weighted cross-entropy, and restore the weights of the best epoch.

    `config.selection` chooses the best epoch by a weighted metric of the validation samples, the first among equals;
    without validation samples it is the last epoch. The same arguments give the same result, also if a run was
    interrupted and is resumed from its checkpoint.

    Args:
        module: Maps (batch, embedding_dim) to logits (batch, n_classes).
        samples: The training samples, on the module's device and of its dtype.
        validation: The validation samples, or None.
        config: Training settings.
        seed: Source of the order of the batches.
        checkpoint: A file to write after every epoch, and to resume from if it exists.
        progress: Show a bar on stderr.
        epochs: Stop after so many epochs of the schedule of `config`; None trains all of them.
        on_epoch_end: Called after every epoch that this call trains, after its checkpoint is written, with the weights
            of that epoch in `module`.

    Raises:
        TrainingError: The loss or the weights are not finite, or the checkpoint belongs to another run.
        ModelFileError: The checkpoint is damaged.
        StorageError: The checkpoint cannot be written.

    >>> layer = nn.Linear(2, 2)
    >>> samples = Samples(torch.eye(2), torch.tensor([0, 1]), torch.ones(2))
    >>> len(train(layer, samples, None, TrainConfig(epochs=3), seed=0).history)
    3
    """
    fingerprint = run_fingerprint(module, samples, validation, config, seed)
    if epochs is not None:
        fingerprint["training settings"] += f", stopped after {epochs} epochs"
    run = _TrainingRun(module, config, fingerprint, config.epochs if epochs is None else epochs)
    if checkpoint is not None and os.path.exists(checkpoint):  # noqa: PTH110 - Path.exists may raise
        run.load(checkpoint)
    samples = _preload(module, samples)
    validation = None if validation is None else _preload(module, validation)
    lengths = module.lengths(samples.x) if isinstance(module, HasLengths) else None
    # Otherwise torch's thread pool, woken for each loss and each step of the optimiser, waits for the kernel's.
    threads = limit_torch_threads() if isinstance(module, QuantumHead) else nullcontext()
    with ProgressBar("training", run.epochs, shown=progress) as bar, threads:
        while not run.finished():
            number = len(run.history)
            _seed_generator(module, seed, number)
            batches = _batches(samples, config.batch_size, seed, number, lengths)
            epoch = run.run_epoch(batches, len(samples), validation, bar)
            if checkpoint is not None:
                run.save(checkpoint)
            name, loss = "validation", epoch.validation_loss
            if loss is None:
                name, loss = "training", epoch.train_loss
            bar.set(number + 1, note=f"{name} loss {loss:.4f}")
            if on_epoch_end is not None:
                on_epoch_end(epoch)
        if 0 < len(run.history) < run.epochs:  # a bar that ends half-way looks like an interrupted run
            done = len(run.history)
            bar.set(done, done, note=f"stopped early, epoch {run.best_epoch} was the best")
    module.load_state_dict(run.best)
    module.eval()
    _seed_generator(module, seed)
    return TrainResult(tuple(run.history), run.best_epoch)


def evaluate(module: nn.Module, samples: Samples, batch_size: int) -> tuple[float, float, float]:
    """Return the weighted mean cross-entropy, the accuracy and the weighted accuracy of `module` on `samples`."""
    logits = predict_logits(module, samples.x, batch_size)
    share = samples.weight / samples.weight.sum()
    loss = (share * nn.functional.cross_entropy(logits, samples.y, reduction="none")).sum()
    correct = logits.argmax(dim=1) == samples.y
    return loss.item(), correct.double().mean().item(), (share * correct).sum().item()


@torch.no_grad()
def predict_logits(module: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Return logits, shape (n, n_classes), computed `batch_size` rows at a time with the module in evaluation mode."""
    was_training = module.training
    module.eval()
    try:
        return torch.cat([module(rows) for rows in torch.split(x, batch_size)])
    finally:
        module.train(was_training)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0.

    >>> learning_rate(TrainConfig(schedule="cosine", learning_rate=0.1, epochs=10), 5)
    0.05
    """
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))


@runtime_checkable
class SupportsPreload(Protocol):
    """A module whose first step has no trained parameters: it takes ``prepare_states(x)`` in place of x."""

    def prepare_states(self, embeddings: Tensor) -> Tensor:
        """Return the input of the first trained step."""


def _preload(module: nn.Module, samples: Samples) -> Samples:
    """Return the samples after the step without trained parameters, unless that takes too much memory."""
    if not isinstance(module, SupportsPreload) or not len(samples):
        return samples
    with torch.no_grad():
        first = module.prepare_states(samples.x[:1])
        small = first.nbytes * len(samples) <= _MAX_PRELOAD_BYTES
        return replace(samples, x=module.prepare_states(samples.x)) if small else samples


@runtime_checkable
class HasLengths(Protocol):
    """A module whose time per sample depends on its length; batches have similar lengths unless `lengths` is None."""

    def lengths(self, x: Tensor) -> Tensor | None:
        """Return the length of each sample, shape (n,), or None."""


@runtime_checkable
class UsesGenerator(Protocol):
    """A module that samples shots or trajectories."""

    generator: torch.Generator | None


def _seed_generator(module: nn.Module, seed: int, *epoch: int) -> None:
    # Each epoch has its own stream, so that a checkpoint needs no state of a generator.
    if isinstance(module, UsesGenerator):
        module.generator = torch_stream(seed, "shots", *epoch)


@runtime_checkable
class HasParamGroups(Protocol):
    """A module with parameter groups, whose learning rates follow the schedule of the settings in proportion."""

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return groups of trained parameters, each with its learning rate."""


@dataclass(frozen=True)
class _Metadata:
    """The content of a checkpoint beside its tensors; `run` is the fingerprint of the run."""

    run: dict[str, str]
    best_epoch: int
    history: list[Epoch]


_METADATA = TypeAdapter(_Metadata)
_ADAM = ("step", "exp_avg", "exp_avg_sq")


class _TrainingRun:
    """The state of a training: the module, the optimiser, the history and the best weights so far."""

    def __init__(self, module: nn.Module, config: TrainConfig, fingerprint: dict[str, str], epochs: int) -> None:
        self.module = module
        self.config = config
        self.epochs = epochs
        self.fingerprint = fingerprint
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        groups = [(self.trained, config.learning_rate)]
        if isinstance(module, HasParamGroups):
            groups = module.parameter_groups()
        self.rates = [rate for _, rate in groups]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate} for group, rate in groups], weight_decay=config.weight_decay, fused=True
        )
        self.history: list[Epoch] = []
        self.best = _copy(module)
        self.best_epoch = -1

    def finished(self) -> bool:
        """Return whether all epochs are done, or `config.patience` epochs passed without a new best."""
        done, patience = len(self.history), self.config.patience
        epochs_since_best = done - 1 - self.best_epoch
        return done >= self.epochs or (patience is not None and done > 0 and epochs_since_best >= patience)

    def run_epoch(self, batches: Iterator[Samples], size: int, validation: Samples | None, bar: ProgressBar) -> Epoch:
        """Train on the batches of `size` samples, validate, and add the epoch to the history."""
        number = len(self.history)
        rate = learning_rate(self.config, number)
        self.module.train()
        train_loss = self._train_batches(batches, rate, size, bar)
        self.module.eval()
        metrics: tuple[float | None, float | None, float | None] = (None, None, None)
        if validation is not None:
            metrics = evaluate(self.module, validation, self.config.batch_size)
        epoch = Epoch(number, rate, train_loss, *metrics)
        if epoch.validation_loss is not None and not math.isfinite(epoch.validation_loss):
            # Comparisons with NaN are false: no later epoch would be better than this one.
            raise TrainingError(
                f"the validation loss of epoch {number} is {epoch.validation_loss}; lower the learning rate"
            )
        self.history.append(epoch)
        if self.best_epoch < 0 or is_better(epoch, self.history[self.best_epoch], self.config.selection):
            self.best, self.best_epoch = _copy(self.module), number
        return epoch

    def _train_batches(self, batches: Iterator[Samples], rate: float, size: int, bar: ProgressBar) -> float:
        """Take one step per batch, and return the weighted mean of the loss before each step."""
        for group, group_rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (group_rate / self.config.learning_rate)
        total, weights = 0.0, 0.0
        for batch in batches:
            try:
                logits = self.module(batch.x)
            except InputError as error:  # an earlier step of this epoch may have made the weights not finite
                self._check_weights(error)
                raise
            losses = nn.functional.cross_entropy(logits, batch.y, reduction="none")
            weight = batch.weight.sum()
            loss = (batch.weight / weight) @ losses
            if not math.isfinite(mean := loss.item()):
                raise TrainingError(f"the loss of epoch {len(self.history)} is {mean}; lower the learning rate")
            for parameter in self.trained:
                parameter.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += mean * weight.item()
            weights += weight.item()
            bar.advance(len(batch) / size)
        self._check_weights(None)
        return total / weights

    def _check_weights(self, cause: Exception | None) -> None:
        if not all(torch.isfinite(parameter).all() for parameter in self.module.parameters()):
            raise TrainingError(
                f"epoch {len(self.history)} made weights that are not finite; "
                "lower the learning rate or the weight decay"
            ) from cause

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `load` resumes."""
        tensors = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        metadata = _Metadata(self.fingerprint, self.best_epoch, self.history)
        write_tensors(path, tensors, {"checkpoint": _METADATA.dump_json(metadata).decode()})

    def load(self, path: Path) -> None:
        """Resume from a checkpoint of the same run."""
        tensors, header = read_tensors(path)
        try:
            metadata = _METADATA.validate_json(header.get("checkpoint", ""))
        except ValidationError as error:
            raise TrainingError(f"{path} is not a checkpoint of KetFit; name another file or remove it") from error
        missing = [name for name in self.fingerprint if name not in metadata.run]
        if missing:
            raise TrainingError(
                f"{path} does not hold the {' and '.join(missing)} of its run: an earlier version of KetFit "
                "wrote it, or a fit on embeddings; name another file, or remove it to start again"
            )
        changed = [name for name, value in self.fingerprint.items() if metadata.run.get(name) != value]
        if changed:
            raise TrainingError(
                f"{path} belongs to another run (its {' and '.join(changed)} differ); "
                "use the same arguments, or remove it to start again"
            )
        # A parameter without a gradient, such as the pooler of a body, has no averages.
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        stepped = [index for index in range(len(parameters)) if f"optimizer.{index}.step" in tensors]
        shapes = {f"{part}.{name}": tensor.shape for part in ("module", "best") for name, tensor in self.best.items()}
        for index in stepped:
            shapes |= {f"optimizer.{index}.{name}": parameters[index].shape for name in _ADAM}
            shapes[f"optimizer.{index}.step"] = torch.Size([])
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise TrainingError(f"{path} does not hold the tensors of this run; remove it to start again")
        states = {index: {name: tensors[f"optimizer.{index}.{name}"] for name in _ADAM} for index in stepped}
        self.module.load_state_dict({name: tensors[f"module.{name}"] for name in self.best})
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        self.best_epoch, self.history = metadata.best_epoch, metadata.history


def is_better(epoch: Epoch, best: Epoch, selection: str) -> bool:
    """Return whether an epoch is better than the best one so far; any is without validation samples."""
    if epoch.validation_loss is None or best.validation_loss is None:
        return True
    if selection == "loss":
        return epoch.validation_loss < best.validation_loss
    return _selected_accuracy(epoch) > _selected_accuracy(best)


def _selected_accuracy(epoch: Epoch) -> float:
    """Return the weighted accuracy; checkpoints of earlier versions have it as `validation_accuracy`."""
    weighted = epoch.validation_weighted_accuracy
    accuracy = epoch.validation_accuracy if weighted is None else weighted
    assert accuracy is not None
    return accuracy


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _batches(
    samples: Samples, batch_size: int, seed: int, epoch: int, lengths: Tensor | None = None
) -> Iterator[Samples]:
    # The order depends on the seed and the epoch alone, so that a resumed run needs no state of a generator.
    rng = torch_stream(seed, "batches", epoch)
    order = torch.randperm(len(samples), generator=rng).to(samples.y.device)
    if lengths is not None:
        batches = torch.split(order[lengths[order].argsort(stable=True)], batch_size)
        last = len(batches) - 1  # it may be short, and must stay last for the split below
        order = torch.cat([batches[index] for index in [*torch.randperm(last, generator=rng).tolist(), last]])
    # Once per epoch: an index operation for every batch would take longer than a small head's step.
    shuffled = (torch.split(tensor[order], batch_size) for tensor in (samples.x, samples.y, samples.weight))
    for x, y, weight in zip(*shuffled, strict=True):
        yield Samples(x, y, weight)


def run_fingerprint(
    module: nn.Module, samples: Samples, validation: Samples | None, config: TrainConfig, seed: int
) -> dict[str, str]:
    """Return hashes or plain text of the arguments that determine the result of a run, by name."""
    data = hashlib.sha256()
    for side in (samples, validation):
        columns = [] if side is None else [side.x, side.y, side.weight]
        if side is not None and side.body is not None:
            data.update(json.dumps(side.sentences).encode())
            del columns[0]
        for tensor in columns:
            data.update(tensor_bytes(tensor))
        data.update(b"|")
    # The tensors do not depend on some settings, such as shots and noise.
    configs = (getattr(inner, "config", None) for inner in module.modules())
    settings = "".join(config.identity_json() for config in configs if isinstance(config, Config))
    tensors = module.state_dict()
    if samples.body is not None:  # a projection was fitted on the embeddings, and differs in its last bits as they do
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("projection.")}
    return {
        "training settings": config.model_dump_json(),
        "seed": str(seed),
        "head": hash_tensors(tensors, settings),
        "data": data.hexdigest(),
        **({} if samples.body is None else {"body": samples.body}),
    }
