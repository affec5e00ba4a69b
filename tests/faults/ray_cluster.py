"""Run a study on a Ray cluster of two nodes on this machine, one of which is killed after a few results.

python tests/faults/ray_cluster.py PLAN FOLDER
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

from ketfit.study.executors import RayExecutor
from ketfit.study.runner import run_study
from ketfit.study.spec import StudyPlan
from ketfit.study.store import read_results


def main() -> None:
    """Run the plan; fail if the node was not killed before the end of the study."""
    plan, folder = StudyPlan.read(sys.argv[1]), Path(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=2)
    results_at_kill: list[int] = []

    def kill() -> None:
        while len(read_results(folder)) < 2:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        results_at_kill.append(len(read_results(folder)))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        progress = run_study(plan, folder, RayExecutor(cluster.address), command="test")
    finally:
        killer.join()
        cluster.shutdown()
    assert progress.done == progress.total, progress
    assert results_at_kill[0] < progress.total, "the node was killed after the end of the study"
    print(f"{progress.total} rows; the node died after {results_at_kill[0]}")


if __name__ == "__main__":
    main()
