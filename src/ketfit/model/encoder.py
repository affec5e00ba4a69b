"""Encode embeddings: load them as amplitudes, apply E circuits and compute <Z> of every qubit exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ketfit.errors import InputError
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, check_width
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.expectation import expectation


class Encoder(nn.Module):
    """E parallel encoders and their merge (paper, Figure 1).

    Args:
        config: The head's shape.
        embedding_dim: Width of the embedding.
        generator: Source of the initial angles.

    Raises:
        ConfigError: the embedding is wider than the amplitudes of an encoder, or its width is not an integer.
    """

    def __init__(self, config: HeadConfig, embedding_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.circuit = config.encoder_circuit()
        self.widths = config.slice_widths(as_integer(embedding_dim, "embedding_dim", minimum=1))
        self.n_slices = config.n_encoders if config.encoder_input == "slices" else 1
        self.weights = nn.Parameter(initial_angles(config.n_encoders, self.circuit.n_weights, generator=generator))

    @compiler_disabled
    def forward(self, embeddings: Tensor) -> Tensor:
        """Return <Z> of every qubit, shape (batch, qpu_qubits), from embeddings of shape (batch, embedding_dim)."""
        return self.measure(self.prepare_states(embeddings))

    def prepare_states(self, embeddings: Tensor) -> Tensor:
        """Return the initial amplitudes of the circuits, shape (batch, slices, 2**n_qubits): one slice, or E."""
        config = self.config
        parts = torch.split(embeddings, self.widths, dim=1) if self.n_slices > 1 else (embeddings,)
        return torch.stack(
            [load_amplitudes(part, config.n_qubits, config.reference_amplitude) for part in parts], dim=1
        )

    def measure(self, amplitudes: Tensor) -> Tensor:
        """Return <Z> of every qubit, shape (batch, qpu_qubits), from the amplitudes of `prepare_states`."""
        config = self.config
        slices = amplitudes.unbind(dim=1) * (config.n_encoders // self.n_slices)
        readouts = [
            expectation(self.circuit, weights, initial=initial, qubits=range(config.n_qubits))
            for weights, initial in zip(self.weights, slices, strict=True)
        ]
        if len(readouts) == 1:
            return readouts[0]
        return torch.cat(readouts, dim=1) if config.merge == "concat" else torch.stack(readouts).mean(dim=0)


def load_amplitudes(embeddings: Tensor, n_qubits: int, reference_amplitude: float = 0.0) -> Tensor:
    """Return the normalised amplitudes (x, c |x|, 0, ..., 0) of each embedding x, with c = `reference_amplitude`.

    With c = 0 this is the paper's amplitude encoding with zero padding; <Z> is then a quadratic form, even in x. With
    c > 0 one spare amplitude holds a constant, which gives the form linear and constant terms.

    Args:
        embeddings: Shape (batch, width).
        n_qubits: Q; the result has 2**Q columns.
        reference_amplitude: c, in units of each embedding's norm.

    Returns:
        Shape (batch, 2**n_qubits), rows of norm 1, differentiable.

    Raises:
        ConfigError: the embedding (with its reference amplitude) is wider than 2**n_qubits, or `n_qubits` is no number
            of qubits.
        InputError: an embedding is zero or not finite.
    """
    if embeddings.dim() != 2 or not embeddings.shape[1] or not embeddings.is_floating_point():
        raise InputError(
            f"embeddings are {embeddings.dtype} of shape {tuple(embeddings.shape)}; make them float and 2-d"
        )
    n_qubits = as_integer(n_qubits, "n_qubits", minimum=1)
    check_width(embeddings.shape[1], n_qubits, reference_amplitude)
    if not torch.isfinite(embeddings).all():
        row = int((~torch.isfinite(embeddings).all(dim=1)).nonzero()[0])
        raise InputError(f"embedding {row} holds a number that is not finite (NaN or infinity)")
    # Dividing by the largest entry first keeps the squares of tiny and huge embeddings within range.
    largest = embeddings.detach().abs().amax(dim=1, keepdim=True)
    if (largest == 0).any():
        row = int((largest[:, 0] == 0).nonzero()[0])
        raise InputError(f"embedding {row} is all zeros, and a zero vector has no direction to load into amplitudes")
    scaled = embeddings / largest
    direction = scaled / scaled.norm(dim=1, keepdim=True)
    amplitudes = embeddings.new_zeros(len(embeddings), 2**n_qubits)
    scale = 1 / math.hypot(1, reference_amplitude)
    amplitudes[:, : embeddings.shape[1]] = scale * direction
    if reference_amplitude:
        amplitudes[:, embeddings.shape[1]] = scale * reference_amplitude
    return amplitudes


def initial_angles(*shape: int, generator: torch.Generator) -> Tensor:
    """Return normal random angles with standard deviation 0.1 rad: close to the identity except for the CNOTs."""
    return 0.1 * torch.randn(*shape, generator=generator)
