"""One training loop for every torch head, quantum or classical."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
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
from ketfit.simulate.native import kernel_first
from ketfit.storage.hashing import hash_tensors, tensor_bytes
from ketfit.storage.tensors import read_tensors, write_tensors

_LOADED_BYTES = 2**28  # amplitudes of more than this are loaded batch by batch instead of once


@dataclass(frozen=True)
class Samples:
    """What a head learns from: `x` (n, embedding_dim), `y` (n,) class numbers, `weight` (n,) positive.

    `body` and `sentences`, if given, identify the body that computed `x` and the sentence of each row. A checkpoint
    then compares them in place of `x`: embeddings of a sentence differ in their last bits between batches.
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
    """One row of the history. The validation figures are None if there is no validation share.

    Attributes:
        epoch: Counted from 0.
        learning_rate: Of AdamW.
        train_loss: Mean cross-entropy of the training samples, weighted by samples and classes.
        validation_loss: The same of the validation samples.
        validation_accuracy: Share of the validation samples that are predicted right, each counted once.
        validation_weighted_accuracy: The share of their weight that is predicted right: sample weights times class
            weights. Without weights it is `validation_accuracy`. Also None in the checkpoints of earlier versions.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_weighted_accuracy: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """The history, and the epoch whose weights the head now has."""

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
) -> TrainResult:
    """Train `module` in place by AdamW on weighted cross-entropy, and leave it with the weights of the best epoch.

    The best epoch is chosen on the validation samples by `config.selection`, the first of equals, and both figures that
    it can name are weighted; without validation samples it is the last one. The same arguments give the same result,
    and so does a run that was interrupted and is called again with its checkpoint.

    Args:
        module: Maps (batch, embedding_dim) to logits (batch, n_classes).
        samples: The training samples, on the module's device and of its dtype.
        validation: The validation samples, or None.
        config: How to train.
        seed: Source of the order of the batches.
        checkpoint: A file to write after every epoch, and to resume from if it is there.
        progress: Show a bar on stderr.

    Raises:
        TrainingError: the loss or the weights are not finite, or the checkpoint belongs to another run.
        ModelFileError: the checkpoint is damaged.
        StorageError: the checkpoint cannot be written.
    """
    run = _TrainingRun(module, config, fingerprint=_fingerprint(module, samples, validation, config, seed))
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    loaded = _load(module, samples)
    held = None if validation is None else _load(module, validation)
    lengths = module.lengths(loaded.x) if isinstance(module, HasLengths) else None
    # Else torch's team of threads, which it wakes for each loss and each step of the optimiser, waits for the kernel's.
    threads = kernel_first() if isinstance(module, QuantumHead) else nullcontext()
    with ProgressBar("training", config.epochs, shown=progress) as bar, threads:
        while not run.finished():
            epoch = len(run.history)
            _seed_draws(module, seed, epoch)
            rate = learning_rate(config, epoch)
            module.train()
            train_loss = run.train_epoch(
                _batches(loaded, config.batch_size, seed, epoch, lengths), rate, len(loaded), bar
            )
            module.eval()
            figures = (None, None, None) if held is None else evaluate(module, held, config.batch_size)
            loss = figures[0]
            run.record(Epoch(epoch, rate, train_loss, *figures))
            if checkpoint is not None:
                run.save(checkpoint)
            shown = train_loss if loss is None else loss
            bar.set(epoch + 1, note=f"{'training' if loss is None else 'validation'} loss {shown:.4f}")
        if 0 < len(run.history) < config.epochs:  # a bar that ends half-way looks like a run that was cut off
            done = len(run.history)
            bar.set(done, done, note=f"stopped early, epoch {run.best_epoch} was the best")
    module.load_state_dict(run.best)
    module.eval()
    _seed_draws(module, seed)
    return TrainResult(tuple(run.history), run.best_epoch)


def evaluate(module: nn.Module, samples: Samples, batch_size: int) -> tuple[float, float, float]:
    """Return the weighted mean cross-entropy, the accuracy and the weighted accuracy of `module` on `samples`."""
    logits = predict_logits(module, samples.x, batch_size)
    share = samples.weight / samples.weight.sum()
    loss = (share * nn.functional.cross_entropy(logits, samples.y, reduction="none")).sum()
    right = logits.argmax(dim=1) == samples.y
    return loss.item(), right.double().mean().item(), (share * right).sum().item()


@torch.no_grad()
def predict_logits(module: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Logits of shape (n, n_classes), computed `batch_size` rows at a time, with the module in evaluation mode."""
    was_training = module.training
    module.eval()
    try:
        return torch.cat([module(rows) for rows in torch.split(x, batch_size)])
    finally:
        module.train(was_training)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))


@runtime_checkable
class SupportsPreload(Protocol):
    """A module whose first step has nothing to train: it takes ``prepare_states(x)`` in place of x."""

    def prepare_states(self, embeddings: Tensor) -> Tensor: ...


def _load(module: nn.Module, samples: Samples) -> Samples:
    """The samples after the step that has nothing to train, unless that takes too much memory."""
    if not isinstance(module, SupportsPreload) or not len(samples):
        return samples
    with torch.no_grad():
        one = module.prepare_states(samples.x[:1])
        small = one.nbytes * len(samples) <= _LOADED_BYTES
        return replace(samples, x=module.prepare_states(samples.x)) if small else samples


@runtime_checkable
class HasLengths(Protocol):
    """A module whose work for a sample depends on its length: None, or lengths that a batch's samples are alike in."""

    def lengths(self, x: Tensor) -> Tensor | None: ...


@runtime_checkable
class UsesGenerator(Protocol):
    """A module that draws shots or trajectories."""

    generator: torch.Generator | None


def _seed_draws(module: nn.Module, seed: int, *epoch: int) -> None:
    # Of each epoch its own, so that a resumed run needs no state of a generator.
    if isinstance(module, UsesGenerator):
        module.generator = torch_stream(seed, "shots", *epoch)


@runtime_checkable
class HasParamGroups(Protocol):
    """A module whose parts have learning rates of their own, in proportion to that of the settings as it changes."""

    def parts(self) -> list[tuple[list[nn.Parameter], float]]: ...


@dataclass(frozen=True)
class _Facts:
    """What a checkpoint says beside its tensors."""

    run: dict[str, str]
    best_epoch: int
    history: list[Epoch]


_FACTS = TypeAdapter(_Facts)
_ADAM = ("step", "exp_avg", "exp_avg_sq")


class _TrainingRun:
    """All that changes while training: the module, the optimiser, the history and the best weights so far."""

    def __init__(self, module: nn.Module, config: TrainConfig, fingerprint: dict[str, str]) -> None:
        self.module = module
        self.config = config
        self.fingerprint = fingerprint
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        groups = module.parts() if isinstance(module, HasParamGroups) else [(self.trained, config.learning_rate)]
        self.rates = [rate for _, rate in groups]
        self.optimizer = torch.optim.AdamW(
            [{"params": part, "lr": rate} for part, rate in groups], weight_decay=config.weight_decay, fused=True
        )
        self.history: list[Epoch] = []
        self.best = _copy(module)
        self.best_epoch = -1

    def finished(self) -> bool:
        """Whether all epochs are done, or too many passed without a new best."""
        done = len(self.history)
        patience = self.config.patience
        waited = done - 1 - self.best_epoch
        return done >= self.config.epochs or (patience is not None and done > 0 and waited >= patience)

    def train_epoch(self, batches: Iterator[Samples], rate: float, size: int, bar: ProgressBar) -> float:
        """One pass over the batches of `size` samples; the weighted mean of the loss before each step."""
        for group, own_rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (own_rate / self.config.learning_rate)
        total, weights = 0.0, 0.0
        for batch in batches:
            try:
                logits = self.module(batch.x)
            except InputError as error:  # the engine's word for weights that an earlier step of this epoch spoilt
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

    def record(self, row: Epoch) -> None:
        """Add a row to the history, and keep the weights if it is the best so far."""
        if row.validation_loss is not None and not math.isfinite(row.validation_loss):
            # No epoch would be better than this one, nor this one better than another.
            raise TrainingError(
                f"the validation loss of epoch {row.epoch} is {row.validation_loss}; lower the learning rate"
            )
        self.history.append(row)
        if self.best_epoch < 0 or _is_better(row, self.history[self.best_epoch], self.config.selection):
            self.best, self.best_epoch = _copy(self.module), row.epoch

    def save(self, path: Path) -> None:
        """Write all that `load` needs to go on from here."""
        tensors = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for place, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": tensor for name, tensor in state.items()}
        facts = _Facts(self.fingerprint, self.best_epoch, self.history)
        write_tensors(path, tensors, {"checkpoint": _FACTS.dump_json(facts).decode()})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of this very run."""
        tensors, metadata = read_tensors(path)
        try:
            facts = _FACTS.validate_json(metadata.get("checkpoint", ""))
        except ValidationError as error:
            raise TrainingError(f"{path} is not a checkpoint of KetFit; name another file or remove it") from error
        lacking = [name for name in self.fingerprint if name not in facts.run]
        if lacking:
            raise TrainingError(
                f"{path} does not hold the {' and '.join(lacking)} of its run: an earlier version of KetFit "
                "wrote it, or a fit on embeddings; name another file, or remove it to start again"
            )
        changed = [name for name, value in self.fingerprint.items() if facts.run.get(name) != value]
        if changed:
            raise TrainingError(
                f"{path} belongs to another run (its {' and '.join(changed)} differ); "
                "use the same arguments, or remove it to start again"
            )
        # A parameter that nothing reads, such as the pooler of a body, has no gradient and no averages.
        moved = [place for place in range(len(self._optimized())) if f"optimizer.{place}.step" in tensors]
        if {name: tensor.shape for name, tensor in tensors.items()} != self._shapes(moved):
            raise TrainingError(f"{path} does not hold the tensors of this run; remove it to start again")
        states = {place: {name: tensors[f"optimizer.{place}.{name}"] for name in _ADAM} for place in moved}
        self.module.load_state_dict({name: tensors[f"module.{name}"] for name in self.best})
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        self.best_epoch, self.history = facts.best_epoch, facts.history

    def _optimized(self) -> list[Tensor]:
        """What is trained, in the order in which the optimiser counts it."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _shapes(self, moved: list[int]) -> dict[str, torch.Size]:
        """What a checkpoint of this run holds, by the names that `save` gives."""
        shapes = {f"{part}.{name}": tensor.shape for part in ("module", "best") for name, tensor in self.best.items()}
        optimized = self._optimized()
        for place in moved:
            shapes |= {f"optimizer.{place}.{name}": optimized[place].shape for name in _ADAM}
            shapes[f"optimizer.{place}.step"] = torch.Size([])
        return shapes


def _is_better(row: Epoch, best: Epoch, selection: str) -> bool:
    if row.validation_loss is None or best.validation_loss is None:
        return True
    if selection == "loss":
        return row.validation_loss < best.validation_loss
    return _selected_accuracy(row) > _selected_accuracy(best)


def _selected_accuracy(row: Epoch) -> float:
    """Return the weighted accuracy; checkpoints of earlier versions have it as `validation_accuracy`."""
    weighted = row.validation_weighted_accuracy
    figure = row.validation_accuracy if weighted is None else weighted
    assert figure is not None
    return figure


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _batches(
    samples: Samples, batch_size: int, seed: int, epoch: int, lengths: Tensor | None = None
) -> Iterator[Samples]:
    # The order depends on the seed and the epoch alone, so that a resumed run needs no state of a generator.
    chance = torch_stream(seed, "batches", epoch)
    order = torch.randperm(len(samples), generator=chance).to(samples.y.device)
    if lengths is not None:
        batches = torch.split(order[lengths[order].argsort(stable=True)], batch_size)
        last = len(batches) - 1  # it may be short, and stays where the cuts below expect it
        order = torch.cat([batches[place] for place in [*torch.randperm(last, generator=chance).tolist(), last]])
    # Once an epoch: picking the rows of every batch by itself would cost more than a small head's step.
    shuffled = (torch.split(tensor[order], batch_size) for tensor in (samples.x, samples.y, samples.weight))
    for x, y, weight in zip(*shuffled, strict=True):
        yield Samples(x, y, weight)


def _fingerprint(
    module: nn.Module, samples: Samples, validation: Samples | None, config: TrainConfig, seed: int
) -> dict[str, str]:
    """What decides the result of a run, by part, each as a hash or as plain text."""
    data = hashlib.sha256()
    for part in (samples, validation):
        tensors = [] if part is None else [part.x, part.y, part.weight]
        if part is not None and part.body is not None:
            data.update(json.dumps(part.sentences).encode())
            del tensors[0]
        for tensor in tensors:
            data.update(tensor_bytes(tensor))
        data.update(b"|")
    # Shots and noise, for example, leave no trace in the tensors.
    configs = (getattr(inner, "config", None) for inner in module.modules())
    settings = "".join(config.model_dump_json() for config in configs if isinstance(config, Config))
    return {
        "training settings": config.model_dump_json(),
        "seed": str(seed),
        "head": hash_tensors(module.state_dict(), settings),
        "data": data.hexdigest(),
        **({} if samples.body is None else {"body": samples.body}),
    }
