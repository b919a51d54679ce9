"""Entities (`ack` 2 of `from` 3) under faults: what was acknowledged is read by every later quorum, whatever happens to one node at a time."""

import http.client
import random
import socket
import subprocess
import threading
import time

from cluster_net import HTTP, until

WRITERS, KEYS_EACH = 6, 8
# A node that stands still must not slow down the others: far below the time that a replica may take to answer (2 s).
QUORUM_MAX_SECONDS = 1.5


def ask(node, method, key, value=None, quorum="ack=2&from=3", timeout=6):
    """Status and body; `None` if the node does not answer."""
    door = http.client.HTTPConnection(node.address, HTTP, timeout=timeout)
    try:
        door.request(method, f"/v0/entity?id={key}&{quorum}", body=value, headers={"Host": f"127.0.0.1:{HTTP}"})
        answer = door.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException, socket.timeout):
        return None
    finally:
        door.close()


class Writer(threading.Thread):
    """The only writer of its keys: it knows what may stand under them."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.cluster, self.number = cluster, number
        self.dice = random.Random(number)
        # Of each key what may be read: what was acknowledged last, and what was tried since.
        self.may_be = {f"w{number}k{key}": [None] for key in range(KEYS_EACH)}
        self.ended = threading.Event()
        self.wrong = []
        self.acknowledged = self.refused = self.reads = 0
        self.slowest = 0.0
        # Where the time is told: while a node stands still.
        self.is_timed = False

    def node(self):
        there = [node for node in self.cluster.nodes if node.is_running() and not node.is_paused]
        # One and the same as long as it is there.
        return there[self.number % len(there)] if there else None

    def run(self):
        count = 0
        while not self.ended.is_set():
            node = self.node()
            if node is None:
                continue
            count += 1
            key = self.dice.choice(list(self.may_be))
            begun, was_timed = time.monotonic(), self.is_timed
            good = self.read(node, key) if self.dice.random() < 0.4 else self.write(node, key, f"{self.number}-{count}")
            if good and was_timed and self.is_timed:
                self.slowest = max(self.slowest, time.monotonic() - begun)

    def write(self, node, key, value):
        method, value = ("DELETE", None) if self.dice.random() < 0.2 else ("PUT", value)
        self.may_be[key].append(value)
        answer = ask(node, method, key, value)
        if answer and answer[0] in (201, 202):
            self.may_be[key] = [value]
            self.acknowledged += 1
            return True
        if answer and answer[0] != 504:
            self.wrong.append(f"{method} {key}: {answer}")
        self.refused += 1
        return False

    def read(self, node, key):
        answer = ask(node, "GET", key)
        if not answer or answer[0] == 504:
            self.refused += 1
            return False
        self.reads += 1
        found = answer[1] if answer[0] == 200 else None
        if answer[0] not in (200, 404) or found not in self.may_be[key]:
            self.wrong.append(f"GET {key} through n{node.number}: {answer}, expected one of {self.may_be[key]}")
        return True


def spend(seconds):
    deadline = time.monotonic() + seconds
    until("time", seconds + 5, lambda: time.monotonic() >= deadline)


def reachable(cluster):
    """Waits until every node has a session with all others."""
    def all_meet():
        told = [cluster.status(node) for node in cluster.nodes]
        return all(status and all(node["reachable"] for node in status["nodes"]) for status in told)
    until("all nodes meet", 60, all_meet, every=0.2)


def begin(cluster):
    """Clients in the background, until `conclude`."""
    writers = [Writer(cluster, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers


def conclude(cluster, writers):
    """Ends the load: no answer was wrong, nothing acknowledged is lost, and replicas become equal."""
    for writer in writers:
        writer.ended.set()
    for writer in writers:
        writer.join(timeout=20)
    wrong = [text for writer in writers for text in writer.wrong]
    for writer in writers:
        for key, may_be in writer.may_be.items():
            answer = until(f"{key} is read", 30, lambda: next(filter(lambda got: got and got[0] != 504, [ask(cluster.nodes[-1], "GET", key, quorum="ack=3&from=3")]), None))
            if (answer[1] if answer[0] == 200 else None) not in may_be:
                wrong.append(f"at the end {key} is {answer}, expected one of {may_be}")
    total = [sum(getattr(writer, name) for writer in writers) for name in ("acknowledged", "reads", "refused")]
    print(f"  {total[0]} writes acknowledged, {total[1]} reads, {total[2]} refused or without an answer")
    if wrong:
        raise AssertionError(f"{len(wrong)} answers are wrong: " + "; ".join(wrong[:5]))
    if min(total[:2]) < 100:
        raise AssertionError(f"hardly anything was answered: {total}")

    def equal():
        said = subprocess.run([cluster.program, "cluster", "verify", "--http", f"{cluster.nodes[0].address}:{HTTP}"], capture_output=True, text=True)
        print("  " + (said.stdout + said.stderr).strip().replace("\n", "\n  "))
        return said.returncode == 0 and " 0 unknown" in said.stdout
    until("all replicas are equal", 120, equal, every=2)


def rebuilt(cluster):
    """Waits until every replica has all that it should."""
    def lacking(node):
        door = http.client.HTTPConnection(node.address, HTTP, timeout=4)
        try:
            door.request("GET", "/metrics", headers={"Host": f"127.0.0.1:{HTTP}"})
            lines = door.getresponse().read().decode().splitlines()
            return next(int(float(line.split()[-1])) for line in lines if line.startswith("kvorum_available_namespaces_rebuilding"))
        except (OSError, http.client.HTTPException, socket.timeout, StopIteration):
            return None
        finally:
            door.close()
    until("replicas have all that they should", 120, lambda: all(lacking(node) == 0 for node in cluster.nodes), every=0.3)


def entities(cluster):
    """Entities, 2 of 3: a node stands still, is killed, is cut off, loses its disk; all lose power. Nothing acknowledged is lost, replicas become equal."""
    cluster.start()
    writers = begin(cluster)
    spend(2)
    cluster.node(3).pause()
    spend(0.5)
    for writer in writers:
        writer.is_timed = True
    spend(4)
    for writer in writers:
        writer.is_timed = False
    cluster.node(3).go_on()
    slowest = max(writer.slowest for writer in writers)
    print(f"  while n3 stood still the slowest of its peers' requests took {slowest * 1000:.0f} ms")
    cluster.node(1).kill()
    spend(3)
    cluster.node(1).start()
    reachable(cluster)
    print("  n2 is cut off")
    cluster.net.part([2], [1, 3])
    spend(4)
    cluster.net.heal()
    reachable(cluster)
    print("  all lose power")
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start()
    cluster.wait_whole()
    spend(2)
    print("  n3 loses its disk")
    cluster.node(3).kill()
    cluster.node(3).wipe()
    cluster.node(3).start(join=1)
    cluster.wait_whole(seconds=90)
    spend(3)
    conclude(cluster, writers)
    if slowest > QUORUM_MAX_SECONDS:
        raise AssertionError(f"a node that stood still slowed a request down to {slowest:.1f} s")


def growth(cluster):
    """Entities, 2 of 3, while nodes come: a fourth joins while one stands still that knows nothing of it, and serves at once; another one loses its disk and is replaced. Nothing acknowledged is lost, replicas become equal."""
    cluster.start()
    writers = begin(cluster)
    spend(3)
    print("  n3 stands still, n4 joins")
    cluster.node(3).pause()
    spend(1)
    cluster.add().start(join=1)
    joined = time.monotonic()

    def serves():
        answers = [ask(cluster.node(4), "GET", key) for writer in writers for key in list(writer.may_be)]
        return all(answer and answer[0] in (200, 404) for answer in answers)
    until("every key is read through n4, n3 being away", 60, serves, every=0.2)
    print(f"  {time.monotonic() - joined:.1f} s later every key is read through n4, while n3 stands still")
    spend(4)
    cluster.node(3).go_on()
    reachable(cluster)
    cluster.wait_whole(seconds=90)
    rebuilt(cluster)
    spend(2)
    print("  n2 loses its disk, and is replaced")
    cluster.node(2).kill()
    cluster.node(2).wipe()
    cluster.node(2).start(join=1)
    reachable(cluster)
    cluster.wait_whole(seconds=90)
    rebuilt(cluster)
    spend(2)
    print("  kill -9 of n1 and n4, one after the other")
    for number, others in [(1, 2), (4, 1)]:
        cluster.node(number).kill()
        spend(2)
        cluster.node(number).start(join=others)
        reachable(cluster)
    cluster.wait_whole(seconds=90)
    rebuilt(cluster)
    conclude(cluster, writers)
