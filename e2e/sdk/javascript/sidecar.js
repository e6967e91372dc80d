// Runs a real daprd for the tests of the unmodified JavaScript SDK.
//
// OUTRIDER_DAPRD names the binary, ours or any other. Sidecars find each other
// through a database of each test; OUTRIDER_NAMES=mdns is for binaries that do
// not know this.

import { spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import dapr from "@dapr/dapr";

const { CommunicationProtocolEnum, DaprClient, DaprServer } = dapr;

// Milliseconds that anything may take on a busy machine.
export const TIMEOUT = 30_000;
export const STORE = "store";
export const BROKER = "broker";
export const SECRETS = "secrets";
export const PROTOCOLS = ["http", "grpc"];

const HOST = "127.0.0.1";
// The SDK says much about tests that expect errors.
const silent = { level: "error", service: new Proxy({}, { get: () => () => {} }) };

let turns = 0;

export function unique(name) {
  turns += 1;
  return `${name}-${process.pid}-${turns}`;
}

// A free port, different in every call. All are below what the
// kernel gives to outgoing connections.
async function freePort() {
  for (;;) {
    turns += 1;
    const port = 10_000 + (((process.pid % 200) * 100 + turns) % 20_000);
    const free = await new Promise((resolve) => {
      const probe = createServer();
      probe.once("error", () => resolve(false));
      probe.listen(port, HOST, () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

// Asks again until there is a true answer.
export async function until(what, ask) {
  const deadline = Date.now() + TIMEOUT;
  while (Date.now() < deadline) {
    const answer = await ask();
    if (answer) return answer;
    await pause(20);
  }
  throw new Error(`not so after ${TIMEOUT} ms: ${what}`);
}

function component(name, type, metadata = []) {
  return JSON.stringify({
    apiVersion: "dapr.io/v1alpha1",
    kind: "Component",
    metadata: { name },
    spec: { type, version: "v1", metadata },
  });
}

export class Sidecar {
  // Starts it without waiting. It ends when the test is over.
  static async start(test, { names, flags = [] } = {}) {
    const sidecar = new Sidecar();
    const folder = mkdtempSync(join(tmpdir(), "sdk-"));
    sidecar.id = unique("app");
    sidecar.names = names ?? folder;
    sidecar.ports = { http: await freePort(), grpc: await freePort() };
    const resources = join(folder, "resources");
    mkdirSync(resources);
    const secrets = join(folder, "secrets.json");
    writeFileSync(secrets, '{"password": "s3cret", "user": {"name": "ada"}}');
    const parts = [
      component(STORE, "state.in-memory"),
      component(BROKER, "pubsub.in-memory"),
      component(SECRETS, "secretstores.local.file", [{ name: "secretsFile", value: secrets }]),
    ];
    writeFileSync(join(resources, "all.yaml"), parts.join("\n---\n"));
    const config = join(folder, "config.yaml");
    const connectionString = join(sidecar.names, "names.db");
    writeFileSync(
      config,
      JSON.stringify({
        apiVersion: "dapr.io/v1alpha1",
        kind: "Configuration",
        metadata: { name: "config" },
        spec: { nameResolution: { component: "sqlite", version: "v1", configuration: { connectionString } } },
      }),
    );
    const program = process.env.OUTRIDER_DAPRD;
    if (!program) throw new Error("set OUTRIDER_DAPRD to the path of a daprd");
    const child = spawn(program, [
      `--app-id=${sidecar.id}`,
      `--dapr-http-port=${sidecar.ports.http}`,
      `--dapr-grpc-port=${sidecar.ports.grpc}`,
      `--dapr-internal-grpc-port=${await freePort()}`,
      `--metrics-port=${await freePort()}`,
      `--resources-path=${resources}`,
      `--dapr-listen-addresses=${HOST}`,
      `--dapr-internal-grpc-listen-address=${HOST}`,
      `--metrics-listen-address=${HOST}`,
      ...(process.env.OUTRIDER_NAMES === "mdns" ? [] : [`--config=${config}`]),
      ...flags,
    ]);
    let output = "";
    child.stdout.on("data", (data) => (output += data));
    child.stderr.on("data", (data) => (output += data));
    sidecar.ended = new Promise((resolve) => child.once("exit", resolve));
    test.after(async () => {
      child.kill("SIGINT");
      const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await sidecar.ended;
      clearTimeout(late);
      if (process.env.OUTRIDER_OUTPUT) test.diagnostic(output);
      rmSync(folder, { recursive: true, force: true });
    });
    return sidecar;
  }

  // Starts it and waits until it is healthy.
  static async ready(test, how) {
    const sidecar = await Sidecar.start(test, how);
    await sidecar.healthy();
    return sidecar;
  }

  async healthy() {
    await until(`${this.id} is healthy`, async () => {
      try {
        return (await fetch(`http://${HOST}:${this.ports.http}/v1.0/healthz`)).status === 204;
      } catch {
        return false;
      }
    });
  }

  options(protocol) {
    return {
      daprHost: HOST,
      daprPort: String(this.ports[protocol]),
      communicationProtocol: CommunicationProtocolEnum[protocol.toUpperCase()],
      logger: silent,
    };
  }

  client(test, protocol) {
    const client = new DaprClient(this.options(protocol));
    test.after(() => client.stop());
    return client;
  }
}

// An application made with the SDK's own server, with its sidecar.
export async function serve(test, protocol) {
  const serverPort = await freePort();
  const flags = [`--app-port=${serverPort}`, `--app-protocol=${protocol}`];
  const sidecar = await Sidecar.start(test, { flags });
  const server = new DaprServer({
    serverHost: HOST,
    serverPort: String(serverPort),
    communicationProtocol: CommunicationProtocolEnum[protocol.toUpperCase()],
    clientOptions: sidecar.options(protocol),
    logger: silent,
  });
  test.after(() => server.stop());
  const events = new Events();
  await server.invoker.listen("echo", async (call) => ({ body: call.body, query: call.query }), {
    method: dapr.HttpMethod.POST,
  });
  await server.pubsub.subscribe(BROKER, "orders", async (data) => events.put("orders", data));
  await server.pubsub.subscribeWithOptions(BROKER, "refused", {
    callback: async () => dapr.DaprPubSubStatusEnum.DROP,
    deadLetterTopic: "dead",
  });
  await server.pubsub.subscribe(BROKER, "dead", async (data) => events.put("dead", data));
  await server.start();
  await sidecar.healthy();
  return { sidecar, events };
}

class Events {
  #kept = [];
  #waiting = [];

  put(topic, data) {
    const event = { topic, data };
    const next = this.#waiting.shift();
    if (next) next(event);
    else this.#kept.push(event);
  }

  async next() {
    if (this.#kept.length) return this.#kept.shift();
    let late;
    const event = new Promise((resolve, reject) => {
      late = setTimeout(() => reject(new Error("no event")), TIMEOUT);
      this.#waiting.push(resolve);
    });
    return event.finally(() => clearTimeout(late));
  }
}
