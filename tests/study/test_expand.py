"""Test the tasks of a plan and what their ids depend on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import ConfigError
from ketfit.evaluation.compare import count_parameters
from ketfit.model.config import HeadConfig
from ketfit.simulate.noise import load_noise
from ketfit.study.expand import BodyMetadata, DataMetadata, expand
from ketfit.study.spec import StudyPlan
from ketfit.study.task import Task, content_hash, training_hash

GOLDEN = Path(__file__).parent / "golden_tasks.json"
DATA = DataMetadata(name="reviews", fingerprint="d" * 64, size=9613, n_classes=2)
BODY = BodyMetadata(fingerprint="b" * 64, dimension=768)

SETTINGS: dict[str, Any] = {
    "name": "Golden",
    "seeds": [0, 7],
    "bodies": ["body"],
    "train": {"epochs": 60},
    "budget": {"learning_rates": [0.01, 0.03], "regularization": [0.1, 1.0]},
    "heads": {
        "quantum": {"kind": "quantum", "settings": {"angle_scale": 1.5, "noise": "ionq-forte", "shots": 100}},
        "recommended": {"kind": "quantum", "start": "recommended", "vary": False},
        "linear": {"kind": "logistic-regression"},
        "matched linear": {"kind": "logistic-regression", "match": "quantum"},
        "mlp": {"kind": "mlp", "settings": {"hidden": 0}},
        "matched mlp": {"kind": "mlp", "match": "recommended"},
        "svm": {"kind": "svc"},
    },
    "factors": {"head.n_qubits": [10, 11], "train.weight_decay": [0.0, 0.01]},
    "design": {"kind": "full"},
}


def tasks_of(**changes: Any) -> list[Task]:
    return expand(StudyPlan.from_mapping({**SETTINGS, **changes}), DATA, {"body": BODY})


def test_task_ids_equal_those_of_the_golden_file() -> None:
    """Guard the ids of existing results: if this fails, increase RESULTS_VERSION or fix the change."""
    golden = json.loads(GOLDEN.read_text())
    assert [{"id": task.id, "config": task.config} for task in tasks_of()] == golden
    for entry in golden:
        assert content_hash(entry["config"]) == entry["id"]


@pytest.mark.slow
def test_content_hash_is_equal_in_another_process() -> None:
    code = "import json, sys; from ketfit.study.task import content_hash; print(content_hash(json.load(sys.stdin)))"
    entry = json.loads(GOLDEN.read_text())[0]
    shuffled = json.dumps(dict(reversed(entry["config"].items())))
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], input=shuffled, capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.strip() == entry["id"]


def test_content_hash_ignores_key_order_and_rejects_nan() -> None:
    assert content_hash({"a": 1, "b": {"c": 2, "d": 3}}) == content_hash({"b": {"d": 3, "c": 2}, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"a": float("nan")})


def test_task_ids_do_not_depend_on_names_in_the_plan() -> None:
    renamed = {f"another {name}": dict(head) for name, head in SETTINGS["heads"].items()}
    for head in renamed.values():
        if "match" in head:
            head["match"] = f"another {head['match']}"
    before = {task.id for task in tasks_of()}
    assert {task.id for task in tasks_of(heads=renamed, name="Else", question="Why?")} == before
    assert {task.id for task in tasks_of(report={"margin": 0.02})} == before


def leaves(config: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(config, dict):
        return [leaf for key, value in config.items() for leaf in leaves(value, (*path, key))]
    if isinstance(config, list):
        return [leaf for key, value in enumerate(config) for leaf in leaves(value, (*path, key))]
    return [path]


def test_task_ids_depend_on_every_entry_of_the_config() -> None:
    for task in tasks_of():
        for *parents, key in leaves(task.config):
            config = json.loads(json.dumps(task.config))
            table = config
            for parent in parents:
                table = table[parent]
            table[key] = "changed"
            assert content_hash(config) != task.id, (parents, key)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epochs": 61}},
        {"train": {"epochs": 60, "batch_size": 32}},
        {"budget": {"learning_rates": [0.01, 0.02], "regularization": [0.2, 1.0]}},
        {"budget": {**SETTINGS["budget"], "selection": "accuracy"}},
        {"data": {"per_label": 255}},
        {"data": {"validation_fraction": 0.2}},
        {"seeds": [8, 9]},
    ],
)
def test_task_ids_change_with_the_settings_of_a_head(changes: dict[str, Any]) -> None:
    before = {task.id: task.head for task in tasks_of()}
    after = {task.id: task.head for task in tasks_of(**changes)}
    shared = {before[name] for name in before.keys() & after.keys()}
    classical = {"linear", "matched linear", "svm"} if set(changes) == {"train"} else set()
    assert shared == classical


def test_task_ids_depend_on_data_and_body_fingerprints() -> None:
    plan = StudyPlan.from_mapping(SETTINGS)
    before = {task.id for task in tasks_of()}
    other_data = expand(plan, DATA.updated(fingerprint="e" * 64), {"body": BODY})
    other_body = expand(plan, DATA, {"body": BODY.updated(fingerprint="e" * 64)})
    renamed = expand(plan, DATA.updated(name="other"), {"body": BODY})
    assert not before & {task.id for task in other_data}
    assert not before & {task.id for task in other_body}
    assert before == {task.id for task in renamed}


def test_expand_factors_apply_to_matching_heads_only() -> None:
    cells = Counter(task.head for task in tasks_of() if task.seed == 0)
    expected = {"quantum": 4, "recommended": 1, "linear": 1, "matched linear": 1, "mlp": 2, "matched mlp": 2, "svm": 1}
    assert cells == expected
    (one,) = {tuple(task.levels) for task in tasks_of() if task.head == "mlp"}
    assert one == ("train.weight_decay",)


def test_expand_tasks_are_sorted_by_seed() -> None:
    seeds = [task.seed for task in tasks_of()]
    assert seeds == sorted(seeds)


def test_expand_scan_levels_include_unchanged_factors() -> None:
    factors = {"head.n_qubits": [10, 11], "train.weight_decay": [0.0, 0.01], "data.per_label": [128, 256]}
    tasks = tasks_of(design={"kind": "scan"}, factors=factors, seeds=[0])
    levels = [tuple(task.levels.values()) for task in tasks if task.head == "quantum"]
    assert levels == [(10, 0.0, 256), (11, 0.0, 256), (10, 0.01, 256), (10, 0.0, 128)]


def test_expand_learning_rate_factor_is_the_only_try() -> None:
    one = {"learning_rates": [0.03], "regularization": [1.0]}
    tasks = tasks_of(design={"kind": "scan"}, factors={"train.learning_rate": [0.01, 0.1]}, budget=one, seeds=[0])
    tried = [task.config["tries"] for task in tasks if task.head == "quantum"]
    assert tried == [[0.03], [0.01], [0.1]]
    assert [task.levels["train.learning_rate"] for task in tasks if task.head == "quantum"] == [0.03, 0.01, 0.1]
    assert [task.config["tries"] for task in tasks if task.head == "svm"] == [[1.0]]


def test_expand_equal_heads_have_the_same_task_id() -> None:
    heads = {"one": {"kind": "svc"}, "two": {"kind": "svc"}}
    tasks = tasks_of(heads=heads, factors={}, design={}, seeds=[0])
    assert [task.head for task in tasks] == ["one", "two"]
    assert tasks[0].id == tasks[1].id


def test_expand_matched_heads_have_equal_parameter_counts() -> None:
    sizes = {task.head: task.config["head"]["settings"] for task in tasks_of()}
    quantum = HeadConfig.from_mapping({**SETTINGS["heads"]["quantum"]["settings"]})
    assert sizes["matched linear"]["components"] + 1 == count_parameters(quantum, 768, 2)
    recommended = count_parameters(HeadConfig.recommended(768), 768, 2)
    assert sizes["matched mlp"] == {"hidden": 1, "activation": "gelu"}
    assert 769 + 4 <= recommended < 2 * 769 + 6
    assert sizes["linear"] == {"components": None}


def test_expand_regression_components_are_limited_by_dimension() -> None:
    heads = {"recommended": {"kind": "quantum", "start": "recommended"}, "linear": {"kind": "logistic-regression"}}
    wide = {**heads, "matched": {"kind": "logistic-regression", "match": "recommended"}}
    tasks = {task.head: task for task in tasks_of(heads=wide, factors={}, design={}, seeds=[0])}
    assert tasks["matched"].id == tasks["linear"].id
    for components in (0, 768):
        bad = {"linear": {"kind": "logistic-regression", "settings": {"components": components}}}
        with pytest.raises(ConfigError, match=f"components={components} must be from 1 to 767"):
            tasks_of(heads=bad, factors={}, design={})


def test_expand_principal_directions_have_another_task_id() -> None:
    def linear(**settings: Any) -> dict[str, Any]:
        return {"kind": "logistic-regression", "settings": settings}

    heads = {
        "random": linear(components=9),
        "named": linear(components=9, directions="random"),
        "principal": linear(components=9, directions="principal"),
        "all": linear(directions="principal"),
    }
    tasks = {task.head: task for task in tasks_of(heads=heads, factors={}, design={}, seeds=[0])}
    assert tasks["random"].id == tasks["named"].id != tasks["principal"].id
    assert tasks["principal"].config["head"]["settings"] == {"components": 9, "directions": "principal"}
    assert tasks["all"].config["head"]["settings"] == {"components": None}
    with pytest.raises(ConfigError, match="unknown directions='best'; known: random, principal"):
        tasks_of(heads={"linear": linear(components=9, directions="best")}, factors={}, design={})


def test_expand_config_has_all_settings() -> None:
    for task in tasks_of():
        if task.config["head"]["kind"] == "quantum":
            assert task.config["head"]["settings"].keys() == HeadConfig.model_fields.keys() - HeadConfig.ADDED_SETTINGS
        if task.config["train"] is not None:
            assert "learning_rate" not in task.config["train"], "the learning rate is among the tries"


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"head.n_qubits": [9, 10]}, "head 'quantum' on body, head.n_qubits = 9: .*width 768 needs n_qubits=10"),
        ({"head.connectivity": [1, 10]}, "head.connectivity = 10: .*connectivity=10 needs more than 10 qubits"),
        ({"head.encoder_layers": [1, "two"]}, "head.encoder_layers = 'two': "),
        ({"train.epochs_": [1, 2]}, "unknown factor"),
    ],
)
def test_expand_impossible_combination_is_named_in_the_error(factors: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tasks_of(factors=factors, design={"kind": "scan"})


def test_expand_design_that_cannot_estimate_effects_raises() -> None:
    factors = {"head.main_layers": [1, 2], "head.encoder_layers": [1, 2], "head.connectivity": [1, 2]}
    heads = {"quantum": {"kind": "quantum"}}
    fraction = {"kind": "fractional", "generators": "a b ab", "estimate": "main effects"}
    assert len(tasks_of(factors=factors, design=fraction, heads=heads)) == 8
    with pytest.raises(ConfigError, match=r"head.connectivity"):
        tasks_of(factors=factors, design={**fraction, "estimate": "interactions"}, heads=heads)


@pytest.mark.parametrize("dimension", [384, 768])
@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "studies").rglob("*.toml")), ids=lambda p: p.stem)
def test_expand_every_repository_plan_on_both_bundled_bodies(path: Path, dimension: int) -> None:
    plan = StudyPlan.read(path)
    body = BODY.updated(dimension=dimension)
    tasks = expand(plan, DATA, {entry.label: body for entry in plan.bodies})
    assert {task.head for task in tasks} == set(plan.heads)
    assert {task.seed for task in tasks} == set(plan.seeds)


def test_expand_quantum_head_on_components_has_own_ids_and_narrow_circuits() -> None:
    def quantum(**settings: Any) -> dict[str, Any]:
        return {"kind": "quantum", "start": "recommended", "settings": settings}

    heads = {"whole": quantum(), "components": quantum(components=31), "wide": quantum(components=31, n_qubits=6)}
    tasks = {task.head: task for task in tasks_of(heads=heads, factors={}, design={}, seeds=[0])}
    assert len({task.id for task in tasks.values()}) == 3
    settings = {name: task.config["head"]["settings"] for name, task in tasks.items()}
    assert "components" not in settings["whole"]
    expected = HeadConfig.recommended(768, for_qpu=True).identity()
    assert settings["components"] == expected
    assert (settings["wide"]["n_qubits"], settings["wide"]["components"]) == (6, 31)
    scanned = {"factors": {"head.components": [7, 15]}, "design": {"kind": "scan"}, "seeds": [0]}
    levels = tasks_of(heads={"whole": quantum()}, **scanned)
    sizes = {task.levels["head.components"]: task.config["head"]["settings"]["n_qubits"] for task in levels}
    assert sizes == {None: 10, 7: 3, 15: 4}
    with pytest.raises(ConfigError, match="head 'whole' on body.*components=1000: an embedding of width 768 has 768"):
        tasks_of(heads={"whole": quantum(components=1000, n_qubits=10)}, factors={}, design={})
    for wrong in ("many", 0, 2.5):
        with pytest.raises(ConfigError, match="components="):
            tasks_of(heads={"whole": quantum(components=wrong)}, factors={}, design={})


NOISY: dict[str, Any] = {
    "noise": {
        "forte / 10": {"device": "ionq-forte", "scale": 0.1},
        "forte x 3": {"device": "ionq-forte", "scale": 3.0},
    },
    "heads": {
        "alike": {"kind": "quantum"},
        "exactly": {"kind": "quantum", "exact_training": True},
        "noisy": {"kind": "quantum", "settings": {"noise": "forte x 3", "shots": 50}},
    },
    "factors": {
        "head.shots": [100, 1000, "none"],
        "head.noise": ["none", "forte / 10", "ionq-forte", "forte x 3"],
    },
    "design": {"kind": "scan"},
    "seeds": [0],
}


def test_expand_shots_and_noise_are_levels_like_any_other() -> None:
    tasks = tasks_of(**NOISY)
    levels = [tuple(task.levels.values()) for task in tasks if task.head == "alike"]
    noises = [(None, "forte / 10"), (None, "ionq-forte"), (None, "forte x 3")]
    assert levels == [(None, None), (100, None), (1000, None), *noises]
    settings = {tuple(task.levels.values()): task.config["head"]["settings"] for task in tasks if task.head == "alike"}
    assert settings[100, None]["shots"] == 100 and settings[100, None]["gradient"] == "reparameterized"
    forte = load_noise("ionq-forte")
    assert settings[None, "ionq-forte"]["noise"] == forte.model_dump(mode="json")
    assert settings[None, "forte x 3"]["noise"] == forte.scaled(3).model_dump(mode="json")
    assert all("test" not in task.config["head"] for task in tasks if task.head != "exactly")
    own = [tuple(task.levels.values()) for task in tasks if task.head == "noisy"]
    assert own[0] == (50, "forte x 3") and len(own) == 7 and (None, "forte x 3") in own and (50, None) in own


def test_expand_noise_by_name_has_the_id_of_its_table() -> None:
    by_name = {"quantum": {"kind": "quantum", "settings": {"noise": "forte / 10"}}}
    table = load_noise("ionq-forte").scaled(0.1).model_dump(mode="json")
    by_table = {"quantum": {"kind": "quantum", "settings": {"noise": table}}}
    plain = {"factors": {}, "design": {}, "seeds": [0], "noise": NOISY["noise"]}
    ids = {tasks_of(heads=heads, **plain)[0].id for heads in (by_name, by_table)}
    assert len(ids) == 1


def test_expand_exact_training_has_shots_and_noise_in_the_test_only() -> None:
    tasks = {(task.head, *task.levels.values()): task for task in tasks_of(**NOISY)}
    exact = tasks["alike", None, None]
    assert tasks["exactly", None, None].id == exact.id
    for shots, noise in ((100, None), (None, "forte x 3")):
        task = tasks["exactly", shots, noise]
        table = load_noise("ionq-forte").scaled(3).model_dump(mode="json")
        assert task.config["head"]["test"] == ({"shots": shots} if shots else {"noise": table})
        assert {**task.config, "head": {**task.config["head"], "test": None}} == {
            **exact.config,
            "head": {**exact.config["head"], "test": None},
        }
        assert training_hash(task.config) == exact.id != task.id
    assert len({task.id for task in tasks.values()}) == len(tasks) - 2  # exact, and forte x 3 without shots


def test_expand_exact_training_and_all_of_its_measurement() -> None:
    settings = {"noise": {"depolarizing_2q": 0.01}, "trajectories": 8, "shots": 10, "mitigation": ["readout"]}
    heads = {"exactly": {"kind": "quantum", "exact_training": True, "settings": settings}}
    (task,) = tasks_of(heads=heads, factors={}, design={}, seeds=[0])
    test = task.config["head"]["test"]
    assert test.keys() == settings.keys() and (test["shots"], test["trajectories"]) == (10, 8)
    assert HeadConfig.from_mapping(task.config["head"]["settings"]) == HeadConfig()


def test_expand_full_design_with_a_level_of_none_estimates_its_effects() -> None:
    factors = {"head.shots": [100, "none"], "head.noise": ["none", "ionq-forte"]}
    design = {"kind": "full", "estimate": "interactions"}
    tasks = tasks_of(heads={"quantum": {"kind": "quantum"}}, factors=factors, design=design, seeds=[0])
    assert [tuple(task.levels.values()) for task in tasks] == [
        (100, None), (100, "ionq-forte"), (None, None), (None, "ionq-forte"),
    ]  # fmt: skip


def test_expand_contrastive_tuning_has_the_batch_size_of_its_sentences() -> None:
    def batches(**tune: Any) -> dict[str, int]:
        body = {"name": "body", "tune": {"method": "contrastive", **tune}}
        changes: dict[str, Any] = {"bodies": [body], "heads": {"linear": {"kind": "logistic-regression"}}}
        changes |= {"seeds": [0], "factors": {"data.per_label": [32, 64, 256]}}
        plan = StudyPlan.from_mapping({**SETTINGS, **changes})
        tasks = expand(plan, DATA, {plan.bodies[0].label: BODY})
        return {task.id: task.config["body"]["tune"]["batch_size"] for task in tasks}

    assert list(batches().values()) == [16, 16, 64]  # 54, 108 and 435 sentences
    assert list(batches(batch_size=64).values()) == [64, 64, 64]
    assert [own == given for own, given in zip(batches(), batches(batch_size=64), strict=True)] == [False, False, True]


def test_expand_ansatz_is_a_factor() -> None:
    factors = {"head.ansatz": ["ring", "ising"], "head.angle_axis": ["y", "x"]}
    head = {"kind": "quantum", "settings": {"n_qubits": 10}}
    tasks = tasks_of(heads={"head": head}, factors=factors, design={"kind": "full"}, seeds=[0])
    found = [task.config["head"]["settings"] for task in tasks]
    assert {(each.get("ansatz", "ring"), each.get("angle_axis", "y")) for each in found} == {
        (ansatz, axis) for ansatz in ("ring", "ising") for axis in ("y", "x")
    }
    assert [task.levels["head.ansatz"] for task in tasks].count("ring") == 2
