import assert from "node:assert/strict";
import { test } from "node:test";

import { BROKER, PROTOCOLS, serve, Sidecar } from "./sidecar.js";

for (const protocol of PROTOCOLS) {
  test(`publish and subscribe over ${protocol}`, async (t) => {
    const { sidecar, events } = await serve(t, protocol);
    const { pubsub } = sidecar.client(t, protocol);

    assert.deepEqual(await pubsub.publish(BROKER, "orders", { n: 1 }), {});
    assert.deepEqual(await events.next(), { topic: "orders", data: { n: 1 } });
    assert.deepEqual(await pubsub.publish(BROKER, "orders", "plain"), {});
    assert.deepEqual(await events.next(), { topic: "orders", data: "plain" });

    await pubsub.publish(BROKER, "refused", { n: 2 });
    assert.deepEqual(await events.next(), { topic: "dead", data: { n: 2 } });

    const done = await pubsub.publishBulk(BROKER, "orders", ["a", "b", "c"]);
    assert.deepEqual(done.failedMessages, []);
    const got = [await events.next(), await events.next(), await events.next()];
    assert.deepEqual(got.map((event) => event.data).sort(), ["a", "b", "c"]);
  });

  test(`errors of publishing over ${protocol}`, async (t) => {
    const { pubsub } = (await Sidecar.ready(t)).client(t, protocol);
    // It is returned over HTTP, and thrown over gRPC.
    const { error } = await pubsub.publish("nowhere", "orders", "x").catch((thrown) => thrown);
    const wanted = { http: /ERR_PUBSUB_NOT_FOUND/, grpc: /\[invalid_argument\] pubsub nowhere is not found/ };
    assert.match(error.message, wanted[protocol]);
    const done = await pubsub.publishBulk("nowhere", "orders", ["x", "y"]);
    assert.equal(done.failedMessages.length, 2);
  });
}
