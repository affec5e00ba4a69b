"""Tabulate how much <Z> of untrained heads differs between sentences, against the number of qubits.

python studies/initial_spread.py --data sst2.tsv

A head learns from the differences of its readout between sentences. Each head has the initial angles that the draw's
seed gives it in a study, and reads the draw's training sentences on a frozen body. The table is written to
studies/results/initial_spread.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qpu_head import measure

from ketfit import HeadConfig
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.model.head import QuantumHead
from ketfit.rng import torch_stream
from ketfit.storage.atomic import write_file

TABLE = Path(__file__).parent / "results" / "initial_spread.md"
HEADS: Mapping[str, Callable[[int, int], HeadConfig]] = {
    "the paper's head": lambda dim, n_qubits: HeadConfig.paper(n_qubits=n_qubits),
    "recommended": lambda dim, n_qubits: HeadConfig.recommended(dim).updated(n_qubits=n_qubits),
}
N_QUBITS = range(10, 17)
DRAWS = 5


@torch.no_grad()
def initial_spread(config: HeadConfig, x: NDArray[Any], seed: int) -> float:
    """Return the standard deviation of <Z> over embeddings, shape (n, dimension), before any training."""
    head = QuantumHead(config, x.shape[1], 2, torch_stream(seed, "init")).eval()
    return float(measure(head, head.encode(torch.from_numpy(x)), None).std())


def make_table(samples: Mapping[int, NDArray[Any]], dim: int) -> Iterator[str]:
    """Yield the lines of the table: the geometric mean over the draws, and their smallest and largest."""
    yield "| qubits | " + " | ".join(HEADS) + " |"
    yield "|---:|" + "---|" * len(HEADS)
    for n_qubits in N_QUBITS:
        cells = []
        for make in HEADS.values():
            found = [initial_spread(make(dim, n_qubits), x, seed) for seed, x in samples.items()]
            mean = np.exp(np.mean(np.log(found)))
            cells.append(f"{mean:.4f} ({min(found):.4f} to {max(found):.4f})")
        yield f"| {n_qubits} | " + " | ".join(cells) + " |"


def main(arguments: list[str]) -> None:
    """Embed the training sentences of the draws, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file with columns text and label")
    parser.add_argument("--body", default="all-mpnet-base-v2")
    parser.add_argument("--per-label", type=int, default=256)
    options = parser.parse_args(arguments)
    dataset, body = load_dataset(options.data), load_body(options.body)
    splits = {seed: few_shot_split(dataset, options.per_label, seed=seed) for seed in range(DRAWS)}
    samples = {seed: body.encode(dataset.take(split.train).texts) for seed, split in splits.items()}
    table = "\n".join(make_table(samples, samples[0].shape[1])) + "\n"
    write_file(TABLE, table.encode())
    sys.stdout.write(table)


if __name__ == "__main__":
    main(sys.argv[1:])
