"""Ranks that are threads of this process, which start faster than processes and share its memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ketfit.simulate.distributed.ranks import Ranks


class _Board:
    """Where ranks put tensors for each other."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.posts: list[Any] = [None] * size

    def exchange(self, rank: int, post: Any) -> list[Any]:
        """Return what every rank puts down."""
        self.posts[rank] = post
        self.barrier.wait()
        posts = list(self.posts)
        self.barrier.wait()
        return posts


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """A rank in a thread."""

    board: _Board

    def swap(self, sent: Tensor, partner: int) -> Tensor:
        """Return what another rank sends."""
        others = self.board.exchange(self.rank, (sent, partner))
        assert others[partner][1] == self.rank
        received: Tensor = others[partner][0]
        assert received.shape == sent.shape
        return received

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        return torch.stack(self.board.exchange(self.rank, tensor)).sum(dim=0)

    def gather(self, part: Tensor) -> Tensor:
        """Return the parts of a state of all ranks side by side."""
        return torch.cat(self.board.exchange(self.rank, part), dim=1)


def run_threads(size: int, function: Callable[[int], Any]) -> list[Any]:
    """Return what ``function(rank)`` returns in each of some threads, in which `Ranks.connect` returns the rank."""
    board, here = _Board(size), threading.local()

    def run(rank: int) -> Any:
        here.ranks = ThreadRanks(rank, size, board)
        return function(rank)

    with mock.patch.object(Ranks, "connect", lambda: here.ranks), ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
