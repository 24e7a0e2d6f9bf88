// Neither test needs a retry by the client's code: GOAWAY tells which calls the server has not begun.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { connectivityState } from "@grpc/grpc-js";

import { end, eventually, freeAddress, patience, plain, prompt, read, serve, variable, within } from "./client.js";
import { GenerateServiceClient } from "./gen/puna/v1/generate.js";

/** Makes calls without a pause, of which none may fail, until `done` is. Calls `visit` with the address of each answer. */
async function keepCalling(client: GenerateServiceClient, done: Promise<void>, visit: (peer: string) => void): Promise<void> {
  let going = true;
  const callers = Array.from({ length: 6 }, async () => {
    while (going) {
      const stream = client.streamGenerate(prompt("steady", "a @wait .1 b"), within(patience));
      assert.equal(await read(stream), "ab");
      visit(stream.getPeer());
    }
  });
  try {
    await Promise.race([done, Promise.all(callers)]);
  } finally {
    going = false;
  }
  await Promise.all(callers);
}

async function drain(config: string): Promise<void> {
  const addresses = [await freeAddress(), await freeAddress()] as const;
  const servers = await Promise.all(addresses.map((address) => serve(address)));
  const answers = new Map<string, number>();
  const count = (address: string) => answers.get(address) ?? 0;
  const drained = async () => {
    await eventually("both servers answer", () => addresses.every((each) => count(each) > 3));
    await end(servers[0]!);
    const before = count(addresses[1]);
    await eventually("the other server goes on", () => count(addresses[1]) > before + 5);
  };
  try {
    const client = plain(GenerateServiceClient, { "grpc.service_config": config }, `ipv4:${addresses.join()}`);
    await keepCalling(client, drained(), (peer) => answers.set(peer, count(peer) + 1));
  } finally {
    await Promise.all(servers.map(end));
  }
}

describe("one of two servers drains and no call is lost", { concurrency: true }, () => {
  test("round robin", () => drain(JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] })));
  test("recommended service config", () => drain(readFileSync(variable("PUNA_SERVICE_CONFIG"), "utf8")));
});

// A server sends GOAWAY on a connection of this age, and the client opens another one.
test("no call is lost when connections reach their age", async () => {
  const address = await freeAddress();
  const server = await serve(address, { PUNA_CONNECTION_AGE: "1s", PUNA_CONNECTION_AGE_GRACE: "20s" });
  try {
    const client = plain(GenerateServiceClient, {}, address);
    const channel = client.getChannel();
    let connections = 0;
    const watch = () => {
      const state = channel.getConnectivityState(false);
      connections += Number(state === connectivityState.READY);
      if (state !== connectivityState.SHUTDOWN) {
        channel.watchConnectivityState(state, Infinity, watch);
      }
    };
    watch();
    await keepCalling(client, eventually("the third connection", () => connections >= 3), () => {});
    client.close();
  } finally {
    await end(server);
  }
});
