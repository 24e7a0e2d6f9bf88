import assert from "node:assert/strict";
import { test } from "node:test";
import { type ServiceError, status } from "@grpc/grpc-js";

import { call, failure, plain, variable } from "./client.js";
import { BadRequest, ErrorInfo, QuotaFailure, ResourceInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { ChatRequest, ChatServiceClient } from "./gen/puna/v1/chat.js";
import { RequestOptions } from "./gen/puna/v1/options.js";
import { secure } from "./secure.js";

interface Decoder<D> {
  decode(bytes: Uint8Array): D;
}

/** Returns the detail of an error that has a type. */
function detail<D>(error: ServiceError, name: string, type: Decoder<D>): D {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  assert(packed instanceof Buffer, "the error has no details");
  const found = Status.decode(packed).details.find((each) => each.typeUrl.endsWith(`/google.rpc.${name}`));
  assert(found, `no ${name}`);
  return type.decode(found.value);
}

const client = plain(ChatServiceClient);

/** Makes a call that fails, and returns the error with its ErrorInfo. */
async function refusal(request: Parameters<typeof ChatRequest.fromPartial>[0], code: status, reason: string) {
  const asked = { model: "llamita", messages: [{ role: "user", content: "Hi" }], ...request };
  const error = await failure(call(client, client.chat, ChatRequest.fromPartial(asked)), code);
  const info = detail(error, "ErrorInfo", ErrorInfo);
  assert.equal(info.domain, "puna");
  assert.equal(info.reason, reason);
  return { error, metadata: info.metadata };
}

const violations = (error: ServiceError) => detail(error, "BadRequest", BadRequest).fieldViolations.map((each) => each.field);

test("the details of an unknown model", async () => {
  const { error, metadata } = await refusal({ model: "nowhere" }, status.NOT_FOUND, "MODEL_NOT_FOUND");
  assert.equal(metadata["model"], "nowhere");
  assert.equal(detail(error, "ResourceInfo", ResourceInfo).resourceName, "nowhere");
});

test("the details of a long prompt", async () => {
  const messages = [{ role: "user", content: "llama ".repeat(5000) }];
  const { metadata } = await refusal({ messages }, status.INVALID_ARGUMENT, "CONTEXT_OVERFLOW");
  assert(metadata["prompt_tokens"] && metadata["context_length"]);
});

test("the details of a field out of range", async () => {
  const options = RequestOptions.fromPartial({ sampling: { temperature: -5 } });
  const { error } = await refusal({ options }, status.INVALID_ARGUMENT, "INVALID_REQUEST");
  assert.deepEqual(violations(error), ["options.sampling.temperature"]);
});

test("the details of broken JSON", async () => {
  const tools = [{ name: "broken", parametersJson: "{" }];
  const { error } = await refusal({ tools }, status.INVALID_ARGUMENT, "INVALID_REQUEST");
  assert.match(violations(error).join(), /^[^,]*parameters_json$/);
});

test("the time after which to retry", async () => {
  const limited = secure(ChatServiceClient, variable("PUNA_LIMITED_API_KEY"));
  const request = ChatRequest.fromPartial({ model: "llamita", messages: [{ role: "user", content: "Hi" }] });
  await call(limited, limited.chat, request);
  const error = await failure(call(limited, limited.chat, request), status.RESOURCE_EXHAUSTED);
  assert.equal(detail(error, "ErrorInfo", ErrorInfo).reason, "RATE_LIMITED");
  const { retryDelay } = detail(error, "RetryInfo", RetryInfo);
  const seconds = (retryDelay?.seconds ?? 0) + (retryDelay?.nanos ?? 0) / 1e9;
  assert(seconds > 0 && seconds <= 60, `${seconds} s`);
  assert.notEqual(detail(error, "QuotaFailure", QuotaFailure).violations.length, 0);
});
