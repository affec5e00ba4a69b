"""Named random streams: one user seed, one independent stream for each use of chance."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Stream = Literal["split", "validation", "init", "batches"]


def numpy_stream(seed: int, stream: Stream) -> np.random.Generator:
    """A NumPy generator for one use of chance, independent of every other stream of the same seed.

    Args:
        seed: The user's seed, a non-negative integer.
        stream: What the numbers are for.
    """
    return np.random.default_rng(_sequence(seed, stream))


def torch_stream(seed: int, stream: Stream) -> torch.Generator:
    """A CPU torch generator for one use of chance; see `numpy_stream`."""
    import torch

    return torch.Generator().manual_seed(int(_sequence(seed, stream).generate_state(1, np.uint64)[0] >> 1))


def _sequence(seed: int, stream: Stream) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode())])
