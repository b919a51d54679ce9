"""Nodes in network namespaces on one bridge, and what can be done to them."""

import asyncio
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

RESP, HTTP, PEER = 6379, 8379, 7379
# Frames to this address reach nobody: a neighbour that "is" there cannot be heard, while it hears us. No kernel module is needed for it.
NOWHERE = "02:00:00:00:00:01"


def run(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def until(what, seconds, condition, every=0.05):
    """Waits for a condition; answers what it answered."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(every)


class Net:
    """A bridge with one network namespace for each node."""

    # Names are used once: the kernel takes a deleted namespace apart, and what is in it, at some later moment.
    COUNT = itertools.count()

    def __init__(self, nodes):
        self.tag = f"kv{os.getpid() % 10000}{chr(ord('a') + next(Net.COUNT) % 26)}"
        self.subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}"
        self.bridge = f"{self.tag}br"
        self.numbers = range(1, nodes + 1)
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.subnet}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for number in self.numbers:
            space, link = self.space(number), f"{self.tag}v{number}"
            run("ip", "netns", "add", space)
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "link", "set", link, "master", self.bridge, "up")
            run("ip", "-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")

    def space(self, number):
        return f"{self.tag}n{number}"

    def address(self, number):
        return f"{self.subnet}.{number}"

    def cut(self, sender, receiver):
        """What `sender` sends reaches `receiver` no more; the other way stays open."""
        run("ip", "-n", self.space(sender), "neigh", "replace", self.address(receiver), "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0")

    def part(self, left, right):
        """Two sides that do not hear each other. Clients hear both."""
        for a in left:
            for b in right:
                self.cut(a, b)
                self.cut(b, a)

    def heal(self):
        for a in self.numbers:
            for b in self.numbers:
                if a != b:
                    run("ip", "-n", self.space(a), "neigh", "del", self.address(b), "dev", "eth0", check=False)

    def close(self):
        run("ip", "link", "del", self.bridge, check=False)
        for number in self.numbers:
            run("ip", "link", "del", f"{self.tag}v{number}", check=False)
            run("ip", "netns", "del", self.space(number), check=False)


class Links:
    """Relays on the bridge, one before each node's peer port: whatever nodes say to each other goes through them, as slowly as is wished."""

    def __init__(self, net):
        self.net = net
        # Seconds that what goes to a node, and what comes back, is under way.
        self.delays = {number: 0.0 for number in net.numbers}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        for number in net.numbers:
            begun = asyncio.run_coroutine_threadsafe(self.listen(number), self.loop)
            begun.result(timeout=10)

    def address(self, number):
        return f"{self.net.subnet}.254:{PEER + number}"

    async def listen(self, number):
        async def accepted(reader, writer):
            try:
                there, back = await asyncio.open_connection(self.net.address(number), PEER)
            except OSError:
                writer.close()
                return
            await asyncio.gather(self.carry(number, reader, back), self.carry(number, there, writer))

        host, port = self.address(number).split(":")
        await asyncio.start_server(accepted, host, int(port))

    async def carry(self, number, reader, writer):
        """Carries bytes one way, each part at its time and in order; bounded by what may be under way at once."""
        under_way = asyncio.Queue(maxsize=256)

        async def deliver():
            while (part := await under_way.get()) is not None:
                due, data = part
                await asyncio.sleep(max(0.0, due - self.loop.time()))
                writer.write(data)
                await writer.drain()

        delivers = asyncio.ensure_future(deliver())
        try:
            while data := await reader.read(1 << 16):
                await under_way.put((self.loop.time() + self.delays[number], data))
            await under_way.put(None)
            await delivers
        except OSError:
            delivers.cancel()
        writer.close()

    def slow(self, number, seconds):
        self.delays[number] = seconds

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class Node:
    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.data = os.path.join(cluster.dir, f"n{number}")
        self.log = os.path.join(cluster.dir, f"n{number}.log")
        self.process = None
        self.mounted = False
        self.is_paused = False

    @property
    def address(self):
        return self.cluster.net.address(self.number)

    @property
    def resp(self):
        return f"{self.address}:{RESP}"

    def start(self, join=None, alone=False):
        """Starts the node and waits for its last start line. `alone`: others may join it."""
        how = [] if alone else ["--join", self.cluster.peer(join)] if join else ["--peers", self.cluster.peers()]
        words = ["ip", "netns", "exec", self.cluster.net.space(self.number), self.cluster.program, "serve",
                 "--name", f"n{self.number}", "--data", self.data, "--memory", "64MiB", "--protected-mode", "no",
                 "--peer", f"{self.address}:{PEER}", "--resp", self.resp, "--http", f"{self.address}:{HTTP}",
                 "--cluster-secret-file", self.cluster.secret, "--log", "warn", *how]
        out = open(self.log, "ab")
        begun = out.tell()
        self.process = subprocess.Popen(words, stdout=out, stderr=out)

        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"n{self.number} ended: {self.tail()}")
            with open(self.log, "rb") as log:
                log.seek(begun)
                return b"\nstop with" in log.read()

        until(f"n{self.number} is ready", 60, ready)

    def tail(self):
        with open(self.log, "rb") as log:
            return log.read()[-3000:].decode(errors="replace")

    def send(self, number):
        # `ip netns exec` becomes the program: the process is the node itself.
        os.kill(self.process.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait()

    def pause(self):
        self.is_paused = True
        self.send(signal.SIGSTOP)

    def go_on(self):
        self.send(signal.SIGCONT)
        self.is_paused = False

    def stop(self):
        """An orderly end."""
        self.send(signal.SIGTERM)
        self.process.wait(timeout=60)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def wipe(self):
        shutil.rmtree(self.data)

    def mount(self, megabytes):
        """Puts the node's data on a small device of its own."""
        os.makedirs(self.data, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", self.data)
        self.mounted = True

    def unmount(self):
        if self.mounted:
            run("umount", self.data, check=False)
            self.mounted = False

    def call(self, *words, timeout=2.0):
        """One request over RESP; the reply's first line and body as text, `None` without a connection."""
        try:
            with socket.create_connection((self.address, RESP), timeout=timeout) as stream:
                stream.settimeout(timeout)
                parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
                stream.sendall((f"*{len(words)}\r\n" + "".join(parts)).encode())
                answer = stream.makefile("rb")
                line = answer.readline().decode().rstrip()
                if line.startswith("$") and line != "$-1":
                    return answer.read(int(line[1:])).decode()
                return line or None
        except OSError:
            return None


class Cluster:
    """Some nodes that form one cluster, in a folder of their own; more may be added later."""

    def __init__(self, binaries, nodes, later=0):
        self.program = os.path.join(binaries, "kvorum")
        self.sim = os.path.join(binaries, "kvorum-sim")
        self.dir = tempfile.mkdtemp(prefix="kvorum-faults-")
        self.secret = os.path.join(self.dir, "secret")
        with open(self.secret, "w") as secret:
            secret.write(os.urandom(24).hex())
        os.chmod(self.secret, 0o600)
        self.net = Net(nodes + later)
        self.founders = range(1, nodes + 1)
        self.nodes = [Node(self, number) for number in self.founders]
        self.links = None

    def node(self, number):
        return self.nodes[number - 1]

    def relay(self):
        """From the first start on, nodes reach each other through relays."""
        self.links = Links(self.net)

    def peer(self, number):
        return self.links.address(number) if self.links else f"{self.net.address(number)}:{PEER}"

    def peers(self):
        return ",".join(f"n{number}={self.peer(number)}" for number in self.founders)

    def add(self):
        """One more node, which is not started yet."""
        self.nodes.append(Node(self, len(self.nodes) + 1))
        return self.nodes[-1]

    def start(self):
        for node in self.nodes:
            node.start()
        self.wait_whole()

    def status(self, ask=None):
        """The cluster as a running node sees it; `None` if none answers."""
        for node in ([ask] if ask else self.nodes):
            if not node.is_running() or node.is_paused:
                continue
            try:
                door = http.client.HTTPConnection(node.address, HTTP, timeout=2)
                # Without a password a node answers only those who mean it.
                door.request("GET", "/v1/cluster", headers={"Host": f"127.0.0.1:{HTTP}"})
                answer = door.getresponse()
                if answer.status == 200:
                    return json.loads(answer.read())
            except OSError:
                pass
        return None

    def wait_whole(self, seconds=60, members=None):
        """Waits until every shard is led and has all its members, none behind as a learner. A store that left is listed by its id: it is no member."""
        wanted = min(3, len(self.nodes)) if members is None else members

        def whole():
            status = self.status()
            shards = status and status["shards"]
            names = {node["name"] for node in status["nodes"]} if status else set()
            return shards and all(node["reachable"] for node in status["nodes"]) and all(
                shard["leader"] is not None and shard["led"] and len(shard["members"]) == wanted and names.issuperset(shard["members"])
                and not shard["learners"]
                for shard in shards) and status

        return until(f"every shard has a leader and {wanted} members", seconds, whole, every=0.2)

    def leaders(self):
        """For each node how many shards it leads."""
        counts = {node.number: 0 for node in self.nodes}
        for shard in self.status()["shards"]:
            # One that left is listed by its store's id.
            if shard["leader"] and shard["leader"].startswith("n"):
                counts[int(shard["leader"][1:])] += 1
        return counts

    def busiest(self):
        """The node that leads most shards."""
        counts = self.leaders()
        return self.node(max(counts, key=lambda number: counts[number]))

    def torture(self, seconds, *flags, nodes=None):
        """Clients in the background, of these nodes; `judge` waits for what they say."""
        nodes = ",".join(node.resp for node in nodes or self.nodes)
        name = f"t{time.monotonic_ns()}"
        return subprocess.Popen([self.sim, "torture", "--nodes", nodes, "--seconds", str(seconds), "--run", name, *flags],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def close(self, keep):
        for node in self.nodes:
            if node.is_running():
                node.send(signal.SIGCONT)
                node.kill()
            node.unmount()
        if self.links:
            self.links.close()
        self.net.close()
        if keep:
            print(f"  logs and data are kept in {self.dir}")
        else:
            shutil.rmtree(self.dir)
