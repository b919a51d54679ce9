"""A node leaves for good, another one is drained and dies, under load: nothing is lost, and nobody waits."""

import os
import subprocess

from cluster_net import HTTP, until
from entity_faults import begin, conclude, reachable, rebuilt, spend


def operate(cluster, through, *words):
    """A command of an operator, through one of the nodes."""
    said = subprocess.run([cluster.program, "cluster", *words, "--http", f"{through.address}:{HTTP}"], capture_output=True, text=True, timeout=120)
    print("  " + (said.stdout + said.stderr).strip().replace("\n", "\n  "))
    if said.returncode != 0:
        raise AssertionError(f"kvorum cluster {' '.join(words)}: {said.stderr}")


def leave_under_load(cluster, gap_max_ms):
    """Answers the clients, whose histories are still to be judged."""
    cluster.start()
    clients = cluster.torture(24, "--gap-max-ms", str(gap_max_ms))
    writers = begin(cluster)
    spend(2)
    gone = cluster.node(4)
    operate(cluster, cluster.node(1), "remove", "n4")
    gone.process.wait(timeout=20)
    if gone.process.returncode != 0:
        raise AssertionError(f"n4 ended with {gone.process.returncode}: {gone.tail()}")
    cluster.nodes.remove(gone)
    begun = os.path.getsize(gone.log)
    try:
        gone.start(join=1)
    except RuntimeError:
        pass
    with open(gone.log, "rb") as log:
        log.seek(begun)
        said = log.read().decode(errors="replace")
    if gone.is_running() or "removed from its cluster" not in said:
        raise AssertionError(f"n4 starts again on what it had: {said}")
    print(f"  n4 ended, and does not start again: {said.strip()}")
    cluster.wait_whole(members=3)
    rebuilt(cluster)
    operate(cluster, cluster.node(2), "drain", "n1")
    print("  kill -9 of n1, which is drained")
    cluster.node(1).kill()
    spend(3)
    cluster.node(1).start()
    reachable(cluster)
    cluster.wait_whole()
    if cluster.leaders()[1] > 0:
        raise AssertionError(f"n1 drains, and leads: {cluster.leaders()}")
    operate(cluster, cluster.node(1), "drain", "n1", "--end")
    until("n1 is up", 10, lambda: all(node["state"] == "up" for node in cluster.status()["nodes"]))
    rebuilt(cluster)
    conclude(cluster, writers)
    return clients
