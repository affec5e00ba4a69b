"""Test the executors of blocks: the bytes of a local run, also when actors die, and errors that name the block."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import ketfit
from ketfit import TextClassifier
from ketfit.bodies.body import Body
from ketfit.errors import BodyError, ClusterError, MissingExtraError
from ketfit.evaluation import block_executors
from ketfit.evaluation.batch_predict import parts_folder, predict_file, predict_folder
from ketfit.evaluation.block_executors import RayBlockExecutor
from tests.evaluation.test_batch_predict import fitted, write
from tests.fake_ray import FakeRay, ObjectLostError, RayActorError


@pytest.fixture(scope="module")
def classifier(tiny_body: Body) -> TextClassifier:
    return fitted(tiny_body, shots=5)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()

    @contextmanager
    def connected(address: str | None) -> Iterator[FakeRay]:
        assert address == "auto"
        yield ray

    monkeypatch.setattr(block_executors, "connected", connected)
    monkeypatch.setattr(block_executors, "RESIZE_S", 0.0)
    monkeypatch.setitem(sys.modules, "ray", ray)  # what the actor imports
    return ray


def block_calls(ray: FakeRay) -> Counter[tuple[int, ...]]:
    return Counter(given[0].counters for _, method, given in ray.sent if method == "predict_block")


def predict(classifier: TextClassifier, folder: Path) -> bytes:
    output = folder / "ray.csv"
    predict_file(classifier, write(folder / "in.csv"), output, block_rows=5, executor=RayBlockExecutor("auto"))
    return output.read_bytes()


def predict_here(classifier: TextClassifier, folder: Path) -> bytes:
    predict_file(classifier, write(folder / "in.csv"), folder / "local.csv", block_rows=5)
    return (folder / "local.csv").read_bytes()


def test_ray_block_executor_writes_the_bytes_of_a_local_run(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay
) -> None:
    assert predict(classifier, tmp_path) == predict_here(classifier, tmp_path)
    assert block_calls(fake) == Counter({(number,): 1 for number in range(11)})
    assert fake.largest_in_flight <= 2 * block_executors.BLOCKS_PER_ACTOR
    assert fake.actors == 2


def raising_once(faults: dict[tuple[str, int], type[Exception]]) -> Callable[[int, str, tuple[Any, ...]], None]:
    """Return a fault that raises each error once and removes it: at the load of an actor, or at a block."""

    def fault(number: int, method: str, given: tuple[Any, ...]) -> None:
        key = (method, number if method == "load" else given[0].counters[0])
        if error := faults.pop(key, None):
            raise error("killed")

    return fault


def test_ray_block_executor_after_deaths_loses_no_row(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay, caplog: pytest.LogCaptureFixture
) -> None:
    faults = {("predict_block", 3): RayActorError, ("predict_block", 6): ObjectLostError, ("load", 2): RayActorError}
    fake.fault = raising_once(faults)
    assert predict(classifier, tmp_path) == predict_here(classifier, tmp_path)
    assert not faults
    assert sum(block_calls(fake).values()) <= 11 + 1 + block_executors.BLOCKS_PER_ACTOR
    assert "rows 16 to 20 of" in caplog.text
    assert fake.actors == 4


def test_ray_block_executor_replaces_the_last_actor_at_once(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_executors, "RESIZE_S", 1000.0)
    fake.cpus = 1
    faults = {("load", 1): RayActorError, ("predict_block", 3): RayActorError}
    fake.fault = raising_once(faults)
    assert predict(classifier, tmp_path) == predict_here(classifier, tmp_path)
    assert not faults
    assert fake.actors == 3


def test_ray_block_executor_block_lost_too_often_is_named(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay
) -> None:
    def fault(number: int, method: str, given: tuple[Any, ...]) -> None:
        if method == "predict_block" and given[0].counters == (3,):
            raise RayActorError("out of memory\ntraceback")

    fake.fault = fault
    with pytest.raises(ClusterError, match=r"rows 16 to 20 of .*in\.csv were lost 4 times.*out of memory; free"):
        predict(classifier, tmp_path)
    parts = {part.name for part in parts_folder(tmp_path / "ray.csv").glob("*.part")}
    assert "00000003.part" not in parts
    fake.fault = lambda *_: None
    fake.sent.clear()
    assert predict(classifier, tmp_path) == predict_here(classifier, tmp_path)
    assert block_calls(fake).keys() == {(number,) for number in range(11) if f"{number:08d}.part" not in parts}


def test_ray_block_executor_actors_that_never_start_stop_the_run(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay
) -> None:
    fake.cpus = 0
    with pytest.raises(ClusterError, match="no actor could be started for 600 s, because no CPU"):
        predict(classifier, tmp_path)


def test_ray_block_executor_actors_that_die_at_the_start_stop_the_run(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay
) -> None:
    def fault(number: int, method: str, given: tuple[Any, ...]) -> None:
        raise RayActorError("No module named 'ketfit'")

    fake.fault = fault
    with pytest.raises(ClusterError, match=r"actors died 4 times .* started: No module named 'ketfit'"):
        predict(classifier, tmp_path)


def test_ray_block_executor_raises_errors_of_the_prediction(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise BodyError("the body failed")

    with monkeypatch.context() as patch:
        patch.setattr(Body, "encode", fail)
        with pytest.raises(BodyError, match="the body failed"):
            predict(classifier, tmp_path)
    assert sum(block_calls(fake).values()) <= 4, "an error of the prediction is not tried again"


def test_prediction_actor_of_another_version_or_device_is_refused(classifier: TextClassifier, fake: FakeRay) -> None:
    from ketfit.evaluation.block_predictor import BlockPredictor

    actor = block_executors.PredictionActor([fake.put(BlockPredictor(classifier))])
    with pytest.raises(ClusterError, match=r"has KetFit .*, and the driver has 0\.0; install the same version"):
        actor.load("0.0", "cpu")
    with pytest.raises(ClusterError, match=r"on the device 'cuda' of the driver, and .* loaded it on 'cpu'"):
        actor.load(ketfit.__version__, "cuda")


def test_ray_block_executor_without_ray_names_the_extra(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ketfit\[ray\]'"):
        predict(classifier, tmp_path)


def test_ray_block_executor_predicts_folder_like_a_local_run(
    classifier: TextClassifier, tmp_path: Path, fake: FakeRay
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("b", "a", "c"):
        write(source / f"{name}.parquet")
    predict_folder(classifier, source, tmp_path / "ray", block_rows=20, executor=RayBlockExecutor("auto"))
    predict_folder(classifier, source, tmp_path / "local", block_rows=20)
    for name in ("a", "b", "c"):
        assert (tmp_path / "ray" / f"{name}.parquet").read_bytes() == (
            tmp_path / "local" / f"{name}.parquet"
        ).read_bytes()
    assert block_calls(fake).keys() == {(shard, number) for shard in range(3) for number in range(3)}
