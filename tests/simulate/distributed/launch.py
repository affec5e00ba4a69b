"""Run a function in several ranks, each a process of its own."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(size: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``function(rank, *arguments)`` returns in each rank; None for a rank that ended early.

    Raises:
        AssertionError: A rank does not end, or ends with an error.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = mp.get_context("spawn")
    ranks = [
        context.Process(target=_rank, args=(rank, size, port, function, folder, arguments)) for rank in range(size)
    ]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(180)
        if each.is_alive():
            each.kill()
            raise AssertionError("a rank did not end")
        assert each.exitcode == 0, "a rank ended with an error"
    files = [folder / f"{rank}" for rank in range(size)]
    return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def _rank(rank: int, size: int, port: int, function: Callable[..., Any], folder: Path, arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    result = function(rank, *arguments)
    (folder / f"{rank}").write_bytes(pickle.dumps(result))
    if dist.is_initialized():
        dist.destroy_process_group()
