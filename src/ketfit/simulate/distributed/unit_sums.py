"""Sums over the units of states as the kernel stores them: overlaps, and probabilities of outcomes.

States have the shape (units, numbers of a unit). The lowest bits of an index within a unit number the samples that
share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ketfit.simulate import _kernel
from ketfit.simulate.complex_statevector import KernelLayout

CHUNK_BITS = 16
"""Binary logarithm of the number of amplitudes of a unit that are summed at a time."""


def overlaps(left: Tensor, right: Tensor, layout: KernelLayout) -> Tensor:
    """Return the sum of conj(left) right of each sample, complex, shape (units * samples of a unit,)."""
    re, im = (torch.zeros(len(left), 2**layout.sample_bits, dtype=torch.float64) for _ in range(2))
    for a, b in zip(_chunks(left, layout), _chunks(right, layout), strict=True):
        re += _sums(a[0] * b[0] if layout.is_real else a[0] * b[0] + a[1] * b[1], re.shape[1])
        if not layout.is_real:
            im += _sums(a[0] * b[1] - a[1] * b[0], im.shape[1])
    return torch.complex(re, im).reshape(-1)


def _sums(numbers: Tensor, samples: int) -> Tensor:
    """Return the sum for each sample of numbers of shape (units, amplitudes)."""
    return numbers.reshape(len(numbers), -1, samples).sum(dim=1, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The joint outcomes that the indices of a unit belong to.

    Attributes:
        layout: How states are stored.
        n_measured: Number of measured bits.
        changes: For each bit of an index above those of samples, the bits of the outcome that it flips.
        first: Outcome of index 0.
    """

    layout: KernelLayout
    n_measured: int
    changes: tuple[int, ...]
    first: int

    def probabilities(self, states: Tensor) -> Tensor:
        """Return the probability of each outcome, float64, shape (units * samples of a unit, outcomes)."""
        total = torch.zeros(len(states), self._n_bins, dtype=torch.float64)
        for bins, parts in zip(self._bins(), _chunks(states, self.layout), strict=True):
            total.index_add_(1, bins, torch.stack(parts).double().square().sum(dim=0))
        by_sample = total.reshape(len(states), -1, 2**self.layout.sample_bits).transpose(1, 2)
        return by_sample.reshape(-1, 2**self.n_measured)

    def write_adjoints(self, states: Tensor, adjoints: Tensor, grad: Tensor) -> None:
        """Write the derivative by the states of the sum of probabilities times `grad`, shape (size, outcomes)."""
        samples = 2**self.layout.sample_bits
        factors = grad.new_zeros(len(states) * samples, grad.shape[1])
        factors[: len(grad)] = 2 * grad
        factors = factors.reshape(len(states), samples, -1).transpose(1, 2).reshape(len(states), -1)
        views = zip(_views(states, self.layout), _views(adjoints, self.layout), strict=True)
        for bins, (own, adjoint) in zip(self._bins(), views, strict=True):
            adjoint.copy_(own * factors[:, bins].reshape(len(states), own.shape[1], 1, own.shape[3]))

    @property
    def _n_bins(self) -> int:
        return 1 << self.n_measured + self.layout.sample_bits

    def _bins(self) -> Iterator[Tensor]:
        """Yield the outcome of each amplitude of a chunk, and below it the number of the sample."""
        samples = self.layout.sample_bits
        changes = [*(1 << bit for bit in range(samples)), *(change << samples for change in self.changes)]
        bins = torch.zeros(1, dtype=torch.int64)
        for change in changes[:CHUNK_BITS]:
            bins = torch.cat([bins, bins ^ change])
        for number in range(2 ** max(0, self.layout.bits - CHUNK_BITS)):
            high = self.first << samples
            for bit, change in enumerate(changes[CHUNK_BITS:]):
                high ^= change * (number >> bit & 1)
            yield bins ^ high


def _chunks(states: Tensor, layout: KernelLayout) -> Iterator[list[Tensor]]:
    """Yield the real and, if there are any, the imaginary parts of a chunk of each unit, shape (units, amplitudes)."""
    for view in _views(states, layout):
        yield [view[:, :, part].reshape(len(states), -1) for part in range(layout.parts)]


def _views(states: Tensor, layout: KernelLayout) -> Iterator[Tensor]:
    lanes = _kernel.lanes(layout.isa, layout.itemsize)
    rows = states.view(len(states), -1, layout.parts, lanes)
    yield from torch.split(rows, max(1, 2**CHUNK_BITS // lanes), dim=1)
