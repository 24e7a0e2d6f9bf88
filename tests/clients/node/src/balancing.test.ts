// Neither test needs a retry by the client's code: GOAWAY tells which calls the server has not begun.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { end, eventually, freeAddress, plain, prompt, read, serve, variable, within } from "./client.js";
import { GenerateServiceClient } from "./gen/puna/v1/generate.js";

async function drain(config: string): Promise<void> {
  const addresses = [await freeAddress(), await freeAddress()] as const;
  const servers = await Promise.all(addresses.map(serve));
  const answers = new Map<string, number>();
  const count = (address: string) => answers.get(address) ?? 0;
  try {
    const client = plain(GenerateServiceClient, { "grpc.service_config": config }, `ipv4:${addresses.join()}`);
    let going = true;
    const clients = Array.from({ length: 6 }, async () => {
      while (going) {
        const stream = client.streamGenerate(prompt("steady", "a @wait .1 b"), within(60));
        assert.equal(await read(stream), "ab");
        answers.set(stream.getPeer(), count(stream.getPeer()) + 1);
      }
    });
    const others = (async () => {
      await eventually("both servers answer", () => addresses.every((each) => count(each) > 3));
      await end(servers[0]!);
      const before = count(addresses[1]);
      await eventually("the other server goes on", () => count(addresses[1]) > before + 5);
    })();
    await Promise.race([others, Promise.all(clients)]);
    going = false;
    await Promise.all(clients);
  } finally {
    await Promise.all(servers.map(end));
  }
}

describe("one of two servers drains and no call is lost", { concurrency: true }, () => {
  test("round robin", () => drain(JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] })));
  test("recommended service config", () => drain(readFileSync(variable("PUNA_SERVICE_CONFIG"), "utf8")));
});
