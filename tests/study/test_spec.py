"""Test plans: valid TOML files, and errors of invalid ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import ConfigError
from ketfit.simulate.noise import NoiseConfig, load_noise
from ketfit.study.spec import BodyPlan, BudgetPlan, DataPlan, HeadPlan, LevelRange, NoisePlan, StudyPlan

PLANS = sorted((Path(__file__).parents[2] / "studies").rglob("*.toml"))


def changed(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the settings with one entry replaced, or removed if the value is None."""
    copy = json.loads(json.dumps(settings))
    *parents, name = path.split("/")
    table = copy
    for parent in parents:
        table = table.setdefault(parent, {})
    if value is None:
        del table[name]
    else:
        table[name] = value
    return copy


def test_study_plan_from_mapping_has_the_given_settings(settings: dict[str, Any]) -> None:
    plan = StudyPlan.from_mapping(settings)
    assert plan.seeds == (0, 1)
    assert plan.heads["quantum"].settings == {"n_qubits": 5, "main_layers": 1}
    assert plan.factors == {"head.encoder_layers": (1, 2), "head.connectivity": (1, 2)}
    assert plan.train_config().epochs == 3
    assert plan.train_config(epochs=7).epochs == 7


def test_study_plan_json_round_trip_is_equal(settings: dict[str, Any]) -> None:
    settings = changed(settings, "factors/train.weight_decay", {"low": 0.001, "high": 0.1, "log": True})
    settings = changed(settings, "design", {"kind": "latin-hypercube", "samples": 5})
    plan = StudyPlan.from_mapping(settings)
    assert StudyPlan.from_mapping(json.loads(json.dumps(plan.model_dump(mode="json")))) == plan


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_study_plan_read_accepts_every_repository_plan(path: Path) -> None:
    plan = StudyPlan.read(path)
    assert plan.question.endswith("?"), "every study has a question"
    assert plan.data.source == "rotten-tomatoes", "every study runs on the bundled data"


def test_budget_plan_unequal_or_repeated_tries_raise() -> None:
    with pytest.raises(ConfigError, match="3 learning_rates but 1 values of regularization; every head gets the same"):
        BudgetPlan(learning_rates=[0.1, 0.2, 0.3])
    with pytest.raises(ConfigError, match="holds a value twice; remove one of them"):
        BudgetPlan(learning_rates=[0.1, 0.1], regularization=[1.0, 2.0])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", None, "StudyPlan needs the setting 'name'"),
        ("seed", 3, "StudyPlan has no setting 'seed'; did you mean 'seeds'"),
        ("seeds", [], "seeds"),
        ("seeds", [1, 1], "seeds holds 1 twice"),
        ("seeds", 0, "seeds"),
        ("seeds", True, "seeds"),
        ("bodies", [], "bodies"),
        ("bodies", ["a", "a"], "bodies holds 'a' twice"),
        ("bodies", [{"name": "a", "tuned": True}], "BodyPlan has no setting 'tuned'"),
        ("data/per_labels", 3, "DataPlan has no setting 'per_labels'; did you mean 'per_label'"),
        ("data/validation_fraction", 0.0, "validation_fraction"),
        ("train/learning_rate", 0.1, "train.learning_rate is part of the budget"),
        ("train/selection", "loss", "train.selection is part of the budget"),
        ("train/epoch", 3, "train: TrainConfig has no setting 'epoch'; did you mean 'epochs'"),
        ("heads", {}, "heads"),
        ("heads/quantum/settings/n_qbits", 3, "heads.quantum: .*no setting 'n_qbits'; did you mean 'n_qubits'"),
        (
            "heads/quantum/match",
            "linear",
            "heads.quantum: match is for mlp and logistic-regression, not for a quantum head",
        ),
        ("heads/linear/kind", "forest", "heads.linear: kind='forest'"),
        ("heads/linear/start", "recommended", "heads.linear: start='recommended' is for quantum heads"),
        (
            "heads/linear/settings",
            {"hidden": 3},
            "logistic-regression has no setting 'hidden'; known: components, directions",
        ),
        ("heads/linear/match", "quantom", "heads.linear: match='quantom' is not a quantum head of this plan"),
        ("heads/svm", {"kind": "svc", "match": "quantum"}, "heads.svm: match decides the size"),
        ("factors/n_qubits", [1, 2], "unknown factor 'n_qubits'; a factor is head.SETTING"),
        ("factors/head.qubits", [1, 2], "unknown factor 'head.qubits'"),
        ("factors/train.selection", ["loss", "accuracy"], "unknown factor 'train.selection'"),
        ("factors/train.epochs", [1, 2], "train.epochs is a factor and a setting"),
        ("factors/head.encoder_layers", [], "'head.encoder_layers' needs two different levels or more, got \\[\\]"),
        ("factors/head.encoder_layers", [1, 1], "needs two different levels"),
        (
            "factors/head.encoder_layers",
            {"low": 1, "high": 3},
            "is a range, for latin-hypercube only; give a list of levels",
        ),
        ("factors/head.encoder_layers", {"low": 3, "high": 3}, "factors.head.encoder_layers: low=3.0 must be below"),
        ("factors", {}, "a design of kind full needs factors"),
        ("design/kind", "heads", "a design of kind heads has no factors"),
        ("design/samples", 4, "samples belongs to a latin-hypercube design; this one is full"),
        ("design/kind", "fractional", "a fractional design needs either resolution or generators"),
        ("design/kind", "latin-hypercube", "needs samples"),
        ("report/reference", "nobody", "unknown report.reference='nobody'; known: quantum, linear"),
        ("report/margin", 0.0, "margin"),
    ],
)
def test_study_plan_invalid_setting_is_named_in_the_error(
    settings: dict[str, Any], path: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        StudyPlan.from_mapping(changed(settings, path, value))


def test_study_plan_two_level_design_rejects_three_levels(settings: dict[str, Any]) -> None:
    settings = changed(settings, "factors/head.encoder_layers", [1, 2, 3])
    for design in ({"kind": "plackett-burman"}, {"kind": "fractional", "resolution": 3}):
        with pytest.raises(ConfigError, match="'head.encoder_layers' has 3 levels; a .* design takes two"):
            StudyPlan.from_mapping(changed(settings, "design", design))


def test_study_plan_head_factor_without_quantum_head_raises(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'head.encoder_layers' has no quantum head to apply to"):
        StudyPlan.from_mapping(changed(settings, "heads/quantum/vary", False))


def test_study_plan_factor_without_a_head_to_apply_to_raises(settings: dict[str, Any]) -> None:
    heads = {"linear": {"kind": "logistic-regression"}}
    classical = {"heads": heads, "report": {"reference": "linear"}, "train": {}}
    with pytest.raises(ConfigError, match=r"'train\.epochs' has no head to apply to that is trained in epochs"):
        StudyPlan.from_mapping({**settings, **classical, "factors": {"train.epochs": [50, 150]}})
    fixed = {"heads": {"linear": {"kind": "logistic-regression", "vary": False}}}
    with pytest.raises(ConfigError, match=r"'data\.per_label' has no head to apply to, since all have vary = false"):
        StudyPlan.from_mapping({**settings, **classical, **fixed, "factors": {"data.per_label": [10, 20]}})


def test_study_plan_learning_rate_factor_with_several_tries_raises(settings: dict[str, Any]) -> None:
    settings = changed(settings, "factors/train.learning_rate", [0.01, 0.1])
    StudyPlan.from_mapping(settings)
    budget = {"learning_rates": [0.1, 0.2], "regularization": [1.0, 2.0]}
    with pytest.raises(ConfigError, match="each level is one try; give the budget one learning rate"):
        StudyPlan.from_mapping(changed(settings, "budget", budget))


def test_head_plan_quantum_starts_from_paper_or_recommended() -> None:
    paper = HeadPlan(kind="quantum", settings={"n_qubits": 12})
    assert (paper.quantum(768, 2).n_qubits, paper.quantum(768, 2).encoder_layers) == (12, 2)
    recommended = HeadPlan(kind="quantum", start="recommended", settings={"main_layers": 3})
    assert (recommended.quantum(384, 2).n_qubits, recommended.quantum(384, 2).main_layers) == (9, 3)
    assert recommended.quantum(384, 2, encoder_layers=5).encoder_layers == 5


def test_study_plan_with_overrides_replaces_data_bodies_and_seeds(plan: StudyPlan) -> None:
    other = plan.with_overrides("other.tsv", ["one", "two"], 7)
    assert (other.data.source, other.data.per_label) == ("other.tsv", 20)
    assert other.bodies == (BodyPlan(name="one"), BodyPlan(name="two"))
    assert other.seeds == tuple(range(7))
    assert plan.with_overrides() == plan


def test_level_range_logarithmic_from_zero_raises() -> None:
    with pytest.raises(ConfigError, match="of a logarithmic range must be above zero"):
        LevelRange(low=0.0, high=1.0, log=True)


def test_level_range_without_integers_raises() -> None:
    with pytest.raises(ConfigError, match=r"there is no integer from low=1\.2 to high=1\.8"):
        LevelRange(low=1.2, high=1.8, integer=True)


def test_study_plan_read_missing_or_broken_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.toml"):
        StudyPlan.read(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("name = [")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        StudyPlan.read(tmp_path / "broken.toml")


@pytest.mark.parametrize(
    ("tune", "label"),
    [
        (None, "a"),
        ({}, "a, tuned"),
        ({"method": "end-to-end"}, "a, end to end"),
        ([{"method": "full"}], "a, end to end"),
        ([{"epochs": 2}, {"method": "end-to-end"}], "a, tuned, then end to end"),
    ],
)
def test_body_plan_label_names_the_stages(tune: Any, label: str) -> None:
    assert BodyPlan(name="a", tune=tune).label == label


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ([], "tune is an empty list"),
        ([{}, {"epochs": 2}], "two contrastive stages in a row"),
        ([{"method": "full"}, {}], "contrastive tuning after end-to-end training"),
        ([{}, {"method": "full", "warmup": 0.1}], r"tune\[1\]: EndToEndConfig has no setting 'warmup'"),
    ],
)
def test_body_plan_stages_that_make_no_sense_are_refused(tune: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BodyPlan(name="a", tune=tune)


def test_test_fraction_and_per_label_raise() -> None:
    with pytest.raises(ConfigError, match=r"per_label=20 and test_fraction=0.25: leave one of them out"):
        DataPlan(per_label=20, test_fraction=0.25)


def test_test_fraction_and_factor_per_label_raise(settings: dict[str, Any]) -> None:
    settings["data"] = {"source": settings["data"]["source"], "test_fraction": 0.25}
    settings["factors"] = {"data.per_label": [8, 16]}
    with pytest.raises(ConfigError, match=r"data\.per_label is a factor, and data\.test_fraction replaces it"):
        StudyPlan.from_mapping(settings)


@pytest.mark.parametrize("levels", [[0.2, 0.5], [64.0, 128.0], ["none", 64], [1, 8], [True, 8]])
def test_levels_of_per_label_that_are_no_numbers_of_sentences_raise(settings: dict[str, Any], levels: Any) -> None:
    settings["factors"] = {"data.per_label": levels}
    with pytest.raises(ConfigError, match=r"'data\.per_label' has the levels .*; use whole numbers of at least 2"):
        StudyPlan.from_mapping(settings)


def test_range_of_per_label_without_integers_raises(settings: dict[str, Any]) -> None:
    settings["design"] = {"kind": "latin-hypercube", "samples": 4}
    settings["factors"] = {"data.per_label": {"low": 8, "high": 64}}
    with pytest.raises(ConfigError, match=r"'data\.per_label' is a range of sentences; use integer = true"):
        StudyPlan.from_mapping(settings)


FORTE = {"device": "ionq-forte"}


def noise_settings(settings: dict[str, Any], **noise: Any) -> dict[str, Any]:
    """Return a scan over the noises that are named."""
    levels = ["none", "ionq-forte", *noise]
    return {**settings, "noise": noise, "factors": {"head.noise": levels}, "design": {"kind": "scan"}}


def test_noise_plan_is_a_scaled_device_with_settings_on_top() -> None:
    plan = NoisePlan(device="ionq-forte", scale=0.1, settings={"pauli_twirl": True})
    assert plan.config == load_noise("ionq-forte").updated(pauli_twirl=True).scaled(0.1)
    assert NoisePlan(settings={"depolarizing_2q": 0.01}, scale=3.0).config == NoiseConfig(depolarizing_2q=0.03)


def test_level_of_a_noise_is_its_name(settings: dict[str, Any]) -> None:
    plan = StudyPlan.from_mapping(noise_settings(settings, better={**FORTE, "scale": 0.1}))
    for name, noise in (("better", load_noise("ionq-forte").scaled(0.1)), ("ionq-forte", load_noise("ionq-forte"))):
        assert plan.value_of("head.noise", name) == noise
        assert plan.level_of("head.noise", noise.model_dump(mode="json")) == name
    assert plan.level_of("head.noise", {"bit_flip": 0.5}) == "own noise"
    assert plan.value_of("head.noise", "none") is plan.level_of("head.noise", None) is None


def test_level_of_a_noise_with_two_names_is_the_one_of_the_factor(settings: dict[str, Any]) -> None:
    plan = StudyPlan.from_mapping({**noise_settings(settings), "noise": {"other": FORTE}})
    forte = load_noise("ionq-forte").model_dump(mode="json")
    assert plan.level_of("head.noise", forte) == "ionq-forte"
    assert (plan.value_of("head.shots", "none"), plan.value_of("head.shots", 100)) == (None, 100)
    assert plan.level_of("head.shots", 100) == 100


def test_head_names_a_noise_of_the_plan(settings: dict[str, Any]) -> None:
    settings["heads"]["quantum"]["settings"]["noise"] = "better"
    plan = StudyPlan.from_mapping(noise_settings(settings, better={**FORTE, "scale": 0.1}))
    assert plan.heads["quantum"].quantum(16, 2).noise == load_noise("ionq-forte").scaled(0.1)
    assert StudyPlan.from_mapping(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"x": {}}, "noise.x: a noise needs a device or settings; give one of them"),
        ({"x": {"device": "ionq-fort"}}, "noise.x: unknown device='ionq-fort'; known: ionq-forte, ionq-aria"),
        ({"x": {**FORTE, "scale": 0.0}}, "noise.x: scale=0.0: input should be greater than 0"),
        ({"x": {**FORTE, "scale": 900.0}}, r"noise.x: .*depolarizing_2q=6\..*less than or equal to 1"),
        (
            {"x": {**FORTE, "settings": {"bitflip": 0.1}}},
            "noise.x: settings: NoiseConfig has no setting 'bitflip'; did",
        ),
        ({"x": {"depolarizing_2q": 0.1}}, "noise.x: NoisePlan has no setting 'depolarizing_2q'"),
        ({"none": FORTE}, "noise.none: this name has a meaning already; choose another"),
        ({"ionq-aria": FORTE}, "noise.ionq-aria: this name has a meaning already"),
        ({"own noise": FORTE}, "noise.own noise: this name has a meaning already"),
        ({"x": FORTE}, "factor 'head.noise': two of the levels .* are the same noise; remove one"),
        ("ionq-forte", "noise='ionq-forte': input should be a valid dictionary"),
    ],
)
def test_study_plan_with_invalid_noise_raises(settings: dict[str, Any], noise: Any, message: str) -> None:
    levels = ["none", "ionq-forte", *(noise if isinstance(noise, dict) else [])]
    changed = {"noise": noise, "factors": {"head.noise": list(dict.fromkeys(levels))}, "design": {"kind": "scan"}}
    with pytest.raises(ConfigError, match=message):
        StudyPlan.from_mapping({**settings, **changed})


@pytest.mark.parametrize("level", ["forte", 0.1, True])
def test_study_plan_with_unknown_level_of_noise_raises(settings: dict[str, Any], level: Any) -> None:
    settings |= {"factors": {"head.noise": ["none", level]}, "design": {"kind": "scan"}}
    message = rf"factor 'head.noise': unknown level {level!r}; known: none, ionq-forte, ionq-aria; define others"
    with pytest.raises(ConfigError, match=message):
        StudyPlan.from_mapping(settings)


@pytest.mark.parametrize(
    ("head", "factors", "message"),
    [
        ({"kind": "svc", "exact_training": True}, {}, "heads.x: exact_training is for quantum heads; leave it out"),
        (
            {"kind": "quantum", "exact_training": True, "settings": {"shots": 10, "gradient": "parameter_shift"}},
            {},
            "heads.x: gradient is for training with shots, which exact_training leaves out",
        ),
        (
            {"kind": "quantum", "exact_training": True, "settings": {"shots": 10}},
            {"head.gradient": ["reparameterized", "straight_through"]},
            "factor 'head.gradient' is for training with shots; heads.x has exact_training",
        ),
    ],
)
def test_study_plan_with_exact_training_that_does_not_fit_raises(
    settings: dict[str, Any], head: dict[str, Any], factors: dict[str, Any], message: str
) -> None:
    settings |= {"heads": {"x": head}, "factors": factors, "report": {}}
    settings["design"] = {"kind": "scan" if factors else "heads"}
    with pytest.raises(ConfigError, match=message):
        StudyPlan.from_mapping(settings)


def test_head_plan_level_without_noise_or_shots_drops_what_depends_on_them() -> None:
    noisy = {"noise": "ionq-aria", "shots": 10, "gradient": "parameter_shift", "mitigation": ["readout"]}
    plan = HeadPlan(kind="quantum", settings=noisy)
    exact = plan.quantum(16, 2, noise=None)
    assert (exact.noise, exact.mitigation, exact.gradient) == (None, (), "parameter_shift")
    assert plan.quantum(16, 2, shots=None).gradient is None
    twirled = {"depolarizing_2q": 0.01, "pauli_twirl": True}
    sampled = HeadPlan(kind="quantum", settings={"noise": twirled, "trajectories": 8})
    assert sampled.quantum(16, 2).trajectories == 8 and sampled.quantum(16, 2, noise=None).trajectories is None
    with pytest.raises(ConfigError, match="trajectories=4 is about noise; give noise too"):
        sampled.quantum(16, 2, noise=None, trajectories=4)
