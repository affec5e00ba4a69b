"""Contrastive tuning: pairs, effect on embeddings, caching, interruption and invalid input."""

from __future__ import annotations

import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ketfit.bodies import contrastive
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.errors import (
    BodyError,
    ConfigError,
    DataError,
    InputError,
    InsufficientMemoryError,
    MissingExtraError,
    StorageError,
    TrainingError,
)
from ketfit.model.tuning import ContrastiveConfig
from ketfit.storage.tensors import write_tensors

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["yes"] * 4 + ["no"] * 4
QUICK = ContrastiveConfig(loss="cosine", batch_size=4, learning_rate=1e-3, pairs_per_sentence=2, precision="float32")
SUPERVISED = ContrastiveConfig(epochs=1, batch_size=4, learning_rate=1e-3, precision="float32")
TRIPLET = ContrastiveConfig(loss="triplet", batch_size=4, learning_rate=1e-3, precision="float32")


class Power(Exception):
    """A simulated interruption."""


def weights(body: Body) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in body.transformer.state_dict().items()}


def same(one: Body, other: Body) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def contrast(body: Body) -> float:
    """Return the mean cosine within labels minus that between labels."""
    rows = body.encode(TEXTS, cache=False)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, equal = rows @ rows.T, np.equal.outer(LABELS, LABELS)
    others = ~np.eye(len(TEXTS), dtype=bool)
    return float(cosines[equal & others].mean() - cosines[~equal].mean())


def cut_off(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Raise the simulated interruption after the checkpoint of a step, counted from 1."""
    plain = contrastive._TuningRun.save

    def save(run: Any, path: Path) -> None:
        plain(run, path)
        if run.done == after:
            raise Power

    monkeypatch.setattr(contrastive, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(contrastive._TuningRun, "save", save)


class TestEarlyStopping:
    VALIDATION = (["the fine film", "the bad film"], ["yes", "no"])

    def test_tune_body_patience_restores_the_best_epoch(
        self, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = iter([0.5, 0.4, 0.6, 0.7, 0.1])
        monkeypatch.setattr(contrastive._Probe, "loss", lambda *_: next(losses))
        config = SUPERVISED.updated(epochs=5, patience=2, batch_size=8)
        stopped = tune_body(tiny_body, TEXTS, LABELS, config, validation=self.VALIDATION)
        assert next(losses) == 0.1
        losses = iter([0.5, 0.4, 0.6, 0.7])
        longer = config.updated(patience=3)
        assert not same(stopped, tiny_body)
        unlimited = iter([0.5, 0.4, 0.6, 0.7, 0.8])
        monkeypatch.setattr(contrastive._Probe, "loss", lambda *_: next(unlimited))
        assert same(stopped, tune_body(tiny_body, TEXTS, LABELS, longer, validation=self.VALIDATION))

    @pytest.mark.slow
    def test_tune_body_resumed_with_patience_gives_the_same_body(
        self, tiny_body: Body, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = SUPERVISED.updated(epochs=6, patience=6, batch_size=8, cross_entropy=0.5)
        arguments: dict[str, Any] = {"validation": self.VALIDATION, "checkpoint": tmp_path / "c"}
        whole = tune_body(tiny_body, TEXTS, LABELS, config, validation=self.VALIDATION)
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "other"))
        with monkeypatch.context() as patch, pytest.raises(Power):
            cut_off(patch, after=3)
            tune_body(tiny_body, TEXTS, LABELS, config, **arguments)
        assert same(tune_body(tiny_body, TEXTS, LABELS, config, **arguments), whole)

    def test_tune_body_probe_loss_is_that_of_logistic_regression(self, tiny_body: Body) -> None:
        probe = contrastive._Probe.from_validation(TEXTS, np.array(LABELS), self.VALIDATION)
        x, held_out = (
            tiny_body.transformer.encode(texts, normalize_embeddings=True) for texts in (TEXTS, self.VALIDATION[0])
        )
        model = LogisticRegression(max_iter=1000).fit(x, LABELS)
        probabilities = model.predict_proba(held_out)
        expected = -np.log([probabilities[0, 1], probabilities[1, 0]]).mean()
        assert probe.loss(tiny_body.transformer) == pytest.approx(expected, rel=1e-5)

    def test_tune_body_patience_without_validation_raises(self, tiny_body: Body, fresh_cache: Path) -> None:
        with pytest.raises(ConfigError, match="patience stops on validation sentences, and there are none"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK.updated(patience=1))

    def test_tune_body_unknown_validation_label_raises(self, tiny_body: Body, fresh_cache: Path) -> None:
        with pytest.raises(DataError, match="the validation labels hold 'maybe'"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK.updated(patience=1), validation=(["good"], ["maybe"]))


class TestTuning:
    def test_tune_body_changed_after_loading_raises(self, own_body: Path, fresh_cache: Path) -> None:
        body = load_body(own_body, device="cpu")
        with torch.no_grad():
            next(body.transformer.parameters()).add_(1)
        with pytest.raises(BodyError, match="changed since it was loaded, and tuning starts from its files"):
            tune_body(body, TEXTS, LABELS, QUICK)

    def test_tune_body_uses_one_of_several_gpus(
        self, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class TwoGPUs(contrastive.SentenceTransformerTrainingArguments):
            def __post_init__(self) -> None:
                super().__post_init__()
                _ = self.device
                self._n_gpu = 2

        sizes: list[int] = []
        monkeypatch.setattr(contrastive, "SentenceTransformerTrainingArguments", TwoGPUs)
        monkeypatch.setattr(contrastive._PairTrainer, "train", lambda self: sizes.append(self.args.train_batch_size))
        tune_body(tiny_body, TEXTS, LABELS, SUPERVISED)
        assert sizes == [4]

    @pytest.mark.slow
    @pytest.mark.parametrize("loss", ["supervised", "cosine", "triplet"])
    def test_tune_body_separates_labels(self, loss: Any, tiny_body: Body, fresh_cache: Path) -> None:
        config = SUPERVISED.updated(loss=loss, epochs=12 if loss == "cosine" else 48, learning_rate=3e-3)
        result = tune_body(tiny_body, TEXTS, LABELS, config)
        assert contrast(result) > contrast(tiny_body) + 0.2

    @pytest.mark.slow
    def test_tune_body_same_arguments_give_same_body(
        self, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        one = tune_body(tiny_body, TEXTS, LABELS, QUICK, seed=1)
        assert not same(one, tune_body(tiny_body, TEXTS, LABELS, QUICK, seed=2))
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "other"))
        again = tune_body(tiny_body, TEXTS, LABELS, QUICK, seed=1)
        assert again.folder != one.folder
        assert again.fingerprint == one.fingerprint
        assert same(again, one)

    @pytest.mark.slow
    def test_tune_body_second_call_loads_from_cache(
        self, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainings: list[object] = []
        plain = contrastive._TuningRun.train
        monkeypatch.setattr(contrastive._TuningRun, "train", lambda *args: (trainings.append(args), plain(*args)))
        bodies = [tune_body(tiny_body, TEXTS, labels, QUICK) for labels in (LABELS, LABELS, [3] * 4 + [7] * 4)]
        assert len(trainings) == 1, "labels of other names group the sentences in the same way"
        assert len({body.fingerprint for body in bodies}) == 1
        others: list[tuple[Any, Any, Any, int]] = [
            ([*TEXTS[:-1], "dull film"], LABELS, QUICK, 0),
            (TEXTS, ["yes", "no"] * 4, QUICK, 0),
            (TEXTS, LABELS, QUICK.updated(weight_decay=0.0), 0),
            (TEXTS, LABELS, QUICK, 1),
        ]
        for number, (texts, labels, config, seed) in enumerate(others):
            tune_body(tiny_body, texts, labels, config, seed=seed)
            assert len(trainings) == 2 + number
        assert len(list((fresh_cache / "tuned").iterdir())) == 5

    def test_tuned_body_names_its_base(self, tiny_body: Body, fresh_cache: Path) -> None:
        result = tune_body(tiny_body, TEXTS, LABELS, QUICK, seed=3)
        assert (result.name, result.source, result.revision) == (tiny_body.name, "local", None)
        assert result.tuning is not None
        assert (result.tuning.stages, result.tuning.seed) == ((QUICK,), 3)
        assert result.tuning.base_fingerprint == tiny_body.fingerprint != result.fingerprint
        assert load_body(result.folder).fingerprint == result.fingerprint
        assert {path.suffix for path in result.folder.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt"}
        assert result.encode(["good film"]).shape == (1, 16)

    def test_tune_body_leaves_arguments_and_generators_unchanged(
        self, tiny_body_folder: Path, fresh_cache: Path
    ) -> None:
        body = load_body(tiny_body_folder, device="cpu")
        before, array, plain = weights(body), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        rng = torch.get_rng_state()
        tune_body(body, TEXTS, LABELS, QUICK)
        assert all(torch.equal(tensor, before[name]) for name, tensor in weights(body).items())
        assert not body.transformer.training
        assert torch.equal(torch.get_rng_state(), rng)
        assert random.getstate() == plain
        assert (np.random.get_state()[1] == array).all()  # noqa: NPY002

    def test_tune_body_last_layers_changes_only_those(self, tiny_body: Body, fresh_cache: Path) -> None:
        result = tune_body(tiny_body, TEXTS, LABELS, QUICK.updated(last_layers=1))
        before, after = weights(tiny_body), weights(result)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert all(".layer.0." in name for name in moved)
        with pytest.raises(ConfigError, match="last_layers=2: .* has 1 layers"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK.updated(last_layers=2))

    @pytest.mark.slow
    def test_tune_body_bfloat16_keeps_float32_weights(self, tiny_body: Body, fresh_cache: Path) -> None:
        result = tune_body(tiny_body, TEXTS, LABELS, QUICK.updated(precision="bfloat16"))
        exact = tune_body(tiny_body, TEXTS, LABELS, QUICK)
        assert {tensor.dtype for tensor in weights(result).values() if tensor.is_floating_point()} == {torch.float32}
        assert result.fingerprint != exact.fingerprint
        np.testing.assert_allclose(result.encode(TEXTS), exact.encode(TEXTS), atol=0.05)

    @pytest.mark.slow
    def test_tune_body_prints_nothing_to_stdout(
        self, tiny_body: Body, fresh_cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tune_body(tiny_body, TEXTS, LABELS, QUICK)
        assert capsys.readouterr() == ("", "")
        tune_body(tiny_body, TEXTS, LABELS, QUICK, seed=1, progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "tuning" in shown.err
        assert "8/8" in shown.err


class TestInterruption:
    @pytest.mark.slow
    def test_tune_body_resumed_gives_the_same_body(
        self, tiny_body: Body, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = QUICK.updated(last_layers=1)
        whole = tune_body(tiny_body, TEXTS, LABELS, config)
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "other"))
        checkpoint = tmp_path / "tuning.safetensors"
        with monkeypatch.context() as patch, pytest.raises(Power):
            cut_off(patch, after=3)
            tune_body(tiny_body, TEXTS, LABELS, config, checkpoint=checkpoint)
        assert not (tmp_path / "other" / "tuned").exists()
        steps: list[int] = []
        plain = contrastive._TuningRun.on_step_end
        monkeypatch.setattr(
            contrastive._TuningRun,
            "on_step_end",
            lambda run, *args, **named: (steps.append(run.done), plain(run, *args, **named))[1],
        )
        resumed = tune_body(tiny_body, TEXTS, LABELS, config, checkpoint=checkpoint)
        assert steps == [3, 4, 5, 6, 7]
        assert resumed.fingerprint == whole.fingerprint
        assert same(resumed, whole)

    @pytest.mark.slow
    def test_tune_body_resumed_after_last_step_only_saves(
        self, tiny_body: Body, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch, pytest.raises(Power):
            cut_off(patch, after=8)
            tune_body(tiny_body, TEXTS, LABELS, QUICK, checkpoint=str(tmp_path / "c"))
        resumed = tune_body(tiny_body, TEXTS, LABELS, QUICK, checkpoint=tmp_path / "c")
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "other"))
        assert same(resumed, tune_body(tiny_body, TEXTS, LABELS, QUICK))

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"seed": 1}, "seed"),
            ({"texts": TEXTS[::-1]}, "sentences"),
            ({"labels": ["yes", "no"] * 4}, "labels"),
            ({"config": QUICK.updated(epochs=2)}, "tuning settings"),
        ],
    )
    def test_tune_body_checkpoint_of_another_run_raises(
        self,
        change: dict[str, Any],
        named: str,
        tiny_body: Body,
        fresh_cache: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        given: dict[str, Any] = {"texts": TEXTS, "labels": LABELS, "config": QUICK, "checkpoint": tmp_path / "c"}
        with monkeypatch.context() as patch, pytest.raises(Power):
            cut_off(patch, after=2)
            tune_body(tiny_body, **given)
        with pytest.raises(TrainingError, match=rf"belongs to another tuning \(its {named} differ\)"):
            tune_body(tiny_body, **{**given, **change})

    def test_tune_body_file_that_is_no_checkpoint_raises(
        self, tiny_body: Body, fresh_cache: Path, tmp_path: Path
    ) -> None:
        write_tensors(tmp_path / "c", {"a": torch.zeros(1)}, {})
        with pytest.raises(TrainingError, match="is not a checkpoint of a tuning"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK, checkpoint=tmp_path / "c")

    def test_tune_body_checkpoint_without_tensors_raises(
        self, tiny_body: Body, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch, pytest.raises(Power):
            cut_off(patch, after=2)
            tune_body(tiny_body, TEXTS, LABELS, QUICK, checkpoint=tmp_path / "c")
        tensors, facts = contrastive.read_tensors(tmp_path / "c")
        del tensors[min(tensors)]
        write_tensors(tmp_path / "c", tensors, facts)
        with pytest.raises(TrainingError, match="does not hold the tensors of this tuning"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK, checkpoint=tmp_path / "c")

    @pytest.mark.slow
    def test_tune_body_on_full_disk_leaves_no_partial_body(
        self, tiny_body: Body, fresh_cache: Path, full_disk: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        with full_disk(3000), pytest.raises(StorageError, match="the tuned body cannot be kept in .* Make room"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK)
        assert list((fresh_cache / "tuned").iterdir()) == []

    @pytest.mark.slow
    def test_tune_body_unusable_cache_saves_to_temporary_folder(
        self, tiny_body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = tune_body(tiny_body, TEXTS, LABELS, QUICK)
        (tmp_path / "file").touch()
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "file"))
        with pytest.warns(
            UserWarning, match=r"cannot be used .*; the tuned body is kept in .* until this process ends"
        ):
            result = tune_body(tiny_body, TEXTS, LABELS, QUICK)
        assert result.fingerprint == usual.fingerprint
        np.testing.assert_array_equal(result.encode(TEXTS, cache=False), usual.encode(TEXTS, cache=False))
        monkeypatch.setattr(contrastive, "_TuningRun", None)  # found again, and told once
        assert tune_body(tiny_body, TEXTS, LABELS, QUICK).folder == result.folder
        content = pickle.dumps(result)
        shutil.rmtree(result.folder)
        assert pickle.loads(content).fingerprint == usual.fingerprint

    @pytest.mark.slow
    def test_tune_body_killed_while_saving_leaves_no_partial_body(self, tiny_body: Body, fresh_cache: Path) -> None:
        code = f"""
import os, signal
from ketfit.bodies import finetuned as tuned
from ketfit.bodies.body import load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.model.tuning import ContrastiveConfig
tuned.move_folder = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
tune_body(load_body({str(tiny_body.folder)!r}, device="cpu"), {TEXTS}, {LABELS}, ContrastiveConfig(epochs=1))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == -9, done.stderr
        assert not [path for path in (fresh_cache / "tuned").iterdir() if not path.name.startswith(".")]
        assert tune_body(tiny_body, TEXTS, LABELS, ContrastiveConfig(epochs=1)).folder.is_dir()


class TestBadInput:
    @pytest.mark.parametrize(
        ("texts", "labels", "error", "message"),
        [
            (TEXTS, ["yes"] * 8, DataError, "two labels or more; these have 1"),
            (TEXTS, ["yes"] * 7 + ["no"], DataError, "'no' has only one sentence"),
            (TEXTS, LABELS[:-1], InputError, r"labels have shape \(7,\); there are 8 sentences"),
            ([*TEXTS[:-1], " "], LABELS, InputError, r"texts\[7\]: the text is empty"),
            ("good film", LABELS, InputError, "must be a list of sentences"),
        ],
    )
    def test_tune_body_invalid_data_raises(
        self, texts: Any, labels: Any, error: type[Exception], message: str, tiny_body: Body, fresh_cache: Path
    ) -> None:
        with pytest.raises(error, match=message):
            tune_body(tiny_body, texts, labels, QUICK)
        assert not fresh_cache.exists()

    def test_tune_body_batches_of_one_label_raise(self, tiny_body: Body, fresh_cache: Path) -> None:
        texts = [f"film {number}" for number in range(40)]
        with pytest.raises(ConfigError, match="batch_size=2 leaves batches of one label only; raise it"):
            tune_body(tiny_body, texts, [0] * 38 + [1] * 2, TRIPLET.updated(batch_size=2))

    def test_tune_body_diverging_loss_raises(self, tiny_body: Body, fresh_cache: Path) -> None:
        with pytest.raises(TrainingError, match="the loss of tuning is nan; lower the learning rate"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK.updated(learning_rate=1e36))
        assert not fresh_cache.exists()

    def test_tune_body_too_little_memory_raises_before_training(
        self, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10_000))
        monkeypatch.setattr("ketfit.memory.ALWAYS_AVAILABLE", 0)
        monkeypatch.setattr(contrastive._TuningRun, "train", lambda *_: pytest.fail("it started"))
        with pytest.raises(
            InsufficientMemoryError, match=r"tuning needs .* GiB \(.* of gradients and AdamW's averages, "
        ):
            tune_body(tiny_body, TEXTS, LABELS, QUICK)

    def test_tune_body_without_the_extra_raises(self, tiny_body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contrastive, "find_spec", lambda name: None if name == "datasets" else object())
        with pytest.raises(MissingExtraError, match=r"pip install 'ketfit\[tune\]'"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK)

    def test_tune_body_batch_not_divisible_by_processes_raises(
        self, tiny_body: Body, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(ConfigError, match="batch_size=4 cannot be divided among 3 processes"):
            tune_body(tiny_body, TEXTS, LABELS, QUICK)


class TestEpochs:
    def test_tune_body_reports_every_epoch(self, tiny_body: Body, fresh_cache: Path) -> None:
        seen: list[contrastive.TuningEpoch] = []
        config = SUPERVISED.updated(epochs=3, batch_size=4)
        tune_body(tiny_body, TEXTS, LABELS, config, on_epoch_end=seen.append)
        assert [epoch.epoch for epoch in seen] == [0, 1, 2]
        assert all(epoch.train_loss > 0 and epoch.validation_loss is None for epoch in seen)
        assert seen[-1].learning_rate == 0 < seen[0].learning_rate
        tune_body(tiny_body, TEXTS, LABELS, config, on_epoch_end=lambda _: pytest.fail("it was in the cache"))

    def test_tune_body_reports_validation_losses_with_patience(self, tiny_body: Body, fresh_cache: Path) -> None:
        seen: list[contrastive.TuningEpoch] = []
        config = SUPERVISED.updated(epochs=2, patience=2)
        validation = (["the fine film", "the bad film"], ["yes", "no"])
        tune_body(tiny_body, TEXTS, LABELS, config, validation=validation, on_epoch_end=seen.append)
        assert all(epoch.validation_loss is not None and epoch.validation_loss > 0 for epoch in seen)
