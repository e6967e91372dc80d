import assert from "node:assert/strict";
import { test } from "node:test";

import { TIMEOUT } from "./ports.js";
import { PROTOCOLS, SECRETS, STORE, Sidecar } from "./sidecar.js";

for (const protocol of PROTOCOLS) {
  test(`secrets over ${protocol}`, async (t) => {
    const { secret } = (await Sidecar.ready(t)).client(t, protocol);
    assert.deepEqual(await secret.get(SECRETS, "password"), { password: "s3cret" });
    const all = await secret.getBulk(SECRETS);
    assert.deepEqual(all.password, { password: "s3cret" });
    assert.deepEqual(all["user:name"], { "user:name": "ada" });
    await assert.rejects(secret.get(SECRETS, "absent"), { http: /"status":500/, grpc: /\[internal\]/ }[protocol]);
    const nowhere = { http: /ERR_SECRET_STORE_NOT_FOUND/, grpc: /\[invalid_argument\]/ };
    await assert.rejects(secret.get("nowhere", "k"), nowhere[protocol]);
  });

  test(`metadata over ${protocol}`, async (t) => {
    const sidecar = await Sidecar.ready(t);
    const { metadata } = sidecar.client(t, protocol);
    assert.equal(await metadata.set("colour", "green"), true);
    const got = await metadata.get();
    assert.equal(got.id, sidecar.id);
    assert.equal(got.extended.colour, "green");
    const store = got.components.find((component) => component.name === STORE);
    assert.equal(store.type, "state.in-memory");
  });

  test(`waiting for a sidecar and ending it over ${protocol}`, { timeout: 2 * TIMEOUT }, async (t) => {
    const sidecar = await Sidecar.start(t);
    const client = sidecar.client(t, protocol);
    await client.start();
    assert.equal(await client.health.isHealthy(), true);
    await client.sidecar.shutdown();
    await sidecar.ended;
  });
}
