"""Rendering of an analysis as one HTML file without external resources."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ketfit.study.analysis import formatting as fmt
from ketfit.study.analysis.analysis import Analysis, HeadEffects
from ketfit.study.analysis.effects import Term
from ketfit.study.report.plots import MAX_COMPARISONS, Picture, draw
from ketfit.study.report.summary import conclusion
from ketfit.study.spec import HeadPlan, LevelRange, StudyPlan
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
    study, plan = analysis.study, record.plan
    return environment.get_template("report.html.j2").render(
        study=study,
        analysis=analysis,
        answer=answer,
        plan=plan,
        plan_toml=to_toml(plan.model_dump(mode="json")),
        pictures={name: sections.get(name, []) for name in SECTIONS},
        representative_note=_representative_note(plan),
        design=_design(plan),
        limits=limits(record, analysis),
        rates=[f"{rate:g}" for rate in plan.budget.learning_rates],
        strengths=[f"{value:g}" for value in plan.budget.regularization],
        heads={name: _head(head) for name, head in plan.heads.items()},
        max_comparisons=MAX_COMPARISONS,
        uniform=len({cell.seeds for cell in analysis.cells}) == 1,
        test_sizes=[f"{size:,}" for size in study["test_sizes"]],
        svg=Markup,  # safe: the drawings escape the names in them
        fmt=fmt,
        conclusion=conclusion,
        error_note=_error_note,
        levels_of=_levels_of,
    )


def _representative_note(plan: StudyPlan) -> str:
    if plan.design.kind == "heads":
        return ""
    if plan.design.kind == "scan":
        return "Each head with its own settings."
    best = f"the setting with the best mean validation {plan.budget.selection}"
    return f"Of each head {best}; all settings stand at the end."


def _design(plan: StudyPlan) -> str:
    kind = {
        "heads": "the heads as they are",
        "scan": "one factor at a time",
        "full": "full factorial",
        "fractional": f"fractional factorial, {_fraction(plan)}",
        "plackett-burman": "Plackett-Burman",
        "latin-hypercube": f"Latin hypercube of {plan.design.samples} points, seed {plan.design.seed}",
    }[plan.design.kind]
    factors = "; ".join(f"{factor}: {_levels(levels)}" for factor, levels in plan.factors.items())
    estimate = f", to estimate {plan.design.estimate}" if plan.design.estimate != "nothing" else ""
    return f"{kind}{estimate}{f' ({factors})' if factors else ''}"


def _head(head: HeadPlan) -> str:
    kinds = {"quantum": "quantum circuit", "logistic-regression": "logistic regression", "svc": "SVC", "mlp": "MLP"}
    settings = [f"{name} {_setting_value(value)}" for name, value in head.settings.items()]
    start = [f"from the {head.start} setting"] if head.kind == "quantum" else []
    matched = [f"with as many parameters as {head.match}"] if head.match else []
    return ", ".join([kinds[head.kind], *start, *settings, *matched])


def _setting_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fraction(plan: StudyPlan) -> str:
    design = plan.design
    return f"generators {design.generators}" if design.generators is not None else f"resolution {design.resolution}"


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


def _error_note(each: HeadEffects) -> str:
    assert each.effects is not None
    n = fmt.count(len(each.seeds), "seed")
    if each.effects.error == "blocks":
        text = f"Each seed's effects are estimated apart and tested over the {n}: for new seeds on the same sentences"
    else:
        text = "One seed only: tested against what the model leaves over, if anything"
    left = f"; {fmt.count(len(each.left_out), 'seed')} without the whole design left out" if each.left_out else ""
    return f"{text}{left}. p is of no effect, and beside it as Holm adjusts it over all terms."


def limits(record: StudyRecord, analysis: Analysis) -> list[tuple[str, str]]:
    """Return the limits of a study: pairs of a topic and a reason."""
    plan, data = record.plan, record.data.name
    bodies = fmt.join_names(body.label for body in plan.bodies)
    found = [
        (
            "Other sentences and other bodies.",
            f"Everything here is {data} on {bodies}, frozen: a body that is trained with its head may change the order "
            "of the heads.",
        ),
        *_about_hardware(plan),
    ]
    detectable = [each.detectable for each in analysis.comparisons if each.standing and each.detectable]
    if detectable:
        seeds = fmt.count(len(plan.seeds), "seed")
        found.append(
            (
                "Small differences.",
                f"With {seeds} and these sentences, a true difference must be {_span(detectable)} points to be found "
                "with power 0.8, before adjustment.",
            )
        )
    budget = "Each head had the tries and the epochs of the plan; more of either may help some heads more than others."
    found.append(("Other budgets.", budget))
    if len(plan.seeds) > 1:
        found.append(
            (
                "Independent test sets.",
                "Seeds draw from one pool, so their test sets overlap, which intervals "
                "for new sentences allow for; and a sentence that tests one seed may have trained another.",
            )
        )
    times = "Times are of one thread on the machines named above, whatever else ran beside."
    return [*found, ("Speed in general.", times)]


def _about_hardware(plan: StudyPlan) -> list[tuple[str, str]]:
    quantum = [head for head in plan.heads.values() if head.kind == "quantum"]
    named = {name for head in quantum for name in head.settings} | {name.partition(".")[2] for name in plan.factors}
    if not quantum:
        return []
    if named & {"shots", "noise"}:
        return [("A quantum computer.", "Shots and noise were simulated as the plan says; no device was used.")]
    text = "Circuits were simulated exactly, without shots or noise. Nothing here is evidence of a quantum advantage."
    return [("A quantum computer.", text)]


def _span(values: Sequence[float]) -> str:
    low, high = fmt.points(min(values), 1), fmt.points(max(values), 1)
    return low if low == high else f"{low} to {high}"


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
