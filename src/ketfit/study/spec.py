"""What a study is: a TOML file that names data, bodies, heads, seeds, a design and the effort that each head gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from ketfit.base_config import Config, Finite
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import Precision, TuneConfig, read_tuning

HeadKind = Literal["quantum", "logistic-regression", "svc", "mlp"]
DesignKind = Literal["heads", "scan", "full", "fractional", "plackett-burman", "latin-hypercube"]
Level = bool | int | float | str
MAX_SEEDS, MAX_SAMPLES = 10_000, 10_000
"""Of one study. More is a mistake, or takes the memory of whoever reads the plan."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _as_tuple(value: Any) -> Any:
    """TOML has lists only."""
    return tuple(value) if isinstance(value, list) else value


def _names(value: Any) -> Any:
    """Bodies may be given by name alone."""
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(BodyPlan(name=entry) if isinstance(entry, str) else _table(BodyPlan, entry) for entry in value)


def _first_seeds(value: Any) -> Any:
    """``seeds = 5`` is the first five."""
    if isinstance(value, int) and value > MAX_SEEDS:
        raise ValueError(f"seeds={value}: a study has at most {MAX_SEEDS}")
    return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else _as_tuple(value)


def _table(config: type[Config], value: Any) -> Any:
    return config(**value) if isinstance(value, Mapping) else value


class DataPlan(Config):
    """The sentences, and how many of each label are drawn; all others test."""

    source: Annotated[str, Field(description="File, Hub data set, or rotten-tomatoes")] = "rotten-tomatoes"
    text_column: str = "text"
    label_column: str = "label"
    split: Annotated[str | None, Field(description="Split of a Hub data set")] = None
    revision: Annotated[str | None, Field(description="Branch, tag or commit of a Hub data set")] = None
    format: Annotated[
        Literal["csv", "tsv", "jsonl", "parquet"] | None, Field(description="Format of a file without its suffix")
    ] = None
    encoding: Annotated[str, Field(description="Encoding of a text file")] = "utf-8"
    delimiter: Annotated[str | None, Field(description="What separates the fields of a CSV file, if not a comma")] = (
        None
    )
    per_label: Annotated[int, Field(ge=2, description="Sentences drawn of each label, to train and to validate")] = 256
    validation_fraction: Annotated[float, Field(gt=0, lt=1, description="Share of the drawn that validates")] = 0.15


def _tuning(value: Any) -> Any:
    """A table without a method is contrastive."""
    return read_tuning({"method": "contrastive", **value}, "tune") if isinstance(value, Mapping) else value


class BodyPlan(Config):
    """A sentence transformer: as it is, or tuned on the training sentences of each seed.

    Contrastive tuning makes a body for each seed, which all heads share. End to end (``method = "full"``) makes one for
    each seed and head; see `ketfit.study.end_to_end.Together`.
    """

    name: Annotated[str, Field(min_length=1, description="A bundled body, a local folder, or a name on the Hub")]
    revision: Annotated[str | None, Field(description="Branch, tag or commit on the Hub")] = None
    tune: Annotated[
        TuneConfig | None,
        BeforeValidator(_tuning),
        Field(description="How it is tuned; None is frozen"),
    ] = None
    dtype: Annotated[Precision, Field(description="Numbers that it embeds with")] = "float32"

    @property
    def label(self) -> str:
        """What rows and reports call it."""
        how = {"contrastive": ", tuned", "full": ", end to end"}
        return self.name if self.tune is None else self.name + how[self.tune.method]


class BudgetPlan(Config):
    """What each head may try before the test set is looked at: as many values as every other head.

    Heads that are trained in epochs try learning rates, the others the strength of their regularisation (``C`` of
    scikit-learn). `selection` chooses among the tries, and among the epochs of each, on the validation sentences.
    """

    learning_rates: Annotated[
        tuple[Annotated[Finite, Field(gt=0)], ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = (0.03,)
    regularization: Annotated[
        tuple[Annotated[Finite, Field(gt=0)], ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = (1.0,)
    selection: Annotated[Literal["loss", "accuracy"], Field(description="On the validation sentences")] = "loss"

    @model_validator(mode="after")
    def _is_fair(self) -> BudgetPlan:
        for name in ("learning_rates", "regularization"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} holds a value twice; a try is worth one run")
        if len(self.learning_rates) != len(self.regularization):
            raise ValueError(
                f"{len(self.learning_rates)} learning_rates but {len(self.regularization)} values of regularization; "
                "every head gets the same number of tries"
            )
        return self


class HeadPlan(Config):
    """One head of a study. `settings` depend on the kind.

    =====================  =========================================================================================
    quantum                those of `HeadConfig`, on top of `start`
    mlp                    ``hidden`` (0 is one linear layer), ``activation`` ("gelu", "none")
    logistic-regression    ``components``: on so many fixed directions instead of the whole embedding;
                           ``directions``: "random" unless given, or "principal", those of the training sentences
    svc                    none
    =====================  =========================================================================================

    `match` names a quantum head whose number of parameters an mlp or a logistic regression is to come closest to; a
    logistic regression has no more of them than on the whole embedding.
    """

    kind: HeadKind
    start: Annotated[Literal["paper", "recommended"], Field(description="What a quantum head starts from")] = "paper"
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]
    match: Annotated[str | None, Field(description="The quantum head whose parameters to match")] = None
    vary: Annotated[bool, Field(description="Whether the factors apply to it")] = True

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> HeadPlan:
        known = {"mlp": {"hidden", "activation"}, "logistic-regression": {"components", "directions"}, "svc": set()}
        if self.kind == "quantum":
            if self.match is not None:
                raise ValueError("a quantum head matches no other; match is for mlp and logistic-regression")
            self.quantum(768, 2)
            return self
        if self.start != "paper":
            raise ValueError(f"start={self.start!r} is for quantum heads; leave it out")
        strange = sorted(self.settings.keys() - known[self.kind])
        if strange:
            known_ones = ", ".join(sorted(known[self.kind])) or "none"
            raise ValueError(f"a head of kind {self.kind} has no setting {strange[0]!r}; known are {known_ones}")
        if self.match is not None and (self.kind == "svc" or {"hidden", "components"} & self.settings.keys()):
            raise ValueError("match decides the size of an mlp or a logistic regression; give no size beside it")
        return self

    def quantum(self, embedding_dim: int, n_classes: int, **levels: Any) -> HeadConfig:
        """The settings of a quantum head, with the levels of factors on top.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        start = HeadConfig() if self.start == "paper" else HeadConfig.recommended(embedding_dim, n_classes)
        table = {name: getattr(start, name) for name in HeadConfig.model_fields}
        return HeadConfig.from_mapping({**table, **self.settings, **levels}, where="the head")


class LevelRange(Config):
    """A factor of a Latin hypercube that takes any value between two."""

    low: Finite
    high: Finite
    log: Annotated[bool, Field(description="Even in the logarithm")] = False
    integer: Annotated[bool, Field(description="Whole numbers only")] = False

    @model_validator(mode="after")
    def _goes_up(self) -> LevelRange:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low}: a logarithmic range begins above zero")
        return self


class DesignPlan(Config):
    """Which combinations of the factors' levels are run.

    ``heads`` has no factors; ``scan`` changes one factor at a time; ``full`` is all combinations; ``fractional`` a
    regular two-level fraction, by `resolution` or by `generators` such as "a b c abc"; ``plackett-burman`` the
    smallest two-level design for main effects; ``latin-hypercube`` spreads `samples` points over the ranges.
    """

    kind: DesignKind = "heads"
    resolution: Annotated[int | None, Field(ge=3, le=8, description="Of a fractional design")] = None
    generators: Annotated[str | None, Field(description="Of a fractional design, one word a factor")] = None
    samples: Annotated[int | None, Field(ge=1, le=MAX_SAMPLES, description="Of a Latin hypercube")] = None
    seed: Annotated[int, Field(ge=0, description="Of a Latin hypercube")] = 0
    estimate: Annotated[
        Literal["nothing", "main effects", "interactions"], Field(description="What the report shall estimate")
    ] = "nothing"

    @model_validator(mode="after")
    def _belongs_together(self) -> DesignPlan:
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
    """What the report compares."""

    reference: Annotated[str | None, Field(description="The head that all others are compared with")] = None
    margin: Annotated[float, Field(gt=0, lt=1, description="Difference in accuracy that would not matter")] = 0.01
    level: Annotated[float, Field(gt=0.5, lt=1, description="Of the intervals")] = 0.95


class StudyPlan(Config):
    """A whole study, as read from its TOML file."""

    name: Annotated[str, Field(min_length=1, description="Of the study, for the report")]
    question: Annotated[str, Field(description="What it asks, in a sentence")] = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_first_seeds), Field(min_length=1)]
    bodies: Annotated[tuple[BodyPlan, ...], BeforeValidator(_names), Field(min_length=1)] = (
        BodyPlan(name="all-MiniLM-L6-v2"),
    )
    data: Annotated[DataPlan, BeforeValidator(lambda value: _table(DataPlan, value))] = DataPlan()
    budget: Annotated[BudgetPlan, BeforeValidator(lambda value: _table(BudgetPlan, value))] = BudgetPlan()
    train: Annotated[
        dict[str, Any], Field(default_factory=dict, description="Settings of TrainConfig but those of the budget")
    ]
    heads: Annotated[dict[str, HeadPlan], Field(min_length=1, description="By name")]
    factors: Annotated[
        dict[str, tuple[Level, ...] | LevelRange],
        Field(default_factory=dict, description="Levels by setting, such as head.n_qubits"),
    ]
    design: Annotated[DesignPlan, BeforeValidator(lambda value: _table(DesignPlan, value))] = DesignPlan()
    report: Annotated[ReportPlan, BeforeValidator(lambda value: _table(ReportPlan, value))] = ReportPlan()

    @model_validator(mode="before")
    @classmethod
    def _read_tables(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        heads, factors = settings.get("heads"), settings.get("factors", {})
        if isinstance(heads, Mapping):
            settings["heads"] = {name: _named(f"heads.{name}", HeadPlan, table) for name, table in heads.items()}
        if isinstance(factors, Mapping):
            settings["factors"] = {
                name: _named(f"factors.{name}", LevelRange, levels)
                if isinstance(levels, Mapping)
                else _as_tuple(levels)
                for name, levels in factors.items()
            }
        return settings

    @model_validator(mode="after")
    def _fits_together(self) -> StudyPlan:
        named: dict[str, Sequence[Any]] = {"seeds": self.seeds, "bodies": [body.label for body in self.bodies]}
        for name, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds {_twice(values)!r} twice")
        self._check_heads()
        _check_train(self.train, self.factors)
        self._check_factors()
        return self

    def _check_heads(self) -> None:
        quantum = {name for name, head in self.heads.items() if head.kind == "quantum"}
        for name, head in self.heads.items():
            if head.match is not None and head.match not in quantum:
                raise ValueError(f"heads.{name}: match={head.match!r} is no quantum head of this plan")
        if self.report.reference is not None and self.report.reference not in self.heads:
            raise ValueError(f"report.reference={self.report.reference!r} is none of the heads {', '.join(self.heads)}")

    def _check_factors(self) -> None:
        if (self.design.kind == "heads") != (not self.factors):
            raise ValueError(f"a design of kind {self.design.kind} {'has no' if self.factors else 'needs'} factors")
        fields = {"head": HeadConfig.model_fields, "train": TrainConfig.model_fields}
        known = {**{table: set(settings) for table, settings in fields.items()}, "data": {"per_label"}}
        for name, levels in self.factors.items():
            table, _, setting = name.partition(".")
            if table not in known or setting not in known[table] or name == "train.selection":
                raise ValueError(
                    f"unknown factor {name!r}; a factor is head.SETTING, train.SETTING or data.per_label, such as "
                    "head.n_qubits"
                )
            if table == "head" and not any(head.kind == "quantum" and head.vary for head in self.heads.values()):
                raise ValueError(f"factor {name!r} has no quantum head to apply to")
            if name == "train.learning_rate" and len(self.budget.learning_rates) > 1:
                raise ValueError(f"{name} is a factor, so that each of its levels is one try; give the budget one rate")
            if isinstance(levels, LevelRange):
                if self.design.kind != "latin-hypercube":
                    raise ValueError(f"factor {name!r} is a range, which only a latin-hypercube takes; give levels")
            elif len(levels) < 2 or len(set(map(repr, levels))) < len(levels):
                raise ValueError(f"factor {name!r} needs two different levels or more, got {list(levels)}")
            elif self.design.kind in ("fractional", "plackett-burman") and len(levels) != 2:
                raise ValueError(f"factor {name!r} has {len(levels)} levels; a {self.design.kind} design takes two")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The plan in a TOML file.

        Raises:
            ConfigError: the file cannot be read, or the plan cannot be run; nothing was begun.
        """
        return cls.from_toml(path)

    def on(
        self, source: str | None = None, bodies: Sequence[str] | None = None, n_seeds: int | None = None
    ) -> StudyPlan:
        """The same study on other sentences (columns as in the plan), other bodies, or so many seeds from 0.

        Raises:
            ConfigError: `n_seeds` is not an integer, or less than 1, or the changed plan cannot be run.
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
        """How heads are trained in epochs; the learning rate stands for the first try.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        first = {"learning_rate": self.budget.learning_rates[0], "selection": self.budget.selection}
        return TrainConfig.from_mapping({**first, **self.train, **levels}, where="train")


def _named(where: str, config: type[Config], value: Any) -> Any:
    return config.from_mapping(value, where=where) if isinstance(value, Mapping) else value


def _twice(values: Sequence[Any]) -> Any:
    return next(value for number, value in enumerate(values) if value in values[:number])


def _check_train(train: Mapping[str, Any], factors: Mapping[str, Any]) -> None:
    for name in ("learning_rate", "selection"):
        if name in train:
            raise ValueError(f"train.{name} is part of the budget, which is the same for all heads; set it there")
    for name in (f"train.{setting}" for setting in train):
        if name in factors:
            raise ValueError(f"{name} is a factor and a setting; leave one out")
    TrainConfig.from_mapping(train, where="train")
