import assert from "node:assert/strict";
import { test } from "node:test";
import { Metadata, credentials, status } from "@grpc/grpc-js";

import { call, end, failure, freeAddress, generate, plain, prompt, serve, variable } from "./client.js";
import { GenerateServiceClient } from "./gen/puna/v1/generate.js";
import { ListModelsRequest, ModelsServiceClient } from "./gen/puna/v1/models.js";
import { secure, secureAddress } from "./secure.js";

test("TLS and a key", async () => {
  const list = (client: ModelsServiceClient) => call(client, client.listModels, ListModelsRequest.create());
  const { models } = await list(secure(ModelsServiceClient, variable("PUNA_API_KEY")));
  assert(models.some((model) => model.name.startsWith("llamita")));
  await failure(list(secure(ModelsServiceClient)), status.UNAUTHENTICATED);
  await failure(list(secure(ModelsServiceClient, "puna_wrong")), status.UNAUTHENTICATED);
  const stranger = new ModelsServiceClient(secureAddress, credentials.createSsl());
  await failure(list(stranger), status.UNAVAILABLE);
});

test("a call that waits for a server", async () => {
  const address = await freeAddress();
  const client = plain(GenerateServiceClient, {}, address);
  await failure(generate(client, prompt("steady", "early")), status.UNAVAILABLE);
  const text = generate(client, prompt("steady", "late"), new Metadata({ waitForReady: true }));
  const server = await serve(address);
  try {
    assert.equal(await text, "late");
  } finally {
    await end(server);
  }
});
