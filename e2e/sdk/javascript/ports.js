// Free ports, names that no other test has, and waiting.

import { createServer, connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

// Milliseconds that anything may take on a busy machine.
export const TIMEOUT = 30_000;
export const HOST = "127.0.0.1";

let turns = 0;

export function unique(name) {
  turns += 1;
  return `${name}-${process.pid}-${turns}`;
}

// A free port, different in every call. All are below what the
// kernel gives to outgoing connections.
export async function freePort() {
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

export function listens(port) {
  return new Promise((resolve) => {
    const probe = connect(port, HOST, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

// Whether a page answers with a status.
export async function answers(url, status) {
  try {
    return (await fetch(url)).status === status;
  } catch {
    return false;
  }
}
