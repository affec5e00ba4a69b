"""Derive named, independent random streams from one seed."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ketfit.integers import as_integer, as_integers

if TYPE_CHECKING:
    import torch

Stream = Literal[
    "split", "validation", "folds", "init", "batches", "shots", "noise", "pairs", "dropout", "choice", "distillation"
]


def chosen_seed(random_state: Any, seed: int) -> int:
    """Return the seed of one fit: `seed` if `random_state` is None, an integer itself, or a sample of a RandomState.

    Raises:
        ConfigError: `random_state` is none of these, or `seed` is not an integer from 0.
    """
    if random_state is None:
        return as_integer(seed, "seed", minimum=0)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(np.iinfo(np.int32).max))
    hint = "a numpy.random.RandomState is accepted too, and None uses seed"
    return as_integer(random_state, "random_state", minimum=0, hint=hint)


def numpy_stream(seed: int, stream: Stream, *counters: int) -> np.random.Generator:
    """Return a NumPy generator that is independent of every other stream of the same seed.

    A stream without counters is that of the counter 0.

    Args:
        seed: The user's seed, a non-negative integer.
        stream: What the numbers are for.
        counters: Further numbers, such as the epoch, that each name a stream of their own.

    Raises:
        ConfigError: the seed or a counter is not an integer, or negative.
    """
    return np.random.default_rng(_sequence(seed, stream, counters))


def torch_stream(seed: int, stream: Stream, *counters: int) -> torch.Generator:
    """Return a torch generator on the CPU; see `numpy_stream`."""
    import torch

    state = int(_sequence(seed, stream, counters).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)  # torch takes signed seeds


def _sequence(seed: int, stream: Stream, counters: tuple[int, ...]) -> np.random.SeedSequence:
    seed, counters = as_integer(seed, "seed", minimum=0), as_integers(counters, "counters", minimum=0)
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counters])
