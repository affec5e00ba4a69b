"""Expansion of a plan to its tasks: one per combination of body, head, factor levels and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from ketfit.base_config import Config, Positive
from ketfit.errors import ConfigError
from ketfit.estimators.classical import matching_hidden_units
from ketfit.evaluation.compare import count_parameters
from ketfit.model.config import HeadConfig
from ketfit.model.head import MEASUREMENT
from ketfit.model.tuning import ContrastiveConfig
from ketfit.study.analysis.effects import Design, check_estimable
from ketfit.study.design import Point, design_points
from ketfit.study.spec import BodyPlan, HeadPlan, StudyPlan
from ketfit.study.task import RESULTS_VERSION, Task


class DataMetadata(Config):
    """Identity and shape of a data set."""

    name: str
    fingerprint: str
    size: Positive
    n_classes: Positive


class BodyMetadata(Config):
    """Identity and shape of a body."""

    fingerprint: str
    dimension: Positive


def expand(plan: StudyPlan, data: DataMetadata, bodies: Mapping[str, BodyMetadata]) -> list[Task]:
    """Return all tasks of a plan, seed by seed, so that an unfinished study has complete seeds.

    A factor that does not apply to a head adds no task. Two heads with the same settings have tasks with the same id,
    which run once.

    Args:
        plan: The plan.
        data: Metadata of the plan's data set.
        bodies: Metadata of each body of the plan before tuning, by label.

    Raises:
        ConfigError: A combination cannot be built, or the design cannot estimate the effects of the plan.
    """
    points = design_points(plan.design, plan.factors)
    levels = {name: _distinct_levels(plan, head, points) for name, head in plan.heads.items()}
    tasks: dict[tuple[str, str, str], Task] = {}
    for seed, body, (name, head) in product(plan.seeds, plan.bodies, plan.heads.items()):
        for applied in levels[name]:
            try:
                config = _task_config(plan, head, applied, data, bodies[body.label])
            except ConfigError as error:
                where = "".join(f", {factor} = {level!r}" for factor, level in applied.items())
                raise ConfigError(f"head {name!r} on {body.label}{where}: {error}") from error
            config["body"] |= _body_config(plan, head, body, _train_size(config["data"], data), data.n_classes)
            task = Task.from_config(config | {"seed": seed}, name, body.label, _applied_levels(plan, head, config))
            tasks.setdefault((task.head, task.body, task.id), task)
    if plan.design.estimate != "nothing":
        _check_design(plan, list(tasks.values()))
    return list(tasks.values())


def _distinct_levels(plan: StudyPlan, head: HeadPlan, points: Sequence[Point]) -> list[Point]:
    """Return the points of a design without the factors that do not apply to a head, each once."""
    factors = relevant_factors(plan, head)
    applied = [{factor: level for factor, level in point.items() if factor in factors} for point in points]
    return list({repr(sorted(levels.items())): levels for levels in applied}.values())


def _train_size(settings: Mapping[str, Any], data: DataMetadata) -> int:
    """Return the number of training sentences of a task, without regard to copies and groups."""
    test_fraction = settings.get("test_fraction")
    drawn = settings["per_label"] * data.n_classes if test_fraction is None else data.size * (1 - test_fraction)
    return int(drawn * (1 - settings["validation_fraction"]))


def _body_config(plan: StudyPlan, head: HeadPlan, body: BodyPlan, train_size: int, n_classes: int) -> dict[str, Any]:
    """Return the dtype and the tuning of a body, as far as they differ from a frozen float32 body."""
    settings: dict[str, Any] = {} if body.dtype == "float32" else {"dtype": body.dtype}
    if body.stages:
        stages = [
            stage.updated(batch_size=stage.batch_size_for(train_size, n_classes)).identity()
            if isinstance(stage, ContrastiveConfig)
            else stage.identity()
            for stage in body.stages
        ]
        settings["tune"] = stages if len(stages) > 1 else stages[0]
    if body.is_end_to_end and head.kind in ("svc", "logistic-regression"):
        train = plan.train_config().model_dump(mode="json", exclude={"selection", "learning_rate"})
        linear = {"kind": "mlp", "settings": {"hidden": 0, "activation": "none"}}
        settings["trained_with"] = {"head": linear, "train": train, "tries": list(plan.budget.learning_rates)}
    return settings


def relevant_factors(plan: StudyPlan, head: HeadPlan) -> list[str]:
    """Return the factors of a plan that apply to a head: those of its kind, or none if the head does not vary."""
    tables = {"quantum": ("head", "train", "data"), "mlp": ("train", "data")}.get(head.kind, ("data",))
    if not head.vary:
        return []
    return [factor for factor in plan.factors if factor.partition(".")[0] in tables]


def _task_config(
    plan: StudyPlan, head: HeadPlan, levels: Point, data: DataMetadata, body: BodyMetadata
) -> dict[str, Any]:
    """Return the configuration of a task of a frozen body, without its seed."""
    by_table: dict[str, dict[str, Any]] = {"head": {}, "train": {}, "data": {}}
    for factor, level in levels.items():
        table, _, setting = factor.partition(".")
        by_table[table][setting] = plan.value_of(factor, level)
    uses_epochs = head.kind in ("quantum", "mlp")
    tries = list(plan.budget.learning_rates if uses_epochs else plan.budget.regularization)
    train = plan.train_config(**by_table["train"]).model_dump(mode="json", exclude={"selection"})
    rate = train.pop("learning_rate")
    settings = _head_settings(plan, head, by_table["head"], data.n_classes, body.dimension)
    size: dict[str, Any] = {"per_label": by_table["data"].get("per_label", plan.data.per_label)}
    if plan.data.test_fraction is not None:
        size = {"test_fraction": plan.data.test_fraction}
    return {
        "results": RESULTS_VERSION,
        "data": {"fingerprint": data.fingerprint, **size, "validation_fraction": plan.data.validation_fraction},
        "body": {"fingerprint": body.fingerprint},
        "head": {"kind": head.kind, **settings},
        "train": train if uses_epochs else None,
        "tries": [rate] if uses_epochs and "learning_rate" in by_table["train"] else tries,
        "selection": plan.budget.selection,
    }


def _head_settings(plan: StudyPlan, head: HeadPlan, levels: Point, n_classes: int, dimension: int) -> dict[str, Any]:
    """Return all settings of a head, including defaults, which a later version could change.

    With exact training, ``test`` has the settings of the measurement on the test sentences, as far as there are any.
    """
    if head.kind == "quantum":
        config = head.quantum(dimension, n_classes, **levels)
        config.slice_widths(dimension)
        if not head.exact_training:
            return {"settings": config.identity()}
        table = config.identity()
        measured = {name: table[name] for name in MEASUREMENT if name != "gradient" and table[name]}
        return {"settings": config.updated(**MEASUREMENT).identity()} | ({"test": measured} if measured else {})
    return {"settings": _classical_settings(plan, head, n_classes, dimension)}


def _classical_settings(plan: StudyPlan, head: HeadPlan, n_classes: int, dimension: int) -> dict[str, Any]:
    if head.kind == "svc":
        return {}
    matched = None
    if head.match is not None:
        quantum = plan.heads[head.match].quantum(dimension, n_classes)
        matched = count_parameters(quantum, dimension, n_classes)
    if head.kind == "mlp":
        hidden = (
            head.settings.get("hidden", 48) if matched is None else matching_hidden_units(matched, dimension, n_classes)
        )
        return {"hidden": hidden, "activation": head.settings.get("activation", "gelu")}
    components = head.settings.get("components")
    if components is not None and not 1 <= components < dimension:
        raise ConfigError(f"components={components} must be from 1 to {dimension - 1}; omit it to use all directions")
    if matched is not None:
        rows = 1 if n_classes == 2 else n_classes
        components = max(1, round(matched / rows) - 1)
    directions = head.settings.get("directions", "random")
    if directions not in ("random", "principal"):
        raise ConfigError(f"unknown directions={directions!r}; known: random, principal")
    if components is None or components >= dimension:
        return {"components": None}
    # Random directions have no entry, so that the task ids of earlier studies stay valid.
    return {"components": components} | ({} if directions == "random" else {"directions": directions})


def _applied_levels(plan: StudyPlan, head: HeadPlan, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the level of each factor that applies, including levels from the settings of the head."""
    unused = HeadConfig.ADDED_SETTINGS  # not among the settings of a task unless they are set
    measured = {**unused, **config["head"]["settings"], **config["head"].get("test", {})}
    tables = {"head": measured, "train": config["train"] or {}, "data": config["data"]}
    levels = {}
    for factor in relevant_factors(plan, head):
        table, _, setting = factor.partition(".")
        value = config["tries"][0] if factor == "train.learning_rate" else tables[table][setting]
        levels[factor] = plan.level_of(factor, value)
    return levels


def _check_design(plan: StudyPlan, tasks: Sequence[Task]) -> None:
    varied = [name for name, head in plan.heads.items() if head.kind == "quantum" and relevant_factors(plan, head)]
    for name in varied or list(plan.heads):
        points = [task.levels for task in tasks if task.head == name and task.body == plan.bodies[0].label]
        levels = {name: tuple(dict.fromkeys(point[name] for point in points)) for name in points[0]}
        check_estimable(Design(points, levels, plan.design.estimate == "interactions"))
