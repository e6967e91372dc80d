// Runs a real daprd for the tests of the unmodified JavaScript SDK.
//
// OUTRIDER_DAPRD names the binary, ours or any other. Sidecars find each other
// through a database of each test; OUTRIDER_NAMES=mdns is for binaries that do
// not know this.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import dapr from "@dapr/dapr";

import { HOST, TIMEOUT, answers, freePort, unique, until } from "./ports.js";
import { binary, folderOf, run } from "./servers.js";

const { CommunicationProtocolEnum, DaprClient, DaprServer } = dapr;

export const STORE = "store";
export const BROKER = "broker";
export const SECRETS = "secrets";
// The name of an input binding that applications know.
export const TICK = "tick";
export const PROTOCOLS = ["http", "grpc"];

// The SDK says much about tests that expect errors.
export const silent = { level: "error", service: new Proxy({}, { get: () => () => {} }) };

export function component(name, type, metadata = []) {
  return JSON.stringify({
    apiVersion: "dapr.io/v1alpha1",
    kind: "Component",
    metadata: { name },
    spec: { type, version: "v1", metadata },
  });
}

export class Sidecar {
  // Starts it without waiting. It ends when the test is over. `parts` are
  // components besides those that all have.
  static async start(test, { names, flags = [], parts = [] } = {}) {
    const sidecar = new Sidecar();
    const folder = folderOf(test);
    sidecar.id = unique("app");
    sidecar.names = names ?? folder;
    sidecar.ports = { http: await freePort(), grpc: await freePort() };
    const resources = join(folder, "resources");
    mkdirSync(resources);
    const secrets = join(folder, "secrets.json");
    writeFileSync(secrets, '{"password": "s3cret", "user": {"name": "ada"}}');
    const all = [
      component(STORE, "state.in-memory", [{ name: "actorStateStore", value: "true" }]),
      component(BROKER, "pubsub.in-memory"),
      component(SECRETS, "secretstores.local.file", [{ name: "secretsFile", value: secrets }]),
      ...parts,
    ];
    writeFileSync(join(resources, "all.yaml"), all.join("\n---\n"));
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
    const { ended } = run(test, binary("OUTRIDER_DAPRD"), [
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
    sidecar.ended = ended;
    return sidecar;
  }

  // Starts it and waits until it is healthy.
  static async ready(test, how) {
    const sidecar = await Sidecar.start(test, how);
    await sidecar.healthy();
    return sidecar;
  }

  async healthy() {
    const url = `http://${HOST}:${this.ports.http}/v1.0/healthz`;
    await until(`${this.id} is healthy`, () => answers(url, 204));
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
export async function serve(test, protocol, parts = []) {
  const serverPort = await freePort();
  const flags = [`--app-port=${serverPort}`, `--app-protocol=${protocol}`];
  const sidecar = await Sidecar.start(test, { flags, parts });
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
  await server.binding.receive(TICK, async () => events.put(TICK));
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
