// The server must accept a ping every ten seconds. One that counts them as too many ends the connection after 40 seconds.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connectivityState } from "@grpc/grpc-js";

import { eventually, generate, plain, prompt } from "./client.js";
import { GenerateServiceClient } from "./gen/puna/v1/generate.js";

const pings = {
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
};

describe("keepalive", { concurrency: true }, () => {
  test("with a silent call", async () => {
    const client = plain(GenerateServiceClient, pings);
    assert.equal(await generate(client, prompt("silent", "@wait 45 done")), "done");
  });

  test("without a call", async () => {
    const client = plain(GenerateServiceClient, { ...pings, "grpc.use_local_subchannel_pool": 1 });
    const channel = client.getChannel();
    channel.getConnectivityState(true);
    await eventually("it is connected", () => channel.getConnectivityState(false) === connectivityState.READY);
    const changed = await new Promise<boolean>((resolve) => {
      channel.watchConnectivityState(connectivityState.READY, Date.now() + 45_000, (timeout) => resolve(!timeout));
    });
    assert(!changed, `the channel became ${connectivityState[channel.getConnectivityState(false)]}`);
    client.close();
  });
});
