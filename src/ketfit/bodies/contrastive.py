"""Contrastive fine-tuning of a body: embeddings of one label move together, those of different labels apart.

It uses the trainer of sentence-transformers, with its losses on pairs and triplets and a supervised contrastive loss.
Order, dropout and learning rate of a step depend only on the seed and the number of the step: a checkpoint has the
weights, the averages of AdamW and the number of steps.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor, nn
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, TrainerCallback, TrainerControl

from ketfit.bodies.body import Body, capture_library_logs
from ketfit.bodies.contrastive_losses import SupervisedContrastiveLoss
from ketfit.bodies.contrastive_sampling import PairSampler, TrainingRows
from ketfit.bodies.finetuned import (
    available_precision,
    check_memory,
    content_hash,
    finetuned_folder,
    isolated_rng,
    layer_learning_rates,
    load_finetuned,
    max_token_count,
    save_finetuned,
    trainable_copy,
)
from ketfit.data.labelled import LabelledTexts, SentenceValidation
from ketfit.errors import ConfigError, DataError, MissingExtraError, TrainingError
from ketfit.model.tuning import ContrastiveConfig
from ketfit.progress import ProgressBar
from ketfit.rng import numpy_stream
from ketfit.storage.cache_dir import is_folder
from ketfit.storage.hashing import hash_json
from ketfit.storage.tensors import read_tensors, write_tensors

try:
    from sentence_transformers.sentence_transformer import losses
except ImportError:  # before sentence-transformers 6
    from sentence_transformers import losses  # type: ignore[attr-defined,no-redef]

CHECKPOINT_SECONDS = 300.0  # a checkpoint has three times the size of the trained weights and takes seconds to write

_AVERAGES = ("exp_avg", "exp_avg_sq")
_LINEAR_LEARNING_RATE = 1e-2  # of the layer of the cross-entropy term, which starts at zero


class TuningEpoch(NamedTuple):
    """The metrics of one epoch of contrastive tuning.

    Attributes:
        epoch: Counted from 0.
        learning_rate: Learning rate of the last layer after the epoch.
        train_loss: Mean loss of the steps that this process took.
        validation_loss: Loss of logistic regression on the embeddings, with `patience`, else None.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float | None


def tune_body(
    body: Body,
    texts: Sequence[str],
    labels: ArrayLike,
    config: ContrastiveConfig | None = None,
    *,
    seed: int = 0,
    pairs: Sequence[tuple[str, str, float]] | None = None,
    validation: SentenceValidation | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    on_epoch_end: Callable[[TuningEpoch], None] | None = None,
) -> Body:
    """Return a body fine-tuned on labelled sentences; `body` is not changed.

    The same arguments give the same body. It is stored in the folder ``tuned`` of the cache under a hash of its inputs
    (the fingerprint of the body, sentences, labels, settings, seed); a second call loads it from there. A killed
    process leaves no partial body.

    Args:
        body: The body to start from.
        texts: The sentences to train on, length n, without those to validate or test on.
        labels: Labels, length n, of two classes or more.
        config: The settings.
        seed: Seed of the pairs, their order and the dropout.
        pairs: Two sentences and their similarity, -1 to 1, each; they take the place of pairs drawn by the labels. For
            the cosine loss.
        validation: Sentences and labels, and optionally weights, that `config.patience` stops early on.
        checkpoint: A file written every five minutes; an existing one is resumed from.
        progress: Show a progress bar on stderr.
        on_epoch_end: Called after every epoch that this call trains; not for a body from the cache.

    Raises:
        InputError: a sentence is blank, or there are not as many labels as sentences.
        DataError: there is only one label, or a label has only one sentence and pairs are drawn by the labels.
        ConfigError: the settings do not fit the body or the sentences; or patience has no validation sentences.
        InsufficientMemoryError: the free memory cannot hold weights, gradients, averages and activations.
        TrainingError: the loss is not finite, or the checkpoint belongs to another run.
        BodyError: the body cannot be used.
        ModelFileError: the checkpoint is damaged.
        StorageError: the checkpoint cannot be written, or neither the cache nor a temporary folder can be.
        MissingExtraError: the packages of the extra ``tune`` are not installed.
    """
    if not all(find_spec(package) for package in ("accelerate", "datasets")):
        raise MissingExtraError("Contrastive tuning", "'ketfit[tune]'")
    body.check_unchanged("and tuning starts from its files")
    config = config or ContrastiveConfig()
    checkpoint = None if checkpoint is None else Path(checkpoint)
    precision = available_precision(config.precision, body.transformer.device)
    samples = _checked(texts, labels, drawn=pairs is None)
    sampler = PairSampler.from_labels(samples.texts, samples.labels, config, pairs)
    config = config.updated(
        batch_size=config.batch_size_for(len(samples.texts), sampler.n_labels),
        learning_rate=config.rate_for(body.dimension),
        precision=precision,
    )
    inputs = {
        "body": body.fingerprint,
        "sentences": hash_json(samples.texts),
        "labels": hash_json(sampler.codes.tolist()),
        "tuning settings": config.model_dump_json(),
        "seed": str(seed),
    }
    if sampler.pairs is not None:
        inputs["pairs"] = hash_json(sampler.pairs)
    probe = None
    if config.patience is not None:
        probe = _Probe.from_validation(samples.texts, samples.labels, validation)
        inputs["validation"] = probe.identity
    name = content_hash(inputs)
    folder = finetuned_folder(name)
    if not is_folder(folder):
        rows = sampler.rows(config, seed)
        transformer = trainable_copy(body, config.last_layers)
        per_step = rows.batch_size * (2 if config.loss == "cosine" else 1)
        longest = max_token_count(transformer, rows.sentences)
        copies = int(probe is not None)  # the weights of the best epoch
        check_memory(transformer, per_step, longest, copies=copies, checkpoint=checkpoint is not None)
        loss = _make_loss(transformer, config, body.dimension, sampler.n_labels)
        run = _TuningRun(transformer, loss, rows, config, inputs)
        run.probe, run.report = probe, on_epoch_end
        if checkpoint is not None and checkpoint.exists():
            run.load(checkpoint)
        run.train(checkpoint, progress)
        if _is_main_process():
            folder = save_finetuned(transformer, name)
        _wait_for_all()
        if not is_folder(folder):  # a temporary folder of the main process, because the cache cannot be written
            folder = save_finetuned(transformer, name)
    return load_finetuned(folder, body, config, seed)


def _checked(texts: Sequence[str], labels: ArrayLike, drawn: bool) -> LabelledTexts:
    """Return sentences and labels that can be tuned on, where pairs are `drawn` by the labels or not."""
    samples = LabelledTexts.from_columns(texts, labels)
    names, counts = np.unique(samples.labels, return_counts=True)
    if len(names) < 2:
        raise DataError(f"contrastive tuning needs sentences of two labels or more; these have {len(names)}")
    if drawn and counts.min() < 2:
        label = names[counts.argmin()].item()
        raise DataError(f"contrastive tuning pairs sentences of one label, and {label!r} has only one sentence")
    return samples


class _PairTrainer(SentenceTransformerTrainer):
    """The trainer of sentence-transformers with batches in the order of the data, a loss check and no model card.

    Attributes:
        step_losses: The loss of every step of this epoch; `train` sets it.
    """

    step_losses: list[float]

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> BatchSampler:
        """Return a sampler in the order of the rows."""
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Skip the model card, which would contain sentences and query the Hub."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of the trainer.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss: Any = super().compute_loss(*args, **kwargs)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss of tuning is {loss.item()}; lower the learning rate")
        self.step_losses.append(loss.item())
        return loss


@dataclass(frozen=True, eq=False)
class _Probe:
    """Sentences that a logistic regression on the embeddings is fitted on, and those that its loss is measured on."""

    texts: list[str]
    labels: NDArray[Any]
    held_out: LabelledTexts

    @classmethod
    def from_validation(cls, texts: list[str], labels: NDArray[Any], validation: SentenceValidation | None) -> _Probe:
        """Return a probe of the training sentences on validation sentences.

        Raises:
            ConfigError: there are no validation sentences.
            DataError: a validation label is not among the training labels.
        """
        held_out = None if validation is None else LabelledTexts.from_validation(validation)
        if held_out is None or not held_out.texts:
            raise ConfigError(
                "patience stops on validation sentences, and there are none; hold some out, or leave it out"
            )
        if unknown := set(held_out.labels.tolist()) - set(labels.tolist()):
            raise DataError(f"the validation labels hold {min(unknown, key=str)!r}, which the training labels do not")
        return cls(texts, labels, held_out)

    @property
    def identity(self) -> str:
        """SHA-256 (hex) of the validation sentences, their labels and weights."""
        weight = None if self.held_out.weight is None else self.held_out.weight.tolist()
        return hash_json([self.held_out.texts, self.held_out.labels.tolist(), weight])

    def loss(self, transformer: SentenceTransformer) -> float:
        """Return the mean cross-entropy on the validation sentences."""
        training = transformer.training
        with isolated_rng(0):
            x, held_out = (
                transformer.encode(texts, show_progress_bar=False, normalize_embeddings=True)
                for texts in (self.texts, self.held_out.texts)
            )
        transformer.train(training)
        model = LogisticRegression(max_iter=1000).fit(x, self.labels)
        probabilities = model.predict_proba(held_out)
        weight = self.held_out.weight
        return float(log_loss(self.held_out.labels, probabilities, sample_weight=weight, labels=model.classes_))


def _first_lowest(losses: list[float]) -> int:
    return min(range(len(losses)), key=losses.__getitem__, default=-1)


class _TuningRun(TrainerCallback):
    """The state of a fine-tuning, and the callbacks of the trainer."""

    def __init__(
        self,
        transformer: SentenceTransformer,
        loss: nn.Module,
        rows: TrainingRows,
        config: ContrastiveConfig,
        inputs: dict[str, str],
    ) -> None:
        self.transformer, self.loss, self.rows = transformer, loss, rows
        self.config, self.inputs, self.seed = config, inputs, int(inputs["seed"])
        self.total = rows.n_steps
        self.done = self.first = 0  # steps taken in all, and before this process
        self.parameters = {name: tensor for name, tensor in transformer.named_parameters() if tensor.requires_grad}
        assert config.learning_rate is not None
        self.learning_rate = config.learning_rate
        groups = layer_learning_rates(transformer, self.learning_rate, config.layer_decay)
        if isinstance(linear := getattr(loss, "linear", None), nn.Linear):
            self.parameters |= {f"linear.{name}": tensor for name, tensor in linear.named_parameters()}
            groups.append((list(linear.parameters()), _LINEAR_LEARNING_RATE))
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate} for group, rate in groups], weight_decay=config.weight_decay, fused=True
        )
        self.checkpoint: Path | None = None
        self.saved_at = 0.0
        self.bar = ProgressBar("tuning", self.total, shown=False)
        self.probe: _Probe | None = None
        self.report: Callable[[TuningEpoch], None] | None = None
        self.step_losses: list[float] = []
        self.losses: list[float] = []  # of the probe, by epoch
        self.best: dict[str, Tensor] = {}  # trained parameters after the epoch with the lowest of them

    @property
    def stopped(self) -> bool:
        """True if the probe's loss did not fall for `patience` epochs."""
        patience = self.config.patience
        return patience is not None and len(self.losses) - 1 - _first_lowest(self.losses) >= patience

    def train(self, checkpoint: Path | None, progress: bool) -> None:
        """Run the remaining steps."""
        self.checkpoint, self.saved_at, self.first = checkpoint, time.monotonic(), self.done
        self.bar = ProgressBar("tuning", self.total, shown=progress and _is_main_process(), done=self.done)
        if self.done < self.total and not self.stopped:
            with self.bar, tempfile.TemporaryDirectory() as folder, isolated_rng(0), capture_library_logs():
                self._trainer(folder).train()
        with torch.no_grad():
            for name, tensor in self.best.items():
                self.parameters[name].copy_(tensor)
        self.transformer.eval()

    def _trainer(self, folder: str) -> _PairTrainer:
        from datasets import Dataset

        config = self.config
        start = self.done * self.rows.batch_size
        remaining = {name: column[start:] for name, column in self.rows.columns.items()}
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=_device_batch_size(self.rows.batch_size),
            bf16=config.precision == "bfloat16",
            use_cpu=self.transformer.device.type == "cpu",
            dataloader_pin_memory=self.transformer.device.type != "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        # One process trains on one device; otherwise the trainer multiplies the batch by the number of visible GPUs.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        trainer = _PairTrainer(
            self.transformer,
            arguments,
            Dataset.from_dict(remaining),
            loss=self.loss,
            callbacks=[self],
            optimizers=(self.optimizer, torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)),
        )
        trainer.step_losses = self.step_losses
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        return trainer

    def _rate(self, step: int) -> float:
        """Return the factor of the learning rate at a step: linear warm-up, then linear decay to zero."""
        warmup = self.config.warmup * self.total
        step += self.first
        return (step + 1) / (warmup + 1) if step < warmup else (self.total - step) / (self.total - warmup)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Seed the dropout of this step, so that a checkpoint needs no generator state."""
        torch.manual_seed(int(numpy_stream(self.seed, "dropout", self.done).integers(2**62)))

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step, validate after an epoch, and write the checkpoint if it is due."""
        self.done += 1
        self.bar.set(self.done)
        epoch = self.done * self.config.epochs // self.total  # epochs done
        if epoch > (self.done - 1) * self.config.epochs // self.total:
            self._end_epoch(epoch - 1)
            control.should_training_stop |= self.stopped
        if (
            self.checkpoint is not None
            and _is_main_process()
            and time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS
        ):
            self.save(self.checkpoint)
            self.saved_at = time.monotonic()

    def _end_epoch(self, epoch: int) -> None:
        if self.probe is not None:
            self.losses.append(self.probe.loss(self.transformer))
            if _first_lowest(self.losses) == len(self.losses) - 1:
                self.best = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        if self.report is not None:
            rate = self.learning_rate * self._rate(self.done - self.first)
            validation_loss = self.losses[-1] if self.losses else None
            self.report(TuningEpoch(epoch, rate, float(np.mean(self.step_losses)), validation_loss))
        self.step_losses.clear()

    def save(self, path: Path) -> None:
        """Write a checkpoint for `load`."""
        tensors = {f"weights.{name}": tensor.detach() for name, tensor in self.parameters.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, tensor in self.parameters.items():
            tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state[tensor].items()}
        write_tensors(
            path, tensors, {"tuning": json.dumps({"run": self.inputs, "steps": self.done, "losses": self.losses})}
        )

    def load(self, path: Path) -> None:
        """Restore the state from a checkpoint of the same run.

        Raises:
            TrainingError: the file is not a checkpoint of this run.
            ModelFileError: the file is damaged.
        """
        tensors, metadata = read_tensors(path)
        try:
            progress = json.loads(metadata["tuning"])
            run, steps = dict(progress["run"]), int(progress["steps"])
            probe_losses = [float(loss) for loss in progress["losses"]]
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} is not a checkpoint of a tuning; name another file or remove it") from error
        changed = [name for name, value in self.inputs.items() if run.get(name) != value]
        if changed:
            raise TrainingError(
                f"{path} belongs to another tuning (its {' and '.join(changed)} differ); "
                "use the same arguments, or remove it to start again"
            )
        shapes = {f"weights.{name}": tensor.shape for name, tensor in self.parameters.items()}
        moved = [name for name in self.parameters if f"step.{name}" in tensors]  # not an unused pooler
        shapes |= {f"{key}.{name}": self.parameters[name].shape for name in moved for key in _AVERAGES}
        shapes |= {f"step.{name}": torch.Size([]) for name in moved}
        if probe_losses:
            shapes |= {f"best.{name}": tensor.shape for name, tensor in self.parameters.items()}
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes or not 0 < steps <= self.total:
            raise TrainingError(f"{path} does not hold the tensors of this tuning; remove it to start again")
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(tensors[f"weights.{name}"])
        for name in moved:
            parameter = self.parameters[name]
            state = {key: tensors[f"{key}.{name}"].to(parameter.device) for key in ("step", *_AVERAGES)}
            self.optimizer.state[parameter] = state
        if probe_losses:
            self.best = {name: tensors[f"best.{name}"] for name in self.parameters}
        self.done, self.losses = steps, probe_losses


def _make_loss(transformer: SentenceTransformer, config: ContrastiveConfig, dimension: int, n_labels: int) -> nn.Module:
    """Return the loss of the settings as a module that embeds by `transformer`."""
    if config.loss == "cosine":
        return losses.CosineSimilarityLoss(transformer)
    if config.loss == "triplet":
        return losses.BatchHardSoftMarginTripletLoss(transformer)
    linear = None
    if config.cross_entropy:
        linear = nn.Linear(dimension, n_labels, device=transformer.device)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return SupervisedContrastiveLoss(transformer, config.temperature, linear, config.cross_entropy)


def _device_batch_size(batch_size: int) -> int:
    """Return the number of pairs or sentences per device.

    Raises:
        ConfigError: the batch cannot be divided among the processes.
    """
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    if batch_size % devices:
        raise ConfigError(f"batch_size={batch_size} cannot be divided among {devices} processes; use a multiple")
    return batch_size // devices


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _wait_for_all() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
