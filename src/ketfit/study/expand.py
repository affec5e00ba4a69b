"""From a plan to its tasks: every combination of body, head, levels and seed, resolved to all that affects a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ketfit.base_config import Config, Positive
from ketfit.errors import ConfigError
from ketfit.estimators.classical import matching_hidden_units
from ketfit.evaluation.compare import count_parameters
from ketfit.model.tuning import EndToEndConfig
from ketfit.study.analysis.effects import check_estimable
from ketfit.study.design import Point, design_points
from ketfit.study.spec import BodyPlan, HeadPlan, StudyPlan
from ketfit.study.task import RESULTS_VERSION, Task


class DataFacts(Config):
    """What a task depends on of its data set."""

    name: str
    fingerprint: str
    size: Positive
    n_classes: Positive


class BodyFacts(Config):
    """What a task depends on of its body."""

    fingerprint: str
    dimension: Positive


def expand(plan: StudyPlan, data: DataFacts, bodies: Mapping[str, BodyFacts]) -> list[Task]:
    """All tasks of a plan, seed by seed, so that an unfinished study has whole seeds.

    Where a factor does not apply to a head, its levels are one and the same task. Two heads with the same settings
    have tasks of the same name, which are run once.

    Args:
        plan: The plan.
        data: Of the data set that the plan names.
        bodies: Of every body that the plan names, before it is tuned, by label.

    Raises:
        ConfigError: a combination cannot be built, or the design cannot estimate what the plan asks.
    """
    points = design_points(plan.design, plan.factors)
    tasks: dict[tuple[str, str, str], Task] = {}
    for seed in plan.seeds:
        for body in plan.bodies:
            for name in plan.heads:
                for task in _tasks_of(plan, name, body, points, seed, data, bodies[body.label]):
                    tasks.setdefault((task.head, task.body, task.id), task)
    if plan.design.estimate != "nothing":
        _check_effects(plan, list(tasks.values()))
    return list(tasks.values())


def _tasks_of(
    plan: StudyPlan, name: str, body: BodyPlan, points: Sequence[Point], seed: int, data: DataFacts, facts: BodyFacts
) -> Iterator[Task]:
    head = plan.heads[name]
    known: set[str] = set()
    for point in points:
        own = {factor: level for factor, level in point.items() if factor in relevant_factors(plan, head)}
        if (key := repr(sorted(own.items()))) in known:
            continue
        known.add(key)
        try:
            config = _resolve(plan, head, own, seed, data, facts)
        except ConfigError as error:
            at = "".join(f", {factor} = {level!r}" for factor, level in own.items())
            raise ConfigError(f"head {name!r} on {body.label}{at}: {error}") from error
        config["body"] |= _body_config(plan, head, body)
        yield Task.of(config, name, body.label, _levels(plan, head, config))


def _body_config(plan: StudyPlan, head: HeadPlan, body: BodyPlan) -> dict[str, Any]:
    """What is done with the body before the head sees its embeddings, and what it is trained with."""
    treatment: dict[str, Any] = {} if body.dtype == "float32" else {"dtype": body.dtype}
    if body.tune is not None:
        treatment["tune"] = body.tune.model_dump(mode="json")
    if isinstance(body.tune, EndToEndConfig) and head.kind in ("svc", "logistic-regression"):
        train = plan.train_config().model_dump(mode="json", exclude={"selection", "learning_rate"})
        linear = {"kind": "mlp", "settings": {"hidden": 0, "activation": "none"}}
        treatment["trained_with"] = {"head": linear, "train": train, "tries": list(plan.budget.learning_rates)}
    return treatment


def relevant_factors(plan: StudyPlan, head: HeadPlan) -> list[str]:
    """The factors of a plan that apply to a head: those of its kind, unless it is kept as it is."""
    tables = {"quantum": ("head", "train", "data"), "mlp": ("train", "data")}.get(head.kind, ("data",))
    if not head.vary:
        return []
    return [factor for factor in plan.factors if factor.partition(".")[0] in tables]


def _resolve(
    plan: StudyPlan, head: HeadPlan, levels: Point, seed: int, data: DataFacts, body: BodyFacts
) -> dict[str, Any]:
    of: dict[str, dict[str, Any]] = {"head": {}, "train": {}, "data": {}}
    for factor, level in levels.items():
        table, _, setting = factor.partition(".")
        of[table][setting] = level
    trained = head.kind in ("quantum", "mlp")
    tries = list(plan.budget.learning_rates if trained else plan.budget.regularization)
    train = plan.train_config(**of["train"]).model_dump(mode="json", exclude={"selection"})
    rate = train.pop("learning_rate")
    return {
        "results": RESULTS_VERSION,
        "data": {
            "fingerprint": data.fingerprint,
            "per_label": of["data"].get("per_label", plan.data.per_label),
            "validation_fraction": plan.data.validation_fraction,
        },
        "body": {"fingerprint": body.fingerprint},
        "head": {"kind": head.kind, "settings": _settings(plan, head, of["head"], data.n_classes, body.dimension)},
        "train": train if trained else None,
        "tries": [rate] if trained and "learning_rate" in of["train"] else tries,
        "selection": plan.budget.selection,
        "seed": seed,
    }


def _settings(plan: StudyPlan, head: HeadPlan, levels: Point, n_classes: int, dimension: int) -> dict[str, Any]:
    """All settings of a head, none left to a default that a later version could change."""
    if head.kind == "quantum":
        config = head.quantum(dimension, n_classes, **levels)
        config.slice_widths(dimension)
        return config.model_dump(mode="json")
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
        raise ConfigError(f"components={components}: directions go from 1 to {dimension - 1}; leave it out for all")
    if matched is not None:
        rows = 1 if n_classes == 2 else n_classes
        components = max(1, round(matched / rows) - 1)
    directions = head.settings.get("directions", "random")
    if directions not in ("random", "principal"):
        raise ConfigError(f"directions={directions!r}: they are random or principal")
    if components is None or components >= dimension:
        return {"components": None}
    # Random ones have no entry, so that the tasks of earlier studies keep their names.
    return {"components": components} | ({} if directions == "random" else {"directions": directions})


def _levels(plan: StudyPlan, head: HeadPlan, config: Mapping[str, Any]) -> dict[str, Any]:
    """The level of each factor that applies, also where the head's own setting stands."""
    tables = {"head": config["head"]["settings"], "train": config["train"] or {}, "data": config["data"]}
    levels = {}
    for factor in relevant_factors(plan, head):
        table, _, setting = factor.partition(".")
        levels[factor] = config["tries"][0] if factor == "train.learning_rate" else tables[table][setting]
    return levels


def _check_effects(plan: StudyPlan, tasks: Sequence[Task]) -> None:
    seen = [name for name, head in plan.heads.items() if head.kind == "quantum" and relevant_factors(plan, head)]
    for name in seen or list(plan.heads):
        points = [task.levels for task in tasks if task.head == name and task.body == plan.bodies[0].label]
        check_estimable(points, interactions=plan.design.estimate == "interactions")
