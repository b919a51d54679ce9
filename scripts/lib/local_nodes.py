"""Nodes on free ports of this machine, and load on them by `kvorum bench`: what scripts that measure are made of."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from cluster_net import until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def program():
    """The binary that KVORUM names, or the release build, which is made if it is missing."""
    said = os.environ.get("KVORUM")
    built = said or os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "kvorum")
    if not os.access(built, os.X_OK):
        if said:
            sys.exit(f"KVORUM={said} is no program")
        if not shutil.which("cargo"):
            sys.exit(f"{built} is missing, and so is cargo, to build it: name a binary with KVORUM=path")
        subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "kvorum"], cwd=ROOT, check=True)
    return built


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [door.getsockname()[1] for door in held]
    for door in held:
        door.close()
    return ports


class Node:
    """A node; its ports and data stay when it is killed and started again."""

    def __init__(self, machine, name, *flags):
        self.name, self.program, self.flags = name, machine.program, flags
        self.data, self.log = os.path.join(machine.dir, name), os.path.join(machine.dir, f"{name}.log")
        ports = free_ports(3)
        self.resp, self.http, self.peer = (f"127.0.0.1:{port}" for port in ports)
        self.http_port = ports[1]
        self.process = None

    def begin(self, *flags):
        """Starts the process. `ready` waits for it."""
        out = open(self.log, "ab")
        self.begun = out.tell()
        words = [self.program, "serve", "--name", self.name, "--data", self.data, "--resp", self.resp, "--http", self.http, "--peer", self.peer, "--log", "warn"]
        self.process = subprocess.Popen([*words, *self.flags, *flags], stdout=out, stderr=out)

    def is_ready(self):
        with open(self.log, "rb") as log:
            log.seek(self.begun)
            said = log.read()
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended: {said[-2000:].decode(errors='replace')}")
        return b"\nstop with" in said

    def start(self, *flags):
        self.begin(*flags)
        until(f"{self.name} is ready", 60, self.is_ready, every=0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def status(self):
        """What `kvorum cluster status` is told; `None` while it does not answer."""
        door = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            door.request("GET", "/v1/cluster")
            answer = door.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except OSError:
            return None
        finally:
            door.close()

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Machine:
    """A folder and the nodes in it; killed and removed at the end."""

    def __init__(self):
        self.program = program()
        self.dir = tempfile.mkdtemp(prefix="kvorum-")
        self.nodes, self.loads = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.process.kill()
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()
        shutil.rmtree(self.dir)

    def node(self, name, *flags):
        self.nodes.append(Node(self, name, *flags))
        return self.nodes[-1]

    def three(self, *flags):
        """Three nodes that begin a cluster, all shards led and on all of them."""
        nodes = [self.node(f"n{number}", *flags) for number in (1, 2, 3)]
        peers = ",".join(f"{node.name}={node.peer}" for node in nodes)
        for node in nodes:
            node.flags = (*node.flags, "--peers", peers)
            node.begin()
        for node in nodes:
            until(f"{node.name} is ready", 60, node.is_ready)
        wait_whole(nodes)
        return nodes

    def load(self, nodes, *flags):
        self.loads.append(Load(self.program, nodes, *flags))
        return self.loads[-1]

    def disk_mb_per_second(self, mb=256):
        """How fast the disk takes one file, in pieces of 1 MB and to its end."""
        piece = os.urandom(1_000_000)
        path = os.path.join(self.dir, "pace")
        with open(path, "wb", buffering=0) as file:
            begun = time.monotonic()
            for _ in range(mb):
                file.write(piece)
            os.fdatasync(file.fileno())
            took = time.monotonic() - begun
        os.remove(path)
        return mb / took


def shards_of(node):
    """Its shards by name; empty while it does not answer."""
    status = node.status()
    return {(shard["namespace"], shard["place"]): shard for shard in status["shards"]} if status else {}


def wait_whole(nodes, seconds=120):
    """Until every shard is led, all of these nodes keep it, and each of them knows."""
    def whole():
        told = [shards_of(node) for node in nodes]
        return all(shards and all(shard["led"] and len(shard["members"]) == len(nodes) and not shard["learners"] for shard in shards.values()) for shards in told)
    until("every shard is led and has all members", seconds, whole)


class Load:
    """`kvorum bench` on some nodes, until its end or until it is ended."""

    def __init__(self, program, nodes, *flags):
        words = [program, "bench", "--nodes", ",".join(node.resp for node in nodes), *map(str, flags)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        # Said before the first operation.
        self.process.stdout.readline()

    def end(self):
        """Ends it; what came of it."""
        self.process.send_signal(signal.SIGINT)
        return self.result()

    def result(self):
        """Waits for its end: of all operations the rate, and `p50`, `p99` and `max` in ms; `remarks`: errors, if there were any."""
        said = self.process.stdout.read()
        found = re.search(r"^all +(\d+) +(\d+) +([\d.]+) +[\d.]+ +([\d.]+) +[\d.]+ +([\d.]+)$", said, re.MULTILINE)
        if self.process.wait() != 0 or not found:
            sys.exit(f"the load ended: {said}")
        numbers = dict(zip(["operations", "rate", "p50", "p99", "max"], map(float, found.groups())))
        return numbers | {"remarks": "; ".join(line for line in said.splitlines() if line.endswith("connections broke") or " errors: " in line)}
