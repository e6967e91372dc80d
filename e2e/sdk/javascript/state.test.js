import assert from "node:assert/strict";
import { test } from "node:test";

import dapr from "@dapr/dapr";

import { PROTOCOLS, STORE, Sidecar } from "./sidecar.js";

const firstWrite = {
  concurrency: dapr.StateConcurrencyEnum.CONCURRENCY_FIRST_WRITE,
  consistency: dapr.StateConsistencyEnum.CONSISTENCY_STRONG,
};

// Over HTTP some methods return their error, over gRPC all throw.
async function failure(call) {
  const done = await call.then(
    (answer) => answer?.error,
    (error) => error,
  );
  assert.ok(done, "did not fail");
  return done.message;
}

for (const protocol of PROTOCOLS) {
  test(`state over ${protocol}`, async (t) => {
    const sidecar = await Sidecar.ready(t);
    const { state } = sidecar.client(t, protocol);

    await t.test("one key", async () => {
      assert.equal(await state.get(STORE, "k"), "");
      assert.deepEqual(await state.save(STORE, [{ key: "k", value: { n: 1 } }]), {});
      assert.deepEqual(await state.get(STORE, "k"), { n: 1 });
      const [{ etag }] = await state.getBulk(STORE, ["k"]);
      assert.ok(etag);
      const save = (value) => state.save(STORE, [{ key: "k", value, etag, options: firstWrite }]);
      assert.deepEqual(await save(2), {});
      const conflict = protocol === "http" ? /"status":409/ : /\[aborted\]/;
      assert.match(await failure(save(3)), conflict);
      assert.match(await failure(state.delete(STORE, "k", { etag, ...firstWrite })), conflict);
      assert.deepEqual(await state.delete(STORE, "k"), {});
      assert.equal(await state.get(STORE, "k"), "");
    });

    await t.test("many keys", async () => {
      await state.save(STORE, [
        { key: "a", value: 1 },
        { key: "b", value: 2 },
      ]);
      const rows = await state.getBulk(STORE, ["a", "b", "c"], { parallelism: 2 });
      const values = Object.fromEntries(rows.map((row) => [row.key, row.data ?? ""]));
      assert.deepEqual(values, { a: 1, b: 2, c: "" });
    });

    await t.test("transactions", async () => {
      await state.save(STORE, [{ key: "old", value: "1" }]);
      await state.transaction(STORE, [
        { operation: "upsert", request: { key: "new", value: "two" } },
        { operation: "delete", request: { key: "old" } },
      ]);
      assert.equal(await state.get(STORE, "new"), "two");
      assert.equal(await state.get(STORE, "old"), "");
      // One stale etag, and nothing happens.
      const stale = state.transaction(STORE, [
        { operation: "upsert", request: { key: "other", value: "three" } },
        { operation: "delete", request: { key: "new", etag: "12345", options: firstWrite } },
      ]);
      await failure(stale);
      assert.equal(await state.get(STORE, "new"), "two");
      assert.equal(await state.get(STORE, "other"), "");
    });

    await t.test("errors", async () => {
      const text = await failure(state.get("nowhere", "k"));
      if (protocol === "grpc") {
        assert.match(text, /\[invalid_argument\] state store nowhere is not found/);
        return;
      }
      const { status, error_msg } = JSON.parse(text);
      const body = JSON.parse(error_msg);
      assert.equal(status, 400);
      assert.equal(body.errorCode, "ERR_STATE_STORE_NOT_FOUND");
      const info = body.details.find((detail) => detail["@type"].endsWith("ErrorInfo"));
      assert.deepEqual([info.reason, info.domain], ["DAPR_STATE_NOT_FOUND", "dapr.io"]);
    });
  });
}
