import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import dapr from "@dapr/dapr";

import { freePort, unique, until } from "./ports.js";
import { placement, run, scheduler } from "./servers.js";
import { Sidecar } from "./sidecar.js";

const { ActorId, ActorProxyBuilder } = dapr;
const program = fileURLToPath(new URL("counter.js", import.meta.url));

// The builder takes the name of the type from a class.
class javascript {}

// An application that hosts counters, with its sidecar.
async function counters(t) {
  const port = await freePort();
  const flags = [`--app-port=${port}`, await placement(t), await scheduler(t)];
  const sidecar = await Sidecar.start(t, { flags });
  run(t, process.execPath, [program], {
    APP_PORT: String(port),
    DAPR_HTTP_PORT: String(sidecar.ports.http),
    DAPR_HTTP_ENDPOINT: "",
    DAPR_GRPC_ENDPOINT: "",
  });
  await sidecar.healthy();
  return sidecar;
}

function proxies(t, sidecar, protocol) {
  const builder = new ActorProxyBuilder(javascript, sidecar.client(t, protocol));
  return (name) => builder.build(new ActorId(unique(name)));
}

async function hosted(proxy) {
  await until("the type is hosted", async () => {
    try {
      return (await proxy("first").Add({ n: 1 })) === 1;
    } catch {
      return false;
    }
  });
}

test("actors", { timeout: 120_000 }, async (t) => {
  const sidecar = await counters(t);
  const proxy = proxies(t, sidecar, "http");
  await hosted(proxy);

  await t.test("calls", async () => {
    const a = proxy("a");
    const other = { type: "javascript", id: unique("b"), n: 5 };
    assert.equal(await a.Add({ n: 1 }), 1);
    assert.equal(await a.Add({ n: 2 }), 3);
    assert.equal(await a.Ask(other), 5);
    assert.equal(await a.Ask(other), 10);
    // Calls of one actor take turns, so that none is lost.
    const totals = await Promise.all(Array.from({ length: 20 }, () => a.Add({ n: 1 })));
    assert.deepEqual(
      totals.sort((x, y) => x - y),
      Array.from({ length: 20 }, (_, n) => n + 4),
    );
    await assert.rejects(a.Fail(), /error from actor service/);
    await assert.rejects(a.NoSuchMethod());
  });

  await t.test("calls over gRPC", async (t) => {
    const a = proxies(t, sidecar, "grpc")("a");
    assert.equal(await a.Add({ n: 1 }), 1);
    assert.equal(await a.Add({ n: 2 }), 3);
    assert.deepEqual(await a.Fired(), {});
    await assert.rejects(a.Fail());
  });

  for (const kind of ["timer", "reminder"]) {
    await t.test(`${kind}s`, async () => {
      const actor = proxy(kind);
      const fired = async (name) => (await actor.Fired())[`${kind}:${name}`] ?? 0;
      await actor.Watch({ kind, name: "a" });
      await until("a fires", async () => (await fired("a")) >= 2);
      await actor.Unwatch({ kind, name: "a" });
      const stopped = await fired("a");
      await actor.Watch({ kind, name: "b" });
      await until("b fires", async () => (await fired("b")) >= 4);
      // One may have been on its way.
      assert.ok((await fired("a")) <= stopped + 1);
      await actor.Unwatch({ kind, name: "b" });
    });
  }
});
