"""The quantum head as a torch module: embeddings in, logits out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ketfit.circuit.circuit import gate_angles
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig
from ketfit.model.encoder import Encoder, initial_angles
from ketfit.model.projection import Projection
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.expectation import expectation
from ketfit.simulate.measurement import group_words
from ketfit.simulate.mitigation import mitigated_expectation
from ketfit.simulate.noise import noisy_light_cone
from ketfit.simulate.shots import StepCost, step_cost

MEASUREMENT = {"shots": None, "gradient": None, "noise": None, "trajectories": None, "mitigation": ()}
"""The settings of a head that its parameters do not depend on, and what they are when they are off."""


class QuantumHead(nn.Module):
    """Encoders, the QPU circuit and one linear layer, trained together (arXiv 2504.08732, Figure 1).

    ::

        x -> encoders -> z = <Z> of every encoder qubit -> RY(s z), PQC1, ..., PQC2 -> m = <Z> of Q_m qubits -> linear

    With ``config.readout``, m has the expectations of its Pauli words.

    With ``config.components`` the encoders see the principal components of the training embeddings in place of x. Fit
    them with ``head.projection.fit(embeddings)``, as `QuantumHeadClassifier` does; they are not trained. Gradients flow
    through them into the embeddings.

    How m is measured follows ``training``, as dropout does, and not whether gradients are enabled:

    - After `train` (where a new module stands) shots are differentiated by the configured `gradient`, and nothing is
      mitigated.
    - After `eval` m is what inference gives: an exact sample of the configured shots, or the mitigated value. A sample
      has the gradient of its mean, for any `gradient`. A mitigated value is computed without gradients: none flows
      through m to the angles and the encoders; only the linear layer, and a skip connection, have theirs.

    Under torch.compile a head is called as it is, between two graphs.

    Args:
        config: The head's shape.
        embedding_dim: Width of the embeddings.
        n_classes: Number of logits, at least 2.
        generator: Source of the initial parameters; None is seed 0.
        dtype: torch.float32 or torch.float64.

    Raises:
        ConfigError: the embedding does not fit the encoders, there are fewer than two classes, or a number is not an
            integer.
    """

    def __init__(
        self,
        config: HeadConfig,
        embedding_dim: int,
        n_classes: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        embedding_dim, n_classes = config.check_sizes(embedding_dim, n_classes)
        generator = generator or torch.Generator().manual_seed(0)
        self.config = config
        self.embedding_dim = embedding_dim
        self.n_classes = n_classes
        self.circuit = config.qpu_circuit()
        self.projection = None if config.components is None else Projection(embedding_dim, config.components)
        self.encoder = Encoder(config, config.input_width(embedding_dim), generator)
        self.weights = nn.Parameter(initial_angles(self.circuit.n_weights, generator=generator))
        scale = torch.tensor(config.angle_scale, dtype=torch.float64)  # rounded once, to the head's own dtype
        self.angle_scale = nn.Parameter(scale, requires_grad=config.train_angle_scale)
        self.linear = seeded_linear(config.n_readouts, n_classes, generator)
        self.generator: torch.Generator | None = None
        """Source of shots and trajectories; None is torch's default one. Copies and pickles go on from its state."""
        self.to(dtype)

    def __getstate__(self) -> dict[str, Any]:
        # torch.Generator cannot be copied or pickled by every version of torch. A copy continues from the same state.
        state = self.__dict__.copy()
        if self.generator is not None:
            state["generator"] = (str(self.generator.device), self.generator.get_state())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        generator = state["generator"]
        if generator is not None:
            device, position = generator
            generator = torch.Generator(device).set_state(position)
        super().__setstate__({**state, "generator": generator})  # type: ignore[no-untyped-call]

    @compiler_disabled
    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logits, shape (batch, n_classes), from embeddings (batch, embedding_dim) or `prepare_states`.

        Raises:
            InputError: wrong shape or dtype, an embedding that is zero or not finite, or a projection that is not
                fitted.
        """
        encoder_expectations = self.encode(embeddings)
        qpu_expectations = self._measure(self.angle_scale * encoder_expectations)
        return self.classify(qpu_expectations, encoder_expectations)

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return <Z> of the encoders, shape (batch, qpu_qubits), from the input of `forward`.

        Raises:
            InputError: as in `forward`.
        """
        self._check(embeddings)
        return self.encoder.measure(embeddings if embeddings.dim() == 3 else self.prepare_states(embeddings))

    def project(self, embeddings: Tensor) -> Tensor:
        """Return the values that the encoders see, shape (batch, components), or the embeddings if all of them are.

        Raises:
            InputError: wrong shape or dtype, or a projection that is not fitted.
        """
        self._check(embeddings)
        return embeddings if self.projection is None else self.projection(embeddings)

    def classify(self, qpu_expectations: Tensor, encoder_expectations: Tensor) -> Tensor:
        """Return the logits of the output layer, shape (batch, n_classes).

        Args:
            qpu_expectations: What is read out, shape (batch, n_measured) or (batch, words of the readout).
            encoder_expectations: <Z> of the encoders, shape (batch, qpu_qubits); used with a skip connection only.
        """
        skip = self.config.skip_connection
        features = torch.cat([qpu_expectations, encoder_expectations], dim=1) if skip else qpu_expectations
        logits: Tensor = self.linear(features)
        return logits

    def _measure(self, inputs: Tensor) -> Tensor:
        """Return what is read out, shape (batch, n_measured or words), with the shots and noise of the config."""
        config, gradient = self.config, self.config.gradient
        device: dict[str, Any] = {
            "noise": config.noise,
            "trajectories": config.trajectories,
            "shots": config.shots,
            "generator": self.generator,
        }
        read: dict[str, Any] = {"qubits": range(config.n_measured)}
        if config.observables is not None:
            read = {"observables": config.observables}
        if not self.training and config.mitigation:
            return mitigated_expectation(
                self.circuit, self.weights, inputs, mitigation=config.mitigation, **read, **device
            )
        if not self.training and config.shots is not None:
            gradient = "straight_through"  # its value is an exact sample, and its gradient needs no circuits
        return expectation(self.circuit, self.weights, inputs, gradient=gradient, **read, **device)

    def with_measurement(self, **settings: Any) -> QuantumHead:
        """Return a copy with its own parameters whose QPU circuit has other shots and noise.

        Args:
            settings: Any of shots, gradient, noise, trajectories and mitigation, as in `HeadConfig`; the others are
                off. A copy that is named none is exact.

        Raises:
            ConfigError: another setting, or one that does not fit.
        """
        other = settings.keys() - MEASUREMENT
        if other:
            raise ConfigError(f"{min(other)!r} is not about measurement; known are {', '.join(MEASUREMENT)}")
        head = copy.deepcopy(self)
        head.config = self.config.updated(**{**MEASUREMENT, **settings})
        head.encoder.config = head.config
        return head

    def step_cost(self, batch: int) -> StepCost | None:
        """Return the circuits and shots of one training step on a QPU; None without shots.

        Raises:
            ConfigError: `batch`, the samples of a step, is not an integer, or less than 1.
        """
        batch, config = as_integer(batch, "batch", minimum=1), self.config
        if config.shots is None or config.gradient in (None, "exact"):
            return None
        measured = config.read_qubits
        noisy = config.noise is not None and not config.noise.is_gate_noiseless
        cone = noisy_light_cone(self.circuit, measured) if noisy else config.light_cone()
        cost = step_cost(cone, batch, config.shots, config.gradient)
        groups = 1 if config.observables is None else len(group_words(config.observables))
        return StepCost(groups * cost.circuits, groups * cost.shots)

    def prepare_states(self, embeddings: Tensor) -> Tensor:
        """Return the initial states of the encoders; they have no trained parameters and can be computed once.

        Returns:
            Amplitudes of shape (batch, slices, 2**n_qubits); slices is 1 unless every encoder has its own.

        Raises:
            InputError: as in `forward`.
        """
        return self.encoder.prepare_states(self.project(embeddings))

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of trainable parameters by part, and their total."""
        return self.config.count_parameters(self.embedding_dim, self.n_classes)

    def unreachable_angles(self) -> int:
        """Return the number of QPU angles outside the light cone of what is read out, which do not train."""
        angles = (angle for gate in self.config.light_cone().gates for angle in gate_angles(gate))
        return self.circuit.n_weights - len({angle.index for angle in angles if angle.source == "weight"})

    def __repr__(self) -> str:
        counts = self.parameter_counts()
        parts = ", ".join(f"{count} {part}" for part, count in counts.items() if count and part != "total")
        config = self.config
        read = f"{config.n_measured} measured" if config.readout is None else f"{len(config.readout)} Pauli words"
        return (
            f"QuantumHead({self.embedding_dim} -> {config.n_encoders} x {config.n_qubits} qubits -> "
            f"{config.qpu_qubits} qubits, {read} -> {self.n_classes} classes; "
            f"{counts['total']} parameters: {parts})"
        )

    def _check(self, embeddings: Tensor) -> None:
        loaded = (self.encoder.n_slices, 2**self.config.n_qubits)
        if embeddings.shape[1:] not in ((self.embedding_dim,), loaded):
            raise InputError(
                f"embeddings have shape {tuple(embeddings.shape)}; this head needs (batch, {self.embedding_dim})"
            )
        if embeddings.dtype != self.weights.dtype:
            raise InputError(f"embeddings are {embeddings.dtype}; this head computes in {self.weights.dtype}")


def seeded_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with torch's default initialization, sampled only from `generator`."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
