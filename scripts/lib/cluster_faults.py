"""The scenarios of scripts/cluster-faults: see there."""

import os
import re
import sys
import time
import traceback

from cluster_net import Cluster, run, until
from entity_faults import entities, growth
from leave_faults import leave_under_load

# Writes must be back this long after a leader's death.
GAP_MAX_MS = 3000
# Longer than any lease and any time-out of the failure detector.
PAUSE_SECONDS = 6


def judge(clients):
    """Waits for the clients and fails if a promise was broken; answers what they said."""
    said, _ = clients.communicate(timeout=240)
    print("  " + said.strip().replace("\n", "\n  "))
    if clients.returncode != 0:
        raise AssertionError("the clients saw a promise broken")
    return said


def judge_gaps(said, without_majority):
    """Fails if writes stood still for too long, the time not counted (two unix times) between the death of most members and the start of one of them."""
    lost, back = (moment * 1000 - int(re.search(r"begun at (\d+) ms of unix time", said)[1]) for moment in without_majority)
    gaps = [(int(since), int(since) + int(length)) for length, since in re.findall(r"no write for (\d+) ms from (\d+) ms on", said)]
    counted = [end - since - max(0, min(end, back) - max(since, lost)) for since, end in gaps]
    behind = [end - back for since, end in gaps if since <= back <= end]
    if not behind:
        raise AssertionError("no client was waiting for the majority that came back")
    print(f"  writes were back {max(behind):.0f} ms after the node was started that makes a majority; longest gap while one did: {max(counted, default=0):.0f} ms")
    if max(counted, default=0) > GAP_MAX_MS:
        raise AssertionError(f"writes stood still for longer than {GAP_MAX_MS} ms though a majority lived")


def spend(clients, seconds):
    """Lets the load go on for a while."""
    deadline = time.monotonic() + seconds
    until("time", seconds + 5, lambda: time.monotonic() >= deadline or clients.poll() is not None)


def kill(cluster):
    """kill -9 of the node that leads most, under load, three times; each comes back before the next."""
    cluster.start()
    clients = cluster.torture(24, "--gap-max-ms", str(GAP_MAX_MS))
    spend(clients, 2)
    for _ in range(3):
        victim = cluster.busiest()
        print(f"  kill -9 n{victim.number}")
        victim.kill()
        spend(clients, 4)
        victim.start()
        cluster.wait_whole()
    judge(clients)


def pause(cluster):
    """A leader is stopped for longer than any lease, and wakes up believing that it leads."""
    cluster.start()
    clients = cluster.torture(18)
    spend(clients, 2)
    victim = cluster.busiest()
    print(f"  n{victim.number} stands still for {PAUSE_SECONDS} s")
    victim.pause()
    spend(clients, PAUSE_SECONDS)
    victim.go_on()
    cluster.wait_whole()
    judge(clients)


def restart(cluster):
    """Every node is stopped in order and started again, one after the other, under load."""
    cluster.start()
    clients = cluster.torture(18, "--gap-max-ms", str(GAP_MAX_MS))
    spend(clients, 2)
    for node in cluster.nodes:
        node.stop()
        node.start()
        cluster.wait_whole()
    judge(clients)


def minority(cluster):
    """The busiest node is cut off from all others, then comes back; the majority goes on."""
    cluster.start()
    clients = cluster.torture(18, "--gap-max-ms", str(GAP_MAX_MS + 2000))
    spend(clients, 2)
    alone = cluster.busiest().number
    print(f"  n{alone} is cut off")
    cluster.net.part([alone], [number for number in cluster.net.numbers if number != alone])
    spend(clients, 7)
    cluster.net.heal()
    cluster.wait_whole()
    judge(clients)


def no_majority(cluster):
    """Nobody hears anybody: no write is taken. Then everybody does."""
    cluster.start()
    clients = cluster.torture(18)
    spend(clients, 2)
    for number in cluster.net.numbers:
        cluster.net.part([number], [other for other in cluster.net.numbers if other > number])
    spend(clients, 4)
    answers = [node.call("SET", "nobody", "hears", timeout=1) for node in cluster.nodes]
    if "+OK" in answers:
        raise AssertionError(f"a write was acknowledged without a majority: {answers}")
    cluster.net.heal()
    cluster.wait_whole()
    judge(clients)


def one_way(cluster):
    """What the busiest node says is not heard, though it hears; then the other way round."""
    cluster.start()
    clients = cluster.torture(26)
    spend(clients, 2)
    victim = cluster.busiest().number
    others = [number for number in cluster.net.numbers if number != victim]
    for other in others:
        cluster.net.cut(victim, other)
    print(f"  nobody hears n{victim}")
    spend(clients, 6)
    cluster.net.heal()
    cluster.wait_whole()
    victim = cluster.busiest().number
    for other in cluster.net.numbers:
        if other != victim:
            cluster.net.cut(other, victim)
    print(f"  n{victim} hears nobody")
    spend(clients, 6)
    cluster.net.heal()
    cluster.wait_whole()
    judge(clients)


def full_disk(cluster):
    """The busiest node's disk fills up, it hands over and goes on following; then there is space again."""
    for node in cluster.nodes:
        node.mount(192)
    cluster.start()
    clients = cluster.torture(30)
    spend(clients, 2)
    victim = cluster.busiest()
    ballast = os.path.join(victim.data, "ballast")
    print(f"  n{victim.number} has no space left")
    run("dd", "if=/dev/zero", f"of={ballast}", "bs=1M", check=False)
    until(f"n{victim.number} leads nothing", 20, lambda: victim.is_running() and cluster.leaders()[victim.number] == 0, every=0.2)
    spend(clients, 4)
    if not victim.is_running():
        raise AssertionError(f"n{victim.number} ended: {victim.tail()}")
    os.remove(ballast)
    cluster.wait_whole()
    judge(clients)


def wiped(cluster):
    """A disk is lost; the node comes back empty under its name and is filled; then another node dies."""
    cluster.start()
    clients = cluster.torture(30, "--gap-max-ms", str(GAP_MAX_MS))
    spend(clients, 3)
    cluster.node(3).kill()
    cluster.node(3).wipe()
    spend(clients, 1)
    cluster.node(3).start(join=1)
    cluster.wait_whole(seconds=90)
    victim = busier_of(cluster, 1, 2)
    print(f"  n3 is whole again on an empty disk; n{victim.number} dies")
    victim.kill()
    spend(clients, 5)
    victim.start()
    cluster.wait_whole()
    judge(clients)


def transfer(cluster):
    """A leader dies in the middle of the transfer that fills an empty node: two of three members are gone, and writes wait for the one that returns."""
    cluster.start()
    fill(cluster, 40)
    clients = cluster.torture(24)
    spend(clients, 2)
    cluster.node(3).kill()
    cluster.node(3).wipe()
    cluster.node(3).start(join=1)
    until("n3 is being filled", 60, lambda: any(shard["learners"] for shard in cluster.status()["shards"]), every=0.05)
    victim = busier_of(cluster, 1, 2)
    print(f"  n{victim.number} dies while n3 is filled")
    victim.kill()
    killed = time.time()
    spend(clients, 3)
    started = time.time()
    victim.start()
    print(f"  n{victim.number} was dead for {started - killed:.1f} s and took {time.time() - started:.1f} s to start")
    cluster.wait_whole(seconds=120)
    judge_gaps(judge(clients), (killed, started))


def join(cluster):
    """Two nodes join one that keeps everything alone, under load; it is killed when the first of them comes, and again when the second does."""
    first, *others = cluster.nodes
    first.start(alone=True)
    cluster.wait_whole(members=1)
    clients = cluster.torture(24, "--patience-ms", "3000", nodes=[first])
    spend(clients, 3)
    for members, other in enumerate(others, start=2):
        other.start(join=1)
        print(f"  n{other.number} comes, n1 is killed")
        first.kill()
        first.start(alone=True)
        cluster.wait_whole(seconds=90, members=members)
        spend(clients, 2)
    judge(clients)


def busier_of(cluster, one, other):
    """That of two nodes which leads more shards."""
    counts = cluster.leaders()
    return cluster.node(one if counts[one] >= counts[other] else other)


def fill(cluster, megabytes):
    """Values enough that a transfer takes a while."""
    value = "x" * 65536
    for number in range(megabytes * 16):
        answer = cluster.node(1 + number % len(cluster.nodes)).call("SET", f"fill:{number}", value, timeout=10)
        if answer != "+OK":
            raise AssertionError(f"SET fill:{number}: {answer}")


def power(cluster):
    """All nodes are killed at one moment, and started again; three times."""
    cluster.start()
    clients = cluster.torture(26)
    for _ in range(3):
        spend(clients, 3)
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            node.start()
        cluster.wait_whole()
    judge(clients)


def two_of_five(cluster):
    """Two of five nodes that keep all shards are killed, then two others are cut off."""
    cluster.start()
    answer = cluster.node(1).call("NAMESPACE", "SET", "0", "replication", "5", timeout=10)
    if answer != "+OK":
        raise AssertionError(f"NAMESPACE SET: {answer}")
    cluster.wait_whole(seconds=90, members=5)
    clients = cluster.torture(26, "--gap-max-ms", str(GAP_MAX_MS + 2000))
    spend(clients, 2)
    victims = sorted(cluster.leaders().items(), key=lambda pair: -pair[1])[:2]
    for number, _ in victims:
        cluster.node(number).kill()
    spend(clients, 6)
    for number, _ in victims:
        cluster.node(number).start()
    cluster.wait_whole(members=5)
    others = [number for number in cluster.net.numbers if number not in dict(victims)][:2]
    cluster.net.part(others, [number for number in cluster.net.numbers if number not in others])
    spend(clients, 6)
    cluster.net.heal()
    cluster.wait_whole(members=5)
    judge(clients)


def slow_link(cluster):
    """What goes to the busiest node and comes from it takes a fifth of a second each way, then everything is quick again."""
    cluster.relay()
    cluster.start()
    clients = cluster.torture(16, "--patience-ms", "3000")
    spend(clients, 2)
    victim = cluster.busiest().number
    print(f"  the link of n{victim} is slow")
    cluster.links.slow(victim, 0.2)
    spend(clients, 7)
    cluster.links.slow(victim, 0.0)
    cluster.wait_whole()
    judge(clients)


def leave(cluster):
    """The node of four that leads the control plane is removed under load, another one drained and then killed. Writes stand still at no time; nothing acknowledged is lost."""
    judge(leave_under_load(cluster, GAP_MAX_MS))


SCENARIOS = [(kill, 3), (pause, 3), (restart, 3), (minority, 3), (no_majority, 3), (one_way, 3), (full_disk, 3), (wiped, 3),
             (transfer, 3), (join, 3), (power, 3), (two_of_five, 5), (slow_link, 3), (entities, 3), (growth, 3), (leave, 4)]
# Nodes that come later.
LATER = {growth: 1}


def main():
    binaries, *names = sys.argv[1:]
    if names == ["--list"]:
        for scenario, nodes in SCENARIOS:
            print(f"{scenario.__name__} ({nodes} nodes): {scenario.__doc__}")
        return 0
    unknown = set(names) - {scenario.__name__ for scenario, _ in SCENARIOS}
    if unknown:
        print(f"no such scenario: {', '.join(sorted(unknown))}; see --list")
        return 1
    passed = failed = 0
    for scenario, nodes in SCENARIOS:
        if names and scenario.__name__ not in names:
            continue
        print(f"{scenario.__name__}: {scenario.__doc__}", flush=True)
        begun = time.monotonic()
        cluster = Cluster(binaries, nodes, LATER.get(scenario, 0))
        good = False
        try:
            scenario(cluster)
            good = True
            passed += 1
        except Exception as problem:
            failed += 1
            print(f"FAILED: {scenario.__name__}: {problem!r}")
            traceback.print_exc(limit=3, file=sys.stdout)
        finally:
            cluster.close(keep=not good)
        print(f"  {time.monotonic() - begun:.0f} s", flush=True)
    print(f"checks: {passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


sys.exit(main())
