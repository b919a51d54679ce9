"""A node leaves for good, another one is drained and dies, under load: nothing is lost, and nobody waits."""

import os
import subprocess

from cluster_net import HTTP, until
from entity_faults import begin, conclude, reachable, rebuilt, spend


def operate(through, *words):
    """A command of an operator, through one of the nodes."""
    said = subprocess.run([through.cluster.program, "cluster", *words, "--http", f"{through.address}:{HTTP}"], capture_output=True, text=True, timeout=120)
    print("  " + (said.stdout + said.stderr).strip().replace("\n", "\n  "))
    if said.returncode != 0:
        raise AssertionError(f"kvorum cluster {' '.join(words)}: {said.stderr}")


def starts_no_more(gone, others):
    """A node that was removed has ended in order, and refuses what it had."""
    gone.process.wait(timeout=20)
    if gone.process.returncode != 0:
        raise AssertionError(f"n{gone.number} ended with {gone.process.returncode}: {gone.tail()}")
    begun = os.path.getsize(gone.log)
    try:
        gone.start(join=others[0].number)
    except RuntimeError:
        pass
    with open(gone.log, "rb") as log:
        log.seek(begun)
        said = log.read().decode(errors="replace").strip()
    print(f"  n{gone.number} ended; when it is started again: {said}")
    if gone.is_running() or "removed from its cluster" not in said:
        raise AssertionError(f"n{gone.number} starts again on what it had")


def leave_under_load(cluster, gap_max_ms):
    """Answers the clients, whose histories are still to be judged."""
    cluster.start()
    clients = cluster.torture(28, "--gap-max-ms", str(gap_max_ms))
    writers = begin(cluster)
    spend(2)
    # It leads shards, too, and has most to hand over.
    gone = cluster.node(int(cluster.status()["control"][1:]))
    others = [node for node in cluster.nodes if node is not gone]
    operate(others[0], "remove", f"n{gone.number}")
    starts_no_more(gone, others)
    cluster.nodes = others
    cluster.wait_whole()
    rebuilt(cluster)
    drained = others[0]
    operate(others[1], "drain", f"n{drained.number}")
    print(f"  kill -9 of n{drained.number}, which is drained")
    drained.kill()
    spend(3)
    drained.start()
    reachable(cluster)
    cluster.wait_whole()
    if cluster.leaders()[drained.number] > 0:
        raise AssertionError(f"n{drained.number} drains, and leads: {cluster.leaders()}")
    operate(drained, "drain", f"n{drained.number}", "--end")
    until("all are up", 10, lambda: all(node["state"] == "up" for node in cluster.status()["nodes"]))
    rebuilt(cluster)
    conclude(cluster, writers)
    return clients
