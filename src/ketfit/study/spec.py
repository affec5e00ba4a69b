"""Plan of a study: a TOML file with its data, bodies, heads, seeds, design and tuning budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BeforeValidator, Field, Strict, model_validator
from typing_extensions import Self

from ketfit.base_config import Config, Finite
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import EmbeddingPrecision, EndToEndConfig, TuneConfig, as_stages, read_stages
from ketfit.simulate.noise import DEVICES, NoiseConfig, load_noise

HeadKind = Literal["quantum", "logistic-regression", "svc", "mlp"]
DesignKind = Literal["heads", "scan", "full", "fractional", "plackett-burman", "latin-hypercube"]
TrendScale = Literal["linear", "log2"]
Level = bool | int | float | str
MAX_SEEDS, MAX_SAMPLES = 10_000, 10_000
"""Limits of one study, so that a wrong number in a plan does not exhaust the memory."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


Lax = Strict(False)
"""Reads tables and lists, as TOML and JSON have them, as settings and tuples; what is in them stays strict."""


def _body_plan(value: Any) -> Any:
    """Return a string, the name of a body, as a table."""
    return {"name": value} if isinstance(value, str) else value


def _seeds(value: Any) -> Any:
    """Return a tuple of seeds; an integer n stands for 0 to n - 1."""
    if isinstance(value, int) and value > MAX_SEEDS:
        raise ValueError(f"seeds={value}: a study has at most {MAX_SEEDS}")
    return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


class DataPlan(Config):
    """Data set and its splits.

    Each seed draws `per_label` sentences of each label, and all other sentences are the test set. With `test_fraction`
    each seed is a stratified hold-out of all sentences instead.
    """

    source: Annotated[str, Field(description="File, Hub data set, or rotten-tomatoes")] = "rotten-tomatoes"
    text_column: str = "text"
    label_column: str = "label"
    split: Annotated[str | None, Field(description="Split of a Hub data set")] = None
    revision: Annotated[str | None, Field(description="Branch, tag or commit of a Hub data set")] = None
    format: Annotated[
        Literal["csv", "tsv", "jsonl", "parquet"] | None, Field(description="Format of a file without its suffix")
    ] = None
    encoding: Annotated[str, Field(description="Encoding of a text file")] = "utf-8"
    delimiter: Annotated[str | None, Field(description="Field separator of a CSV file, a comma by default")] = None
    per_label: Annotated[int, Field(ge=2, description="Sentences per label for training and validation")] = 256
    validation_fraction: Annotated[float, Field(gt=0, lt=1, description="Share of them for validation")] = 0.15
    test_fraction: Annotated[
        float | None, Field(gt=0, lt=1, description="Share of all sentences to test on, instead of per_label")
    ] = None

    @model_validator(mode="after")
    def _check_split(self) -> DataPlan:
        default = type(self).model_fields["per_label"].default
        if self.test_fraction is not None and self.per_label != default:
            raise ValueError(
                f"per_label={self.per_label} and test_fraction={self.test_fraction}: leave one of them out"
            )
        return self

    @property
    def split_size(self) -> int | float:
        """Sentences per label of a few-shot draw, at least 2, or the fraction to test on of a hold-out, below 1."""
        return self.per_label if self.test_fraction is None else self.test_fraction


def _as_tuning(value: Any) -> Any:
    """Return a table as a tuning, and a list of tables as its stages; the default method is contrastive."""
    if isinstance(value, (list, tuple)):
        value = [{"method": "contrastive", **stage} if isinstance(stage, Mapping) else stage for stage in value]
    elif isinstance(value, Mapping):
        value = {"method": "contrastive", **value}
    return read_stages(value, "tune")


class BodyPlan(Config):
    """A sentence transformer, frozen or tuned on the training sentences of each seed.

    Contrastive tuning makes one body per seed, which all heads share. End-to-end tuning (``method = "end-to-end"``)
    makes one per seed and head; see `ketfit.study.end_to_end.EndToEndRunner`. A list of both tables is both in that
    order.
    """

    name: Annotated[str, Field(min_length=1, description="A bundled body, a local folder, or a name on the Hub")]
    revision: Annotated[str | None, Field(description="Branch, tag or commit on the Hub")] = None
    tune: Annotated[
        TuneConfig | tuple[TuneConfig, ...] | None,
        BeforeValidator(_as_tuning),
        Field(description="Tuning in one stage or a list of stages; None is frozen"),
    ] = None
    dtype: Annotated[EmbeddingPrecision, Field(description="Number format of the embeddings")] = "float32"

    @property
    def stages(self) -> tuple[TuneConfig, ...]:
        """Stages of the tuning in their order; none for a frozen body."""
        return as_stages(self.tune)

    @property
    def is_end_to_end(self) -> bool:
        """True if the last stage trains the body with its head."""
        return any(isinstance(stage, EndToEndConfig) for stage in self.stages)

    @property
    def label(self) -> str:
        """Name of the body in results and reports."""
        if not self.stages:
            return self.name
        if len(self.stages) > 1:
            return f"{self.name}, tuned, then end to end"
        return f"{self.name}, end to end" if self.is_end_to_end else f"{self.name}, tuned"


_Tries = Annotated[tuple[Annotated[Finite, Field(gt=0)], ...], Lax, Field(min_length=1)]


class BudgetPlan(Config):
    """Hyperparameter values that each head tries before testing; every head gets the same number of tries.

    Heads trained in epochs try learning rates, the others the inverse regularization strength (``C`` of scikit-learn).
    `selection` chooses among the tries, and among the epochs of each, on the validation sentences.
    """

    learning_rates: _Tries = (0.03,)
    regularization: _Tries = (1.0,)
    selection: Annotated[Literal["loss", "accuracy"], Field(description="Validation measure that chooses")] = "loss"

    @model_validator(mode="after")
    def _check_tries(self) -> BudgetPlan:
        for name in ("learning_rates", "regularization"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} holds a value twice; remove one of them")
        if len(self.learning_rates) != len(self.regularization):
            raise ValueError(
                f"{len(self.learning_rates)} learning_rates but {len(self.regularization)} values of regularization; "
                "every head gets the same number of tries"
            )
        return self


NOISE = "head.noise"
NONE = "none"
"""Level of a setting without a value, such as exact expectations instead of shots; TOML has no null."""
OWN_NOISE = "own noise"
"""Level of a head's own noise that has no name in the plan."""


class NoisePlan(Config):
    """A named noise: that of a device, with `settings` of `NoiseConfig` on top, and all its error rates scaled."""

    device: Annotated[str | None, Field(description="A device such as ionq-forte; None is no noise")] = None
    scale: Annotated[Finite, Field(gt=0, description="Factor of all error rates; 0.1 is ten times better")] = 1.0
    settings: Annotated[dict[str, Any], Field(default_factory=dict, description="Settings of NoiseConfig")]

    @model_validator(mode="after")
    def _check_noise(self) -> NoisePlan:
        if self.device is None and not self.settings:
            raise ValueError("a noise needs a device or settings; give one of them, or use the level none")
        if self.device is not None and self.device not in DEVICES:
            raise ValueError(f"unknown device={self.device!r}; known: {', '.join(DEVICES)}")
        self.config  # noqa: B018 - raises if the settings do not fit
        return self

    @property
    def config(self) -> NoiseConfig:
        """The noise with its settings and its scale.

        >>> NoisePlan(device="ionq-forte", scale=0.1).config == NoisePlan(device="ionq-forte").config.scaled(0.1)
        True
        """
        device = NoiseConfig() if self.device is None else load_noise(self.device)
        table = {name: getattr(device, name) for name in NoiseConfig.model_fields}
        return NoiseConfig.from_mapping({**table, **self.settings}, where="settings").scaled(self.scale)


class HeadPlan(Config):
    """One head of a study. The `settings` depend on the kind.

    =====================  =========================================================================================
    quantum                settings of `HeadConfig`, on top of `start`; with ``components`` the recommended start is
                           the one for embeddings of that width
    mlp                    ``hidden`` (0 is one linear layer), ``activation`` ("gelu", "none")
    logistic-regression    ``components``: number of fixed directions to project the embedding on;
                           ``directions``: "random" (default), or "principal" for those of the training sentences
    svc                    none
    =====================  =========================================================================================

    With `exact_training` a quantum head is trained and validated exactly and has its shots, noise, trajectories and
    mitigation, of its settings and of the factors, on the test sentences only.

    `match` names a quantum head. An mlp or a logistic regression gets the size whose number of parameters is closest; a
    logistic regression is limited to the whole embedding.
    """

    kind: HeadKind
    start: Annotated[
        Literal["paper", "recommended", "qpu"],
        Field(description="Base settings of a quantum head; qpu is the one recommended for a QPU"),
    ] = "paper"
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]
    match: Annotated[str | None, Field(description="Quantum head with the number of parameters to match")] = None
    vary: Annotated[bool, Field(description="Apply the factors to this head")] = True
    exact_training: Annotated[
        bool, Field(description="Train and validate without the head's shots and noise, which then are for the test")
    ] = False

    @model_validator(mode="after")
    def _check_settings(self) -> HeadPlan:
        known = {"mlp": {"hidden", "activation"}, "logistic-regression": {"components", "directions"}, "svc": set()}
        if self.kind == "quantum":
            if self.match is not None:
                raise ValueError("match is for mlp and logistic-regression, not for a quantum head; leave it out")
            if self.exact_training and self.settings.get("gradient") is not None:
                raise ValueError("gradient is for training with shots, which exact_training leaves out; omit one")
            self.quantum(768, 2)
            return self
        if self.start != "paper":
            raise ValueError(f"start={self.start!r} is for quantum heads; leave it out")
        if self.exact_training:
            raise ValueError("exact_training is for quantum heads; leave it out")
        unknown = sorted(self.settings.keys() - known[self.kind])
        if unknown:
            known_names = ", ".join(sorted(known[self.kind])) or "none"
            raise ValueError(f"a head of kind {self.kind} has no setting {unknown[0]!r}; known: {known_names}")
        if self.match is not None and (self.kind == "svc" or {"hidden", "components"} & self.settings.keys()):
            raise ValueError("match decides the size of an mlp or a logistic regression; give no size beside it")
        return self

    def quantum(self, embedding_dim: int, n_classes: int, **levels: Any) -> HeadConfig:
        """Return the configuration of a quantum head, with factor levels (settings of `HeadConfig`) on top.

        A level of no noise takes the head's own trajectories and mitigation away, and one of no shots its gradient.

        Raises:
            ConfigError: A setting is unknown or does not fit.

        >>> HeadPlan(kind="quantum", settings={"n_qubits": 12}).quantum(768, 2).n_qubits
        12
        """
        own = {**self.settings, **levels}
        for name, dependent in {"noise": {"trajectories", "mitigation"}, "shots": {"gradient"}}.items():
            if levels.get(name, NONE) is None:
                own = {key: value for key, value in own.items() if key not in dependent - levels.keys()}
        # The recommended sizes follow from what the encoders see. Values of a wrong type are refused below.
        width = components if isinstance(components := own.get("components"), int) else embedding_dim
        start = HeadConfig()
        if self.start != "paper":
            start = HeadConfig.recommended(max(1, width), n_classes, for_qpu=self.start == "qpu")
        table = {name: getattr(start, name) for name in HeadConfig.model_fields}
        return HeadConfig.from_mapping({**table, **own}, where="the head")


class LevelRange(Config):
    """Range of a factor in a Latin hypercube."""

    low: Finite
    high: Finite
    log: Annotated[bool, Field(description="Uniform in the logarithm")] = False
    integer: Annotated[bool, Field(description="Integers only")] = False

    @model_validator(mode="after")
    def _check_order(self) -> LevelRange:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} of a logarithmic range must be above zero")
        if self.integer and math.ceil(self.low) > math.floor(self.high):
            raise ValueError(f"there is no integer from low={self.low} to high={self.high}")
        return self


class DesignPlan(Config):
    """Design of experiments: the combinations of factor levels to run.

    ``heads`` has no factors; ``scan`` changes one factor at a time; ``full`` is all combinations; ``fractional`` is a
    regular two-level fraction, by `resolution` or by `generators` such as "a b c abc"; ``plackett-burman`` is the
    smallest two-level design for main effects; ``latin-hypercube`` spreads `samples` points over the ranges.
    """

    kind: DesignKind = "heads"
    resolution: Annotated[int | None, Field(ge=3, le=8, description="Resolution of a fractional design")] = None
    generators: Annotated[str | None, Field(description="Generators of a fractional design, one word per factor")] = (
        None
    )
    samples: Annotated[int | None, Field(ge=1, le=MAX_SAMPLES, description="Points of a Latin hypercube")] = None
    seed: Annotated[int, Field(ge=0, description="Seed of a Latin hypercube")] = 0
    estimate: Annotated[
        Literal["nothing", "main effects", "interactions"], Field(description="Effects that the report estimates")
    ] = "nothing"

    @model_validator(mode="after")
    def _check_options(self) -> DesignPlan:
        owners = {"resolution": "fractional", "generators": "fractional", "samples": "latin-hypercube"}
        for name, kind in owners.items():
            if getattr(self, name) is not None and self.kind != kind:
                raise ValueError(f"{name} belongs to a {kind} design; this one is {self.kind}")
        if self.kind == "fractional" and (self.resolution is None) == (self.generators is None):
            raise ValueError("a fractional design needs either resolution or generators")
        if self.kind == "latin-hypercube" and self.samples is None:
            raise ValueError("a latin-hypercube needs samples, the number of its points")
        return self


class ReportPlan(Config):
    """Settings of the report: the comparisons and their intervals."""

    reference: Annotated[str | None, Field(description="Head that all others are compared with")] = None
    margin: Annotated[float, Field(gt=0, lt=1, description="Negligible difference in accuracy")] = 0.01
    level: Annotated[float, Field(gt=0.5, lt=1, description="Confidence level of the intervals")] = 0.95
    trends: dict[str, TrendScale] = Field(
        default_factory=dict, description="Scales of the trends of factors; `natural_scale` chooses those left out"
    )


class StudyPlan(Config):
    """Plan of a whole study, as read from its TOML file."""

    name: Annotated[str, Field(min_length=1, description="Title of the report")]
    question: Annotated[str, Field(description="Question of the study, in one sentence")] = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Lax, BeforeValidator(_seeds), Field(min_length=1)]
    bodies: Annotated[tuple[Annotated[BodyPlan, Lax, BeforeValidator(_body_plan)], ...], Lax, Field(min_length=1)] = (
        BodyPlan(name="all-MiniLM-L6-v2"),
    )
    data: Annotated[DataPlan, Lax] = DataPlan()
    budget: Annotated[BudgetPlan, Lax] = BudgetPlan()
    train: Annotated[
        dict[str, Any], Field(default_factory=dict, description="Settings of TrainConfig except those of the budget")
    ]
    heads: Annotated[dict[str, HeadPlan], Field(min_length=1, description="Heads by name")]
    noise: Annotated[
        dict[str, NoisePlan],
        Field(default_factory=dict, description="Noises by name, for the noise of heads and factors"),
    ]
    factors: Annotated[
        dict[str, Annotated[tuple[Level, ...], Lax] | LevelRange],
        Field(default_factory=dict, description="Levels by setting, such as head.n_qubits"),
    ]
    design: Annotated[DesignPlan, Lax] = DesignPlan()
    report: Annotated[ReportPlan, Lax] = ReportPlan()

    @model_validator(mode="before")
    @classmethod
    def _read_tables(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        heads, factors, noise = settings.get("heads"), settings.get("factors", {}), settings.get("noise", {})
        if isinstance(noise, Mapping):
            settings["noise"] = noise = _read_entries(NoisePlan, "noise", noise)
            heads = _with_noise(heads, {name: each for name, each in noise.items() if isinstance(each, NoisePlan)})
        if isinstance(heads, Mapping):
            settings["heads"] = _read_entries(HeadPlan, "heads", heads)
        if isinstance(factors, Mapping):
            settings["factors"] = _read_entries(LevelRange, "factors", factors)
        return settings

    @model_validator(mode="after")
    def _check_plan(self) -> StudyPlan:
        if reserved := self.noise.keys() & {NONE, OWN_NOISE, *DEVICES}:
            raise ValueError(f"noise.{min(reserved)}: this name has a meaning already; choose another")
        unique: dict[str, Sequence[Any]] = {"seeds": self.seeds, "bodies": [body.label for body in self.bodies]}
        for name, values in unique.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds {_first_duplicate(values)!r} twice")
        self._check_heads()
        _check_train(self.train, self.factors)
        self._check_factors()
        return self

    def _check_heads(self) -> None:
        quantum = {name for name, head in self.heads.items() if head.kind == "quantum"}
        for name, head in self.heads.items():
            if head.match is not None and head.match not in quantum:
                raise ValueError(f"heads.{name}: match={head.match!r} is not a quantum head of this plan")
        if self.report.reference is not None and self.report.reference not in self.heads:
            raise ValueError(f"unknown report.reference={self.report.reference!r}; known: {', '.join(self.heads)}")

    def _check_factors(self) -> None:
        if (self.design.kind == "heads") != (not self.factors):
            raise ValueError(f"a design of kind {self.design.kind} {'has no' if self.factors else 'needs'} factors")
        fields = {"head": HeadConfig.model_fields, "train": TrainConfig.model_fields}
        known = {**{table: set(settings) for table, settings in fields.items()}, "data": {"per_label"}}
        heads = self.heads.values()
        for name, levels in self.factors.items():
            table, _, setting = name.partition(".")
            if table not in known or setting not in known[table] or name == "train.selection":
                raise ValueError(
                    f"unknown factor {name!r}; a factor is head.SETTING, train.SETTING or data.per_label, such as "
                    "head.n_qubits"
                )
            if name == "data.per_label" and self.data.test_fraction is not None:
                raise ValueError(
                    "data.per_label is a factor, and data.test_fraction replaces it; leave one of them out"
                )
            if name == "data.per_label":
                _check_sentence_numbers(levels)
            if table == "head" and not any(head.kind == "quantum" and head.vary for head in heads):
                raise ValueError(f"factor {name!r} has no quantum head to apply to")
            if table == "train" and not any(head.kind in ("quantum", "mlp") and head.vary for head in heads):
                raise ValueError(f"factor {name!r} has no head to apply to that is trained in epochs")
            if table == "data" and not any(head.vary for head in heads):
                raise ValueError(f"factor {name!r} has no head to apply to, since all have vary = false")
            if name == "train.learning_rate" and len(self.budget.learning_rates) > 1:
                raise ValueError(f"{name} is a factor, so each level is one try; give the budget one learning rate")
            exact = [head for head, each in self.heads.items() if each.exact_training and each.vary]
            if name == "head.gradient" and exact:
                raise ValueError(f"factor {name!r} is for training with shots; heads.{exact[0]} has exact_training")
            if name == NOISE and not isinstance(levels, LevelRange):
                self._check_noise_levels(levels)
            if isinstance(levels, LevelRange):
                if self.design.kind != "latin-hypercube":
                    raise ValueError(f"factor {name!r} is a range, for latin-hypercube only; give a list of levels")
            elif len(levels) < 2 or len(set(map(repr, levels))) < len(levels):
                raise ValueError(f"factor {name!r} needs two different levels or more, got {list(levels)}")
            elif self.design.kind in ("fractional", "plackett-burman") and len(levels) != 2:
                raise ValueError(f"factor {name!r} has {len(levels)} levels; a {self.design.kind} design takes two")
        for name, scale in self.report.trends.items():
            _check_trend(name, scale, self.factors)

    def _check_noise_levels(self, levels: Sequence[Level]) -> None:
        known = self._noises()
        if unknown := [level for level in levels if level != NONE and level not in known]:
            raise ValueError(
                f"factor {NOISE!r}: unknown level {unknown[0]!r}; known: {', '.join((NONE, *known))}; "
                "define others in a table noise.NAME"
            )
        values = [None if level == NONE else known[str(level)] for level in levels]
        if any(value in values[:number] for number, value in enumerate(values)):
            raise ValueError(f"factor {NOISE!r}: two of the levels {list(levels)} are the same noise; remove one")

    def _noises(self) -> dict[str, NoiseConfig]:
        named = {name: plan.config for name, plan in self.noise.items()}
        return {**named, **{device: load_noise(device) for device in DEVICES}}

    def value_of(self, factor: str, level: Level) -> Any:
        """Return the value of a setting at a level of the plan: "none" is None, and the name of a noise its table."""
        if level == NONE:
            return None
        return self._noises()[level] if factor == NOISE and isinstance(level, str) else level

    def level_of(self, factor: str, value: Any) -> Any:
        """Return the level of a setting at a value: the name of a noise, and any other value itself.

        Of several names of one noise it is the one among the levels of the factor, if there is one.
        """
        if factor != NOISE or value is None:
            return value
        noise, levels = NoiseConfig.from_mapping(value), self.factors.get(NOISE, ())
        names = [name for name, other in self._noises().items() if other == noise]
        planned = [name for name in names if not isinstance(levels, LevelRange) and name in levels]
        return next(iter([*planned, *names]), OWN_NOISE)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the plan in a TOML file.

        Raises:
            ConfigError: The file cannot be read, or the plan is not valid.
        """
        return cls.from_toml(path)

    def with_overrides(
        self, source: str | None = None, bodies: Sequence[str] | None = None, n_seeds: int | None = None
    ) -> StudyPlan:
        """Return the plan with another data set, other bodies or another number of seeds.

        Args:
            source: Data set with the columns of the plan; None keeps it.
            bodies: Names of frozen bodies; None keeps those of the plan.
            n_seeds: Number of seeds, from 0; None keeps those of the plan.

        Raises:
            ConfigError: `n_seeds` is not a positive integer, or the changed plan is not valid.

        >>> plan = StudyPlan.from_mapping({"name": "SVC", "seeds": 5, "heads": {"svc": {"kind": "svc"}}})
        >>> plan.with_overrides(n_seeds=2).seeds
        (0, 1)
        """
        changes: dict[str, Any] = {}
        if source is not None:
            changes["data"] = self.data.updated(source=source)
        if bodies:
            changes["bodies"] = tuple(BodyPlan(name=name) for name in bodies)
        if n_seeds is not None:
            changes["seeds"] = as_integer(n_seeds, "n_seeds", minimum=1)
        return self.updated(**changes) if changes else self

    def train_config(self, **levels: Any) -> TrainConfig:
        """Return the training configuration of heads trained in epochs, with the learning rate of the first try.

        Raises:
            ConfigError: A setting is unknown or does not fit.
        """
        first = {"learning_rate": self.budget.learning_rates[0], "selection": self.budget.selection}
        return TrainConfig.from_mapping({**first, **self.train, **levels}, where="train")


def _read_entries(config: type[Config], table: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a table, with tables as `Config`, whose errors name the entry."""
    return {
        name: config.from_mapping(entry, where=f"{table}.{name}") if isinstance(entry, Mapping) else entry
        for name, entry in entries.items()
    }


def is_number(level: object) -> TypeGuard[int | float]:
    """Return True if a level is a number; a truth value is none."""
    return isinstance(level, (int, float)) and not isinstance(level, bool)


def _with_noise(heads: Any, noise: Mapping[str, Any]) -> Any:
    """Return heads, as mappings, with the tables of the noises of the plan that their settings name."""
    if not isinstance(heads, Mapping):
        return heads
    found = dict(heads)
    for name, head in heads.items():
        own = head.get("settings") if isinstance(head, Mapping) else None
        if isinstance(own, Mapping) and isinstance(own.get("noise"), str) and own["noise"] in noise:
            table = noise[own["noise"]].config.model_dump(mode="json")
            found[name] = {**head, "settings": {**own, "noise": table}}
    return found


def _first_duplicate(values: Sequence[Any]) -> Any:
    return next(value for number, value in enumerate(values) if value in values[:number])


def _check_sentence_numbers(levels: Sequence[Level] | LevelRange) -> None:
    """Raise ValueError if a level is no number of sentences; a fraction would be taken for a share to test on."""
    if isinstance(levels, LevelRange):
        if not levels.integer or levels.low < 2:
            raise ValueError("factor 'data.per_label' is a range of sentences; use integer = true and low = 2 or more")
    elif not all(type(level) is int and level >= 2 for level in levels):
        raise ValueError(f"factor 'data.per_label' has the levels {list(levels)}; use whole numbers of at least 2")


def _check_trend(name: str, scale: TrendScale, factors: Mapping[str, Any]) -> None:
    if name not in factors:
        raise ValueError(f"report.trends: {name!r} is not a factor of this plan; known: {', '.join(factors) or 'none'}")
    levels = [] if isinstance(factors[name], LevelRange) else [level for level in factors[name] if is_number(level)]
    if len(levels) < 2:
        raise ValueError(f"report.trends: {name!r} has fewer than two levels that are numbers, so no trend")
    if scale == "log2" and min(levels) <= 0:
        raise ValueError(f"report.trends: {name!r} has the level {min(levels)}, which has no logarithm; take linear")


def _check_train(train: Mapping[str, Any], factors: Mapping[str, Any]) -> None:
    for name in ("learning_rate", "selection"):
        if name in train:
            raise ValueError(f"train.{name} is part of the budget, which is the same for all heads; set it there")
    for name in (f"train.{setting}" for setting in train):
        if name in factors:
            raise ValueError(f"{name} is a factor and a setting; leave one out")
    TrainConfig.from_mapping(train, where="train")
