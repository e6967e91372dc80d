// Servers that sidecars need, each started for one test.
//
// OUTRIDER_PLACEMENT and OUTRIDER_SCHEDULER name the binaries.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { HOST, TIMEOUT, answers, freePort, listens, until } from "./ports.js";

// A folder that goes when the test is over.
export function folderOf(test) {
  const folder = mkdtempSync(join(tmpdir(), "sdk-"));
  test.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function binary(variable) {
  const path = process.env[variable];
  if (!path) throw new Error(`set ${variable} to the path of a binary`);
  return path;
}

// Starts a program, which ends when the test is over.
export function run(test, program, args, env = {}) {
  const child = spawn(program, args, { env: { ...process.env, ...env } });
  let output = "";
  child.stdout.on("data", (data) => (output += data));
  child.stderr.on("data", (data) => (output += data));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  test.after(async () => {
    child.kill("SIGINT");
    const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(late);
    if (process.env.OUTRIDER_OUTPUT) test.diagnostic(`${program}\n${output}`);
  });
  return { ended };
}

async function service(test, variable, flags) {
  const port = await freePort();
  const health = await freePort();
  run(test, binary(variable), [
    `--port=${port}`,
    `--healthz-port=${health}`,
    `--metrics-port=${await freePort()}`,
    `--listen-address=${HOST}`,
    `--healthz-listen-address=${HOST}`,
    `--metrics-listen-address=${HOST}`,
    ...flags,
  ]);
  await until(`${variable} is healthy`, () => answers(`http://${HOST}:${health}/healthz`, 200));
  return `${HOST}:${port}`;
}

// Starts a placement, and returns the flag with which sidecars find it.
export async function placement(test) {
  const peers = `--initial-cluster=dapr-placement-0=${HOST}:${await freePort()}`;
  return `--placement-host-address=${await service(test, "OUTRIDER_PLACEMENT", [peers])}`;
}

// Starts a scheduler, and returns the flag with which sidecars find it.
export async function scheduler(test) {
  const address = await service(test, "OUTRIDER_SCHEDULER", [
    `--etcd-data-dir=${folderOf(test)}`,
    `--etcd-client-port=${await freePort()}`,
    `--etcd-initial-cluster=dapr-scheduler-server-0=http://${HOST}:${await freePort()}`,
  ]);
  return `--scheduler-host-address=${address}`;
}

export class Redis {
  static async start(test) {
    const redis = new Redis();
    redis.port = await freePort();
    const args = ["--port", redis.port, "--bind", HOST, "--save", "", "--dir", folderOf(test)];
    run(test, "redis-server", args);
    await until("redis listens", () => listens(redis.port));
    redis.host = { name: "redisHost", value: `${HOST}:${redis.port}` };
    return redis;
  }

  async set(key, value) {
    const answer = await new Promise((resolve, reject) => {
      const connection = connect(this.port, HOST, () => connection.write(`SET ${key} ${value}\r\n`));
      connection.setTimeout(TIMEOUT, () => connection.destroy(new Error("redis does not answer")));
      connection.once("error", reject);
      connection.once("data", (data) => {
        connection.destroy();
        resolve(String(data));
      });
    });
    assert.equal(answer, "+OK\r\n");
  }
}
