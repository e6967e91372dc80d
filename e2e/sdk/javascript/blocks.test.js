import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { until } from "./ports.js";
import { Redis, folderOf } from "./servers.js";
import { PROTOCOLS, Sidecar, TICK, component, serve } from "./sidecar.js";

for (const protocol of PROTOCOLS) {
  test(`output bindings over ${protocol}`, async (t) => {
    const folder = folderOf(t);
    const parts = [component("files", "bindings.localstorage", [{ name: "rootPath", value: folder }])];
    const { binding } = (await Sidecar.ready(t, { parts })).client(t, protocol);
    const name = { fileName: "a.txt" };
    await binding.send("files", "create", "hello", name);
    assert.match(readFileSync(join(folder, "a.txt"), "utf8"), /hello/);
    const got = await binding.send("files", "get", "", name);
    assert.match(protocol === "http" ? String(got) : Buffer.from(got.data).toString(), /hello/);
    await binding.send("files", "delete", "", name);
    assert.equal(existsSync(join(folder, "a.txt")), false);
    const refused = { http: /"status":500/, grpc: /\[internal\]/ }[protocol];
    await assert.rejects(binding.send("files", "paint", "", name), refused);
    await assert.rejects(binding.send("nowhere", "get", ""), refused);
  });

  test(`input bindings over ${protocol}`, async (t) => {
    const cron = component(TICK, "bindings.cron", [{ name: "schedule", value: "@every 100ms" }]);
    const { events } = await serve(t, protocol, [cron]);
    assert.equal((await events.next()).topic, TICK);
    assert.equal((await events.next()).topic, TICK);
  });

  test(`locks over ${protocol}`, async (t) => {
    const redis = await Redis.start(t);
    const parts = [component("locks", "lock.redis", [redis.host])];
    const { lock } = (await Sidecar.ready(t, { parts })).client(t, protocol);
    const take = async (owner, seconds = 60) => (await lock.lock("locks", "door", owner, seconds)).success;
    const give = async (owner) => (await lock.unlock("locks", "door", owner)).status;
    const [given, absent, others] = [0, 1, 2];
    assert.equal(await take("ada"), true);
    assert.equal(await take("bob"), false);
    assert.equal(await give("bob"), others);
    assert.equal(await give("ada"), given);
    assert.equal(await give("ada"), absent);
    assert.equal(await take("ada", 1), true);
    await until("the lock expires", () => take("bob"));
    const nowhere = { http: /ERR_LOCK_STORE_NOT_CONFIGURED|ERR_LOCK_STORE_NOT_FOUND/, grpc: /\[invalid_argument\]/ };
    await assert.rejects(lock.lock("nowhere", "door", "ada", 60), nowhere[protocol]);
  });
}

// The SDK has these over gRPC alone.

test("configuration", async (t) => {
  const redis = await Redis.start(t);
  const parts = [component("settings", "configuration.redis", [redis.host])];
  const { configuration } = (await Sidecar.ready(t, { parts })).client(t, "grpc");
  await redis.set("colour", "green||7");
  await redis.set("size", "large");
  const { items } = await configuration.get("settings", ["colour", "size", "absent"]);
  assert.deepEqual(Object.keys(items).sort(), ["colour", "size"]);
  assert.deepEqual([items.colour.value, items.colour.version], ["green", "7"]);

  const changes = [];
  const stream = await configuration.subscribeWithKeys("settings", ["colour"], async (change) => {
    changes.push(change.items);
  });
  await redis.set("size", "small");
  // The subscription may come later than this returns.
  let version = 8;
  const changed = async () => {
    version += 1;
    await redis.set("colour", `red||${version}`);
    return changes.find((change) => change.colour?.value === "red");
  };
  assert.ok(Number((await until("the colour changes", changed)).colour.version) >= 9);
  assert.deepEqual(new Set(changes.flatMap(Object.keys)), new Set(["colour"]));
  stream.stop();
  await assert.rejects(configuration.get("nowhere", ["colour"]), /\[invalid_argument\]/);
});

test("cryptography", async (t) => {
  const folder = folderOf(t);
  for (const name of ["one.json", "two.json"]) {
    const k = randomBytes(32).toString("base64url");
    writeFileSync(join(folder, name), JSON.stringify({ kty: "oct", k }));
  }
  const parts = [component("vault", "crypto.dapr.localstorage", [{ name: "path", value: folder }])];
  const { crypto } = (await Sidecar.ready(t, { parts })).client(t, "grpc");
  const how = { componentName: "vault", keyName: "one.json", keyWrapAlgorithm: "A256KW" };
  const open = { componentName: "vault" };
  for (const length of [1, 64 << 10, 300_000]) {
    const plain = randomBytes(length);
    const secret = await crypto.encrypt(plain, how);
    assert.equal(length > 1 && secret.includes(plain.subarray(0, 16)), false);
    assert.ok((await crypto.decrypt(secret, open)).equals(plain));
    await assert.rejects(crypto.decrypt(secret, { ...open, keyName: "two.json" }));
    secret[secret.length - 1] ^= 1;
    await assert.rejects(crypto.decrypt(secret, open));
  }
  await assert.rejects(crypto.encrypt(Buffer.from("x"), { ...how, keyName: "absent.json" }));
});
