import assert from "node:assert/strict";
import { test } from "node:test";

import { call, patience, plain, variable, within } from "./client.js";
import { ListModelsRequest, ModelsServiceClient, PullModelRequest } from "./gen/puna/v1/models.js";

test("a pull with progress", async () => {
  const client = plain(ModelsServiceClient);
  const name = variable("PUNA_PULL_MODEL");
  const completed = new Map<string, number>();
  let [largest, partial, pulled] = [0, false, ""];
  for await (const { event } of client.pullModel(PullModelRequest.fromPartial({ name, insecure: true }), within(patience))) {
    if (event?.$case === "model") {
      pulled = event.value.name;
    }
    if (event?.$case === "progress" && event.value.digest) {
      const { digest, completedBytes, totalBytes } = event.value;
      assert(completedBytes >= (completed.get(digest) ?? 0), "progress goes back");
      completed.set(digest, completedBytes);
      largest = Math.max(largest, totalBytes);
      partial ||= completedBytes > 0 && completedBytes < totalBytes;
    }
  }
  assert.equal(pulled, name);
  assert(largest > 3_000_000, `the largest blob has ${largest} bytes`);
  assert(partial, "no blob was seen half done");
  const { models } = await call(client, client.listModels, ListModelsRequest.create());
  assert(models.some((model) => model.name === name));
});
