import assert from "node:assert/strict";
import { test } from "node:test";

import dapr from "@dapr/dapr";

import { unique } from "./ports.js";
import { PROTOCOLS, Sidecar, serve } from "./sidecar.js";

const { HttpMethod } = dapr;

test("invoke over HTTP", async (t) => {
  const callee = await serve(t, "http");
  const caller = await Sidecar.ready(t, { names: callee.sidecar.names });
  const client = caller.client(t, "http");
  const id = callee.sidecar.id;
  const answer = await client.invoker.invoke(id, "echo?a=1", HttpMethod.POST, { hello: 1 });
  assert.deepEqual(answer, { body: '{"hello":1}', query: "/echo?a=1" });

  const refused = async (id, method, status) => {
    const error = await client.invoker.invoke(id, method, HttpMethod.POST, {}).then(assert.fail, (e) => e);
    const details = JSON.parse(error.message);
    assert.equal(details.status, status);
    return details.error_msg;
  };
  await refused(id, "no-such-method", 404);
  const text = await refused(unique("nobody"), "echo", 500);
  assert.equal(JSON.parse(text).errorCode, "ERR_DIRECT_INVOKE");
});

for (const protocol of PROTOCOLS) {
  test(`invoke over gRPC, an application that speaks ${protocol}`, async (t) => {
    const { sidecar } = await serve(t, protocol);
    const client = sidecar.client(t, "grpc");
    const answer = await client.invoker.invoke(sidecar.id, "echo", HttpMethod.POST, { hello: 1 });
    assert.deepEqual(JSON.parse(answer.body), { hello: 1 });
    const nobody = client.invoker.invoke(unique("nobody"), "echo", HttpMethod.POST, {});
    await assert.rejects(nobody, /\[internal\]/);
  });
}
