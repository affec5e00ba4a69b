"""Predict a folder on a Ray cluster of two nodes on this machine, one of which is killed after a few parts.

python tests/faults/ray_prediction.py MODEL FOLDER OUTPUT BLOCK_ROWS
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

from ketfit import TextClassifier
from ketfit.evaluation.batch_predict import parts_folder, predict_folder
from ketfit.evaluation.block_executors import RayBlockExecutor


def main() -> None:
    """Predict; fail if the node was not killed before the end."""
    model, source, output, block_rows = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    parts_at_kill: list[int] = []

    def kill() -> None:
        while len(parts := list(parts_folder(output).glob("*/*.part"))) < 3:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        parts_at_kill.append(len(parts))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = predict_folder(
            TextClassifier.from_pretrained(model),
            source,
            output,
            block_rows=block_rows,
            executor=RayBlockExecutor(cluster.address),
        )
    finally:
        killer.join()
        cluster.shutdown()
    assert parts_at_kill[0] * block_rows < summary.rows, "the node was killed after the end"
    print(f"{summary.rows} rows; the node died after {parts_at_kill[0]} parts")


if __name__ == "__main__":
    main()
