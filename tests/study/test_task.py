"""Test the run of one task: its tries, its choice, and the use of the test sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from ketfit.errors import KetFitError, TrainingError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.study import task as task_module
from ketfit.study.task import (
    TaskArrays,
    build_head,
    content_hash,
    pack_bits,
    run_task,
    run_task_safely,
    training_hash,
    unpack_bits,
)

TRAIN = TrainConfig(epochs=8).model_dump(mode="json", exclude={"learning_rate", "selection"})
QUANTUM = HeadConfig(n_qubits=3, encoder_layers=1, main_layers=1, connectivity=1).model_dump(mode="json")


def config_of(kind: str, tries: list[float], selection: str = "loss", **settings: Any) -> dict[str, Any]:
    return {
        "head": {"kind": kind, "settings": settings},
        "train": TRAIN if kind in ("quantum", "mlp") else None,
        "tries": tries,
        "selection": selection,
        "seed": 3,
    }


def task_arrays(n: int = 200) -> TaskArrays:
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 2
    x = rng.standard_normal((n, 8)).astype(np.float32)
    x[:, 0] += 1.2 * (2 * codes - 1)
    train, validation, test = np.split(rng.permutation(n), [60, 100])
    return TaskArrays(x, codes, train, validation, test)


def arrays(task_arrays: TaskArrays) -> tuple[np.ndarray, ...]:
    return task_arrays.embeddings, task_arrays.codes, task_arrays.train, task_arrays.validation, task_arrays.test


KINDS = [
    config_of("quantum", [0.01, 0.1], **QUANTUM),
    config_of("quantum", [0.01, 0.1], **{**QUANTUM, "components": 5}),
    config_of("mlp", [0.01, 0.1], hidden=4, activation="gelu"),
    config_of("logistic-regression", [0.1, 1.0], components=None),
    config_of("logistic-regression", [0.1, 1.0], components=5),
    config_of("logistic-regression", [0.1, 1.0], components=5, directions="principal"),
    config_of("svc", [0.1, 1.0]),
]


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config["head"]["kind"])
def test_run_task_result_has_all_tries_and_scores_the_chosen(config: dict[str, Any]) -> None:
    inputs = task_arrays()
    outcome = run_task(config, inputs)
    result = outcome["result"]
    losses = [one["validation_loss"] for one in result["tries"]]
    assert [one["value"] for one in result["tries"]] == config["tries"]
    assert result["chosen"] == int(np.argmin(losses))
    assert result["validation_loss"] == losses[result["chosen"]]
    head = build_head(config, config["tries"][result["chosen"]]).fit(
        *inputs.part(inputs.train), validation=inputs.part(inputs.validation)
    )
    correct = head.predict(inputs.part(inputs.test)[0]) == inputs.part(inputs.test)[1]
    np.testing.assert_array_equal(unpack_bits(result["correct"], result["test_size"]), correct)
    assert result["test_accuracy"] == correct.mean()
    assert result["parameters"] == head.n_parameters_
    assert 0 < outcome["timing"]["fit"] <= outcome["timing"]["all_tries"]


def test_run_task_logistic_regression_equals_scikit_learn() -> None:
    inputs = task_arrays()
    result = run_task(config_of("logistic-regression", [0.5], components=None), inputs)["result"]
    reference = LogisticRegression(C=0.5).fit(*inputs.part(inputs.train))
    X, y = inputs.part(inputs.validation)
    assert result["validation_loss"] == pytest.approx(log_loss(y, reference.predict_proba(X)))
    assert result["test_accuracy"] == reference.score(*inputs.part(inputs.test))


@pytest.mark.parametrize(
    ("selection", "chosen"), [("loss", 1), ("accuracy", 2)], ids=["by loss", "by accuracy, ties by loss"]
)
def test_run_task_chooses_by_the_selection_of_the_config(
    monkeypatch: pytest.MonkeyPatch, selection: str, chosen: int
) -> None:
    scores = iter([(0.9, 0.8), (0.2, 0.7), (0.5, 0.8), (0.6, 0.8)])
    monkeypatch.setattr(task_module, "validate", lambda *_: next(scores))
    config = config_of("logistic-regression", [0.1, 0.2, 0.3, 0.4], selection, components=None)
    assert run_task(config, task_arrays())["result"]["chosen"] == chosen


def test_run_task_only_the_chosen_head_predicts_test_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = task_arrays()
    seen: list[tuple[float, str]] = []

    class Spy:
        n_parameters_ = 1

        def __init__(self, value: float) -> None:
            self.value = value

        def record(self, X: np.ndarray) -> None:
            part = next(
                name
                for name in ("train", "validation", "test")
                if np.array_equal(X, inputs.embeddings[getattr(inputs, name)])
            )
            seen.append((self.value, part))

        def fit(self, X: np.ndarray, y: np.ndarray, *, validation: tuple[np.ndarray, np.ndarray]) -> None:
            self.record(X)
            self.record(validation[0])

        def predict(self, X: np.ndarray) -> np.ndarray:
            self.record(X)
            return np.zeros(len(X), int)

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            self.record(X)
            return np.full((len(X), 2), [self.value, 1 - self.value])

    monkeypatch.setattr(task_module, "build_head", lambda config, value: Spy(value))
    run_task(config_of("svc", [0.9, 0.5, 0.1]), inputs)
    assert seen[-1] == (0.5, "test")
    assert [part for _, part in seen].count("test") == 1


def test_run_task_diverged_try_is_recorded_and_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = build_head

    class Diverges:
        def fit(self, *_: Any, **__: Any) -> None:
            raise TrainingError("the loss of epoch 3 is nan")

    monkeypatch.setattr(
        task_module, "build_head", lambda config, value: Diverges() if value > 1 else real(config, value)
    )
    config = config_of("logistic-regression", [2.0, 0.1], components=None)
    result = run_task(config, task_arrays())["result"]
    assert result["tries"][0] == {"value": 2.0, "error": "the loss of epoch 3 is nan"}
    assert result["chosen"] == 1
    outcome = run_task_safely({**config, "tries": [2.0, 3.0]}, *arrays(task_arrays()))
    assert outcome["error"]["type"] == "TrainingError"
    assert "none of the tries could be trained; the first: the loss of epoch 3 is nan" in outcome["error"]["message"]


def test_run_task_safely_any_exception_is_returned_as_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: Any, value: float) -> Any:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(task_module, "build_head", fails)
    outcome = run_task_safely(config_of("svc", [1.0]), *arrays(task_arrays()))
    assert outcome == {"error": {"type": "ZeroDivisionError", "message": "by zero"}}


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config["head"]["kind"])
def test_run_task_safely_result_does_not_depend_on_threads(config: dict[str, Any]) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(run_task_safely(config, *arrays(task_arrays()))["result"])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 9101])
def test_pack_bits_round_trip_is_equal(size: int) -> None:
    bits = np.random.default_rng(size).random(size) < 0.7
    text = pack_bits(bits)
    np.testing.assert_array_equal(unpack_bits(text, size), bits)
    with pytest.raises(KetFitError, match="do not hold"):
        unpack_bits(text, size + 9)
    with pytest.raises(KetFitError, match="not base64"):
        unpack_bits(text + "?", size)


NOISE = {"depolarizing_2q": 0.05}
MEASUREMENTS: list[dict[str, Any]] = [{}, {"shots": 10}, {"shots": 10, "noise": NOISE}, {"noise": NOISE}]


def measured(test: dict[str, Any]) -> dict[str, Any]:
    config = config_of("quantum", [0.01, 0.1], **QUANTUM)
    return {**config, "head": {**config["head"], **({"test": test} if test else {})}}


@pytest.mark.parametrize("test", MEASUREMENTS[1:], ids=["shots", "both", "noise"])
def test_run_task_exact_training_measures_test_sentences_only(test: dict[str, Any]) -> None:
    inputs = task_arrays()
    exact, result = (run_task(measured(each), inputs)["result"] for each in ({}, test))
    assert {**result, "correct": None, "test_accuracy": None} == {**exact, "correct": None, "test_accuracy": None}
    head = build_head(measured(test), [0.01, 0.1][result["chosen"]])
    assert isinstance(head, QuantumHeadClassifier) and head.head is not None and head.head.shots is None
    head.fit(*inputs.part(inputs.train), validation=inputs.part(inputs.validation))
    X, y = inputs.part(inputs.test)
    correct = head.with_measurement(**test).predict(X) == y
    np.testing.assert_array_equal(unpack_bits(result["correct"], result["test_size"]), correct)
    if "shots" in test:
        assert result["correct"] != exact["correct"]


@pytest.mark.parametrize("settings", [{"shots": 20}, {"shots": 20, "noise": NOISE}, {"noise": NOISE}])
def test_run_task_with_shots_and_noise_is_equal_when_run_again(settings: dict[str, Any]) -> None:
    head = HeadConfig.from_mapping({**QUANTUM, **settings}).model_dump(mode="json")
    config = config_of("quantum", [0.05], **head)
    first, again = (run_task(config, task_arrays())["result"] for _ in range(2))
    assert first == again
    assert run_task({**config, "seed": 4}, task_arrays())["result"] != first


def test_run_task_safely_of_tasks_with_one_training_trains_once(monkeypatch: pytest.MonkeyPatch) -> None:
    configs, trained = [measured(test) for test in MEASUREMENTS], []
    assert len({training_hash(config) for config in configs}) == 1
    alone = [run_task_safely(config, *arrays(task_arrays()))["result"] for config in configs]
    real = task_module.fit_tries
    monkeypatch.setattr(task_module, "fit_tries", lambda *given: trained.append(given) or real(*given))
    together = run_task_safely({"tasks": configs}, *arrays(task_arrays()))["outcomes"]
    assert [outcome["result"] for outcome in together] == alone
    assert len(trained) == 1


def test_run_task_safely_of_tasks_with_one_training_keeps_the_measurements_that_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = task_module.score

    def fails_with_noise(config: dict[str, Any], *rest: Any) -> dict[str, Any]:
        if "noise" in config["head"].get("test", {}):
            raise MemoryError("too large")
        return real(config, *rest)

    monkeypatch.setattr(task_module, "score", fails_with_noise)
    configs = [measured(test) for test in MEASUREMENTS]
    outcomes = run_task_safely({"tasks": configs}, *arrays(task_arrays()))["outcomes"]
    assert ["result" in outcome for outcome in outcomes] == [True, True, False, False]
    assert outcomes[2] == {"error": {"type": "MemoryError", "message": "too large"}}


def test_training_hash_of_an_exact_test_is_the_hash_of_the_config() -> None:
    config = config_of("svc", [1.0])
    assert training_hash(config) == content_hash(config)
    assert training_hash({**config, "seed": 4}) != training_hash(config)
