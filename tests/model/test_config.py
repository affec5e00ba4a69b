from __future__ import annotations

import json
import math
import re
from datetime import date

import numpy as np
import pytest
from pydantic import ValidationError

from ketfit.base_config import Config, parse_toml_value, read_toml
from ketfit.circuit import PauliSum, ansatz_layers, data_reuploading, encoder_circuit, reuploading_circuit
from ketfit.errors import ConfigError, KetFitError
from ketfit.model.classical import LogisticRegressionConfig, MLPSettings, SVCSettings
from ketfit.model.config import FitConfig, HeadConfig, TrainConfig, check_width
from ketfit.model.head import QuantumHead
from ketfit.simulate.noise import NoiseConfig, load_noise

HEAD_FIELDS = """
n_qubits n_encoders encoder_layers connectivity n_reuploads reupload_layers main_layers n_measured merge encoder_input
components angle_scale train_angle_scale tie_reuploads rotation_wall reference_amplitude skip_connection
ansatz encoder_ansatz angle_axis readout shots gradient noise trajectories mitigation
"""
UNUSUAL_HEAD = {
    "n_qubits": 5,
    "n_encoders": 3,
    "encoder_layers": 0,
    "connectivity": 4,
    "n_reuploads": 2,
    "reupload_layers": 0,
    "main_layers": 1,
    "n_measured": 4,
    "merge": "mean",
    "encoder_input": "slices",
    "components": 6,
    "angle_scale": 0.1 + 0.2,
    "train_angle_scale": True,
    "tie_reuploads": False,
    "rotation_wall": False,
    "reference_amplitude": 1 / 3,
    "skip_connection": True,
    "encoder_ansatz": "hardware_efficient",
    "angle_axis": "z",
    "shots": 100,
    "gradient": "parameter_shift",
}
UNUSUAL_TRAIN = {
    "epochs": 3,
    "batch_size": 7,
    "learning_rate": 1e-5,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "selection": "accuracy",
    "patience": 4,
}


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (HeadConfig, {"n_qubit": 4}, "^HeadConfig has no setting 'n_qubit'; did you mean 'n_qubits'[?]$"),
        (HeadConfig, {"Merge": "mean"}, "HeadConfig has no setting 'Merge'; did you mean 'merge'[?]"),
        (TrainConfig, {"lr": 0.1}, "TrainConfig has no setting 'lr'; known are epochs, batch_size, learning_rate,"),
        (TrainConfig, {"learning_rates": 0.1}, "no setting 'learning_rates'; did you mean 'learning_rate'[?]"),
        (FitConfig, {"haed": None}, "FitConfig has no setting 'haed'; did you mean 'head'[?]"),
        (HeadConfig, {"n_qubits": "4"}, "^n_qubits='4': input should be a valid integer$"),
        (HeadConfig, {"n_qubits": 4.0}, "^n_qubits=4.0: input should be a valid integer$"),
        (HeadConfig, {"n_qubits": np.float64(4)}, "n_qubits=4.0: input should be a valid integer"),
        (HeadConfig, {"n_qubits": True}, "n_qubits=True: input should be a valid integer"),
        (HeadConfig, {"n_qubits": None}, "n_qubits=None: input should be a valid integer"),
        (HeadConfig, {"n_qubits": np.array([4])}, r"n_qubits=\[4\]: input should be a valid integer"),
        (HeadConfig, {"angle_scale": "pi"}, "angle_scale='pi': input should be a valid number"),
        (HeadConfig, {"angle_scale": True}, "angle_scale=True: input should be a valid number"),
        (HeadConfig, {"tie_reuploads": 1}, "tie_reuploads=1: input should be a valid boolean"),
        (HeadConfig, {"rotation_wall": "yes"}, "rotation_wall='yes': input should be a valid boolean"),
        (HeadConfig, {"merge": "sum"}, "merge='sum': input should be 'concat' or 'mean'"),
        (HeadConfig, {"encoder_input": "part"}, "encoder_input='part': input should be 'whole' or 'slices'"),
        (TrainConfig, {"schedule": "linear"}, "schedule='linear': input should be 'constant' or 'cosine'"),
        (TrainConfig, {"patience": "never"}, "patience='never': input should be a valid integer"),
        (FitConfig, {"body": 3}, "body=3: input should be a valid string"),
        (FitConfig, {"class_weight": "equal"}, "class_weight='equal': input should be 'balanced'"),
        (FitConfig, {"train": None}, "train=None: input should be a valid dictionary or instance of TrainConfig"),
        (HeadConfig, {"angle_scale": math.nan}, "^angle_scale=nan: input should be a finite number$"),
        (HeadConfig, {"angle_scale": math.inf}, "angle_scale=inf: input should be a finite number"),
        (HeadConfig, {"angle_scale": np.float32("nan")}, "angle_scale=nan: input should be a finite number"),
        (HeadConfig, {"reference_amplitude": math.nan}, "reference_amplitude=nan: input should be a finite number"),
        (TrainConfig, {"learning_rate": math.nan}, "learning_rate=nan: input should be a finite number"),
        (TrainConfig, {"weight_decay": math.inf}, "weight_decay=inf: input should be a finite number"),
        (FitConfig, {"validation_fraction": math.nan}, "validation_fraction=nan: input should be less than 1"),
        (HeadConfig, {"n_qubits": 1, "connectivity": 1}, "n_qubits=1: input should be greater than or equal to 2"),
        (HeadConfig, {"n_encoders": 0}, "n_encoders=0: input should be greater than or equal to 1"),
        (HeadConfig, {"encoder_layers": -1}, "encoder_layers=-1: input should be greater than or equal to 0"),
        (HeadConfig, {"connectivity": 0}, "connectivity=0: input should be greater than or equal to 1"),
        (HeadConfig, {"n_reuploads": 0}, "n_reuploads=0: input should be greater than or equal to 1"),
        (HeadConfig, {"reupload_layers": -1}, "reupload_layers=-1: input should be greater than or equal to 0"),
        (HeadConfig, {"main_layers": -1}, "main_layers=-1: input should be greater than or equal to 0"),
        (HeadConfig, {"n_measured": 0}, "n_measured=0: input should be greater than or equal to 1"),
        (HeadConfig, {"angle_scale": 0.0}, "angle_scale=0.0: input should be greater than 0"),
        (HeadConfig, {"reference_amplitude": -0.5}, "reference_amplitude=-0.5: input should be greater than or equal"),
        (TrainConfig, {"epochs": 0}, "epochs=0: input should be greater than or equal to 1"),
        (TrainConfig, {"batch_size": 0}, "batch_size=0: input should be greater than or equal to 1"),
        (TrainConfig, {"learning_rate": 0}, "learning_rate=0: input should be greater than 0"),
        (TrainConfig, {"weight_decay": -1e-9}, "weight_decay=-1e-09: input should be greater than or equal to 0"),
        (TrainConfig, {"patience": 0}, "patience=0: input should be greater than or equal to 1"),
        (FitConfig, {"seed": -1}, "seed=-1: input should be greater than or equal to 0"),
        (FitConfig, {"validation_fraction": 1.0}, "validation_fraction=1.0: input should be less than 1"),
    ],
)
def test_config_invalid_setting_is_named(config, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config(**settings)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__, "pydantic's own report would bury the message"


def test_config_reports_all_errors_at_once():
    with pytest.raises(ConfigError, match=r"^n_qubits=1: .*; connectivity=0: .*; HeadConfig has no setting 'zzz'"):
        HeadConfig(n_qubits=1, connectivity=0, zzz=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"n_qubits": 3, "connectivity": 3},
            "connectivity=3 needs more than 3 qubits; with n_qubits=3 it goes up to 2",
        ),
        ({"n_qubits": 2}, "connectivity=2 needs more than 2 qubits; with n_qubits=2 it goes up to 1"),
        ({"n_measured": 11}, "n_measured=11 is more than the 10 qubits of the QPU circuit; lower it"),
        ({"n_encoders": 3, "n_measured": 31}, "n_measured=31 is more than the 30 qubits"),
        ({"n_encoders": 3, "n_measured": 11, "merge": "mean"}, "n_measured=11 is more than the 10 qubits"),
        ({"encoder_input": "slices"}, "encoder_input='slices' needs n_encoders of 2 or more"),
    ],
)
def test_head_config_inconsistent_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        HeadConfig(**settings)
    with pytest.raises(ConfigError, match=f"^{message}"):
        HeadConfig().updated(**settings)


def test_head_config_largest_consistent_settings_are_accepted():
    assert HeadConfig(n_qubits=3, connectivity=2, n_measured=3).qpu_qubits == 3
    assert HeadConfig(n_encoders=3, n_measured=30).qpu_qubits == 30
    assert HeadConfig(n_encoders=3, n_measured=10, merge="mean").qpu_qubits == 10


@pytest.mark.parametrize("config", [HeadConfig(), TrainConfig(), FitConfig()])
def test_config_is_frozen(config):
    name = next(iter(type(config).model_fields))
    with pytest.raises(ValidationError, match="Instance is frozen"):
        setattr(config, name, getattr(config, name))


# --- what is accepted --------------------------------------------------------------------------------------------


def test_head_config_has_expected_fields():
    assert list(HeadConfig.model_fields) == HEAD_FIELDS.split()


@pytest.mark.parametrize("config", [HeadConfig, TrainConfig, FitConfig])
def test_config_settings_have_description_and_default(config):
    for name, field in config.model_fields.items():
        assert field.description, name
        assert len(field.description) > 5, name
        assert not field.is_required(), name


def test_config_accepts_numpy_scalars():
    config = HeadConfig(
        n_qubits=np.int64(4),
        n_encoders=np.uint8(2),
        merge=np.str_("mean"),
        angle_scale=np.float32(0.5),
        reference_amplitude=np.int32(2),
        skip_connection=np.bool_(True),
    )
    assert config == HeadConfig(
        n_qubits=4, n_encoders=2, merge="mean", angle_scale=0.5, reference_amplitude=2.0, skip_connection=True
    )
    assert not [name for name in HeadConfig.model_fields if isinstance(getattr(config, name), np.generic)]
    assert type(config.n_qubits) is int
    assert type(config.merge) is str
    assert [TrainConfig(epochs=n).epochs for n in np.arange(1, 4)] == [1, 2, 3]


def test_config_accepts_integer_for_float():
    assert HeadConfig(angle_scale=3) == HeadConfig(angle_scale=3.0)
    assert type(HeadConfig(angle_scale=3).angle_scale) is float


def test_config_updated_returns_checked_copy():
    config = HeadConfig(n_qubits=6, n_measured=2)
    changed = config.updated(n_encoders=2, angle_scale=np.float64(1.5))
    assert changed == HeadConfig(n_qubits=6, n_measured=2, n_encoders=2, angle_scale=1.5)
    assert config == HeadConfig(n_qubits=6, n_measured=2)
    assert config.updated() == config
    with pytest.raises(ConfigError, match="no setting 'qubits'; did you mean 'n_qubits'"):
        config.updated(qubits=3)
    with pytest.raises(ConfigError, match="n_measured=7 is more than the 6 qubits"):
        config.updated(n_measured=7)
    fit = FitConfig(head=config).updated(seed=3)
    assert (fit.seed, fit.head) == (3, config)


def test_config_equal_settings_have_equal_hash():
    for first, second, other in [
        (HeadConfig(n_qubits=4), HeadConfig(n_qubits=4), HeadConfig(n_qubits=5)),
        (TrainConfig(epochs=4), TrainConfig(epochs=4), TrainConfig()),
        (FitConfig(head=HeadConfig()), FitConfig(head=HeadConfig()), FitConfig()),
    ]:
        assert first == second
        assert first is not second
        assert hash(first) == hash(second)
        assert len({first, second, other}) == 2


@pytest.mark.parametrize("changed", UNUSUAL_HEAD)
def test_head_config_with_other_field_differs(changed):
    whole = {**UNUSUAL_HEAD, "n_encoders": 3}
    default = 2 if changed == "n_encoders" else HeadConfig.model_fields[changed].default
    if changed in ("n_qubits", "shots"):  # the defaults do not fit the others
        default = 6
    assert default != whole[changed], "this test would compare equals"
    assert HeadConfig(**whole) != HeadConfig(**{**whole, changed: default})


@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(),
        HeadConfig(**UNUSUAL_HEAD),
        TrainConfig(),
        TrainConfig(**UNUSUAL_TRAIN),
        FitConfig(),
        FitConfig(
            body="b",
            revision="v1",
            seed=2**40,
            validation_fraction=0.3,
            class_weight="balanced",
            head=HeadConfig(**UNUSUAL_HEAD),
            train=TrainConfig(**UNUSUAL_TRAIN),
        ),
    ],
)
def test_config_json_round_trip_is_equal(config):
    assert type(config).from_mapping(json.loads(config.model_dump_json())) == config
    assert type(config).from_mapping(json.loads(json.dumps(config.model_dump()))) == config
    assert set(config.model_dump()) == set(type(config).model_fields)


def test_fixture_unusual_settings_have_no_default():
    assert [name for name in UNUSUAL_HEAD if UNUSUAL_HEAD[name] == HeadConfig.model_fields[name].default] == []
    assert [name for name in UNUSUAL_TRAIN if UNUSUAL_TRAIN[name] == TrainConfig.model_fields[name].default] == []
    assert set(UNUSUAL_HEAD) == set(HeadConfig.model_fields) - {
        "noise",
        "trajectories",
        "mitigation",
        "readout",
        "ansatz",
    }
    assert set(UNUSUAL_TRAIN) == set(TrainConfig.model_fields)


# --- shots and noise ---------------------------------------------------------------------------------------------


def test_head_config_stores_gradient_of_shots():
    assert HeadConfig(shots=100).gradient == "reparameterized"
    assert HeadConfig(shots=100, gradient="exact").gradient == "exact"
    assert HeadConfig.model_validate_json(HeadConfig(shots=100).model_dump_json()).gradient == "reparameterized"
    assert HeadConfig().gradient is None
    assert HeadConfig(shots=100).updated(shots=None) == HeadConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "shots=0"),
        ({"shots": 10.5}, "shots=10.5"),
        ({"gradient": "exact"}, "gradient='exact' says how to differentiate shots; give shots too"),
        ({"shots": 10, "gradient": "adjoint"}, "gradient='adjoint'"),
        ({"trajectories": 8}, "trajectories=8 is about noise; give noise too"),
        ({"mitigation": ["readout"]}, "is about noise; give noise too"),
        ({"noise": "ionq-forte", "mitigation": ["magic"]}, "magic"),
        ({"noise": "ionq-forte", "trajectories": 8}, "leave trajectories out for the exact density matrix"),
        ({"noise": "ionq-forte", "n_encoders": 2}, "exact noise on 20 qubits"),
        ({"noise": "ionq-fort"}, "unknown device 'ionq-fort'; known are ionq-forte, ionq-aria"),
        ({"noise": {"bit_flop": 0.1}}, "did you mean 'bit_flip'?"),
        ({"noise": 0.1}, "noise"),
        ({"shots": 10, "n_measured": 13, "n_encoders": 2}, "n_measured=13: with shots at most 12 qubits"),
    ],
)
def test_head_config_inconsistent_shots_and_noise_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        HeadConfig(**settings)


def test_head_config_accepts_noise_by_name_table_or_object():
    table = {"bit_flip": 0.1, "readout": [[0.9, 0.2], [0.1, 0.8]]}
    noise = HeadConfig(noise=table).noise
    assert noise == NoiseConfig(bit_flip=0.1, readout=((0.9, 0.2), (0.1, 0.8)))
    assert HeadConfig(noise=noise).noise is noise
    assert HeadConfig(noise="ionq-aria").noise == load_noise("ionq-aria")
    saved = HeadConfig(noise=noise, mitigation=["zero_noise"]).model_dump_json()
    assert HeadConfig.model_validate_json(saved) == HeadConfig(noise=noise, mitigation=("zero_noise",))


def test_head_config_is_random_with_shots_or_trajectories():
    noise = NoiseConfig(bit_flip=0.1)
    assert not HeadConfig().is_random
    assert not HeadConfig(noise=noise).is_random
    assert not HeadConfig(noise=NoiseConfig(), trajectories=4).is_random
    assert HeadConfig(noise=noise, trajectories=4).is_random
    assert HeadConfig(shots=4).is_random


# --- heads with a name -------------------------------------------------------------------------------------------


def test_head_config_paper_has_174_parameters():
    config = HeadConfig.paper()
    assert config == HeadConfig()
    assert QuantumHead(config, 768, 2).parameter_counts() == {
        "encoder angles": 50,
        "QPU angles": 120,
        "angle scale": 0,
        "linear": 4,
        "total": 174,
    }
    assert (config.angle_scale, config.reference_amplitude, config.n_measured) == (math.pi, 0, 1)
    wide = HeadConfig.paper(n_encoders=2, n_qubits=7)
    assert (wide.qpu_qubits, wide.encoder_layers, wide.main_layers, wide.n_reuploads, wide.connectivity) == (
        14,
        2,
        4,
        1,
        2,
    )
    with pytest.raises(ConfigError, match="no setting 'qubits'"):
        HeadConfig.paper(qubits=3)


def test_head_config_recommended_for_768_has_934_parameters():
    config = HeadConfig.recommended(768)
    counts = QuantumHead(config, 768, 2).parameter_counts()
    assert (counts["total"], counts["encoder angles"], counts["linear"]) == (934, 730, 4)
    assert (config.n_qubits, config.connectivity, config.encoder_layers) == (10, 9, 8)
    assert (config.n_reuploads, config.main_layers) == (1, 1)
    assert (config.angle_scale, config.reference_amplitude, config.n_measured) == (math.pi / 2, 1.0, 1)
    assert HeadConfig.recommended(384).n_qubits == 9


def test_head_config_recommended_uses_fewest_qubits():
    for width in range(1, 1101):
        config = HeadConfig.recommended(width)
        check_width(width, config.n_qubits, config.reference_amplitude)
        assert config.n_qubits == 2 or 2 ** (config.n_qubits - 1) < width + 1, width


@pytest.mark.parametrize(("n_classes", "n_measured"), [(2, 1), (3, 3), (4, 4), (7, 7), (8, 7), (100, 7)])
def test_head_config_recommended_measures_qubit_per_class(n_classes, n_measured):
    config = HeadConfig.recommended(100, n_classes)
    assert config.n_measured == n_measured
    assert (config.encoder_layers, config.skip_connection) == ((8, False) if n_classes == 2 else (20, True))


def test_head_config_recommended_for_qpu_has_219_parameters():
    for width in (384, 768):
        config = HeadConfig.recommended(width, for_qpu=True)
        counts = QuantumHead(config, width, 2).parameter_counts()
        assert (counts["total"], counts["encoder angles"], counts["linear"]) == (219, 165, 4)
        assert config == HeadConfig.recommended(31).updated(components=31)
    assert (config.n_qubits, config.connectivity, config.encoder_layers, config.main_layers) == (5, 4, 8, 1)
    assert (config.angle_scale, config.reference_amplitude) == (math.pi / 2, 1.0)


@pytest.mark.parametrize("width", [1, 16, 31])
def test_head_config_recommended_for_qpu_takes_all_of_narrow_embedding(width):
    assert HeadConfig.recommended(width, for_qpu=True) == HeadConfig.recommended(width)


def test_head_config_recommended_for_qpu_of_several_classes_reads_all_qubits():
    config = HeadConfig.recommended(768, 6, for_qpu=True)
    assert (config.n_qubits, config.n_measured, config.skip_connection, config.components) == (5, 5, True, 31)


def test_head_config_components_are_what_encoders_see():
    config = HeadConfig(n_qubits=3, components=7, reference_amplitude=1)
    assert (config.input_width(768), config.slice_widths(768)) == (7, [7])
    assert config.updated(n_encoders=2, encoder_input="slices").slice_widths(768) == [4, 3]
    assert config.count_parameters(768, 2) == config.updated(components=None).count_parameters(7, 2)
    with pytest.raises(ConfigError, match="an embedding of width 8 and its reference amplitude needs n_qubits=4"):
        config.updated(components=8).check_sizes(768, 2)
    with pytest.raises(ConfigError, match="components=7: an embedding of width 6 has 6 principal components; use few"):
        config.check_sizes(6, 2)
    assert config.slice_widths(7) == [7]


@pytest.mark.parametrize("components", [0, -1, 2.0, "3"])
def test_head_config_components_of_wrong_value_raise(components):
    with pytest.raises(ConfigError, match=f"components={components!r}: input should be"):
        HeadConfig(components=components)


def test_head_config_components_need_more_training_sentences():
    config = HeadConfig(components=5)
    config.check_training_size(6)
    HeadConfig().check_training_size(0)
    with pytest.raises(
        ConfigError, match=r"components=5: 5 training sentences, .* have at most 4 principal components"
    ):
        config.check_training_size(5)


def test_head_config_identity_leaves_out_added_settings_at_default():
    config = HeadConfig(n_qubits=4)
    assert "components" not in json.loads(config.identity_json())
    assert json.loads(config.updated(components=3).identity_json())["components"] == 3
    assert config.identity_json() == config.model_dump_json(exclude=set(HeadConfig.ADDED_SETTINGS))
    assert TrainConfig().identity_json() == TrainConfig().model_dump_json()


def test_head_config_circuits_follow_settings():
    config = HeadConfig(**UNUSUAL_HEAD).updated(encoder_ansatz="ring", angle_axis="y")
    assert config.encoder_circuit() == encoder_circuit(5, 0, 4, rotation_layer=False)
    assert config.qpu_circuit() == reuploading_circuit(5, 2, 0, 1, 4, tie_reuploads=False, rotation_layer=False)
    concat = config.updated(merge="concat", encoder_layers=2, reupload_layers=3, tie_reuploads=True, rotation_wall=True)
    assert concat.encoder_circuit() == encoder_circuit(5, 2, 4)
    assert concat.qpu_circuit() == reuploading_circuit(15, 2, 3, 1, 4)


# --- files -------------------------------------------------------------------------------------------------------


def test_head_config_from_toml_equals_settings(tmp_path):
    path = tmp_path / "head.toml"
    path.write_text('n_qubits = 6\nangle_scale = 2\nmerge = "mean"\ntie_reuploads = false\n', encoding="utf-8")
    expected = HeadConfig(n_qubits=6, angle_scale=2.0, merge="mean", tie_reuploads=False)
    assert HeadConfig.from_toml(path) == expected
    assert HeadConfig.from_toml(str(path)) == expected
    path.write_text("", encoding="utf-8")
    assert HeadConfig.from_toml(path) == HeadConfig()


def test_fit_config_from_toml_reads_tables(tmp_path):
    path = tmp_path / "fit.toml"
    path.write_text(
        'body = "søren/modell"\nseed = 7\n[head]\nn_qubits = 4\nconnectivity = 3\n[train]\nepochs = 2\n',
        encoding="utf-8",
    )
    assert FitConfig.from_toml(path) == FitConfig(
        body="søren/modell", seed=7, head=HeadConfig(n_qubits=4, connectivity=3), train=TrainConfig(epochs=2)
    )
    assert FitConfig().head is None
    assert FitConfig().train == TrainConfig()


@pytest.mark.parametrize(
    ("table", "head"),
    [
        ('kind = "quantum"\nn_qubits = 4', HeadConfig(n_qubits=4)),
        ('kind = "logistic-regression"\nC = 3.0', LogisticRegressionConfig(C=3.0)),
        ('kind = "svc"\nkernel = "linear"', SVCSettings(kernel="linear")),
        ('kind = "mlp"\nhidden = 5', MLPSettings(hidden=5)),
    ],
)
def test_fit_config_head_table_names_kind(table, head, tmp_path):
    path = tmp_path / "fit.toml"
    path.write_text(f"[head]\n{table}\n", encoding="utf-8")
    assert FitConfig.from_toml(path).head == head


@pytest.mark.parametrize(
    ("config", "content", "message"),
    [
        (HeadConfig, b"n_qbits = 4", "PATH: HeadConfig has no setting 'n_qbits'; did you mean 'n_qubits'[?]"),
        (HeadConfig, b'n_qubits = "4"', "PATH: n_qubits='4': input should be a valid integer"),
        (HeadConfig, b"angle_scale = nan", "PATH: angle_scale=nan: input should be a finite number"),
        (HeadConfig, b"[merge]\na = 1", r"PATH: merge=\{'a': 1\}: input should be 'concat' or 'mean'"),
        (HeadConfig, b"self = 1", "PATH: HeadConfig has no setting 'self'"),
        (FitConfig, b"[head]\nn_qbits = 4", "PATH, table head: HeadConfig has no setting 'n_qbits'; did you mean"),
        (
            FitConfig,
            b'[head]\nkind = "forest"',
            "PATH, table head: kind='forest'; it is one of quantum, logistic-regression",
        ),
        (FitConfig, b'[head]\nkind = "svc"\nunits = 3', "PATH, table head: SVCSettings has no setting 'units'"),
        (FitConfig, b"[train]\nepochs = 0", "PATH, table train: epochs=0: input should be greater"),
        (FitConfig, b"head = 3", "PATH: head=3: it is a table of settings, or one of quantum"),
        (FitConfig, b"n_qubits = 3", "PATH: FitConfig has no setting 'n_qubits'; did you mean 'head.n_qubits'\\?"),
        (FitConfig, b"[heads]\nn_qubits = 3", "PATH: FitConfig has no setting 'heads'; did you mean 'head'[?]"),
        (HeadConfig, b"n_qubits: 4", "PATH is not TOML in UTF-8: Expected '=' after a key"),
        (HeadConfig, b"n_qubits = 4\nn_qubits = 5", "PATH is not TOML in UTF-8: Cannot overwrite a value"),
        (HeadConfig, b'merge = "m\xe9an"', "PATH is not TOML in UTF-8: 'utf-8' codec can't decode"),
        (HeadConfig, b"\x00\x01\x02", "PATH is not TOML in UTF-8: "),
        (HeadConfig, b"x = " + b"[" * 5000, "PATH is not TOML"),
    ],
)
def test_config_unusable_file_is_named(config, content, message, tmp_path):
    path = tmp_path / "some.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="^" + message.replace("PATH", re.escape(str(path)))):
        config.from_toml(path)


def test_config_unreadable_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"^cannot read {re.escape(str(tmp_path / 'none.toml'))}: No such file"):
        FitConfig.from_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=f"^cannot read {re.escape(str(tmp_path))}: Is a directory"):
        read_toml(tmp_path)


def test_config_from_mapping_error_names_source():
    with pytest.raises(ConfigError, match=r"^the configuration: epochs=0"):
        TrainConfig.from_mapping({"epochs": 0})
    with pytest.raises(ConfigError, match=r"^config\.json: epochs=0"):
        TrainConfig.from_mapping({"epochs": 0}, where="config.json")
    head = {"n_qubits": 3}
    fit = FitConfig.from_mapping({"head": head, "train": TrainConfig(epochs=1)})
    assert (fit.head, fit.train) == (HeadConfig(n_qubits=3), TrainConfig(epochs=1))
    assert head == {"n_qubits": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("3.5", 3.5),
        ("1e-3", 0.001),
        ("true", True),
        ("false", False),
        ('"3"', "3"),
        ("'mean'", "mean"),
        ("mean", "mean"),
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("None", "None"),
        ("True", "True"),
        ("", ""),
        ("[1, 2]", [1, 2]),
        ("{a = 1}", {"a": 1}),
        ("2024-01-02", date(2024, 1, 2)),
        ("a = 3", "a = 3"),
        ("[1, 2", "[1, 2"),
        ("1\nother = 2", "1\nother = 2"),
        ("inf", math.inf),
    ],
)
def test_parse_toml_value_returns_value_or_string(text, value):
    read = parse_toml_value(text)
    assert read == value
    assert type(read) is type(value)


def test_config_error_is_value_error():
    with pytest.raises(ValueError, match="epochs") as caught:
        TrainConfig(epochs=0)
    assert isinstance(caught.value, KetFitError)
    assert all(issubclass(config, Config) for config in (HeadConfig, TrainConfig, FitConfig))


def test_head_config_circuit_beyond_memory_is_refused():
    with pytest.raises(ConfigError, match="make a QPU circuit of 50 qubits; use at most 30"):
        HeadConfig(n_qubits=10, n_encoders=5)
    assert HeadConfig(n_qubits=10, n_encoders=5, merge="mean").qpu_qubits == 10
    with pytest.raises(ConfigError, match="rotations; use at most 100,000"):
        HeadConfig(encoder_layers=10**9)


# --- ansatz, axis and readout ------------------------------------------------------------------------------------

LAYER = 'OPENQASM 3.0; include "stdgates.inc"; input float w_0; qubit[2] q; rx(w_0) q[0]; cz q[0], q[1];'


LONG_PROGRAM = "OPENQASM 3.0; gate a q { U(0,0,0) q; } qubit[2] q; " + "a q; " * 10**4


def test_head_config_ansatz_and_axis_build_the_circuits():
    config = HeadConfig(
        n_qubits=4,
        connectivity=3,
        encoder_layers=2,
        encoder_ansatz="hardware_efficient",
        ansatz="ising",
        angle_axis="z",
    )
    assert config.encoder_circuit() == ansatz_layers("hardware_efficient", 4, 2, 3)
    reupload, main = (ansatz_layers("ising", 4, layers, 3) for layers in (1, 4))
    assert config.qpu_circuit() == data_reuploading(1, reupload, main, angle_axis="z")
    encoder, qpu = config.encoder_circuit().n_weights, config.qpu_circuit().n_weights
    assert config.count_angles() == (encoder, qpu) == (16, 5 * 16)


def test_head_config_ansatz_may_be_a_program():
    config = HeadConfig(n_qubits=2, connectivity=1, ansatz=LAYER, main_layers=2)
    assert config.count_angles() == (HeadConfig(n_qubits=2, connectivity=1).count_angles()[0], 3)
    assert config.qpu_circuit().gate_counts() == {"ry": 2, "cx": 0, "rx": 3, "cz": 3}


def test_word_of_more_qubits_than_shots_read_together_is_refused():
    word = " ".join(f"Z{qubit}" for qubit in range(13))
    assert HeadConfig(n_encoders=2, readout=(word,)).readout == (word,)
    with pytest.raises(ConfigError, match="with shots at most 12 qubits are read together"):
        HeadConfig(n_encoders=2, readout=(word,), shots=100)


def test_head_config_readout_has_words_and_qubits():
    config = HeadConfig(readout=["X3 Z1", "Y0"])
    assert config.observables == (PauliSum([(1.0, "ZX", (1, 3))]), PauliSum([(1.0, "Y", (0,))]))
    assert (config.n_readouts, config.read_qubits) == (2, (0, 1, 3))
    assert config.light_cone().n_weights == config.qpu_circuit().n_weights
    assert HeadConfig(n_measured=3).read_qubits == (0, 1, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ansatz": "rings"},
            "unknown ansatz 'rings'; known are ring, strongly_entangling, hardware_efficient, ising, a",
        ),
        ({"ansatz": ""}, "unknown ansatz ''"),
        ({"encoder_ansatz": LAYER}, "the ansatz is a program on 2 qubits; it must have 10"),
        ({"ansatz": LAYER, "n_qubits": 2, "connectivity": 1, "n_encoders": 2}, "program on 2 qubits; it must have 4"),
        ({"ansatz": "OPENQASM 3.0; qubit[2] q; if (true) {}"}, "classical control"),
        (
            {"ansatz": LAYER.replace("w_0", "x_0"), "n_qubits": 2, "connectivity": 1},
            "which has the weights w_0, w_1 and so on alone: .*'x_0'",
        ),
        (
            {"ansatz": LONG_PROGRAM, "n_qubits": 2, "connectivity": 1},
            "expands to more than 50,000 gates",
        ),
        ({"angle_axis": "w"}, "angle_axis='w': input should be 'x', 'y' or 'z'"),
        ({"ansatz": "ising", "encoder_ansatz": "ising", "rotation_wall": False}, "rotation_wall=False is a setting of"),
        ({"ansatz": "ising", "main_layers": 10**9}, "rotations; use at most 100,000"),
        (
            {"n_qubits": 30, "connectivity": 29, "encoder_ansatz": "hardware_efficient", "encoder_layers": 1000},
            "gates; use at most 250,000",
        ),
        ({"readout": []}, "readout has 0 words"),
        ({"readout": ["Z0", "Z0"]}, "readout has 2 words; name 1 to 1024 different ones"),
        ({"readout": ["Q0"]}, "'Q0' is not a Pauli word; write letters X, Y and Z with their qubits"),
        ({"readout": ["X0 Z0"]}, "named twice|0 twice|twice"),
        ({"readout": ["Z10"]}, "readout 'Z10' reads qubit 10 of the 10 of the QPU circuit"),
        ({"readout": ["Z0"], "n_measured": 2}, "n_measured=2 reads Z of the first qubits; leave it out beside readout"),
    ],
)
def test_head_config_wrong_ansatz_or_readout_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        HeadConfig(**settings)
