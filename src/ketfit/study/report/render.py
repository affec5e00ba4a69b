"""Rendering of an analysis as one HTML file without external resources."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ketfit.model.tuning import describe_stages
from ketfit.study.analysis import formatting as fmt
from ketfit.study.analysis.analysis import Analysis
from ketfit.study.analysis.effects import Term
from ketfit.study.report.plots import MAX_COMPARISONS, Picture, draw
from ketfit.study.report.summary import conclusion
from ketfit.study.spec import NOISE, OWN_NOISE, BodyPlan, HeadPlan, LevelRange, StudyPlan
from ketfit.study.store import StudyRecord

SECTIONS = ("accuracy", "differences", "scans", "effects", "relations")


def make_page(record: StudyRecord, analysis: Analysis, answer: list[str]) -> str:
    """Return the content of ``report.html``."""
    environment = Environment(
        loader=PackageLoader("ketfit.study.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections: dict[str, list[Picture]] = {}
    for picture in draw(analysis):
        sections.setdefault(picture.section, []).append(picture)
    study, plan, budget = analysis.study, record.plan, record.plan.budget
    return environment.get_template("report.html.j2").render(
        study=study,
        analysis=analysis,
        answer=answer,
        plan=plan,
        plan_toml=to_toml(plan.model_dump(mode="json")),
        pictures={name: sections.get(name, []) for name in SECTIONS},
        design=_design(plan),
        noise=_names_noise(plan),
        tries=[[f"{value:g}" for value in values] for values in (budget.learning_rates, budget.regularization)],
        heads={name: _head(plan, head) for name, head in plan.heads.items()},
        max_comparisons=MAX_COMPARISONS,
        uniform={cell.seeds for cell in analysis.cells} == {tuple(sorted(plan.seeds))},
        per_label=[str(size) for size in sorted({split.per_label for split in record.draws if split.per_label})],
        sizes={part: " to ".join(f"{n:,}" for n in study[f"{part}_sizes"]) for part in ("train", "validation", "test")},
        treatments={body.label: _treatment(body) for body in plan.bodies},
        is_tuned=any(body.stages for body in plan.bodies),
        is_end_to_end=any(body.is_end_to_end for body in plan.bodies),
        svg=Markup,  # safe: the drawings escape the names in them
        fmt=fmt,
        conclusion=conclusion,
        levels_of=_levels_of,
    )


def _treatment(body: BodyPlan) -> str:
    if not body.stages:
        return "frozen"
    return f"tuned for each seed{' and head' if body.is_end_to_end else ''} ({describe_stages(body.stages)})"


def _design(plan: StudyPlan) -> str:
    design = plan.design
    fraction = f"resolution {design.resolution}" if design.generators is None else f"generators {design.generators}"
    kind = {
        "heads": "the heads as they are",
        "scan": "one factor at a time",
        "full": "full factorial",
        "fractional": f"fractional factorial, {fraction}",
        "plackett-burman": "Plackett-Burman",
        "latin-hypercube": f"Latin hypercube of {design.samples} points, seed {design.seed}",
    }[design.kind]
    factors = "; ".join(f"{factor}: {_levels(levels)}" for factor, levels in plan.factors.items())
    estimate = f", to estimate {design.estimate}" if design.estimate != "nothing" else ""
    return f"{kind}{estimate}{f' ({factors})' if factors else ''}"


def _head(plan: StudyPlan, head: HeadPlan) -> str:
    kinds = {"quantum": "quantum circuit", "logistic-regression": "logistic regression", "svc": "SVC", "mlp": "MLP"}
    table = dict(head.settings)
    if isinstance(table.get("noise"), Mapping) and (name := plan.level_of(NOISE, table["noise"])) != OWN_NOISE:
        table["noise"] = name
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in table.items()}
    settings = [f"{name} {text}" for name, text in texts.items()]
    start = [f"from the {head.start} setting"] if head.kind == "quantum" else []
    exact = ["trained exactly, its shots and noise on test sentences only"] if head.exact_training else []
    matched = [f"with as many parameters as {head.match}"] if head.match else []
    return ", ".join([kinds[head.kind], *start, *settings, *exact, *matched])


def _levels(levels: Any) -> str:
    if isinstance(levels, LevelRange):
        return f"{levels.low:g} to {levels.high:g}{' in the logarithm' if levels.log else ''}"
    return ", ".join(map(fmt.level_name, levels))


def _levels_of(plan: StudyPlan, term: Term) -> str:
    """Return the low and the high level of a two-level factor as text."""
    levels = plan.factors.get(term.name)
    if levels is None or isinstance(levels, LevelRange) or len(levels) != 2:
        return ""
    return f"{fmt.level_name(levels[0])} → {fmt.level_name(levels[1])}"


def _names_noise(plan: StudyPlan) -> bool:
    """Return True if a quantum head or a factor sets shots or noise."""
    quantum = [head for head in plan.heads.values() if head.kind == "quantum"]
    named = {name for head in quantum for name in head.settings} | {name.partition(".")[2] for name in plan.factors}
    return bool(named & {"shots", "noise"})


def to_toml(table: Mapping[str, Any], path: str = "") -> str:
    """Return a plan as TOML; values of None are omitted, as TOML has no null.

    >>> to_toml({"seeds": 5, "question": None})
    'seeds = 5'
    """
    lines = [
        f"{_key(name)} = {_value(value)}"
        for name, value in table.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    parts = ["\n".join([f"[{path}]", *lines] if path else lines)] if lines else []
    for name, value in table.items():
        if isinstance(value, Mapping):
            parts.append(to_toml(value, f"{path}.{_key(name)}" if path else _key(name)))
    return "\n\n".join(part for part in parts if part)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    # JSON strings are valid TOML, except for DEL, which TOML requires escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)
