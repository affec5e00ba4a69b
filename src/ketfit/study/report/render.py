"""The page of a report: one HTML file from an analysis, with nothing to load from anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ketfit.study.analysis import formatting as wording
from ketfit.study.analysis.analysis import Analysis, HeadEffects
from ketfit.study.analysis.effects import Term
from ketfit.study.report import summary as findings
from ketfit.study.report.axes import FEW, Picture
from ketfit.study.report.plots import draw
from ketfit.study.spec import HeadPlan, LevelRange, StudyPlan
from ketfit.study.store import StudyRecord

PLACES = ("accuracy", "differences", "scans", "effects", "relations")


def make_page(record: StudyRecord, analysis: Analysis, answer: list[str]) -> str:
    """The whole file."""
    environment = Environment(
        loader=PackageLoader("ketfit.study.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        points=wording.points,
        p=wording.p_value,
        percent=wording.percent,
        seconds=wording.seconds,
        level=wording.level_name,
        factor=wording.factor_name,
        term=wording.term_name,
        count=wording.count,
        margin=wording.margin_points,
        time=_time,
    )
    places: dict[str, list[Picture]] = {}
    for picture in draw(analysis):
        places.setdefault(picture.place, []).append(picture)
    study, plan = analysis.study, record.plan
    return environment.get_template("report.html.j2").render(
        study=study,
        analysis=analysis,
        answer=answer,
        plan=plan,
        plan_toml=to_toml(plan.model_dump(mode="json")),
        pictures={place: places.get(place, []) for place in PLACES},
        standing_note=_standing_note(plan),
        design=_design(plan),
        limits=limits(record, analysis),
        rates=[f"{rate:g}" for rate in plan.budget.learning_rates],
        strengths=[f"{value:g}" for value in plan.budget.regularization],
        heads={name: _head(head) for name, head in plan.heads.items()},
        few=FEW,
        uniform=len({cell.seeds for cell in analysis.cells}) == 1,
        test_sizes=[f"{size:,}" for size in study["test_sizes"]],
        svg=Markup,  # of our own drawings, which escape the names in them
        interval=wording.interval,
        listed=wording.join_names,
        signed=wording.signed,
        conclusion=findings.conclusion,
        error_note=_error_note,
        levels_of=_levels_of,
    )


def _time(text: str) -> str:
    return text.replace("T", " ").replace("+00:00", " UTC")


def _standing_note(plan: StudyPlan) -> str:
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
    asked = f", to estimate {plan.design.estimate}" if plan.design.estimate != "nothing" else ""
    return f"{kind}{asked}{f' ({factors})' if factors else ''}"


def _head(head: HeadPlan) -> str:
    kinds = {"quantum": "quantum circuit", "logistic-regression": "logistic regression", "svc": "SVC", "mlp": "MLP"}
    settings = [f"{name} {_one(value)}" for name, value in head.settings.items()]
    start = [f"from the {head.start} setting"] if head.kind == "quantum" else []
    matched = [f"with as many parameters as {head.match}"] if head.match else []
    return ", ".join([kinds[head.kind], *start, *settings, *matched])


def _one(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fraction(plan: StudyPlan) -> str:
    design = plan.design
    return f"generators {design.generators}" if design.generators is not None else f"resolution {design.resolution}"


def _levels(levels: Any) -> str:
    if isinstance(levels, LevelRange):
        return f"{levels.low:g} to {levels.high:g}{' in the logarithm' if levels.log else ''}"
    return ", ".join(map(wording.level_name, levels))


def _levels_of(plan: StudyPlan, term: Term) -> str:
    """The low and the high level of a two-level factor: what its effect is the effect of."""
    levels = plan.factors.get(term.name)
    if levels is None or isinstance(levels, LevelRange) or len(levels) != 2:
        return ""
    return f"{wording.level_name(levels[0])} → {wording.level_name(levels[1])}"


def _error_note(each: HeadEffects) -> str:
    assert each.effects is not None
    n = wording.count(len(each.seeds), "seed")
    if each.effects.error == "blocks":
        told = f"Each seed's effects are estimated apart and tested over the {n}: for new seeds on the same sentences"
    else:
        told = "One seed only: tested against what the model leaves over, if anything"
    left = f"; {wording.count(len(each.left_out), 'seed')} without the whole design left out" if each.left_out else ""
    return f"{told}{left}. p is of no effect, and beside it as Holm adjusts it over all terms."


def limits(record: StudyRecord, analysis: Analysis) -> list[tuple[str, str]]:
    """What the study cannot say, from what it was: of what, and why."""
    plan, data = record.plan, record.data.name
    bodies = wording.join_names(body.label for body in plan.bodies)
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
        seeds = wording.count(len(plan.seeds), "seed")
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
    told = "Circuits were simulated exactly, without shots or noise. Nothing here is evidence of a quantum advantage."
    return [("A quantum computer.", told)]


def _span(values: Sequence[float]) -> str:
    low, high = wording.points(min(values), 1), wording.points(max(values), 1)
    return low if low == high else f"{low} to {high}"


def to_toml(table: Mapping[str, Any], at: str = "") -> str:
    """A plan as the TOML file that makes it again; what is None is left out, as TOML has no word for it."""
    lines = [
        f"{_key(name)} = {_value(value)}"
        for name, value in table.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    parts = ["\n".join([f"[{at}]", *lines] if at else lines)] if lines else []
    for name, value in table.items():
        if isinstance(value, Mapping):
            parts.append(to_toml(value, f"{at}.{_key(name)}" if at else _key(name)))
    return "\n\n".join(part for part in parts if part)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    # JSON's strings are TOML's, but for one character that only TOML wants escaped.
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
