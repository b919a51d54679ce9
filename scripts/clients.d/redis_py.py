"""redis-py does basic work against a node: python redis_py.py PORT"""
import sys

import redis

port = int(sys.argv[1])
for protocol in (2, 3):
    r = redis.Redis(port=port, protocol=protocol, decode_responses=True)
    r.flushdb()
    assert r.set("k", "v") is True
    assert r.get("k") == "v"
    assert r.set("k", "w", nx=True) is None
    assert r.set("k", "w", xx=True, get=True) == "v"
    assert r.set("t", "v", ex=100) and 0 < r.ttl("t") <= 100
    assert r.persist("t") and r.ttl("t") == -1
    assert r.expire("t", 50) and 0 < r.pttl("t") <= 50_000
    assert r.incr("n") == 1 and r.incrby("n", 41) == 42 and r.decr("n") == 41
    assert r.mset({"a": "1", "b": "2"}) and r.mget("a", "b", "none") == ["1", "2", None]
    assert r.append("a", "x") == 2 and r.strlen("a") == 2
    assert r.exists("a", "b", "none") == 2 and r.delete("a", "b", "none") == 2
    assert r.type("k") == "string" and r.type("none") == "none"
    assert sorted(r.scan_iter(count=2)) == ["k", "n", "t"]
    assert sorted(r.keys("*")) == ["k", "n", "t"] and r.dbsize() == 3
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"p{i}", i)
            pipe.get(f"p{i}")
        assert pipe.execute()[1::2] == [str(i) for i in range(1000)]
    with r.pipeline() as pipe:
        pipe.watch("n")
        n = int(pipe.get("n"))
        pipe.multi()
        pipe.set("n", n + 1)
        assert pipe.execute() == [True]
    with r.pipeline() as pipe:
        pipe.watch("n")
        r.set("n", "0")
        pipe.multi()
        pipe.set("n", "lost")
        try:
            pipe.execute()
            raise AssertionError("a changed watched key lets no transaction through")
        except redis.WatchError:
            pass
    value, version, label = r.execute_command("GETV", "k")
    assert value == "w" and label == "stable" and isinstance(version, str) and int(version) > 0
    top = str(2**64 - 1)
    try:
        r.execute_command("SET", "k", "x", "IFVERSION", top)
        raise AssertionError("a version that was never given does not match")
    except redis.ResponseError as error:
        assert str(error) == f"CONFLICT {version}", error
    assert r.execute_command("SET", "k", "x", "IFVERSION", version)
    assert r.set("big", top) and r.get("big") == top
    assert r.client_setname("tests") and r.client_getname() == "tests" and r.client_id() > 0
    assert "kvorum_version" in r.info("server")
    assert r.config_get("maxmemory*") is not None
    assert r.time()[0] > 1_600_000_000
    binary = redis.Redis(port=port, protocol=protocol)
    blob = bytes(range(256)) * 4096
    assert binary.set(b"\x00\xff", blob) and binary.get(b"\x00\xff") == blob
print("redis-py", redis.__version__, "ok")
