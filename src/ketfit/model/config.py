"""Settings of a head and of its training, saved with the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator
from typing_extensions import Self

from ketfit.base_config import Config, Finite, Positive
from ketfit.circuit.ansatz import Axis, LayerSize, ansatz_layers, ansatz_size, data_reuploading
from ketfit.circuit.circuit import Circuit, observable_light_cone
from ketfit.circuit.observable import PauliSum, read_pauli_word
from ketfit.errors import ConfigError
from ketfit.integers import as_integer
from ketfit.model.classical import CLASSICAL_SETTINGS, ClassicalSettings, HeadKind
from ketfit.model.tuning import EmbeddingPrecision, TuneConfig, read_stages
from ketfit.simulate.density_matrix import MAX_QUBITS as MAX_EXACT
from ketfit.simulate.mitigation import Mitigation
from ketfit.simulate.native import MAX_JOINT
from ketfit.simulate.noise import DEVICES, NoiseConfig, load_noise
from ketfit.simulate.shots import MAX_SHOTS, Gradient

MAX_QUBITS = 30
"""Largest width of a circuit; its state is 4 GiB in single precision."""

MAX_ENCODERS = 1024
"""Largest number of encoders of a head; more slices of an embedding would hold a number or two."""

QPU_COMPONENTS = 31
"""Principal components of the head recommended for a QPU: with the reference amplitude they fill five qubits."""

MAX_ROTATIONS, MAX_GATES = 100_000, 250_000
"""In the circuits of one head. Settings that ask for more are a mistake, or an attack on whoever loads them."""

MAX_READOUTS = 1024
"""Largest number of Pauli words that a head reads."""


def _read_class_weight(value: Any) -> Any:
    numbers = value.values() if isinstance(value, Mapping) else []
    fitting = all(type(number) in (int, float) and 0 < number < math.inf for number in numbers)
    if value in (None, "balanced") or (isinstance(value, Mapping) and fitting):
        return value
    raise ConfigError(f"class_weight={value!r}: input should be 'balanced', or a table of positive numbers by label")


def _read_head(value: Any) -> Any:
    if value is None or isinstance(value, HeadConfig | ClassicalSettings):
        return value
    if value in (kinds := (*get_args(HeadKind), "auto")):
        return value
    raise ConfigError(f"head={value!r}: it is a table of settings, or one of {', '.join(kinds)}")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _read_noise(value: Any) -> Any:
    if isinstance(value, str):  # names only: reading a model must not read other files
        if value not in DEVICES:
            raise ConfigError(f"unknown device {value!r}; known are {', '.join(DEVICES)}, or give a table")
        return load_noise(value)
    return NoiseConfig.from_mapping(value, where="noise") if isinstance(value, Mapping) else value


class HeadConfig(Config):
    """Settings of a quantum head: E encoders, one QPU circuit and one linear layer.

    Symbols in brackets are those of arXiv 2504.08732. The defaults are the paper's literal model, one encoder on 10
    qubits; `recommended` is what we found to learn better.
    """

    ADDED_SETTINGS: ClassVar[Mapping[str, Any]] = {
        "components": None,
        "ansatz": "ring",
        "encoder_ansatz": "ring",
        "angle_axis": "y",
        "readout": None,
    }

    n_qubits: Annotated[
        int, Field(ge=2, le=MAX_QUBITS, description="Qubits of each encoder (Q_c); 2**n_qubits amplitudes")
    ] = 10
    n_encoders: Annotated[int, Field(ge=1, le=MAX_ENCODERS, description="Encoders side by side (E)")] = 1
    encoder_layers: Annotated[int, Field(ge=0, description="Layers of each encoder circuit (M)")] = 2
    connectivity: Annotated[
        int, Field(ge=1, description="Largest distance of a gate on two qubits (C), in every ansatz that has a name")
    ] = 2
    n_reuploads: Annotated[int, Field(ge=1, description="How often the encoders' output is loaded (N)")] = 1
    reupload_layers: Annotated[int, Field(ge=0, description="Layers of the circuit after each loading (PQC1)")] = 1
    main_layers: Annotated[int, Field(ge=0, description="Layers of the main circuit (R, PQC2)")] = 4
    n_measured: Annotated[int, Field(ge=1, description="Qubits read out (Q_m), the first ones")] = 1
    merge: Annotated[
        Literal["concat", "mean"], Field(description="Encoders' outputs side by side on E * Q_c qubits, or averaged")
    ] = "concat"
    encoder_input: Annotated[
        Literal["whole", "slices"], Field(description="Each encoder sees the whole embedding, or its own slice of it")
    ] = "whole"
    components: Annotated[
        Positive | None,
        Field(description="Principal components of the training embeddings that the encoders see; none is all of it"),
    ] = None
    angle_scale: Annotated[Finite, Field(gt=0, description="Radians per unit of <Z> in the angle encoding (s)")] = (
        math.pi
    )
    train_angle_scale: Annotated[bool, Field(description="Train the angle scale with the rest")] = False
    tie_reuploads: Annotated[bool, Field(description="All loadings share the weights of PQC1")] = True
    rotation_wall: Annotated[bool, Field(description="A column of RY after the first layer of every circuit")] = True
    reference_amplitude: Annotated[
        Finite, Field(ge=0, description="Constant in one spare amplitude, in units of the embedding's norm; 0 is off")
    ] = 0.0
    skip_connection: Annotated[bool, Field(description="The linear layer also sees the encoders' output")] = False
    ansatz: Annotated[
        str,
        Field(
            description="Layers of the QPU circuit: ring (the paper's), strongly_entangling, hardware_efficient or "
            "ising, or an OpenQASM 3 program of one layer"
        ),
    ] = "ring"
    encoder_ansatz: Annotated[str, Field(description="Layers of the encoders' circuits, as in ansatz")] = "ring"
    angle_axis: Annotated[
        Axis,
        Field(description="Axis of the rotations that load the encoders' output; z has Hadamard gates before them"),
    ] = "y"
    readout: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_as_tuple),
        Field(description="Pauli words to read, such as X0 Z2, in place of Z of the first n_measured qubits"),
    ] = None
    shots: Annotated[
        Annotated[int, Field(ge=1, le=MAX_SHOTS)] | None,
        Field(description="Shots that each readout comes from; none is exact"),
    ] = None
    gradient: Annotated[
        Gradient | None, Field(description="How shots are differentiated; with shots, reparameterized unless given")
    ] = None
    noise: Annotated[
        NoiseConfig | None,
        BeforeValidator(_read_noise),
        Field(description="Noise of the QPU circuit: a table of settings, or a device's name"),
    ] = None
    trajectories: Annotated[
        Positive | None, Field(description="Pauli trajectories per sample that noise is averaged over; none is exact")
    ] = None
    mitigation: Annotated[
        tuple[Mitigation, ...],
        BeforeValidator(_as_tuple),
        Field(description="What is done about noise at evaluation: readout, zero_noise"),
    ] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_gradient(cls, settings: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # The policy stands in every saved model with shots, whether it was chosen or not.
        if isinstance(settings, dict) and settings.get("gradient") is None:
            settings = {name: value for name, value in settings.items() if name != "gradient"}
        shots = isinstance(settings, dict) and settings.get("shots") is not None
        return cls._validated_with_defaults(settings, {"gradient": "reparameterized"} if shots else {}, handler)

    @model_validator(mode="after")
    def _can_be_measured(self) -> HeadConfig:
        if self.gradient is not None and self.shots is None:
            raise ValueError(f"gradient={self.gradient!r} says how to differentiate shots; give shots too")
        if self.shots is not None and self.n_measured > MAX_JOINT:
            raise ValueError(f"n_measured={self.n_measured}: with shots at most {MAX_JOINT} qubits are read together")
        if self.noise is None:
            for name in ("trajectories", "mitigation"):
                if getattr(self, name):
                    raise ValueError(f"{name}={getattr(self, name)!r} is about noise; give noise too")
        elif self.trajectories is not None:
            self.noise.check_pauli_channel()
        elif self.qpu_qubits > MAX_EXACT and not self.noise.is_gate_noiseless:
            raise ValueError(
                f"exact noise on {self.qpu_qubits} qubits takes 4**{self.qpu_qubits} numbers; "
                f"use at most {MAX_EXACT} qubits, or give trajectories"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> HeadConfig:
        if self.connectivity >= self.n_qubits:
            raise ValueError(
                f"connectivity={self.connectivity} needs more than {self.connectivity} qubits; "
                f"with n_qubits={self.n_qubits} it goes up to {self.n_qubits - 1}"
            )
        if self.n_measured > self.qpu_qubits:
            raise ValueError(
                f"n_measured={self.n_measured} is more than the {self.qpu_qubits} qubits of the QPU circuit; lower it"
            )
        if self.encoder_input == "slices" and self.n_encoders == 1:
            raise ValueError(
                "encoder_input='slices' needs n_encoders of 2 or more; one encoder sees the whole embedding"
            )
        if self.qpu_qubits > MAX_QUBITS:
            raise ValueError(
                f"n_encoders={self.n_encoders} of n_qubits={self.n_qubits} make a QPU circuit of {self.qpu_qubits} "
                f"qubits; use at most {MAX_QUBITS}, or merge='mean'"
            )
        if not self.rotation_wall and "ring" not in (self.ansatz, self.encoder_ansatz):
            raise ValueError("rotation_wall=False is a setting of the ring ansatz; leave it out")
        rotations = sum(self.count_angles(tied=False)) + self.n_reuploads * self.qpu_qubits
        if rotations > MAX_ROTATIONS:
            raise ValueError(f"these circuits have {rotations:,} rotations; use at most {MAX_ROTATIONS:,}")
        encoder, reupload, main = self._layer_sizes()
        gates = self.n_encoders * encoder.n_gates + self.n_reuploads * reupload.n_gates + main.n_gates
        if gates > MAX_GATES:
            raise ValueError(f"these circuits have {gates:,} gates; use at most {MAX_GATES:,}")
        return self

    @model_validator(mode="after")
    def _check_readout(self) -> HeadConfig:
        if self.readout is None:
            return self
        if self.n_measured != 1:
            raise ValueError(f"n_measured={self.n_measured} reads Z of the first qubits; leave it out beside readout")
        if not 1 <= len(self.readout) <= MAX_READOUTS or len(set(self.readout)) < len(self.readout):
            raise ValueError(f"readout has {len(self.readout)} words; name 1 to {MAX_READOUTS} different ones")
        for word in self.readout:
            qubits = read_pauli_word(word).qubits
            if (highest := max(qubits)) >= self.qpu_qubits:
                raise ValueError(f"readout {word!r} reads qubit {highest} of the {self.qpu_qubits} of the QPU circuit")
            if self.shots is not None and len(qubits) > MAX_JOINT:
                raise ValueError(f"readout {word!r}: with shots at most {MAX_JOINT} qubits are read together")
        return self

    def _layer_sizes(self) -> tuple[LayerSize, LayerSize, LayerSize]:
        """Return the sizes of the layers of an encoder, of PQC1 and of PQC2."""
        ring = (self.connectivity, self.rotation_wall)
        return (
            ansatz_size(self.encoder_ansatz, self.n_qubits, self.encoder_layers, *ring),
            ansatz_size(self.ansatz, self.qpu_qubits, self.reupload_layers, *ring),
            ansatz_size(self.ansatz, self.qpu_qubits, self.main_layers, *ring),
        )

    @classmethod
    def paper(cls, **settings: Any) -> HeadConfig:
        """Return the paper's model: zero padding, one measured qubit, angle scale pi, M=2, R=4, N=1, C=2.

        One encoder on 10 qubits unless `settings` say otherwise. The paper's best head has several encoders and 14
        qubits; it does not say how they were split.
        """
        return cls(**settings)

    @classmethod
    def recommended(cls, embedding_dim: int, n_classes: int = 2, *, for_qpu: bool = False) -> HeadConfig:
        """Return the settings that learned best on frozen embeddings, for embeddings of any width.

        A reference amplitude gives the encoder's quadratic form its linear and constant terms; a deep, all-to-all
        encoder makes up for what one product of rotations cannot reach. It was chosen by validation loss on three
        few-shot draws of SST-2 with a 768-d body. Two classes are read from one qubit, k classes from k qubits, or from
        all of them if there are fewer.

        Each further class needs a direction of the embedding to itself: for more than two the encoder is deeper, and
        its qubits also go straight into the linear layer (``studies/heads.py`` on TREC, by validation loss).

        With `for_qpu` the head takes 31 principal components of the embedding (all of a narrower one) on five qubits:
        fewer gates, and so less noise. For two classes no loss of accuracy was shown, and with noise and few shots a
        gain (``studies/qpu_head.py``); more classes were not tested.

        Args:
            embedding_dim: Width of the embedding.
            n_classes: Number of classes.
            for_qpu: Return a head for a QPU instead of one for simulation only.

        Raises:
            ConfigError: a number is not an integer, or less than 1.

        >>> HeadConfig.recommended(768).n_qubits, HeadConfig.recommended(768, for_qpu=True).n_qubits
        (10, 5)
        """
        embedding_dim = as_integer(embedding_dim, "embedding_dim", minimum=1)
        n_classes = as_integer(n_classes, "n_classes", minimum=1)
        if for_qpu and embedding_dim > QPU_COMPONENTS:
            return cls.recommended(QPU_COMPONENTS, n_classes).updated(components=QPU_COMPONENTS)
        n_qubits = max(2, embedding_dim.bit_length())  # room for embedding_dim + 1 amplitudes
        several = n_classes > 2
        return cls(
            n_qubits=n_qubits,
            encoder_layers=20 if several else 8,
            connectivity=n_qubits - 1,
            main_layers=1,
            n_measured=min(n_classes, n_qubits) if several else 1,
            angle_scale=math.pi / 2,
            reference_amplitude=1.0,
            skip_connection=several,
        )

    @property
    def is_random(self) -> bool:
        """True if two evaluations differ: with shots, or with trajectories of gate noise."""
        sampled = self.trajectories is not None and self.noise is not None and not self.noise.is_gate_noiseless
        return self.shots is not None or sampled

    @property
    def qpu_qubits(self) -> int:
        """Width of the QPU circuit: the encoders side by side, or one encoder's width if they are averaged."""
        return self.n_qubits * self.n_encoders if self.merge == "concat" else self.n_qubits

    @property
    def n_readouts(self) -> int:
        """The number of inputs of the linear layer: what is read out, and the qubits of the skip connection."""
        read = self.n_measured if self.readout is None else len(self.readout)
        return read + (self.qpu_qubits if self.skip_connection else 0)

    @property
    def observables(self) -> tuple[PauliSum, ...] | None:
        """The Pauli words of `readout`; None if Z of the first `n_measured` qubits is read."""
        return None if self.readout is None else tuple(map(read_pauli_word, self.readout))

    @property
    def read_qubits(self) -> tuple[int, ...]:
        """The qubits of the QPU circuit that are read out, in order.

        >>> HeadConfig(readout=("X0 Z2", "Z1")).read_qubits
        (0, 1, 2)
        """
        if self.observables is None:
            return tuple(range(self.n_measured))
        return tuple(sorted({qubit for observable in self.observables for qubit in observable.qubits}))

    def count_angles(self, tied: bool | None = None) -> tuple[int, int]:
        """Return the number of trained angles of all encoders and of the QPU circuit; `tied` as `tie_reuploads`."""
        encoder, reupload, main = (size.n_weights for size in self._layer_sizes())
        tied = self.tie_reuploads if tied is None else tied
        return self.n_encoders * encoder, (1 if tied else self.n_reuploads) * reupload + main

    def input_width(self, embedding_dim: int) -> int:
        """Return the number of values that the encoders see: the principal components, or the whole embedding.

        >>> HeadConfig.recommended(768, for_qpu=True).input_width(768)
        31

        Raises:
            ConfigError: there are more components than entries of the embedding.
        """
        if self.components is None:
            return embedding_dim
        if self.components > embedding_dim:
            raise ConfigError(
                f"components={self.components}: an embedding of width {embedding_dim} has {embedding_dim} principal "
                "components; use fewer"
            )
        return self.components

    def check_training_size(self, n_samples: int) -> None:
        """Refuse principal components of too few embeddings; `n_samples` is the number of training embeddings.

        Raises:
            ConfigError: there are as many components as training embeddings, or more.
        """
        if self.components is not None and self.components >= n_samples:
            raise ConfigError(
                f"components={self.components}: {n_samples} training sentences, without those held out for "
                f"validation, have at most {max(n_samples - 1, 0)} principal components; use fewer, or give more "
                "sentences"
            )

    def slice_widths(self, embedding_dim: int) -> list[int]:
        """Return the number of values that each encoder gets; slices differ by at most one value.

        Args:
            embedding_dim: Width of the embedding, before it is projected on any `components`.

        Raises:
            ConfigError: they do not fit the encoders, or there are more encoders than values.
        """
        width = self.input_width(embedding_dim)
        widths = [width] * self.n_encoders
        if self.encoder_input == "slices":
            share, rest = divmod(width, self.n_encoders)
            widths = [share + (encoder < rest) for encoder in range(self.n_encoders)]
            if not share:
                raise ConfigError(f"n_encoders={self.n_encoders}: an embedding of width {width} has too few slices")
        check_width(max(widths), self.n_qubits, self.reference_amplitude)
        return widths

    def check_sizes(self, embedding_dim: int, n_classes: int) -> tuple[int, int]:
        """Return both sizes as Python integers.

        Raises:
            ConfigError: a size is not an integer or too small, or the embedding does not fit the encoders.
        """
        embedding_dim, n_classes = as_integer(embedding_dim, "embedding_dim"), as_integer(n_classes, "n_classes")
        if n_classes < 2:
            raise ConfigError(f"n_classes={n_classes}: a classifier needs at least two")
        if embedding_dim < 1:
            raise ConfigError(f"embedding_dim={embedding_dim}: an embedding has at least one entry")
        self.slice_widths(embedding_dim)
        return embedding_dim, n_classes

    def count_parameters(self, embedding_dim: int, n_classes: int) -> dict[str, int]:
        """Return the number of trainable parameters by part, and their total, without building the head.

        >>> HeadConfig.recommended(768).count_parameters(768, 2)["total"]
        934

        Raises:
            ConfigError: a size is not an integer or too small, or the embedding does not fit the encoders.
        """
        _, n_classes = self.check_sizes(embedding_dim, n_classes)
        encoder_angles, qpu_angles = self.count_angles()
        counts = {
            "encoder angles": encoder_angles,
            "QPU angles": qpu_angles,
            "angle scale": int(self.train_angle_scale),
            "linear": (self.n_readouts + 1) * n_classes,
        }
        return {**counts, "total": sum(counts.values())}

    def encoder_circuit(self) -> Circuit:
        """Return the circuit of one encoder (the first module)."""
        return ansatz_layers(
            self.encoder_ansatz, self.n_qubits, self.encoder_layers, self.connectivity, self.rotation_wall
        )

    def qpu_circuit(self, n_qubits: int | None = None) -> Circuit:
        """Return the QPU circuit (the second module); its inputs are the scaled encoder expectations.

        Args:
            n_qubits: Another width than `qpu_qubits`.
        """
        n_qubits = self.qpu_qubits if n_qubits is None else n_qubits
        reupload, main = (
            ansatz_layers(self.ansatz, n_qubits, layers, self.connectivity, self.rotation_wall)
            for layers in (self.reupload_layers, self.main_layers)
        )
        return data_reuploading(self.n_reuploads, reupload, main, self.tie_reuploads, self.angle_axis)

    def light_cone(self, n_qubits: int | None = None) -> Circuit:
        """Return the QPU circuit without the gates that cannot change what is read out; `n_qubits` as in it."""
        circuit = self.qpu_circuit(n_qubits)
        if self.observables is None:
            return circuit.light_cone(range(self.n_measured))
        not_diagonal = {qubit for observable in self.observables for qubit in observable.not_diagonal}
        return observable_light_cone(circuit, frozenset(self.read_qubits), frozenset(not_diagonal))


def check_width(width: int, n_qubits: int, reference_amplitude: float) -> None:
    """Raise ConfigError, with the number of qubits needed, if an embedding is wider than an encoder's amplitudes."""
    needed = width + (reference_amplitude > 0)
    if needed > 2**n_qubits:
        extra = " and its reference amplitude" if reference_amplitude else ""
        raise ConfigError(
            f"an embedding of width {width}{extra} needs n_qubits={(needed - 1).bit_length()}; "
            f"n_qubits={n_qubits} holds {2**n_qubits} amplitudes"
        )


def read_head(settings: Mapping[str, Any], where: str = "the configuration") -> HeadConfig | ClassicalSettings:
    """Return the settings of a head in a table, by its key ``kind``; without one it is quantum.

    >>> read_head({"kind": "logistic-regression", "C": 3.0}).C
    3.0

    Raises:
        ConfigError: the kind or a key is unknown, or a value does not fit.
    """
    kind = settings.get("kind", "quantum")
    own = {name: value for name, value in settings.items() if name != "kind"}
    if kind == "quantum":
        return HeadConfig.from_mapping(own, where)
    if not isinstance(kind, str) or kind not in CLASSICAL_SETTINGS:
        raise ConfigError(f"{where}: kind={kind!r}; it is one of quantum, {', '.join(CLASSICAL_SETTINGS)}")
    return CLASSICAL_SETTINGS[kind].from_mapping(own, where)


class TrainConfig(Config):
    """Settings of training. The defaults were chosen by validation loss for heads on few-shot data."""

    epochs: Annotated[int, Field(ge=1, description="Passes over the training samples")] = 150
    batch_size: Annotated[int, Field(ge=1, description="Samples per step; few-shot sets fit in one batch")] = 512
    learning_rate: Annotated[Finite, Field(gt=0, le=1e37, description="Of AdamW; within the range of float32")] = 0.03
    weight_decay: Annotated[Finite, Field(ge=0, description="Of AdamW")] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine"], Field(description="Learning rate over the epochs; cosine falls towards zero")
    ] = "constant"
    selection: Annotated[
        Literal["loss", "accuracy"],
        Field(
            description="What the best epoch is chosen by, on the validation share; both are weighted as samples are"
        ),
    ] = "loss"
    patience: Annotated[
        Positive | None, Field(description="Stop after so many epochs without a new best; None never stops early")
    ] = 30


class FitConfig(Config):
    """Settings of ``ketfit fit``: these keys, and the tables ``[head]``, ``[train]``, ``[tune]`` or ``[[tune]]``."""

    body: Annotated[str, Field(description="A bundled body, a local folder, or a name on the Hub")] = "all-MiniLM-L6-v2"
    revision: Annotated[str | None, Field(description="Branch, tag or commit of a body on the Hub")] = None
    seed: Annotated[int, Field(ge=0, description="Random seed")] = 0
    validation_fraction: Annotated[
        float, Field(ge=0, lt=1, description="Share of the training data to choose the best epoch on")
    ] = 0.15
    validation: Annotated[
        Literal["holdout", "cross"],
        Field(description="holdout chooses the best epoch on that share; cross chooses it on folds, and uses all data"),
    ] = "holdout"
    n_folds: Annotated[int, Field(ge=2, description="Folds of cross")] = 5
    class_weight: Annotated[
        Literal["balanced"] | dict[str, float] | None,
        BeforeValidator(_read_class_weight),
        Field(description="balanced weighs classes by the inverse of their frequency; or a table of weights by label"),
    ] = None
    dtype: Annotated[EmbeddingPrecision, Field(description="Numbers that the body embeds with")] = "float32"
    calibrate: Annotated[bool, Field(description="Fit a temperature of the probabilities on the validation share")] = (
        False
    )
    head: Annotated[
        HeadConfig | ClassicalSettings | HeadKind | Literal["auto"] | None,
        BeforeValidator(_read_head),
        Field(
            description="Settings of a head, by default a quantum one (the key kind names another), a kind of head, or "
            "auto; None is the recommended quantum head"
        ),
    ] = None
    train: Annotated[TrainConfig, Field(description="How to train")] = TrainConfig()
    tune: Annotated[
        TuneConfig | tuple[TuneConfig, ...] | None,
        BeforeValidator(read_stages),
        Field(description="How to tune the body, in one stage or several; None leaves it as it is"),
    ] = None

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], where: str = "the configuration") -> Self:
        """Return settings from a mapping with tables ``head``, ``train`` and ``tune``; see `Config.from_mapping`."""
        readers: dict[str, Callable[..., Config]] = {"head": read_head, "train": TrainConfig.from_mapping}
        nested: dict[str, Config] = {
            name: read(settings[name], where=f"{where}, table {name}")
            for name, read in readers.items()
            if isinstance(settings.get(name), Mapping)
        }
        tune = {"tune": read_stages(settings["tune"], where=f"{where}, table tune")} if "tune" in settings else {}
        return super().from_mapping({**settings, **nested, **tune}, where)

    @model_validator(mode="after")
    def _check_validation(self) -> Self:
        default = {name: field.default for name, field in type(self).model_fields.items()}
        if self.validation == "holdout" and self.n_folds != default["n_folds"]:
            raise ValueError(f"n_folds={self.n_folds} is for validation='cross'; set that too, or leave n_folds out")
        if self.validation == "cross" and self.validation_fraction != default["validation_fraction"]:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} is for validation='holdout'; with 'cross' each fold "
                "validates in its turn, so set n_folds instead"
            )
        return self
