"""Contrastive fine-tuning of a body: embeddings of one label move together, those of different labels apart.

It uses the trainer and the losses of sentence-transformers. Order, dropout and learning rate of a step depend only on
the seed and the number of the step: a checkpoint has the weights, the averages of AdamW and the number of steps.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from ketfit.bodies.body import Body, capture_library_logs
from ketfit.bodies.finetuned import (
    check_memory,
    content_hash,
    finetuned_folder,
    isolated_rng,
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

Columns = dict[str, list[Any]]  # columns of a data set, by the names that the losses use


def tune_body(
    body: Body,
    texts: Sequence[str],
    labels: ArrayLike,
    config: ContrastiveConfig | None = None,
    *,
    seed: int = 0,
    validation: SentenceValidation | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
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
        validation: Sentences and labels, and optionally weights, that are not trained on.
        checkpoint: A file written every five minutes; an existing one is resumed from.
        progress: Show a progress bar on stderr.

    Raises:
        InputError: a sentence is blank, or there are not as many labels as sentences.
        DataError: there is only one label, or a label has only one sentence.
        ConfigError: the settings do not fit the body or the sentences.
        InsufficientMemoryError: the free memory cannot hold weights, gradients, averages and activations.
        TrainingError: the loss is not finite, or the checkpoint belongs to another run.
        BodyError: the body cannot be used.
        ModelFileError: the checkpoint is damaged.
        StorageError: the checkpoint cannot be written, or neither the cache nor a temporary folder can be.
        MissingExtraError: the packages of the extra ``tune`` are not installed.
    """
    if not all(find_spec(package) for package in ("accelerate", "datasets")):
        raise MissingExtraError("Contrastive tuning", "'ketfit[tune]'")
    config = config or ContrastiveConfig()
    sentences, codes = _checked(texts, labels)
    inputs = {
        "body": body.fingerprint,
        "sentences": hash_json(sentences),
        "labels": hash_json(codes.tolist()),
        "tuning settings": config.model_dump_json(),
        "seed": str(seed),
    }
    name = content_hash(inputs)
    folder = finetuned_folder(name)
    if not is_folder(folder):
        columns = _training_columns(sentences, codes, config, seed)
        transformer = trainable_copy(body, config.last_layers)
        per_step = config.batch_size * (2 if config.loss == "cosine" else 1)
        check_memory(
            transformer, per_step, max_token_count(transformer, sentences), copies=0, checkpoint=checkpoint is not None
        )
        run = _TuningRun(transformer, columns, config, seed, inputs)
        if checkpoint is not None and checkpoint.exists():
            run.load(checkpoint)
        run.train(checkpoint, progress)
        if _is_main_process():
            folder = save_finetuned(transformer, name)
        _wait_for_all()
        if not is_folder(folder):  # a temporary folder of the main process, because the cache cannot be written
            folder = save_finetuned(transformer, name)
    return load_finetuned(folder, body, config, seed)


def _checked(texts: Sequence[str], labels: ArrayLike) -> tuple[list[str], NDArray[np.int64]]:
    samples = LabelledTexts.from_columns(texts, labels)
    names, first, codes, counts = np.unique(samples.labels, return_index=True, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(f"contrastive tuning needs sentences of two labels or more; these have {len(names)}")
    if counts.min() < 2:
        label = names[counts.argmin()].item()
        raise DataError(f"contrastive tuning pairs sentences of one label, and {label!r} has only one sentence")
    # Numbered in order of appearance, so that the names of the labels do not affect the result.
    return samples.texts, first.argsort().argsort()[codes]


def _training_columns(sentences: list[str], codes: NDArray[np.int64], config: ContrastiveConfig, seed: int) -> Columns:
    """Return the columns of the training data in the order of the steps, all epochs."""
    rngs = [numpy_stream(seed, "pairs", epoch) for epoch in range(config.epochs)]
    if config.loss == "cosine":
        pairs = []
        for rng in rngs:
            drawn = draw_pairs(codes, config.pairs_per_sentence, rng)
            pairs += batch_by_length(drawn, sentences, config.batch_size, rng) if config.group_by_length else drawn
        return {
            "sentence1": [sentences[one] for one, _ in pairs],
            "sentence2": [sentences[other] for _, other in pairs],
            "label": [float(codes[one] == codes[other]) for one, other in pairs],
        }
    order = np.concatenate([interleave_labels(codes, rng) for rng in rngs])
    order = order[: len(order) // config.batch_size * config.batch_size or None]
    for start in range(0, len(order), config.batch_size):
        if len(set(codes[order[start : start + config.batch_size]].tolist())) < 2:
            raise ConfigError(f"batch_size={config.batch_size} leaves batches of one label only; raise it")
    return {"sentence": [sentences[row] for row in order], "label": codes[order].tolist()}


def draw_pairs(codes: NDArray[np.int64], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return `count` pairs of each sentence with its own label and `count` with other labels, in random order."""
    pairs = []
    for row, code in enumerate(codes):
        own = np.flatnonzero(codes == code)
        for partners in (own[own != row], np.flatnonzero(codes != code)):
            chosen = rng.choice(partners, count, replace=len(partners) < count)
            pairs += [(row, int(partner)) for partner in chosen]
    return [pairs[index] for index in rng.permutation(len(pairs))]


def batch_by_length(
    pairs: list[tuple[int, int]], sentences: Sequence[str], batch_size: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Sort pairs into batches of sentences of similar length, and shuffle the batches.

    A batch is padded to its longest sentence; in random batches of reviews half of the tokens are padding.
    """
    one, other = (np.array([len(sentences[pair[side]]) for pair in pairs]) for side in (0, 1))
    by_first = np.argsort(one, kind="stable")
    stripes = np.array_split(by_first, max(1, round(math.sqrt(len(pairs) / batch_size))))
    order = np.concatenate([stripe[np.argsort(other[stripe], kind="stable")] for stripe in stripes])
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    shuffled = np.concatenate([batches[rng.permutation(len(batches))].ravel(), order[whole:]])
    return [pairs[index] for index in shuffled]


def interleave_labels(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random order of all sentences, shape (n,), in which every label is spread evenly."""
    positions = np.empty(len(codes))
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        positions[rng.permutation(own)] = (np.arange(len(own)) + rng.random(len(own))) / len(own)
    return np.argsort(positions, kind="stable")


class _PairTrainer(SentenceTransformerTrainer):
    """The trainer of sentence-transformers with batches in the order of the data, a loss check and no model card."""

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
        return loss


class _TuningRun(TrainerCallback):
    """The state of a fine-tuning, and the callbacks of the trainer."""

    def __init__(
        self,
        transformer: SentenceTransformer,
        columns: Columns,
        config: ContrastiveConfig,
        seed: int,
        inputs: dict[str, str],
    ) -> None:
        self.transformer, self.columns, self.config, self.seed, self.inputs = transformer, columns, config, seed, inputs
        self.total = math.ceil(len(columns["label"]) / config.batch_size)
        self.done = self.first = 0  # steps taken in all, and before this process
        self.parameters = {name: tensor for name, tensor in transformer.named_parameters() if tensor.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.checkpoint: Path | None = None
        self.saved_at = 0.0
        self.bar = ProgressBar("tuning", self.total, shown=False)

    def train(self, checkpoint: Path | None, progress: bool) -> None:
        """Run the remaining steps."""
        self.checkpoint, self.saved_at, self.first = checkpoint, time.monotonic(), self.done
        self.bar = ProgressBar("tuning", self.total, shown=progress and _is_main_process(), done=self.done)
        if self.done < self.total:
            with self.bar, tempfile.TemporaryDirectory() as folder, isolated_rng(0), capture_library_logs():
                self._trainer(folder).train()
        self.transformer.eval()

    def _trainer(self, folder: str) -> _PairTrainer:
        from datasets import Dataset

        config = self.config
        remaining = {name: column[self.done * config.batch_size :] for name, column in self.columns.items()}
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=_device_batch_size(config.batch_size),
            bf16=config.precision == "bfloat16",
            use_cpu=self.transformer.device.type == "cpu",
            dataloader_pin_memory=self.transformer.device.type != "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        loss = losses.CosineSimilarityLoss if config.loss == "cosine" else losses.BatchHardSoftMarginTripletLoss
        trainer = _PairTrainer(
            self.transformer,
            arguments,
            Dataset.from_dict(remaining),
            loss=loss(self.transformer),
            callbacks=[self],
            optimizers=(self.optimizer, torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)),
        )
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

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count the step, and write the checkpoint if it is due."""
        self.done += 1
        self.bar.set(self.done)
        if (
            self.checkpoint is not None
            and _is_main_process()
            and time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS
        ):
            self.save(self.checkpoint)
            self.saved_at = time.monotonic()

    def save(self, path: Path) -> None:
        """Write a checkpoint for `load`."""
        tensors = {f"weights.{name}": tensor.detach() for name, tensor in self.parameters.items()}
        for name, tensor in self.parameters.items():
            tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state[tensor].items()}
        write_tensors(path, tensors, {"tuning": json.dumps({"run": self.inputs, "steps": self.done})})

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
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes or not 0 < steps <= self.total:
            raise TrainingError(f"{path} does not hold the tensors of this tuning; remove it to start again")
        state = {
            index: {key: tensors[f"{key}.{name}"] for key in ("step", *_AVERAGES)}
            for index, name in enumerate(self.parameters)
            if name in moved
        }
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(tensors[f"weights.{name}"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.done = steps


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
