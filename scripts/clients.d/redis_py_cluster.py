"""redis-py's RedisCluster does basic work through the door for cluster clients: python redis_py_cluster.py PORT [NODES]"""
import sys

from redis.cluster import RedisCluster


def everywhere(r, count):
    """Sums up what the nodes count. Leaders may move from one to another between two questions: then the sum is asked for again."""
    sums = (sum(count(node) for node in r.get_primaries()) for _ in range(100))
    return next((found for found, again in zip(sums, sums) if found == again), None)


port, nodes = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
for protocol in (2, 3):
    r = RedisCluster(host="127.0.0.1", port=port, protocol=protocol, decode_responses=True)
    assert len(r.get_primaries()) == nodes, r.get_primaries()
    assert r.flushall()
    for i in range(300):
        assert r.set(f"key:{i}", i)
    assert all(r.get(f"key:{i}") == str(i) for i in range(300))
    assert r.mset_nonatomic({"a": "1", "b": "2"}) and r.mget_nonatomic("a", "b", "none") == ["1", "2", None]
    assert r.delete("a", "b", "none") == 2
    assert r.incr("{t}n") == 1 and r.incrby("{t}n", 41) == 42
    assert r.mset({"{t}a": "1", "{t}b": "2"}) and r.mget("{t}a", "{t}b") == ["1", "2"]
    slot = r.keyslot("{t}a")
    assert r.cluster_keyslot("{t}a") == slot and r.cluster_countkeysinslot(slot) == 3
    assert sorted(r.cluster_get_keys_in_slot(slot, 10)) == ["{t}a", "{t}b", "{t}n"]
    # While a leader moves, its slots are nobody's.
    assert any(r.cluster_info()["cluster_state"] == "ok" for _ in range(1000))
    assert len(r.cluster_nodes()) == nodes
    with r.pipeline() as pipe:
        for i in range(200):
            pipe.set(f"p{i}", i)
            pipe.get(f"p{i}")
        assert pipe.execute()[1::2] == [str(i) for i in range(200)]
    assert len(list(r.scan_iter(match="key:*", count=50))) == 300
    assert everywhere(r, lambda node: len(r.keys("p*", target_nodes=node))) == 200
    assert everywhere(r, lambda node: r.dbsize(target_nodes=node)) == 503
    r.close()
print("RedisCluster ok")
