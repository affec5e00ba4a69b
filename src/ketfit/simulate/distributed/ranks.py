"""The ranks of a run: their process group, exchanges of qubits between them, and errors that name a lost rank."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ketfit.errors import ConfigError, DistributedError

TIMEOUT_S = 300
"""Seconds that a rank waits for another one, in a process group that KetFit starts."""

HEARTBEAT_S, SILENCE_S = 0.5, 4.0
"""Seconds between two signs of life of a rank, and seconds without one after which it is lost."""


@dataclass(frozen=True)
class Ranks:
    """This process among the others, in torch's default process group.

    Attributes:
        rank: Number of this process.
        size: Number of processes, a power of two.
    """

    rank: int
    size: int

    @classmethod
    def connect(cls) -> Ranks:
        """Return the ranks of the default process group, which is started with gloo if there is none.

        Raises:
            ConfigError: The process was not started by torchrun, or the number of ranks is not a power of two.
        """
        if not dist.is_available():
            raise ConfigError("this torch has no torch.distributed; install one that has, or use engine='native'")
        if not dist.is_initialized():
            if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
                raise ConfigError(
                    "engine='distributed' needs several processes: start the program with torchrun, or initialize "
                    "torch.distributed before"
                )
            dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT_S))
        _start_heartbeat(dist.distributed_c10d._get_default_store())
        size = dist.get_world_size()
        if size & (size - 1):
            raise ConfigError(f"{size} ranks cannot share a state vector; start 1, 2, 4, 8 or another power of two")
        return cls(dist.get_rank(), size)

    @property
    def n_global(self) -> int:
        """Number of global qubits."""
        return self.size.bit_length() - 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        total = tensor.contiguous().clone()
        if self.size > 1:
            with self._collective():
                dist.all_reduce(torch.view_as_real(total) if total.is_complex() else total)
        return total

    def gather(self, part: Tensor) -> Tensor:
        """Return the parts of a state, shape (batch, 2**local), of all ranks side by side."""
        if self.size == 1:
            return part
        part = torch.view_as_real(part.contiguous())
        parts = [torch.empty_like(part) for _ in range(self.size)]
        with self._collective():
            dist.all_gather(parts, part)
        return torch.view_as_complex(torch.cat(parts, dim=1))

    def swap(self, sent: Tensor, partner: int) -> Tensor:
        """Return what another rank sends, as many numbers as it gets."""
        received = torch.empty_like(sent)
        with self._collective():
            requests = dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, sent, partner), dist.P2POp(dist.irecv, received, partner)]
            )
            for request in requests:
                request.wait()
        return received

    @contextlib.contextmanager
    def _collective(self) -> Iterator[None]:
        """Turn an error of the communication into one that names the ranks that do not answer."""
        try:
            yield
        except RuntimeError as error:
            lost = self._lost_ranks()
            named = f"rank {', '.join(map(str, lost))}" if lost else "another rank"
            raise DistributedError(
                f"rank {self.rank} of {self.size} lost the connection to {named}, which ended or does not answer; "
                "start all ranks again"
            ) from error

    def _lost_ranks(self) -> list[int]:
        """Return the ranks that gave no sign of life for some seconds, as the first rank to fail saw them."""
        store = dist.distributed_c10d._get_default_store()
        others = [rank for rank in range(self.size) if rank != self.rank]
        try:
            before = _signs_of_life(store, others)
            time.sleep(SILENCE_S)
            if _named_as_lost:
                return _named_as_lost[0]
            after = _signs_of_life(store, others)
            lost = [rank for rank in others if after.get(rank) == before.get(rank)]
            store.set(_LOST, ",".join(map(str, lost)))
            time.sleep(4 * HEARTBEAT_S)  # the other ranks read it before this one, which may hold the store, ends
        except RuntimeError:
            if _named_as_lost:
                return _named_as_lost[0]
            # The store ended with the process that held it: rank 0, or the launcher.
            return [] if "TORCHELASTIC_RUN_ID" in os.environ else [0]
        return lost


_LOST = "ketfit/lost"
_named_as_lost: list[list[int]] = []  # the lost ranks, once a rank has named them


def _signs_of_life(store: Any, ranks: Iterable[int]) -> dict[int, bytes]:
    return {rank: store.get(key) for rank in ranks if store.check([key := f"ketfit/alive/{rank}"])}


@lru_cache(maxsize=1)
def _start_heartbeat(store: Any) -> None:
    """Count up in the store as long as its process group lives, and note the ranks that another one names as lost."""
    rank, ended = dist.get_rank(), threading.Event()

    def beat() -> None:
        with contextlib.suppress(RuntimeError, ValueError):  # the store, or the process group, has ended
            for count in itertools.count():
                if dist.distributed_c10d._get_default_store() is not store:
                    return
                store.set(f"ketfit/alive/{rank}", str(count))
                if not _named_as_lost and store.check([_LOST]):
                    _named_as_lost.append([int(lost) for lost in store.get(_LOST).decode().split(",") if lost])
                if ended.wait(HEARTBEAT_S):
                    return

    thread = threading.Thread(target=beat, daemon=True, name="ketfit heartbeat")

    def end() -> None:
        """End the thread, because a thread that is in torch while Python ends aborts the process."""
        ended.set()
        thread.join(SILENCE_S)

    atexit.register(end)
    thread.start()
