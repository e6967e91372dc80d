// A program that hosts the actor type "javascript": counters with the methods
// that e2e/sdk/python/counter.py describes.

import dapr from "@dapr/dapr";
import express from "express";

const { AbstractActor, ActorId, ActorProxyBuilder, CommunicationProtocolEnum, DaprServer, Temporal } = dapr;

const HOST = "127.0.0.1";
const SOON = Temporal.Duration.from({ seconds: 0 });
const PERIOD = Temporal.Duration.from({ milliseconds: 100 });

class javascript extends AbstractActor {
  fired = {};

  async Add({ n }) {
    const [, total] = await this.getStateManager().tryGetState("total");
    const sum = Number(total ?? 0) + n;
    await this.getStateManager().setState("total", sum);
    return sum;
  }

  async Ask({ type, id, n }) {
    // The proxies of the SDK send a list of arguments, which other languages
    // do not take. The client under them sends what it is given.
    const { actorClient } = new ActorProxyBuilder({ name: type }, this.getDaprClient());
    return Number(await actorClient.actor.invoke(type, new ActorId(id), "Add", { n }));
  }

  async Watch({ kind, name }) {
    if (kind === "timer") await this.registerActorTimer(name, "ring", SOON, PERIOD, undefined, name);
    else await this.registerActorReminder(name, SOON, PERIOD, undefined, name);
    return true;
  }

  async Unwatch({ kind, name }) {
    if (kind === "timer") await this.unregisterActorTimer(name);
    else await this.unregisterActorReminder(name);
    return true;
  }

  async ring(name) {
    this.count(`timer:${name}`);
  }

  // The SDK tells the data of the reminder, not its name.
  async receiveReminder(data) {
    this.count(`reminder:${data}`);
  }

  count(alarm) {
    this.fired[alarm] = (this.fired[alarm] ?? 0) + 1;
  }

  async Fired() {
    return this.fired;
  }

  async Fail() {
    throw new Error("it went wrong");
  }
}

// Clients of gRPC say no content type, and then the SDK's server does not read
// what they send.
const serverHttp = express();
serverHttp.use((request, _, next) => {
  request.headers["content-type"] ??= "application/json";
  next();
});

const server = new DaprServer({
  serverHttp,
  serverHost: HOST,
  serverPort: process.env.APP_PORT,
  communicationProtocol: CommunicationProtocolEnum.HTTP,
  clientOptions: { daprHost: HOST, daprPort: process.env.DAPR_HTTP_PORT },
});
await server.actor.init();
await server.actor.registerActor(javascript);
await server.start();
