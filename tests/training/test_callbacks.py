"""Callbacks: what they are told and when, their errors, and the ready ones with the real packages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from ketfit.errors import ConfigError, MissingExtraError, TrainingError
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from ketfit.training.callbacks import Callback, MLflowCallback, Stage, TensorBoardCallback, observe_fit
from ketfit.training.loop import Epoch

X = np.random.default_rng(0).normal(size=(24, 6))
Y = np.where(X[:, 0] > 0, "up", "down")
TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = [1, 1, 1, 1, 0, 0, 0, 0]
TRAIN = TrainConfig(epochs=3, learning_rate=0.1)
HEAD = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)


class Recorder(Callback):
    """Record all calls, and raise `error` at the end of its second epoch."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[tuple[str, Any, Any]] = []
        self.error = error

    def on_fit_start(self, settings: Mapping[str, Any]) -> None:
        self.calls.append(("start", dict(settings), None))

    def on_epoch_end(self, stage: Stage, epoch: Epoch) -> None:
        self.calls.append(("epoch", stage, epoch))
        torch.manual_seed(0)  # a callback may use the global generators
        torch.rand(3)
        np.random.seed(epoch.epoch)  # noqa: NPY002
        if self.error is not None and epoch.epoch == 1:
            raise self.error

    def on_fit_end(self, error: BaseException | None) -> None:
        self.calls.append(("end", error, None))

    @property
    def epochs(self) -> list[tuple[str, Epoch]]:
        return [(stage, epoch) for name, stage, epoch in self.calls if name == "epoch"]


class Printer:
    """A callback by its methods alone."""

    def on_fit_start(self, settings: Mapping[str, Any]) -> None:
        print("start")

    def on_epoch_end(self, stage: Stage, epoch: Epoch) -> None:
        print(stage, epoch.epoch)

    def on_fit_end(self, error: BaseException | None) -> bool:
        print("end")
        return True  # must not suppress an exception


class BadEnd(Callback):
    """A callback that fails at the end of the fit."""

    def on_fit_end(self, error: BaseException | None) -> None:
        raise RuntimeError("no end")


HEADS = [QuantumHeadClassifier(HEAD, TRAIN), MLPHead(4, train=TRAIN)]


class TestTorchHeads:
    @pytest.mark.parametrize("head", HEADS, ids=["quantum", "mlp"])
    def test_fit_reports_every_epoch_of_the_history(self, head: TorchHeadClassifier) -> None:
        recorder = Recorder()
        head.fit(X, Y, callbacks=[recorder])
        assert recorder.epochs == [("head", epoch) for epoch in head.history_]
        assert [name for name, *_ in recorder.calls] == ["start", "epoch", "epoch", "epoch", "end"]
        assert recorder.calls[-1] == ("end", None, None)

    def test_start_gets_the_settings_without_their_groups(self) -> None:
        recorder = Recorder()
        QuantumHeadClassifier(HEAD, TRAIN, seed=3).fit(X, Y, callbacks=[recorder])
        _, settings, _ = recorder.calls[0]
        assert (settings["seed"], settings["head__n_qubits"], settings["train__epochs"]) == (3, 3, 3)
        assert "head" not in settings

    @pytest.mark.parametrize("head", HEADS, ids=["quantum", "mlp"])
    def test_callbacks_do_not_change_the_result(self, head: TorchHeadClassifier) -> None:
        plain = head.fit(X, Y).predict_proba(X)
        np.testing.assert_array_equal(head.fit(X, Y, callbacks=[Recorder()]).predict_proba(X), plain)

    def test_resumed_fit_reports_the_remaining_epochs(self, tmp_path: Path) -> None:
        head = MLPHead(4, train=TRAIN)
        with pytest.raises(RuntimeError, match="full"):
            head.fit(X, Y, checkpoint=tmp_path / "file", callbacks=[Recorder(RuntimeError("full"))])
        recorder = Recorder()
        head.fit(X, Y, checkpoint=tmp_path / "file", callbacks=[recorder])
        assert [epoch.epoch for _, epoch in recorder.epochs] == [2]

    def test_object_with_the_methods_is_a_callback(self, capsys: pytest.CaptureFixture[str]) -> None:
        MLPHead(4, train=TRAIN).fit(X, Y, callbacks=[Printer()])
        assert capsys.readouterr().out.split("\n")[:-1] == ["start", "head 0", "head 1", "head 2", "end"]


class TestTextClassifier:
    def test_fit_reports_both_stages(self, tiny_body_folder: Path) -> None:
        tune = EndToEndConfig(epochs=2, batch_size=4)
        text = TextClassifier(str(tiny_body_folder), HEAD.updated(n_qubits=5), TRAIN, tune=tune)
        recorder = Recorder()
        predicted = text.fit(TEXTS, LABELS, callbacks=[recorder]).predict_proba(TEXTS)
        assert [stage for stage, _ in recorder.epochs] == ["head"] * 3 + ["end-to-end"] * 2
        assert tuple(epoch for _, epoch in recorder.epochs[3:]) == text.classifier_.history_
        assert [name for name, *_ in recorder.calls].count("start") == 1
        np.testing.assert_array_equal(text.fit(TEXTS, LABELS).predict_proba(TEXTS), predicted)

    def test_text_classifier_reports_contrastive_epochs(self, tiny_body_folder: Path, fresh_cache: Path) -> None:
        tune = ContrastiveConfig(loss="supervised", epochs=2)
        text = TextClassifier(str(tiny_body_folder), HEAD.updated(n_qubits=5), TRAIN, tune=tune)
        recorder = Recorder()
        text.fit(TEXTS, LABELS, callbacks=[recorder])
        assert [stage for stage, _ in recorder.epochs] == ["contrastive"] * 2 + ["head"] * 3
        assert all(epoch.validation_accuracy is None for _, epoch in recorder.epochs[:2])

    def test_failing_callback_leaves_the_classifier_unchanged(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD.updated(n_qubits=5), TRAIN).fit(TEXTS, LABELS)
        before = dict(text.__dict__)
        with pytest.raises(RuntimeError, match="disk full"):
            text.fit(TEXTS, LABELS, callbacks=[Recorder(RuntimeError("disk full"))])
        assert text.__dict__ == before


class TestFailures:
    def test_failing_callback_stops_the_fit_with_its_own_traceback(self) -> None:
        error = RuntimeError("disk full")
        failing, other = Recorder(error), Recorder()
        head = MLPHead(4, train=TRAIN).fit(X, Y)
        before = dict(head.__dict__)
        with pytest.raises(RuntimeError, match="disk full") as caught:
            head.fit(X, Y, callbacks=[other, failing])
        assert caught.value is error
        assert caught.traceback[-1].name == "on_epoch_end"
        assert head.__dict__ == before
        assert other.calls[-1] == failing.calls[-1] == ("end", error, None)

    def test_failing_end_leaves_the_head_unfitted(self) -> None:
        head, first = MLPHead(4, train=TRAIN), Recorder()
        with pytest.raises(RuntimeError, match="no end"):
            head.fit(X, Y, callbacks=[first, BadEnd()])
        assert not hasattr(head, "module_")
        assert str(first.calls[-1][1]) == "no end"

    def test_failing_end_leaves_the_text_classifier_as_it_was(self, tiny_body_folder: Path) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD.updated(n_qubits=5), TRAIN)
        with pytest.raises(RuntimeError, match="no end"):
            text.fit(TEXTS, ["x"] * 4 + ["y"] * 4, callbacks=[BadEnd()])
        with pytest.raises(NotFittedError):
            text.predict(TEXTS)
        predicted = text.fit(TEXTS, ["x"] * 4 + ["y"] * 4).predict(TEXTS)
        before = dict(text.__dict__)
        with pytest.raises(RuntimeError, match="no end"):
            text.fit(TEXTS, ["p"] * 4 + ["q"] * 4, callbacks=[BadEnd()])
        assert text.__dict__ == before
        assert set(predicted.tolist()) <= {"x", "y"}
        np.testing.assert_array_equal(text.predict(TEXTS), predicted)

    def test_failed_start_ends_those_before(self) -> None:
        class BadStart(Recorder):
            def on_fit_start(self, settings: Mapping[str, Any]) -> None:
                raise RuntimeError("no start")

        first, bad = Recorder(), BadStart()
        with pytest.raises(RuntimeError, match="no start"):
            MLPHead(4, train=TRAIN).fit(X, Y, callbacks=[first, bad])
        assert [name for name, *_ in first.calls] == ["start", "end"]
        assert bad.calls == []

    def test_callback_cannot_suppress_an_error(self) -> None:
        with pytest.raises(TrainingError), observe_fit([Printer()], {}):
            raise TrainingError("diverged")

    @pytest.mark.parametrize("callbacks", [Recorder(), None, "tensorboard"])
    def test_anything_but_a_list_is_refused(self, callbacks: Any) -> None:
        with pytest.raises(ConfigError, match=r"is not a list; pass callbacks=\[\.\.\.\]"):
            MLPHead(4).fit(X, Y, callbacks=callbacks)

    @pytest.mark.parametrize("callback", ["tensorboard", print, Recorder], ids=["string", "function", "class"])
    def test_anything_but_a_callback_is_refused(self, callback: Any) -> None:
        with pytest.raises(ConfigError, match="which is not a callback; pass objects of a subclass"):
            MLPHead(4).fit(X, Y, callbacks=[callback])

    def test_missing_packages_name_the_extra(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("torch.utils.tensorboard", "mlflow"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=r"TensorBoard needs .* pip install 'ketfit\[logging\]'"):
            TensorBoardCallback(tmp_path)
        with pytest.raises(MissingExtraError, match=r"MLflow needs .* pip install 'ketfit\[logging\]'"):
            MLflowCallback()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_shows_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    head = MLPHead(4, train=TRAIN).fit(X, Y, callbacks=[TensorBoardCallback(tmp_path / "logs")])
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    losses = events.Scalars("head/validation_loss")
    assert [event.step for event in losses] == [0, 1, 2]
    np.testing.assert_allclose([event.value for event in losses], [epoch.validation_loss for epoch in head.history_])
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| train__epochs | 3 |" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestMLflow:
    @pytest.fixture
    def mlflow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        monkeypatch.chdir(tmp_path)
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")  # a database is the default too
        return mlflow

    def test_fit_without_a_run_logs_one_of_its_own(self, mlflow: Any) -> None:
        head = QuantumHeadClassifier(HEAD, TRAIN).fit(X, Y, callbacks=[MLflowCallback()])
        (run,) = mlflow.search_runs(output_format="list")
        assert run.info.status == "FINISHED"
        assert run.data.params["head__n_qubits"] == "3"
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "head/train_loss")
        assert [(point.step, point.value) for point in history] == [(e.epoch, e.train_loss) for e in head.history_]

    def test_failed_fit_ends_its_run_as_failed(self, mlflow: Any) -> None:
        with pytest.raises(RuntimeError, match="full"):
            MLPHead(4, train=TRAIN).fit(X, Y, callbacks=[MLflowCallback(), Recorder(RuntimeError("full"))])
        (run,) = mlflow.search_runs(output_format="list")
        assert run.info.status == "FAILED"
        assert mlflow.active_run() is None

    def test_active_run_is_used_and_left_open(self, mlflow: Any) -> None:
        with mlflow.start_run() as run:
            MLPHead(4, train=TRAIN).fit(X, Y, callbacks=[MLflowCallback()])
            assert mlflow.active_run().info.run_id == run.info.run_id
        data = mlflow.get_run(run.info.run_id).data
        assert "head/validation_accuracy" in data.metrics
        assert data.params == {}
