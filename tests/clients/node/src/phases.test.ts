// Deadlines and cancellation in each phase of a request. The models have one slot, so the cases run one after the other.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";

import { call, eventually, failure, generate, patience, plain, prompt, read, variable, within } from "./client.js";
import { type GenerateRequest, GenerateServiceClient, type StreamGenerateResponse } from "./gen/puna/v1/generate.js";
import { ListRequestsRequest, ServerServiceClient } from "./gen/puna/v1/server.js";

const client = plain(GenerateServiceClient);
const server = plain(ServerServiceClient);

type Phase = "queue" | "load" | "prefill" | "decode";

/** Returns which phase of a request a message tells of. */
function phase(part: StreamGenerateResponse): Phase | undefined {
  if (part.deltas.length > 0) {
    return "decode";
  }
  const names = { queued: "queue", loading: "load", prefill: "prefill" } as const;
  return part.progress?.phase && names[part.progress.phase.$case];
}

/** Starts a call that ends in a phase, by a deadline or a cancellation, and checks its status. */
async function endIn(want: Phase, request: GenerateRequest, code: status): Promise<void> {
  const stream = client.streamGenerate(request, within(code === status.DEADLINE_EXCEEDED ? 4 : patience));
  let last: Phase | undefined;
  const text = read(stream, (part) => {
    last = phase(part) ?? last;
    if (last === want && code === status.CANCELLED) {
      stream.cancel();
    }
  });
  await failure(text, code);
  assert.equal(last, want);
}

/** Starts a call and returns what ends it once it has reached a phase. */
async function until(want: Phase, request: GenerateRequest): Promise<() => Promise<void>> {
  const stream = client.streamGenerate(request, within(patience));
  const ended = new Promise<void>((resolve) => stream.once("error", () => resolve()).once("end", resolve));
  await new Promise<void>((resolve, reject) => {
    stream.on("data", (part: StreamGenerateResponse) => phase(part) === want && resolve()).once("error", reject);
  });
  return () => {
    stream.cancel();
    return ended;
  };
}

const listed = async (model: string) => {
  const { requests } = await call(server, server.listRequests, ListRequestsRequest.fromPartial({ model }));
  return requests.length;
};

const cases: [Phase, string, string][] = [
  ["queue", "phases", "never"],
  ["load", "stuck", "never"],
  ["prefill", "phases", "@prefill 100 .1"],
  // The words differ, since the server ends an answer that repeats one word.
  ["decode", "phases", Array.from({ length: 100 }, (_, number) => `w${number} @wait .1`).join(" ")],
];

for (const [want, model, words] of cases) {
  for (const code of [status.DEADLINE_EXCEEDED, status.CANCELLED]) {
    test(`${status[code]} in ${want}`, async () => {
      const request = prompt(model, words);
      const release = want === "queue" ? await until("decode", prompt(model, "started @wait 60")) : undefined;
      await endIn(want, request, code);
      await eventually("the request is not listed", async () => (await listed(model)) === (release ? 1 : 0));
      await release?.();
      if (want === "load") {
        await (await until("load", request))();
      }
      await eventually("nothing is listed", async () => (await listed(model)) === 0);
      assert.equal(await generate(client, prompt("phases", "free")), "free");
    });
  }
}

// The hosts of the model die in the first two attempts, of which the server itself makes the second. It stands here because another load
// would be in the way of those above.
test("retries by service config", async () => {
  const folder = mkdtempSync(join(tmpdir(), "retries-"));
  const crash = (name: string) => {
    const words = ["first", "second"].map((attempt) => `@crash_once ${join(folder, name + attempt)}`);
    return prompt("steady", `${words.join(" ")} again`, { omitProgress: true });
  };
  const retrying = plain(GenerateServiceClient, {
    "grpc.service_config": readFileSync(variable("PUNA_SERVICE_CONFIG"), "utf8"),
  });
  try {
    await failure(generate(client, crash("once")), status.UNAVAILABLE);
    assert.equal(await generate(retrying, crash("twice")), "again");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
