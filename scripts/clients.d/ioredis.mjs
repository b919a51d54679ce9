// ioredis does basic work against a node: node ioredis.mjs PORT
import assert from "node:assert/strict";
import Redis from "ioredis";

const redis = new Redis({ port: Number(process.argv[2]), host: "127.0.0.1", db: 1 });
await redis.flushdb();
assert.equal(await redis.set("k", "v"), "OK");
assert.equal(await redis.get("k"), "v");
assert.equal(await redis.set("k", "w", "PX", 100000, "NX"), null);
assert.equal(await redis.incr("n"), 1);
assert.deepEqual(await redis.mget("k", "none"), ["v", null]);
const replies = await redis.pipeline(Array.from({ length: 500 }, (_, i) => ["set", `p${i}`, String(i)])).exec();
assert.ok(replies.every(([error, reply]) => error === null && reply === "OK"));
assert.deepEqual(await redis.multi().incr("n").get("n").exec(), [[null, 2], [null, "2"]]);
const keys = [];
for await (const page of redis.scanStream({ match: "p*", count: 50 })) keys.push(...page);
assert.equal(new Set(keys).size, 500);
// Versions are strings, so that 2^64 - 1 is not rounded on its way through JavaScript.
const top = (2n ** 64n - 1n).toString();
const [value, version, label] = await redis.call("GETV", "k");
assert.equal(value, "v");
assert.equal(typeof version, "string");
assert.equal(label, "stable");
await assert.rejects(redis.call("SET", "k", "x", "IFVERSION", top), { message: `CONFLICT ${version}` });
assert.equal(await redis.call("SET", "k", top, "IFVERSION", version), "OK");
assert.equal(await redis.get("k"), top);
const binary = Buffer.from(Array.from({ length: 1024 }, (_, i) => i % 256));
await redis.set("binary", binary);
assert.ok(binary.equals(await redis.getBuffer("binary")));
await redis.quit();
console.log("ioredis ok");
