"""Random streams: reproducible, and independent of each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ketfit.errors import ConfigError
from ketfit.rng import chosen_seed, numpy_stream, torch_stream


def test_numpy_stream_same_name_gives_same_numbers() -> None:
    first, second = (numpy_stream(3, "split", 1).random(8) for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("other", [(4, "split", 1), (3, "init", 1), (3, "split", 2), (3, "split")])
def test_streams_of_other_names_differ(other: tuple[object, ...]) -> None:
    assert numpy_stream(3, "split", 1).random(8).tolist() != numpy_stream(*other).random(8).tolist()  # type: ignore[arg-type]
    first, second = torch_stream(3, "split", 1), torch_stream(*other)  # type: ignore[arg-type]
    assert not torch.equal(torch.rand(8, generator=first), torch.rand(8, generator=second))


def test_streams_leave_global_generators_unchanged() -> None:
    numpy_state, torch_state = np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]  # noqa: NPY002
    numpy_stream(0, "init").random()
    torch.rand(1, generator=torch_stream(0, "init"))
    assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[union-attr]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_numpy_stream_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed"):
        numpy_stream(-1, "init")


def test_chosen_seed_prefers_random_state() -> None:
    assert chosen_seed(None, 7) == 7
    assert chosen_seed(5, 7) == 5
    expected = np.random.RandomState(1).randint(np.iinfo(np.int32).max)
    assert chosen_seed(np.random.RandomState(1), 7) == expected
